"""Alerts: the rules are looked at again and again, and receivers told of what fires and ends.

The preview runs the same look (`core/alert_checks.py`) over the same facts, and changes nothing.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from modelyard.core.alert_checks import look
from modelyard.core.alert_states import (
    Alert,
    AlertState,
    Finding,
    Silence,
    ended,
    silence_of,
    step,
)
from modelyard.core.alerting import AnyRule
from modelyard.core.errors import ModelyardError, NotFound, StorageError
from modelyard.core.webhooks import Delivery, Event, delivery_of
from modelyard.observe.alert_facts import Facts
from modelyard.observe.webhooks import Clocks, Webhooks
from modelyard.state.alerts import MAX_WAITING
from modelyard.state.alerts import Alerts as AlertTable

log = logging.getLogger(__name__)
Tell = Callable[[str, str, str], None]


class Seen(NamedTuple):
    """What a rule finds now."""

    rule: AnyRule
    findings: tuple[Finding, ...]
    fires: frozenset[str]
    """Subjects whose alert would fire, once it has held for the rule's `for_s`."""


class Watched(NamedTuple):
    """How the looking goes on."""

    looked_at: float | None = None
    """Unix seconds of the last look that came to an end."""
    trouble: str = ""
    """Why the latest did not; empty when it did."""
    seen: tuple[Seen, ...] = ()


class _Round(NamedTuple):
    """What one look changed."""

    moved: tuple[Alert, ...]
    told: tuple[Delivery, ...]
    gave_way: int


class Watch:
    """The rules, and the alerts that came of them."""

    def __init__(
        self,
        rules: Sequence[AnyRule],
        facts: Facts,
        table: AlertTable,
        webhooks: Webhooks,
        tell: Tell,
        clocks: Clocks,
        *,
        every_s: float,
    ) -> None:
        """`tell` is given lines for the journal, on the event loop: kind, subject and message."""
        self.rules = tuple(rules)
        self.webhooks = webhooks
        self.watched = Watched()
        self._facts = facts
        self._table = table
        self._tell = tell
        self._clocks = clocks
        self._every_s = every_s
        self._active: Mapping[str, Mapping[str, Alert]] | None = None
        """By rule and subject; None: those that fired before are not read yet."""
        self._looked: float | None = None
        """By the steady clock."""
        self._unsaved: dict[str, Alert] = {}
        self._untold: tuple[Delivery, ...] = ()
        """What the state could not take, and is offered again."""
        self._lock = threading.Lock()

    async def run(self) -> None:
        """Look until cancelled, and tell receivers beside it."""
        sending = asyncio.create_task(self.webhooks.run())
        try:
            while True:
                await self._once()
                if sending.done():
                    sending.result()
                await asyncio.sleep(self._every_s)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    def active(self) -> tuple[Alert, ...]:
        """Those pending or firing, the latest first; for any thread."""
        found = [alert for mine in (self._active or {}).values() for alert in mine.values()]
        return tuple(sorted(found, key=lambda alert: (-alert.since, alert.rule, alert.subject)))

    def preview(self, name: str | None = None) -> tuple[Seen, ...]:
        """What rules find now, and what would fire; for any thread. NotFound names the rules."""
        rules = self.rules if name is None else (self.rule(name),)
        return self._look(rules, self._active or {})

    def rule(self, name: str) -> AnyRule:
        """The rule of that name; NotFound names those that there are."""
        for rule in self.rules:
            if rule.name == name:
                return rule
        raise NotFound(
            f"there is no alert rule {name[:80]!r}",
            next_step=f"known: {', '.join(rule.name for rule in self.rules) or 'none'}",
            param="rule",
        )

    async def _once(self) -> None:
        try:
            done = await asyncio.to_thread(self._round)
        except ModelyardError as error:
            if str(error) != self.watched.trouble:  # a database may be away for hours: said once
                log.error("alert rules can't be looked at: %s", error)
            self.watched = self.watched._replace(trouble=str(error))
            return
        for alert in done.moved:
            if alert.state is not AlertState.PENDING:
                subject = f"{alert.rule}: {alert.subject}"
                self._tell(f"alert.{alert.state}", subject, alert.told)
        if done.gave_way:
            told = f"{done.gave_way} older messages gave way to newer ones"
            self._tell("alert.undelivered", "webhooks", told)
        self.webhooks.wake(self._untold, more=bool(done.told))

    def _look(
        self, rules: Sequence[AnyRule], active: Mapping[str, Mapping[str, Alert]]
    ) -> tuple[Seen, ...]:
        with self._lock:
            facts = self._facts.gather(rules)
        found = [tuple(look(rule, facts, active.get(rule.name, ()))) for rule in rules]
        return tuple(_seen(rule, findings) for rule, findings in zip(rules, found, strict=True))

    def _round(self) -> _Round:
        """Look, move the alerts, and write both down with what receivers are to be told."""
        now, steady = self._clocks.now(), self._clocks.steady()
        active = self._active if self._active is not None else _by_rule(self._table.firing())
        seen = self._look(self.rules, active)
        silences = self._table.silences(now)
        elapsed_s = 0.0 if self._looked is None else steady - self._looked
        moved: list[Alert] = []
        after: dict[str, dict[str, Alert]] = {}
        for rule, findings, _ in seen:
            before = active.get(rule.name, {})
            mine, resolved = step(rule, before, findings, now, elapsed_s, self._clocks.new_id)
            after[rule.name] = mine
            moved += resolved
            moved += [each for each in mine.values() if each.state is not _state(before, each)]
        for name in active.keys() - after.keys():
            moved += [ended(each, now, "its rule is gone") for each in active[name].values()]
        told = self._told(after, moved, silences, now)
        stored = [each for each in moved if each.fired_at is not None]
        gave_way = self._save(stored, after, told)
        self._active, self._looked = after, steady
        self.watched = Watched(looked_at=now, seen=seen)
        return _Round(tuple(moved), tuple(told), gave_way)

    def _told(
        self,
        after: dict[str, dict[str, Alert]],
        moved: list[Alert],
        silences: Sequence[Silence],
        now: float,
    ) -> list[Delivery]:
        """Messages on what fires and was not told, and on the end of what was. Marks it as told."""
        told: list[Delivery] = []
        for mine in after.values():
            for subject, alert in mine.items():
                firing = alert.state is AlertState.FIRING and not alert.sent
                if not firing or silence_of(alert, silences, now) is not None:
                    continue
                messages = self._messages(alert, "alert.firing", now)
                if messages:
                    mine[subject] = msgspec.structs.replace(alert, sent=True)
                    moved[:] = [mine[subject] if each is alert else each for each in moved]
                    self._unsaved[alert.id] = mine[subject]
                    told += messages
        for alert in moved:
            if alert.state is AlertState.RESOLVED and alert.sent:
                told += self._messages(alert, "alert.resolved", now)
        return told

    def _messages(self, alert: Alert, event: Event, now: float) -> list[Delivery]:
        return [
            delivery_of(receiver, alert, event, now)
            for receiver in self.webhooks.receivers
            if alert.severity in receiver.severities
        ]

    def _save(
        self,
        stored: Sequence[Alert],
        after: Mapping[str, Mapping[str, Alert]],
        told: Sequence[Delivery],
    ) -> int:
        """Write down what changed. A disk that is full must not keep alerts from being told."""
        self._unsaved |= {each.id: each for each in stored}
        self._untold = (*self._untold, *told)[-MAX_WAITING:]
        if not self._unsaved and not self._untold:
            return 0
        try:
            gave_way = self._table.save(tuple(self._unsaved.values()), self._untold)
        except StorageError as error:
            log.error("alerts wait until they can be stored: %s", error)
            return 0
        self._unsaved, self._untold = {}, ()
        return gave_way


def _seen(rule: AnyRule, findings: tuple[Finding, ...]) -> Seen:
    at_once = msgspec.structs.replace(rule, for_s=0.0)
    firing, _ = step(at_once, {}, findings, 0.0, 0.0, lambda: "")
    return Seen(rule, findings, frozenset(firing))


def _by_rule(firing: Sequence[Alert]) -> dict[str, dict[str, Alert]]:
    found: dict[str, dict[str, Alert]] = {}
    for alert in firing:
        found.setdefault(alert.rule, {})[alert.subject] = alert
    return found


def _state(before: Mapping[str, Alert], alert: Alert) -> AlertState | None:
    known = before.get(alert.subject)
    return None if known is None or known.id != alert.id else known.state
