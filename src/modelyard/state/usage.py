"""What each key used of each model, by day."""

from collections.abc import Sequence

import sqlalchemy as sa

from modelyard.core.usage import Usage
from modelyard.state.database import Database
from modelyard.state.tables import usage as table
from modelyard.state.upserts import add_to

_SUMS = (
    "requests", "unsuccessful", "cached", "prompt_tokens", "completion_tokens", "cost_nanos",
    "priced",
)  # fmt: skip
_KEYS = ("day", "tenant", "key_id", "model")


class UsageTable:
    """Sums, added to in the transaction that stores their records: each is counted once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def since(self, day: int, *, tenant: str | None = None) -> list[Usage]:
        """Rows from that day on (days since 1970), by day, tenant, key and model."""
        asked = sa.select(table).where(table.c.day >= day)
        if tenant is not None:
            asked = asked.where(table.c.tenant == tenant)
        with self._database.reading() as connection:
            rows = [Usage(**row) for row in connection.execute(asked).mappings()]
        # Sorted here: a server sorts text as its language does.
        return sorted(rows, key=lambda row: tuple(getattr(row, key) for key in _KEYS))


def add_usage(connection: sa.Connection, rows: Sequence[Usage]) -> None:
    """Add to the sums, within the caller's transaction."""
    columns = (*_KEYS, *_SUMS)
    add_to(
        connection,
        table,
        [{name: getattr(row, name) for name in columns} for row in rows],
        sums=_SUMS,
    )
