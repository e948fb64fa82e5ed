"""A SQLite file as the controller's database.

Write-ahead log, so that readers never wait for the writer; `synchronous=NORMAL`, so that a power
cut may lose the last transactions but never the database's integrity.
"""

from typing import Any

import sqlalchemy as sa

_BUSY_TIMEOUT_MS = 5000


class SqliteFile:
    """Writers are one at a time: `BEGIN IMMEDIATE` takes the file's write lock at once."""

    shared = False

    def __init__(self, url: sa.URL) -> None:
        self.place = url.database or "in memory"
        self.engine: sa.Engine = sa.create_engine(url)
        self.reading: sa.Engine = self.engine.execution_options(reading=True)
        sa.event.listen(self.engine, "connect", _prepare)
        sa.event.listen(self.engine, "begin", _begin)

    def passes(self, error: sa.exc.DBAPIError) -> bool:
        """Whether the same may be taken later: it is locked, or the disk is full."""
        return isinstance(error, sa.exc.OperationalError)

    def next_step(self, error: BaseException) -> str:
        """What helps against an error of the driver."""
        reason = str(error).lower()
        if "full" in reason:
            return "free some space on the disk"
        if "locked" in reason or "busy" in reason:
            return "see which other process has it open, and end it"
        if "malformed" in reason or "not a database" in reason:
            return "restore it from a backup, or move it away: registered models are kept elsewhere"
        return "see that the folder exists, is writable and has space"


def _prepare(connection: Any, _record: object) -> None:
    # The driver's own transaction handling is switched off: it would begin them late, so that two
    # writers could each read first and then deadlock.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
    finally:
        cursor.close()


def _begin(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
