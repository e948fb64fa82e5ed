"""The journal: what happened, to what, by whose hand. Lines are only added."""

import msgspec
import sqlalchemy as sa

from modelyard.core.deployments import Event
from modelyard.state.database import Database
from modelyard.state.tables import events as table


class Journal:
    """Events in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(self, event: Event) -> int:
        """Add a line; its `seq` is given by the journal and returned."""
        with self._database.transaction() as connection:
            done = connection.execute(
                sa.insert(table).values(
                    at=event.at,
                    kind=event.kind,
                    subject=event.subject,
                    actor=event.actor,
                    message=event.message,
                    details=msgspec.json.encode(event.details).decode(),
                )
            )
            key = done.inserted_primary_key
            return int(key[0]) if key else 0

    def after(self, seq: int, limit: int) -> list[Event]:
        """At most `limit` events after `seq`, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(table).where(table.c.seq > seq).order_by(table.c.seq).limit(limit)
            ).mappings()
            return [
                Event(**{**row, "details": msgspec.json.decode(row["details"])}) for row in rows
            ]
