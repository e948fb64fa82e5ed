"""Alerts that fire or fired, silences, and what receivers are still to be told."""

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa

from modelyard.core.alert_states import Alert, AlertState, Silence
from modelyard.core.webhooks import Delivery
from modelyard.state.database import Database
from modelyard.state.tables import alerts as table
from modelyard.state.tables import deliveries, silences

HISTORY = 2000
"""Resolved alerts that are kept, the newest."""
MAX_WAITING = 1000
"""Messages that may wait for one receiver; the oldest give way."""


class Alerts:
    """One row for each that fires or fired; pending ones are only seen, not stored."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def firing(self) -> list[Alert]:
        """Those that fire, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(table.c.body)
                .where(table.c.state == AlertState.FIRING)
                .order_by(table.c.since)
            ).scalars()
            return [msgspec.json.decode(body, type=Alert) for body in rows]

    def history(self, limit: int, *, rule: str | None = None) -> list[Alert]:
        """At most `limit` that were resolved, the latest first."""
        query = (
            sa.select(table.c.body)
            .where(table.c.state == AlertState.RESOLVED)
            .order_by(table.c.since.desc())
        )
        found = []
        with self._database.reading() as connection:
            for body in connection.execute(query).scalars():
                alert = msgspec.json.decode(body, type=Alert)
                if rule is None or alert.rule == rule:
                    found.append(alert)
                if len(found) == limit:
                    break
        return found

    def save(self, changed: Sequence[Alert], told: Sequence[Delivery]) -> int:
        """Write alerts with the messages that tell of them, all or none; how many messages to
        receivers gave way."""
        with self._database.transaction() as connection:
            for alert in changed:
                connection.execute(sa.delete(table).where(table.c.id == alert.id))
                connection.execute(
                    sa.insert(table).values(
                        id=alert.id,
                        state=alert.state,
                        since=alert.since,
                        body=msgspec.json.encode(alert).decode(),
                    )
                )
            for delivery in told:
                _put(connection, delivery)
            if any(alert.state is AlertState.RESOLVED for alert in changed):
                _forget_oldest(connection)
            return sum(_bound(connection, name) for name in {each.webhook for each in told})

    def silences(self, now: float) -> list[Silence]:
        """Those that have not ended, by their end."""
        with self._database.reading() as connection:
            rows = connection.execute(
                sa.select(silences.c.body)
                .where(silences.c.until > now)
                .order_by(silences.c.until, silences.c.id)
            ).scalars()
            return [msgspec.json.decode(body, type=Silence) for body in rows]

    def silence(self, silence: Silence, now: float) -> None:
        """Keep a silence; those that have ended go."""
        with self._database.transaction() as connection:
            connection.execute(sa.delete(silences).where(silences.c.until <= now))
            connection.execute(
                sa.insert(silences).values(
                    id=silence.id,
                    until=silence.until,
                    body=msgspec.json.encode(silence).decode(),
                )
            )

    def unsilence(self, silence_id: str) -> bool:
        """End a silence; False when there is none of that id."""
        with self._database.transaction() as connection:
            done = connection.execute(sa.delete(silences).where(silences.c.id == silence_id))
            return done.rowcount > 0

    def waiting(self, webhook: str | None = None) -> list[Delivery]:
        """What a receiver, or any, is still to be told, the oldest first."""
        query = sa.select(deliveries.c.body).order_by(deliveries.c.seq)
        if webhook is not None:
            query = query.where(deliveries.c.webhook == webhook)
        with self._database.reading() as connection:
            rows = connection.execute(query).scalars()
            return [msgspec.json.decode(body, type=Delivery) for body in rows]

    def tried(self, delivery: Delivery) -> None:
        """Note how an attempt ended."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.id == delivery.id)
                .values(body=msgspec.json.encode(delivery).decode())
            )

    def settled(self, ids: Iterable[str]) -> None:
        """Forget messages that were taken, or given up."""
        with self._database.transaction() as connection:
            connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(list(ids))))


def _put(connection: sa.Connection, delivery: Delivery) -> None:
    known = sa.select(deliveries.c.seq).where(deliveries.c.id == delivery.id)
    if connection.execute(known).first() is None:
        connection.execute(
            sa.insert(deliveries).values(
                id=delivery.id,
                webhook=delivery.webhook,
                body=msgspec.json.encode(delivery).decode(),
            )
        )


def _bound(connection: sa.Connection, webhook: str) -> int:
    mine = deliveries.c.webhook == webhook
    newest = (
        sa.select(deliveries.c.seq).where(mine).order_by(deliveries.c.seq.desc()).limit(MAX_WAITING)
    )
    return connection.execute(
        sa.delete(deliveries).where(mine, deliveries.c.seq.not_in(newest))
    ).rowcount


def _forget_oldest(connection: sa.Connection) -> None:
    resolved = table.c.state == AlertState.RESOLVED
    oldest = connection.execute(
        sa.select(table.c.since)
        .where(resolved)
        .order_by(table.c.since.desc())
        .offset(HISTORY)
        .limit(1)
    ).scalar()
    if oldest is not None:
        connection.execute(sa.delete(table).where(resolved, table.c.since <= oldest))
