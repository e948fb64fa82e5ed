"""What each alert rule sees in the facts. Pure: the loop, the preview and the tests call this."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import assert_never

import msgspec

from modelyard.core.alert_states import FOLDED, Finding, Verdict
from modelyard.core.alerting import (
    AnyRule,
    BudgetRule,
    BurnRateRule,
    CrashLoopRule,
    DiskRule,
    LatencyRule,
    NoReplicaRule,
    QualityRule,
    RecordsRule,
)
from modelyard.core.keys import LimitKind
from modelyard.core.limits import Scope


class Window(msgspec.Struct, frozen=True):
    """A stretch of time up to now, and what is counted as late in it."""

    length_s: float
    ttft_s: float | None = None
    """None: nothing is late."""


class Counted(msgspec.Struct, frozen=True):
    """Requests of one model in one window."""

    completed: int = 0
    failed: int = 0
    late: int = 0
    """Of those completed."""


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """What a key or tenant has used of one limit in the running day or month."""

    scope: Scope
    name: str
    kind: LimitKind
    model: str | None
    used: float
    amount: float

    @property
    def subject(self) -> str:
        """`tenant acme, tokens_per_day`, with the model where the limit has one."""
        of_model = f" of {self.model}" if self.model else ""
        return f"{self.scope} {self.name}, {self.kind}{of_model}"


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """How a deployment runs."""

    name: str
    live: bool
    """A slot of it serves, or should."""
    ready: int
    """Replicas of the live slot that are ready."""
    wanted: int
    failures: int
    """In a row."""
    failed_s_ago: float | None
    """Since the last one; None: there is none."""
    last_error: str


class Handover(msgspec.Struct, frozen=True, kw_only=True):
    """How a gateway gets rid of its records."""

    gateway: str
    waiting: int
    lost: int
    """Lately."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """What one judge said of one model."""

    model: str
    judge: str
    count: int
    """In the window."""
    mean: float
    count_before: int
    mean_before: float


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """Of the home's file system."""

    folder: str
    free_bytes: int
    total_bytes: int


class AlertFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that rules look at, at one moment."""

    requests: Mapping[Window, Mapping[str, Counted]] = {}
    """By public model name."""
    went_back_s: float = 0.0
    """How far the clock went back, the last time that it did."""
    went_back_s_ago: float = float("inf")
    spent: Sequence[Spent] = ()
    deployments: Sequence[Running] = ()
    handovers: Sequence[Handover] = ()
    space: Space | None = None
    scored: Mapping[tuple[float, float], Sequence[Scored]] = {}
    """By the lengths of the window and of what came before it."""


def windows_of(rule: AnyRule) -> tuple[Window, ...]:
    """The windows, long and short, whose requests a rule must have counted."""
    if isinstance(rule, BurnRateRule | LatencyRule):
        late = rule.ttft_s if isinstance(rule, LatencyRule) else None
        return Window(rule.long_s, late), Window(rule.short_s, late)
    return ()


def look(rule: AnyRule, facts: AlertFacts, known: Iterable[str] = ()) -> list[Finding]:
    """What the rule finds, a line for each subject; `known` are those that have an alert: a model
    that nobody asks any more has no data, it is not well."""
    match rule:
        case BurnRateRule() | LatencyRule():
            return list(_burning(rule, facts, known))
        case BudgetRule():
            return list(_budgets(rule, facts))
        case CrashLoopRule():
            return list(_crashes(rule, facts))
        case NoReplicaRule():
            return [_replicas(each) for each in facts.deployments if each.live]
        case RecordsRule():
            return list(_handovers(rule, facts))
        case DiskRule():
            return [] if facts.space is None else [_space(rule, facts.space)]
        case QualityRule():
            return [_quality(rule, each) for each in facts.scored.get(stretches_of(rule), ())]
        case _:
            assert_never(rule)


def stretches_of(rule: QualityRule) -> tuple[float, float]:
    """The lengths of the window and of what it is compared with, in seconds."""
    return rule.window_s, rule.before_s


def _burning(
    rule: BurnRateRule | LatencyRule, facts: AlertFacts, known: Iterable[str]
) -> Iterator[Finding]:
    long, short = (facts.requests.get(window, {}) for window in windows_of(rule))
    seen = {*long, *short, *known} - {FOLDED}
    asked = sorted(seen) if rule.models is None else rule.models
    doubt_s = min(facts.went_back_s, rule.long_s) + rule.short_s - facts.went_back_s_ago
    for model in asked:
        if doubt_s > 0 and facts.went_back_s > 0:
            # Requests of before the jump stand in the same minutes as those of now.
            told = f"the clock went back by {facts.went_back_s:.0f} s; {doubt_s:.0f} s to wait"
            yield Finding(subject=model, verdict=Verdict.IN_DOUBT, told=told)
        else:
            yield _burn(rule, model, long.get(model, Counted()), short.get(model, Counted()))


def _burn(rule: BurnRateRule | LatencyRule, model: str, long: Counted, short: Counted) -> Finding:
    by_latency = isinstance(rule, LatencyRule)
    (long_bad, long_total), (short_bad, short_total) = (
        (each.late, each.completed) if by_latency else (each.failed, each.completed + each.failed)
        for each in (long, short)
    )
    long_share = long_bad / long_total if long_total else 0.0
    short_share = short_bad / short_total if short_total else 0.0
    told = (
        f"{'late' if by_latency else 'failed'}: {long_share:.1%} of {long_total} in "
        f"{span(rule.long_s)}, {short_share:.1%} of {short_total} in {span(rule.short_s)}; "
        f"over {rule.most:.1%} is too much"
    )
    if long_total < rule.min_requests_long or short_total < rule.min_requests_short:
        told += f" (of {rule.min_requests_long} and {rule.min_requests_short} requests at least)"
        return Finding(subject=model, verdict=Verdict.NO_DATA, told=told)
    burns = min(long_share, short_share) > rule.most
    return Finding(
        subject=model,
        verdict=Verdict.BREACHED if burns else Verdict.CLEAR,
        told=told,
        value=round(long_share / (1.0 - rule.objective), 3),
    )


def _budgets(rule: BudgetRule, facts: AlertFacts) -> Iterator[Finding]:
    for spent in facts.spent:
        share = spent.used / spent.amount if spent.amount else float("inf")
        told = f"{share:.0%} used: {spent.used:,.15g} of {spent.amount:,.15g}"
        verdict = Verdict.BREACHED if share >= rule.share else Verdict.CLEAR
        yield Finding(subject=spent.subject, verdict=verdict, told=told, value=round(share, 4))


def _crashes(rule: CrashLoopRule, facts: AlertFacts) -> Iterator[Finding]:
    for each in facts.deployments:
        lately = each.failed_s_ago is not None and each.failed_s_ago <= rule.within_s
        missing = each.live and each.ready < each.wanted
        looping = each.failures >= rule.failures and (lately or missing)
        told = f"{each.failures} failures in a row"
        if looping and each.last_error:
            told += f": {each.last_error}"
        yield Finding(
            subject=each.name,
            verdict=Verdict.BREACHED if looping else Verdict.CLEAR,
            told=told,
            value=float(each.failures),
        )


def _replicas(each: Running) -> Finding:
    return Finding(
        subject=each.name,
        verdict=Verdict.CLEAR if each.ready else Verdict.BREACHED,
        told=f"{each.ready} of {each.wanted} replicas are ready",
        value=float(each.ready),
    )


def _handovers(rule: RecordsRule, facts: AlertFacts) -> Iterator[Finding]:
    for each in facts.handovers:
        bad = each.lost > 0 or each.waiting > rule.max_waiting
        told = f"{each.lost} records lost in {span(rule.within_s)}, {each.waiting} wait"
        verdict = Verdict.BREACHED if bad else Verdict.CLEAR
        yield Finding(subject=each.gateway, verdict=verdict, told=told, value=float(each.lost))


def _quality(rule: QualityRule, each: Scored) -> Finding:
    subject = f"{each.model}, judge {each.judge}"
    told = (
        f"mean score {each.mean:.3f} of {each.count} in {span(rule.window_s)}, "
        f"{each.mean_before:.3f} of {each.count_before} before"
    )
    if min(each.count, each.count_before) < rule.min_scores:
        told += f" (of {rule.min_scores} at least)"
        return Finding(subject=subject, verdict=Verdict.NO_DATA, told=told)
    drop = each.mean_before - each.mean
    return Finding(
        subject=subject,
        verdict=Verdict.BREACHED if drop > rule.max_drop else Verdict.CLEAR,
        told=told,
        value=round(drop, 4),
    )


def _space(rule: DiskRule, space: Space) -> Finding:
    ratio = space.free_bytes / space.total_bytes if space.total_bytes else 1.0
    full = ratio < rule.min_free_ratio and space.free_bytes < rule.min_free_bytes
    return Finding(
        subject=space.folder,
        verdict=Verdict.BREACHED if full else Verdict.CLEAR,
        told=f"{ratio:.1%} free, {space.free_bytes / 1e9:.1f} GB",
        value=round(ratio, 4),
    )


def span(seconds: float) -> str:
    """`5 min`, `6 h`, `45 s`."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s"
