"""Trends in the state: what requests added up to, by step, series and tenant."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import sqlalchemy as sa

from modelyard.core.records import RequestRecord
from modelyard.core.rollups import (
    KEPT_S,
    Series,
    Step,
    Sums,
    TenantHour,
    TenantSums,
    coarser,
    summed_up,
)
from modelyard.state.database import Database
from modelyard.state.tables import rollups as table
from modelyard.state.tables import tenant_hours

_READ_AT_ONCE = 1000


class Stepped(NamedTuple):
    """One series in one step."""

    at: int
    """Unix seconds at which the step began."""
    series: Series
    sums: Sums


class Trends:
    """Sums by step; they are written with the records that they sum up (`Records.add`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def between(
        self, step: Step, since: float, until: float, *, model: str | None = None
    ) -> Iterator[Stepped]:
        """Steps that began at `since` or later and before `until` (Unix seconds), by time; of one
        model, or of all."""
        asked = (
            sa.select(table)
            .where(table.c.step == int(step), table.c.at >= since, table.c.at < until)
            .order_by(table.c.at)
            .execution_options(yield_per=_READ_AT_ONCE)
        )
        if model is not None:
            asked = asked.where(table.c.model == model)
        with self._database.reading() as connection:
            for row in connection.execute(asked).mappings():
                series = Series(row["model"], row["version"], row["digest"], row["slot"])
                yield Stepped(row["at"], series, _sums(row))

    def tenants(
        self, since: float, until: float, *, model: str | None = None, tenant: str | None = None
    ) -> list[tuple[TenantHour, TenantSums]]:
        """Hours that began at `since` or later and before `until`, by time."""
        asked = sa.select(tenant_hours).where(
            tenant_hours.c.hour >= since, tenant_hours.c.hour < until
        )
        for column, wanted in ((tenant_hours.c.model, model), (tenant_hours.c.tenant, tenant)):
            if wanted is not None:
                asked = asked.where(column == wanted)
        found = []
        with self._database.reading() as connection:
            for row in connection.execute(asked.order_by(tenant_hours.c.hour)).mappings():
                sums = TenantSums()
                for name in TenantSums.COUNTS:
                    setattr(sums, name, row[name])
                found.append((TenantHour(row["hour"], row["tenant"], row["model"]), sums))
        return found

    def forget(self, now: float) -> int:
        """Drop the steps that have been kept long enough; how many."""
        dropped = 0
        for step, kept_s in KEPT_S.items():
            if kept_s is None:
                continue
            with self._database.transaction() as connection:
                old = sa.delete(table).where(
                    table.c.step == int(step), table.c.at < step.begin(now - kept_s)
                )
                dropped += connection.execute(old).rowcount
        return dropped


def add_rollups(connection: sa.Connection, records: Iterable[RequestRecord]) -> None:
    """Add to the sums, within the caller's transaction."""
    minutes, hours = summed_up(records)
    for step in Step:
        rows = minutes if step is Step.MINUTE else coarser(minutes, step)
        for (at, series), sums in rows.items():
            _add(connection, step, at, series, sums)
    for place, tenant_sums in hours.items():
        _add_tenant(connection, place, tenant_sums)


def _add(connection: sa.Connection, step: Step, at: int, series: Series, sums: Sums) -> None:
    place = {"step": int(step), "at": at, **series._asdict()}
    # As the column stores it, so that the row is found again.
    mine = [table.c[name] == value for name, value in place.items()]
    known = connection.execute(sa.select(table).where(*mine)).mappings().first()
    if known is None:
        connection.execute(sa.insert(table).values(**place, **_columns(sums)))
        return
    total = _sums(known)
    total.merge(sums)
    connection.execute(sa.update(table).where(*mine).values(**_columns(total)))


def _add_tenant(connection: sa.Connection, place: TenantHour, sums: TenantSums) -> None:
    mine = [tenant_hours.c[name] == value for name, value in place._asdict().items()]
    more = {name: tenant_hours.c[name] + getattr(sums, name) for name in TenantSums.COUNTS}
    if connection.execute(sa.update(tenant_hours).where(*mine).values(**more)).rowcount == 0:
        values = {name: getattr(sums, name) for name in TenantSums.COUNTS}
        connection.execute(sa.insert(tenant_hours).values(**place._asdict(), **values))


def _columns(sums: Sums) -> dict[str, int | bytes]:
    counts = {name: getattr(sums, name) for name in Sums.COUNTS}
    return counts | {name: getattr(sums, name).encode() for name in Sums.SKETCHES}


def _sums(row: sa.RowMapping) -> Sums:
    made = Sums()
    for name in Sums.COUNTS:
        setattr(made, name, row[name])
    for name in Sums.SKETCHES:
        getattr(made, name).feed(bytes(row[name]))
    return made
