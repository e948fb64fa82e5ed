"""What machines used, by step."""

import msgspec
import sqlalchemy as sa

from modelyard.core.machines import MachineSample, MachineSums
from modelyard.core.rollups import Span, Step
from modelyard.state.database import Database
from modelyard.state.tables import machines as table


class Machines:
    """A row for each step and machine."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, host: str, at: float, sample: MachineSample) -> None:
        """Count a look (`at`: Unix seconds) in its minute, its quarter of an hour and its day."""
        with self._database.transaction() as connection:
            for step in Step:
                mine = [
                    table.c.step == int(step), table.c.at == step.begin(at), table.c.host == host
                ]  # fmt: skip
                body = connection.execute(sa.select(table.c.body).where(*mine)).scalar()
                sums = MachineSums() if body is None else _read(body)
                sums.add(sample)
                told = msgspec.json.encode(sums).decode()
                if body is None:
                    connection.execute(
                        sa.insert(table).values(
                            step=int(step), at=step.begin(at), host=host, body=told
                        )
                    )
                else:
                    connection.execute(sa.update(table).where(*mine).values(body=told))

    def total(self, spans: tuple[Span, ...]) -> dict[str, MachineSums]:
        """Over all these steps, by host."""
        found: dict[str, MachineSums] = {}
        with self._database.reading() as connection:
            for span in spans:
                asked = (
                    sa.select(table.c.host, table.c.body)
                    .where(
                        table.c.step == int(span.step),
                        table.c.at >= span.since,
                        table.c.at < span.until,
                    )
                    .order_by(table.c.at)
                )
                for host, body in connection.execute(asked):
                    found.setdefault(host, MachineSums()).merge(_read(body))
        return found


def _read(body: str) -> MachineSums:
    return msgspec.json.decode(body, type=MachineSums)
