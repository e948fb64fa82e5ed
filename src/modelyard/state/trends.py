"""Trends in the state: what requests added up to, by step, series and tenant."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from modelyard.core.records import RequestRecord
from modelyard.core.rollups import (
    TENANT_HOURS_KEPT_S,
    Series,
    Span,
    Step,
    Sums,
    TenantHour,
    TenantSums,
    coarser,
    summed_up,
)
from modelyard.state.database import Database
from modelyard.state.dropping import drop_some, drop_steps
from modelyard.state.tables import machines, tenant_hours
from modelyard.state.tables import rollups as table
from modelyard.state.upserts import add_to

_READ_AT_ONCE = 1000
_LOOKED_UP_AT_ONCE = 200
_KEYS = ("step", "at", "model", "version", "digest", "slot")
_Place = tuple[int, int, str, int, str, str]
"""What these columns hold of a row."""


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

    def totals(self, spans: Sequence[Span], *, model: str | None = None) -> dict[Series, Sums]:
        """What each series adds up to in all these steps; of one model, or of all."""
        found: dict[Series, Sums] = {}
        with self._database.reading() as connection:
            for span in spans:
                for row in connection.execute(_within(span, model)):
                    series = Series(*row[1 : len(Series._fields) + 1])
                    if (sums := found.get(series)) is None:
                        sums = found[series] = Sums()
                    _count(sums, row[len(Series._fields) + 1 :])
        return found

    def points(self, spans: Sequence[Span], length_s: int, *, model: str) -> dict[int, Sums]:
        """What a model's series add up to together, by stretches of this many seconds, each by
        the moment at which it began; those without requests are left out."""
        found: dict[int, Sums] = {}
        with self._database.reading() as connection:
            for span in spans:
                for row in connection.execute(_within(span, model)):
                    at = row[0] // length_s * length_s
                    if (sums := found.get(at)) is None:
                        sums = found[at] = Sums()
                    _count(sums, row[len(Series._fields) + 1 :])
        return found

    def knows(self, model: str) -> bool:
        """Whether anybody ever asked for a model of this name."""
        asked = sa.select(table.c.step).where(table.c.model == model).limit(1)
        with self._database.reading() as connection:
            return connection.execute(asked).first() is not None

    def models(self, limit: int = 100) -> list[str]:
        """Names that somebody asked for, the first ones."""
        found: list[str] = []
        with self._database.reading() as connection:
            # One look-up for each name: to read all rows for their few names would be slow.
            while len(found) < limit:
                beyond = table.c.model > (found[-1] if found else "")
                name = connection.execute(sa.select(sa.func.min(table.c.model)).where(beyond))
                if (first := name.scalar()) is None:
                    break
                found.append(first)
        return found

    def forget(self, now: float) -> int:
        """Drop some of the steps and hours that have been kept long enough; how many.

        At most a few thousand: nobody waits long for the database. 0 when there are no more.
        """
        return drop_steps(self._database, (table, machines), now) or drop_some(
            self._database, tenant_hours.c.hour, (), int(now - TENANT_HOURS_KEPT_S)
        )


def _within(span: Span, model: str | None) -> sa.Select[Any]:
    columns = ("at", *Series._fields, *Sums.COUNTS, *Sums.SKETCHES)
    asked = sa.select(*(table.c[name] for name in columns)).where(
        table.c.step == int(span.step), table.c.at >= span.since, table.c.at < span.until
    )
    return asked if model is None else asked.where(table.c.model == model)


def _count(sums: Sums, values: Sequence[Any]) -> None:
    """Count what a row's columns hold."""
    for name, value in zip(Sums.COUNTS, values, strict=False):
        setattr(sums, name, getattr(sums, name) + value)
    for name, encoded in zip(Sums.SKETCHES, values[len(Sums.COUNTS) :], strict=True):
        getattr(sums, name).feed(bytes(encoded))


def add_rollups(connection: sa.Connection, records: Iterable[RequestRecord]) -> None:
    """Add to the sums, within the caller's transaction; the records are `plausible`."""
    minutes, hours = summed_up(records)
    places: dict[_Place, Sums] = {}
    for step in Step:
        rows = minutes if step is Step.MINUTE else coarser(minutes, step)
        for (at, series), sums in rows.items():
            places[int(step), at, *series] = sums
    _join_sketches(connection, places)
    add_to(
        connection,
        table,
        [dict(zip(_KEYS, place, strict=True)) | _columns(sums) for place, sums in places.items()],
        sums=Sums.COUNTS,
        replaced=Sums.SKETCHES,
    )
    add_to(
        connection,
        tenant_hours,
        [
            place._asdict() | {name: getattr(sums, name) for name in TenantSums.COUNTS}
            for place, sums in hours.items()
        ],
        sums=TenantSums.COUNTS,
    )


def _join_sketches(connection: sa.Connection, places: dict[_Place, Sums]) -> None:
    """Count in each what its row has counted already."""
    key = sa.tuple_(*(table.c[name] for name in _KEYS))
    columns = [table.c[name] for name in (*_KEYS, *Sums.SKETCHES)]
    wanted = list(places)
    for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
        some = wanted[start : start + _LOOKED_UP_AT_ONCE]
        for row in connection.execute(sa.select(*columns).where(key.in_(some))):
            sums = places[tuple(row[: len(_KEYS)])]
            for name, encoded in zip(Sums.SKETCHES, row[len(_KEYS) :], strict=True):
                getattr(sums, name).feed(bytes(encoded))


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
