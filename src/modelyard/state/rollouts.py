"""Rollouts as they stand or ended; written in the transaction that moves their deployment."""

import msgspec
import sqlalchemy as sa

from modelyard.core.rollout import Rollout
from modelyard.state.database import Database
from modelyard.state.tables import rollouts as table


class KnownRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout with what its slots held, which the deployment forgets with the next one."""

    deployment: str
    version: str
    """`NAME:3`, the candidate."""
    version_before: str
    """Empty: nothing was live."""
    rollout: Rollout


class Rollouts:
    """By id; the newest first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, deployment: str | None, limit: int) -> list[KnownRollout]:
        """At most `limit` of one deployment, or of all."""
        query = sa.select(table.c.body).order_by(table.c.started_at.desc(), table.c.id.desc())
        if deployment is not None:
            query = query.where(table.c.deployment == deployment)
        with self._database.reading() as connection:
            rows = connection.execute(query.limit(limit)).scalars()
            return [msgspec.json.decode(body, type=KnownRollout) for body in rows]

    def get(self, rollout_id: str) -> KnownRollout | None:
        """The one of that id."""
        with self._database.reading() as connection:
            body = connection.execute(
                sa.select(table.c.body).where(table.c.id == rollout_id)
            ).scalar()
            return None if body is None else msgspec.json.decode(body, type=KnownRollout)


def put_rollout(connection: sa.Connection, known: KnownRollout) -> None:
    """Write one as it stands."""
    rollout = known.rollout
    connection.execute(sa.delete(table).where(table.c.id == rollout.id))
    connection.execute(
        sa.insert(table).values(
            id=rollout.id,
            deployment=known.deployment,
            started_at=rollout.started_at,
            body=msgspec.json.encode(known).decode(),
        )
    )
