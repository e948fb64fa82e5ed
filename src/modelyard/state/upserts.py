"""Rows that are added to where they are known, and made where they are not."""

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite


def add_to(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, object]],
    *,
    sums: Iterable[str],
    replaced: Iterable[str] = (),
) -> None:
    """Add each row to the one with the same primary key, in the caller's transaction.

    `sums` are the columns that are added up, `replaced` those that are written over. No two of the
    rows may have the same primary key.
    """
    if not rows:
        return
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    changes = {name: table.c[name] + insert.excluded[name] for name in sums}
    changes |= {name: insert.excluded[name] for name in replaced}
    connection.execute(
        insert.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changes),
        list(rows),
    )
