"""What ran in the state: time of replicas by step, and until when each of them is counted."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import sqlalchemy as sa

from modelyard.core.capacity import Capacity, Place
from modelyard.core.rollups import Step
from modelyard.state.database import Database
from modelyard.state.dropping import drop_steps
from modelyard.state.tables import capacity as table
from modelyard.state.tables import metered
from modelyard.state.upserts import add_to

_SUMS = Capacity._fields


class Metered(NamedTuple):
    """How far one replica is counted."""

    replica: str
    until_ms: int
    """Unix milliseconds."""
    accelerators: int


class CapacityTable:
    """Sums by step, written together with the marks that say what is in them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        sums: Mapping[Place, Capacity],
        marks: Iterable[Metered] = (),
        gone: Iterable[str] = (),
    ) -> None:
        """Count `sums`, and note how far the replicas are counted; those `gone` are over."""
        rows = [
            {**place._asdict(), "step": int(place.step), **capacity._asdict()}
            for place, capacity in sums.items()
        ]
        with self._database.transaction() as connection:
            add_to(connection, table, rows, sums=_SUMS)
            add_to(
                connection,
                metered,
                [mark._asdict() for mark in marks],
                sums=(),
                replaced=("until_ms", "accelerators"),
            )
            over = list(gone)
            if over:
                connection.execute(sa.delete(metered).where(metered.c.replica.in_(over)))

    def marks(self) -> dict[str, Metered]:
        """How far each replica is counted, by its id."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(metered)).mappings()
            return {row["replica"]: Metered(**row) for row in rows}

    def by(
        self,
        what: Literal["model", "version", "day"],
        since_s: float,
        *,
        model: str | None = None,
    ) -> dict[tuple[str | int, ...], Capacity]:
        """Days that began at `since_s` (Unix seconds) or later, summed by model, by model and
        version, or by the second at which the day began."""
        columns = {
            "model": (table.c.model,),
            "version": (table.c.model, table.c.version),
            "day": (table.c.at,),
        }[what]
        query = (
            sa.select(*columns, *(sa.func.sum(table.c[name]) for name in _SUMS))
            .where(table.c.step == int(Step.DAY), table.c.at >= since_s)
            .group_by(*columns)
        )
        if model is not None:
            query = query.where(table.c.model == model)
        width = len(columns)
        with self._database.reading() as connection:
            return {
                tuple(row[:width]): Capacity(*map(int, row[width:]))
                for row in connection.execute(query)
            }

    def forget(self, now: float) -> int:
        """Drop some of the steps that have been kept long enough; how many, 0 when there are no
        more."""
        return drop_steps(self._database, (table,), now)
