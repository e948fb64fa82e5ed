"""Alerts from what is found: pending, firing, resolved, as a table; and silences.

    (nothing) ──breached──▶ pending ──breached for for_s──▶ firing
                               │                              ├──clear for keep_firing_s──▶ resolved
                               └──clear, no data──▶ (nothing) └──no data for NO_DATA_S────▶ resolved

Time that something has held is summed from the seconds between two looks, which a clock that can't
be set tells: a wall clock that jumps fires and resolves nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from modelyard.core.alerting import AnyRule, Rule, Severity

NO_DATA_S = 1800.0
"""A firing alert that nothing is known about any more is resolved after so many seconds."""
MAX_ELAPSED_S = 60.0
"""The most that the time between two looks counts: what happened in between was not seen."""
MAX_SUBJECTS = 100
"""Alerts of one rule at a time; what more is found is folded into one."""
FOLDED = "(others)"
"""Subject of that one."""


class Verdict(StrEnum):
    BREACHED = "breached"
    CLEAR = "clear"
    NO_DATA = "no data"
    """Too little is known to say: no alarm."""
    IN_DOUBT = "in doubt"
    """What is known may be wrong: nothing fires and nothing is resolved by it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule sees of one subject."""

    subject: str
    """Model, deployment, key, gateway or folder."""
    verdict: Verdict
    told: str
    """The numbers, for people."""
    value: float | None = None


class AlertState(StrEnum):
    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One breach of a rule by one subject, from its beginning to its end."""

    id: str
    rule: str
    kind: str
    subject: str
    severity: Severity
    labels: dict[str, str] = {}
    state: AlertState
    began_at: float
    """Unix seconds; when it was first seen."""
    fired_at: float | None = None
    resolved_at: float | None = None
    verdict: Verdict = Verdict.BREACHED
    """The latest that was not in doubt."""
    held_s: float = 0.0
    """Seconds for which it has been breached, or has not been."""
    told: str = ""
    value: float | None = None
    sent: bool = False
    """Whether receivers were told that it fires."""

    @property
    def since(self) -> float:
        """Unix seconds at which its state began."""
        return self.resolved_at or self.fired_at or self.began_at


class _Turn(NamedTuple):
    after: AlertState | None
    """None: nothing is left of it."""
    held: Callable[[Rule], float]
    """Seconds that the verdict must have held."""


A, V = AlertState, Verdict
_AT_ONCE: Callable[[Rule], float] = lambda rule: 0.0  # noqa: E731
TURNS: dict[tuple[AlertState | None, Verdict], _Turn] = {
    (None, V.BREACHED): _Turn(A.PENDING, _AT_ONCE),
    (A.PENDING, V.BREACHED): _Turn(A.FIRING, lambda rule: rule.for_s),
    (A.PENDING, V.CLEAR): _Turn(None, _AT_ONCE),
    (A.PENDING, V.NO_DATA): _Turn(None, _AT_ONCE),
    (A.FIRING, V.CLEAR): _Turn(A.RESOLVED, lambda rule: rule.keep_firing_s),
    (A.FIRING, V.NO_DATA): _Turn(A.RESOLVED, lambda rule: max(rule.keep_firing_s, NO_DATA_S)),
}
"""What is not named leaves the state as it is."""
GONE = "there is no such thing any more"


def step(
    rule: AnyRule,
    active: Mapping[str, Alert],
    findings: Iterable[Finding],
    now: float,
    elapsed_s: float,
    new_id: Callable[[], str],
) -> tuple[dict[str, Alert], list[Alert]]:
    """The alerts of one rule after a look: those active, by subject, and those that were resolved.

    `active` are those before it; `elapsed_s`: seconds since the look before.
    """
    found = {finding.subject: finding for finding in _folded(findings, active)}
    for subject in active.keys() - found.keys():
        found[subject] = Finding(subject=subject, verdict=Verdict.CLEAR, told=GONE)
    elapsed_s = min(max(elapsed_s, 0.0), MAX_ELAPSED_S)
    after: dict[str, Alert] = {}
    resolved = []
    for subject, finding in found.items():
        alert = active.get(subject)
        if alert is not None:
            alert = _seen(alert, finding, elapsed_s)
        alert = _moved(rule, alert, finding, now, new_id)
        if alert is not None and alert.state is A.RESOLVED:
            resolved.append(alert)
        elif alert is not None:
            after[subject] = alert
    return after, resolved


def ended(alert: Alert, now: float, why: str) -> Alert:
    """The alert resolved whatever is found: its rule is gone."""
    return msgspec.structs.replace(alert, state=A.RESOLVED, resolved_at=now, told=why)


def _seen(alert: Alert, finding: Finding, elapsed_s: float) -> Alert:
    """The alert with the latest verdict, and how long it has held."""
    if finding.verdict is V.IN_DOUBT:
        return alert  # neither does it hold nor is what held interrupted
    same = (finding.verdict is V.BREACHED) == (alert.verdict is V.BREACHED)
    return msgspec.structs.replace(
        alert,
        verdict=finding.verdict,
        held_s=alert.held_s + elapsed_s if same else 0.0,
        told=finding.told,
        value=finding.value,
    )


def _moved(
    rule: AnyRule, alert: Alert | None, finding: Finding, now: float, new_id: Callable[[], str]
) -> Alert | None:
    """The alert moved by the table as far as it goes."""
    while True:
        state = None if alert is None else alert.state
        turn = TURNS.get((state, finding.verdict))
        if turn is None or (alert is not None and alert.held_s < turn.held(rule)):
            return alert
        if turn.after is None:
            return None
        alert = _entered(turn.after, alert, rule, finding, now, new_id)


def _entered(
    state: AlertState,
    alert: Alert | None,
    rule: AnyRule,
    finding: Finding,
    now: float,
    new_id: Callable[[], str],
) -> Alert:
    if alert is None:
        return Alert(
            id=new_id(),
            rule=rule.name,
            kind=rule.kind,
            subject=finding.subject,
            severity=rule.severity,
            labels=rule.labels,
            state=state,
            began_at=now,
            told=finding.told,
            value=finding.value,
        )
    if state is A.FIRING:
        return msgspec.structs.replace(alert, state=state, fired_at=now)
    return msgspec.structs.replace(alert, state=state, resolved_at=now)


def _folded(findings: Iterable[Finding], active: Mapping[str, Alert]) -> Sequence[Finding]:
    """The findings with what is breached beyond the bound as one; those that are active stay."""
    every = list(findings)
    breached = [each for each in every if each.verdict is V.BREACHED]
    if len(breached) <= MAX_SUBJECTS:
        return every
    breached.sort(key=lambda each: (each.subject not in active, each.subject))
    over = {each.subject for each in breached[MAX_SUBJECTS:]}
    told = f"{len(over)} more, such as {breached[MAX_SUBJECTS].subject}"
    fold = Finding(subject=FOLDED, verdict=V.BREACHED, told=told, value=float(len(over)))
    return [*(each for each in every if each.subject not in over), fold]


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Alerts that nobody is told of for a while; they are shown all the same."""

    id: str
    rule: str
    subject: str | None = None
    """None: every subject of the rule."""
    until: float
    """Unix seconds."""
    reason: str
    by: str
    created_at: float

    def covers(self, alert: Alert, now: float) -> bool:
        """Whether nobody is told of this alert now."""
        return (
            now < self.until and alert.rule == self.rule and self.subject in (None, alert.subject)
        )


def silence_of(alert: Alert, silences: Iterable[Silence], now: float) -> Silence | None:
    """The silence that covers an alert; the one that lasts longest."""
    covering = [silence for silence in silences if silence.covers(alert, now)]
    return max(covering, key=lambda silence: silence.until, default=None)
