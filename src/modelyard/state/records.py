"""Finished requests, each counted once however often its gateway sends it."""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from modelyard.core.plausible import plausible
from modelyard.core.records import RequestRecord
from modelyard.core.usage import summed
from modelyard.state.database import Database
from modelyard.state.tables import records as table
from modelyard.state.tables import scores
from modelyard.state.trends import add_rollups
from modelyard.state.usage import add_usage

_LOOKED_UP_AT_ONCE = 500
_READ_AT_ONCE = 1000
_DROPPED_AT_ONCE = 1000


class Records:
    """Request records by request id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: Sequence[RequestRecord]) -> tuple[RequestRecord, ...]:
        """Store those not seen before and return them."""
        by_id = {record.request_id: record for record in batch}
        ids = list(by_id)
        with self._database.transaction() as connection:
            for start in range(0, len(ids), _LOOKED_UP_AT_ONCE):
                part = ids[start : start + _LOOKED_UP_AT_ONCE]
                known = connection.execute(
                    sa.select(table.c.request_id).where(table.c.request_id.in_(part))
                ).scalars()
                for request_id in known:
                    del by_id[request_id]
            if by_id:
                connection.execute(sa.insert(table), [_row(record) for record in by_id.values()])
                countable = [plausible(record) for record in by_id.values()]
                add_usage(connection, summed(countable))
                add_rollups(connection, countable)
        return tuple(by_id.values())

    def since(self, deployment: str, received_at: float) -> Iterator[RequestRecord]:
        """What a deployment was asked from a time on (Unix seconds), in the order received; read
        as it is taken, for there may be more than fit into memory."""
        query = (
            sa.select(table.c.body)
            .where(table.c.model == deployment, table.c.received_at >= received_at)
            .order_by(table.c.received_at)
            .execution_options(yield_per=_READ_AT_ONCE)
        )
        with self._database.reading() as connection:
            for body in connection.execute(query).scalars():
                yield msgspec.json.decode(body, type=RequestRecord)

    def find(self, request_id: str) -> RequestRecord | None:
        """The record of a request."""
        with self._database.reading() as connection:
            body = connection.execute(
                sa.select(table.c.body).where(table.c.request_id == request_id)
            ).scalar()
            return None if body is None else msgspec.json.decode(body, type=RequestRecord)

    def newest(self, limit: int) -> list[RequestRecord]:
        """At most `limit` of them, the latest received first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.body).order_by(table.c.received_at.desc()).limit(limit)
            ).scalars()
            return [msgspec.json.decode(body, type=RequestRecord) for body in rows]

    def oldest_of(self, newest: int, now: float) -> float | None:
        """When the last of so many of the newest was received (Unix seconds); None where there are
        no more than that. What is of the future, by a clock that was wrong, is not among them."""
        asked = (
            sa.select(table.c.received_at)
            .where(table.c.received_at <= now)
            .order_by(table.c.received_at.desc())
            .offset(newest)
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.execute(asked).scalar()

    def forget(self, before: float, kept: Mapping[str, float]) -> int:
        """Drop some of those received before that time (Unix seconds), with their scores; how many.

        `kept`: models, and since when theirs are needed still. At most a thousand: nobody waits
        long for the database. 0 when there are no more.
        """
        old = [table.c.received_at < before]
        old += [
            sa.or_(table.c.model.is_(None), table.c.model != model, table.c.received_at < since)
            for model, since in kept.items()
        ]
        some = sa.select(table.c.request_id).where(*old).order_by(table.c.received_at)
        with self._database.reading() as connection:
            ids = list(connection.execute(some.limit(_DROPPED_AT_ONCE)).scalars())
        if not ids:
            return 0
        with self._database.transaction() as connection:
            connection.execute(sa.delete(scores).where(scores.c.request_id.in_(ids)))
            return connection.execute(sa.delete(table).where(table.c.request_id.in_(ids))).rowcount


def _row(record: RequestRecord) -> dict[str, object]:
    return {
        "request_id": record.request_id,
        "received_at": record.received_at,
        "outcome": record.outcome,
        "tenant": record.tenant,
        "key_id": record.key_id,
        "model": record.model,
        "digest": record.digest,
        "replica": record.replica,
        "body": msgspec.json.encode(record).decode(),
    }
