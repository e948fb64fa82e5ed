"""What should be deployed."""

from collections.abc import Callable

import msgspec
import sqlalchemy as sa

from modelyard.core.deployments import Deployment
from modelyard.core.rollout import Rollout, close
from modelyard.state.database import Database
from modelyard.state.rollouts import KnownRollout, put_rollout
from modelyard.state.tables import deployments as table


class Deployments:
    """Deployments by public model name. Changes are made in one transaction each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Deployment]:
        """All of them, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(table.c.body)).scalars()
            # Sorted here: a server sorts text as its language does.
            return sorted((_decode(body) for body in rows), key=lambda each: each.name)

    def get(self, name: str) -> Deployment | None:
        """The one of that name."""
        with self._database.reading() as connection:
            return _get(connection, name)

    def change(
        self, name: str, step: Callable[[Deployment | None], Deployment | None]
    ) -> Deployment | None:
        """Store what `step` makes of the present one (None: there is none, or it shall go).

        Nothing is stored when `step` raises; its exception goes on to the caller.
        """
        with self._database.transaction() as connection:
            before = _get(connection, name)
            after = step(before)
            if after == before:
                return after
            connection.execute(sa.delete(table).where(table.c.name == name))
            if after is not None:
                body = msgspec.json.encode(after).decode()
                connection.execute(
                    sa.insert(table).values(name=name, created_at=after.created_at, body=body)
                )
            _journal(connection, before, after)
            return after


def _journal(
    connection: sa.Connection, before: Deployment | None, after: Deployment | None
) -> None:
    """Write down what became of the rollouts that a change is about."""
    old = None if before is None else before.rollout
    new = None if after is None else after.rollout
    if before is not None and old is not None and (new is None or new.id != old.id):
        why, at = ("taken away", old.entered_at) if new is None else ("followed by another",
                                                                      new.started_at)  # fmt: skip
        _put(connection, before, close(old, why, at))
    if after is not None and new is not None and new != old:
        _put(connection, after, new)


def _put(connection: sa.Connection, deployment: Deployment, rollout: Rollout) -> None:
    known = _known(msgspec.structs.replace(deployment, rollout=rollout))
    if known is not None:
        put_rollout(connection, known)


def _known(deployment: Deployment) -> KnownRollout | None:
    """The rollout, with the names of the versions that it is about."""
    rollout = deployment.rollout
    if rollout is None:
        return None
    names = [
        "" if spec is None else f"{spec.model}:{spec.version}"
        for spec in (
            deployment.slot(rollout.candidate),
            None if rollout.before is None else deployment.slot(rollout.before),
        )
    ]
    return KnownRollout(
        deployment=deployment.name, version=names[0], version_before=names[1], rollout=rollout
    )


def _get(connection: sa.Connection, name: str) -> Deployment | None:
    body = connection.execute(sa.select(table.c.body).where(table.c.name == name)).scalar()
    return None if body is None else _decode(body)


def _decode(body: str) -> Deployment:
    return msgspec.json.decode(body, type=Deployment)
