"""The connection to the controller's database: opened, brought to the newest schema, guarded.

SQLite by default: write-ahead log, so that readers never wait for the writer; `synchronous=NORMAL`,
so that a power cut may lose the last transactions but never the database's integrity.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from modelyard.core.errors import StorageError
from modelyard.state.tables import SCHEMA_HEAD

_BUSY_TIMEOUT_MS = 5000
_MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One database; every failure of it is a StorageError that names it."""

    def __init__(self, url: str | sa.URL) -> None:
        self._url = sa.make_url(url)
        self._engine = sa.create_engine(self._url)
        if self._url.get_backend_name() == "sqlite":
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._reading = self._engine.execution_options(reading=True)

    @property
    def place(self) -> str:
        """Where it is, for messages; a password in the URL is hidden."""
        return self._url.database or self._url.render_as_string(hide_password=True)

    def migrate(self) -> None:
        """Bring the schema to this code's; raise StorageError when it is newer than that."""
        with self.transaction() as connection:
            present = _revision(connection)
            if present == SCHEMA_HEAD:
                return
            self._upgrade(connection, present)

    def _upgrade(self, connection: sa.Connection, present: str | None) -> None:
        # Imported here: 0.3 s that only the first start and an upgrade need.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(_MIGRATIONS))
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present is not None and present not in known:
            raise StorageError(
                f"the state in {self.place} has schema {present}, newer than this Modelyard knows "
                f"({SCHEMA_HEAD})",
                next_step="upgrade Modelyard, or use another --home",
            )
        command.upgrade(config, "head")

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction, committed at the end; raise StorageError when the database refuses."""
        with self._guarded(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """One consistent view, for reads only: it doesn't wait for a writer, nor hold one up."""
        with self._guarded(self._reading) as connection:
            yield connection

    @contextmanager
    def _guarded(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise StorageError(
                f"the state database {self.place} refused: {error.orig}",
                next_step=_next_step(str(error.orig)),
            ) from error

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _prepare_sqlite(connection: Any, _record: object) -> None:
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


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _next_step(reason: str) -> str:
    reason = reason.lower()
    if "full" in reason:
        return "free some space on the disk"
    if "locked" in reason or "busy" in reason:
        return "see which other process has it open, and end it"
    if "malformed" in reason or "not a database" in reason:
        return "restore it from a backup, or move it away: registered models are kept elsewhere"
    return "see that the folder exists, is writable and has space"
