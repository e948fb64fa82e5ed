"""What requests cost, added up by the database."""

from typing import Literal, NamedTuple

import sqlalchemy as sa

from modelyard.core.rollups import Step
from modelyard.state.database import Database
from modelyard.state.tables import rollups, usage

_SUMS = ("requests", "priced", "prompt_tokens", "completion_tokens", "cost_nanos")
_DAY_S = 86_400


class Spent(NamedTuple):
    """Requests, and what they cost."""

    requests: int = 0
    priced: int = 0
    """Of them, those whose cost is known."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nanos: int = 0

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        return Spent(*(one + more for one, more in zip(self, other, strict=True)))


class Spending:
    """Sums over whole days of UTC."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by(
        self,
        what: Literal["tenant", "key", "model", "day"],
        since_day: int,
        *,
        tenant: str | None = None,
        model: str | None = None,
    ) -> dict[tuple[str | int, ...], Spent]:
        """From that day on (days since 1970): by tenant, key, model, or number of the day."""
        column = {
            "tenant": usage.c.tenant,
            "key": usage.c.key_id,
            "model": usage.c.model,
            "day": usage.c.day,
        }[what]
        wanted = [usage.c.day >= since_day]
        if tenant is not None:
            wanted.append(usage.c.tenant == tenant)
        if model is not None:
            wanted.append(usage.c.model == model)
        return self._summed(usage, (column,), wanted)

    def by_version(
        self, since_day: int, *, model: str | None = None
    ) -> dict[tuple[str | int, ...], Spent]:
        """The same by model and version; 0 is that of what has none."""
        wanted = [rollups.c.step == int(Step.DAY), rollups.c.at >= since_day * _DAY_S]
        if model is not None:
            wanted.append(rollups.c.model == model)
        return self._summed(rollups, (rollups.c.model, rollups.c.version), wanted)

    def _summed(
        self,
        table: sa.Table,
        by: tuple[sa.Column[str | int], ...],
        wanted: list[sa.ColumnElement[bool]],
    ) -> dict[tuple[str | int, ...], Spent]:
        query = (
            sa.select(*by, *(sa.func.sum(table.c[name]) for name in _SUMS))
            .where(*wanted)
            .group_by(*by)
        )
        with self._database.reading() as connection:
            return {
                tuple(row[: len(by)]): Spent(*map(int, row[len(by) :]))
                for row in connection.execute(query)
            }
