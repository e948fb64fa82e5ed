"""The newest route snapshot, so that its version goes on counting after a restart."""

import msgspec
import sqlalchemy as sa

from modelyard.core.routes import RouteSnapshot
from modelyard.state.database import Database
from modelyard.state.tables import snapshots as table

_ONLY = 1


class Snapshots:
    """The one row that holds the newest snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self) -> RouteSnapshot | None:
        """The last one put, or None before the first."""
        with self._database.reading() as connection:
            body = connection.execute(sa.select(table.c.body).where(table.c.id == _ONLY)).scalar()
            return None if body is None else msgspec.json.decode(body, type=RouteSnapshot)

    def put(self, snapshot: RouteSnapshot) -> None:
        """Store it in place of the last."""
        body = msgspec.json.encode(snapshot).decode()
        with self._database.transaction() as connection:
            connection.execute(sa.delete(table))
            connection.execute(
                sa.insert(table).values(id=_ONLY, version=snapshot.version, body=body)
            )
