"""Sums over trends and usage, added up by the database: what alert rules look at, again and again.

Each call is one read of as many rows as its stretch of time has steps and series; nothing is held
up by it.
"""

from typing import NamedTuple

import sqlalchemy as sa

from modelyard.core.rollups import Step
from modelyard.core.sketch import Sketch
from modelyard.state.database import Database
from modelyard.state.tables import records, rollups, scores, usage

_READ_AT_ONCE = 1000
_BY_MINUTES_S = 2 * 3600.0
"""Longer stretches are added up from quarters of an hour."""


class Ended(NamedTuple):
    """How requests of one model ended."""

    completed: int
    failed: int


class Used(NamedTuple):
    """What one key used of one model."""

    tenant: str
    key_id: str
    model: str
    tokens: int
    cost_nanos: int


class Judged(NamedTuple):
    """What one judge said of one model."""

    model: str
    judge: str
    scores: int
    mean: float


class Counts:
    """Sums since a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ended(self, length_s: float, now: float) -> dict[str, Ended]:
        """By public model name, of the last `length_s` seconds, and as much more as the step holds
        in which they began."""
        columns = (rollups.c.requests, rollups.c.failed, rollups.c.cancelled, rollups.c.rejected)
        query = (
            sa.select(rollups.c.model, *(sa.func.sum(column) for column in columns))
            .where(*_lately(length_s, now))
            .group_by(rollups.c.model)
        )
        with self._database.reading() as connection:
            return {
                model: Ended(int(requests - failed - cancelled - rejected), int(failed))
                for model, requests, failed, cancelled, rejected in connection.execute(query)
            }

    def late(self, length_s: float, now: float, ttft_s: float) -> dict[str, int]:
        """Completed requests whose first byte came later than that, by model, of the same time."""
        query = (
            sa.select(rollups.c.model, rollups.c.ttft)
            .where(*_lately(length_s, now))
            .execution_options(yield_per=_READ_AT_ONCE)
        )
        together: dict[str, Sketch] = {}
        with self._database.reading() as connection:
            for model, encoded in connection.execute(query):
                together.setdefault(model, Sketch()).feed(bytes(encoded))
        return {model: sketch.above(ttft_s) for model, sketch in together.items()}

    def used(self, since_day: int) -> list[Used]:
        """What keys used from that day on (days since 1970)."""
        by = (usage.c.tenant, usage.c.key_id, usage.c.model)
        query = (
            sa.select(
                *by,
                sa.func.sum(usage.c.prompt_tokens + usage.c.completion_tokens),
                sa.func.sum(usage.c.cost_nanos),
            )
            .where(usage.c.day >= since_day)
            .group_by(*by)
        )
        with self._database.reading() as connection:
            return [
                Used(tenant, key_id, model, int(tokens), int(cost))
                for tenant, key_id, model, tokens, cost in connection.execute(query)
            ]

    def judged(self, since: float, until: float) -> list[Judged]:
        """Scores that were taken in this time (Unix seconds), of requests that are on record."""
        by = (records.c.model, scores.c.judge)
        query = (
            sa.select(*by, sa.func.count(), sa.func.avg(scores.c.score))
            .join_from(scores, records, records.c.request_id == scores.c.request_id)
            .where(
                scores.c.at >= since,
                scores.c.at < until,
                scores.c.score.is_not(None),
                records.c.model.is_not(None),
            )
            .group_by(*by)
        )
        with self._database.reading() as connection:
            return [
                Judged(model, judge, int(count), float(mean))
                for model, judge, count, mean in connection.execute(query)
            ]


def _lately(length_s: float, now: float) -> tuple[sa.ColumnElement[bool], ...]:
    step = Step.MINUTE if length_s <= _BY_MINUTES_S else Step.QUARTER
    return (
        rollups.c.step == int(step),
        rollups.c.at >= step.begin(now - length_s),
        rollups.c.at <= now,
        rollups.c.model != "",
    )
