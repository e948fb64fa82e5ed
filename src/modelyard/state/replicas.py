"""The workers that run and the last that did."""

import msgspec
import sqlalchemy as sa

from modelyard.core.deployments import Replica
from modelyard.core.replicas import ReplicaState
from modelyard.state.database import Database
from modelyard.state.tables import replicas as table


class Replicas:
    """Replicas by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Replica]:
        """All of them, in the order of their last change."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.body).order_by(table.c.changed_at, table.c.id)
            ).scalars()
            return [msgspec.json.decode(body, type=Replica) for body in rows]

    def put(self, replica: Replica) -> None:
        """Store it whole, over what was known of it."""
        body = msgspec.json.encode(replica).decode()
        values = {
            "deployment": replica.deployment,
            "state": str(replica.state),
            "changed_at": replica.changed_at,
            "body": body,
        }
        with self._database.transaction() as connection:
            done = connection.execute(
                sa.update(table).where(table.c.id == replica.id).values(**values)
            )
            if done.rowcount == 0:
                connection.execute(sa.insert(table).values(id=replica.id, **values))

    def forget(self, ids: list[str]) -> None:
        """Remove stopped ones; one that is not stopped stays."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.delete(table).where(
                    table.c.id.in_(ids), table.c.state == str(ReplicaState.STOPPED)
                )
            )
