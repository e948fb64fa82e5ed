"""What judges said of answers, each judge once of each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from modelyard.core.pinning import PINNED_BY
from modelyard.core.scores import Score
from modelyard.state.database import Database
from modelyard.state.tables import records
from modelyard.state.tables import scores as table

_LOOKED_UP_AT_ONCE = 500
_READ_AT_ONCE = 1000


class Due(NamedTuple):
    """A request that a judge has said nothing of yet."""

    request_id: str
    model: str
    digest: str
    received_at: float


class Scores:
    """Scores by request and judge."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, batch: Sequence[Score]) -> tuple[tuple[Score, ...], int]:
        """Store those that are not known yet; which these are, and of how many of them no record
        of the request is there, or not yet."""
        wanted: dict[tuple[str, str], Score] = {}
        for score in batch:
            wanted.setdefault((score.request_id, score.judge), score)
        ids = list(dict.fromkeys(score.request_id for score in batch))
        recorded: set[str] = set()
        with self._database.transaction() as connection:
            for start in range(0, len(ids), _LOOKED_UP_AT_ONCE):
                part = ids[start : start + _LOOKED_UP_AT_ONCE]
                known = sa.select(table.c.request_id, table.c.judge).where(
                    table.c.request_id.in_(part)
                )
                for place in connection.execute(known):
                    wanted.pop((place.request_id, place.judge), None)
                there = sa.select(records.c.request_id).where(records.c.request_id.in_(part))
                recorded.update(connection.execute(there).scalars())
            if wanted:
                connection.execute(sa.insert(table), [_row(each) for each in wanted.values()])
        stored = tuple(wanted.values())
        return stored, sum(score.request_id not in recorded for score in stored)

    def of(self, request_id: str) -> list[Score]:
        """Every judge's on one request, by time."""
        query = (
            sa.select(table.c.body)
            .where(table.c.request_id == request_id)
            .order_by(table.c.at, table.c.judge)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).scalars()
            return [msgspec.json.decode(body, type=Score) for body in rows]

    def since(self, deployment: str, received_at: float) -> Iterator[Score]:
        """Of what a deployment was asked from a time on (Unix seconds), in the order in which they
        were taken."""
        query = (
            sa.select(table.c.body)
            .join(records, records.c.request_id == table.c.request_id)
            .where(records.c.model == deployment, records.c.received_at >= received_at)
            .order_by(table.c.at)
            .execution_options(yield_per=_READ_AT_ONCE)
        )
        with self._database.reading() as connection:
            for body in connection.execute(query).scalars():
                yield msgspec.json.decode(body, type=Score)

    def due(self, judge: str, received_at: float, limit: int) -> list[Due]:
        """At most `limit` completed requests, received then or later, that the judge has said
        nothing of; the oldest first. Smoke tests are none."""
        mine = sa.and_(table.c.request_id == records.c.request_id, table.c.judge == judge)
        query = (
            sa.select(
                records.c.request_id, records.c.model, records.c.digest, records.c.received_at
            )
            .outerjoin(table, mine)
            .where(
                table.c.request_id.is_(None),
                records.c.received_at >= received_at,
                records.c.outcome == "completed",
                records.c.digest.is_not(None),
                sa.or_(records.c.key_id.is_(None), records.c.key_id != PINNED_BY),
            )
            .order_by(records.c.received_at)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [
                Due(row.request_id, row.model or "", row.digest, row.received_at)
                for row in connection.execute(query)
            ]


def _row(score: Score) -> dict[str, object]:
    return {
        "request_id": score.request_id,
        "judge": score.judge,
        "at": score.at,
        "score": score.score,
        "body": msgspec.json.encode(score).decode(),
    }
