"""The ordered log of changes to keys and limits."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from modelyard.core.keys import KeyLogEntry
from modelyard.state.database import Database
from modelyard.state.tables import key_log as table


class KeyLog:
    """Entries by their sequence number, which begins at 1."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, seq: int) -> tuple[KeyLogEntry, ...]:
        """The entries after `seq`, in order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.body).where(table.c.seq > seq).order_by(table.c.seq)
            ).scalars()
            return tuple(msgspec.json.decode(body, type=KeyLogEntry) for body in rows)

    def last_seq(self) -> int:
        """Sequence number of the newest entry; 0 when there is none."""
        with self._database.reading() as connection:
            return connection.execute(sa.select(sa.func.max(table.c.seq))).scalar() or 0

    def append(self, make: Callable[[int], KeyLogEntry]) -> KeyLogEntry:
        """Add the entry that `make` builds for the next sequence number; return it.

        Nothing is added when `make` raises; its exception goes on to the caller.
        """
        with self._database.transaction() as connection:
            last = connection.execute(sa.select(sa.func.max(table.c.seq))).scalar() or 0
            entry = make(last + 1)
            body = msgspec.json.encode(entry).decode()
            connection.execute(sa.insert(table).values(seq=entry.seq, body=body))
            return entry
