"""Old rows dropped in small parts, so that nobody waits long for the database."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from modelyard.core.rollups import KEPT_S
from modelyard.state.database import Database

_AT_ONCE = 2000


def drop_steps(database: Database, tables: Iterable[sa.Table], now: float) -> int:
    """Drop some of the steps that have been kept long enough (`KEPT_S`); how many, 0 when there
    are no more. The tables have columns `step` and `at`."""
    for table in tables:
        for step, kept_s in KEPT_S.items():
            if kept_s is None:
                continue
            of_step = (table.c.step == int(step),)
            if dropped := drop_some(database, table.c.at, of_step, step.begin(now - kept_s)):
                return dropped
    return 0


def drop_some(
    database: Database, at: sa.Column[int], which: Sequence[sa.ColumnElement[bool]], before: int
) -> int:
    """Drop the first of the rows whose time is before that one: a few thousand; how many."""
    old = (*which, at < before)
    with database.reading() as connection:
        some = sa.select(at).where(*old).order_by(at)
        first = connection.execute(some.limit(1)).scalar()
        last = connection.execute(some.offset(_AT_ONCE).limit(1)).scalar()
    if first is None:
        return 0
    upto = before if last is None else last + 1
    with database.transaction() as connection:
        return connection.execute(sa.delete(at.table).where(*old, at < upto)).rowcount
