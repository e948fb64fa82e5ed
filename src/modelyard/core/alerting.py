"""Alert rules: what they look at, those that hold by default, and the refusal of what is none.

A burn rate is how many times faster than allowed the error budget of an objective is used: the
share of failed requests over the share that may fail. Two windows must burn at once, the long one
so that it matters, the short one so that it is still going on (Google's Site Reliability Workbook,
chapter 5, "multiwindow, multi-burn-rate alerts", whose rates and windows these are).
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeVar, get_args

import msgspec
from msgspec import Meta

from modelyard.core.errors import InvalidConfig

Severity = Literal["page", "ticket"]
"""page: somebody must look now. ticket: within days."""
OBJECTIVE = 0.99
"""Share of requests that are to be answered: of those that ended completed or failed."""
COUNTED_OUTCOMES = ("completed", "failed")
"""Outcomes that an objective is about. What a caller did wrong or broke off is neither good nor
bad."""


class BurnRate(NamedTuple):
    """One row of the workbook's table."""

    name: str
    factor: float
    long_s: int
    short_s: int
    severity: Severity


FAST = BurnRate("errors-fast", 14.4, 3600, 300, "page")
"""2 % of a month's error budget in one hour."""
SLOW = BurnRate("errors-slow", 6.0, 6 * 3600, 1800, "page")
"""5 % of a month's error budget in six hours."""
BURN_RATES = (FAST, SLOW)
MIN_REQUESTS_LONG = 100
MIN_REQUESTS_SHORT = 10
"""Fewer requests than these in a window say nothing: one failure of three is no outage."""
LONGEST_WINDOW_S = 30 * 86_400
"""Quarters of an hour are kept for so long (`core/rollups.py`)."""

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_Share = Annotated[float, Meta(gt=0, lt=1)]
_Window = Annotated[float, Meta(ge=1, le=LONGEST_WINDOW_S)]
_Count = Annotated[int, Meta(ge=1)]
_Read = TypeVar("_Read", bound=msgspec.Struct)
_Seconds = Annotated[float, Meta(ge=0, le=LONGEST_WINDOW_S)]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every rule has."""

    kind: ClassVar[str] = ""
    needs_requests: ClassVar[bool] = False
    """Whether it reads sums of requests, which a clock that goes back makes doubtful."""

    name: str
    severity: Severity = "page"
    for_s: _Seconds = 0.0
    """Seconds that it must hold before the alert fires."""
    keep_firing_s: _Seconds = 120.0
    """Seconds that it must no longer hold before the alert is resolved."""
    labels: dict[str, str] = {}
    """Told with each alert, for the receiver's routing."""

    def fault(self) -> tuple[str, str] | None:
        """The key that makes no sense, and why; None when all do."""
        return None


class _Windowed(Rule, frozen=True, kw_only=True):
    """Rules on the requests of each model in two windows."""

    needs_requests: ClassVar[bool] = True

    objective: _Share = OBJECTIVE
    factor: Annotated[float, Meta(gt=0)] = FAST.factor
    long_s: _Window = FAST.long_s
    short_s: _Window = FAST.short_s
    min_requests_long: _Count = MIN_REQUESTS_LONG
    min_requests_short: _Count = MIN_REQUESTS_SHORT
    models: tuple[str, ...] | None = None
    """Public model names; None: every model that is asked."""

    @property
    def most(self) -> float:
        """Share of requests that may be bad before it burns too fast."""
        return self.factor * (1.0 - self.objective)

    def fault(self) -> tuple[str, str] | None:
        """The key that makes no sense, and why."""
        if self.most >= 1.0:
            why = f"{self.factor:g} times {1 - self.objective:.3g} is no share that could be passed"
            return "factor", f"{why}; lower it, or raise the objective"
        if self.short_s > self.long_s:
            return "short_s", f"{self.short_s:g} is longer than long_s, {self.long_s:g}"
        return None


class BurnRateRule(_Windowed, frozen=True, kw_only=True, tag_field="kind", tag="burn_rate"):
    """A model's error budget is used up too fast."""

    kind: ClassVar[str] = "burn_rate"


class LatencyRule(_Windowed, frozen=True, kw_only=True, tag_field="kind", tag="latency"):
    """Too many completed requests of a model are answered late."""

    kind: ClassVar[str] = "latency"

    ttft_s: Annotated[float, Meta(gt=0)]
    """Acceptance to the first byte; later is late."""


class BudgetRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="budget"):
    """A key or tenant has used this share of a limit per day or month."""

    kind: ClassVar[str] = "budget"

    share: Annotated[float, Meta(gt=0, le=10)] = 0.8


class CrashLoopRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="crash_loop"):
    """Replicas of a deployment fail again and again."""

    kind: ClassVar[str] = "crash_loop"

    failures: _Count = 3
    """In a row, none of them after a minute of service (`core/restarts.py`)."""
    within_s: _Window = 600.0
    """The last failure is not older."""


class NoReplicaRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="no_replica"):
    """A live deployment has no replica that is ready."""

    kind: ClassVar[str] = "no_replica"


class RecordsRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="records"):
    """Gateways lose records of requests, or can't hand them over."""

    kind: ClassVar[str] = "records"

    max_waiting: _Count = 2000
    """Records in memory and batches of them on disk (four a second) that a gateway may have."""
    within_s: _Window = 600.0
    """How long a loss is told."""


class DiskRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="disk"):
    """The home's disk is nearly full: both bounds are passed."""

    kind: ClassVar[str] = "disk"

    min_free_ratio: _Share = 0.1
    min_free_bytes: _Count = 5_000_000_000


class QualityRule(Rule, frozen=True, kw_only=True, tag_field="kind", tag="quality"):
    """A judge's scores of a model are worse than they were: by their means, of enough of them."""

    kind: ClassVar[str] = "quality"

    max_drop: _Share = 0.1
    """By how much the mean may be under that of before; scores are 0 to 1."""
    window_s: _Window = 6 * 3600.0
    before_s: _Window = 3 * 86_400.0
    """What came before the window, and is compared with it. Request records must be kept so long
    (`state.records_days`): a score belongs to the model that its request's record names."""
    min_scores: Annotated[int, Meta(ge=10)] = 50
    """In both."""


AnyRule = (
    BurnRateRule
    | LatencyRule
    | BudgetRule
    | CrashLoopRule
    | NoReplicaRule
    | RecordsRule
    | DiskRule
    | QualityRule
)
KINDS: dict[str, type[AnyRule]] = {kind.kind: kind for kind in get_args(AnyRule)}

DEFAULTS: tuple[AnyRule, ...] = (
    *(
        BurnRateRule(
            name=rate.name,
            severity=rate.severity,
            factor=rate.factor,
            long_s=rate.long_s,
            short_s=rate.short_s,
        )
        for rate in BURN_RATES
    ),
    NoReplicaRule(name="no-replica", for_s=30.0),
    CrashLoopRule(name="crash-loop"),
    BudgetRule(name="budget-80", severity="ticket", share=0.8),
    BudgetRule(name="budget-100", share=1.0),
    RecordsRule(name="records", for_s=60.0),
    DiskRule(name="disk", for_s=60.0),
)


def read_rules(
    given: Mapping[str, Mapping[str, Any] | None], *, defaults: bool = True
) -> tuple[AnyRule, ...]:
    """The rules in force, by name: the default ones, changed or switched off (None) by those given.

    Raises InvalidConfig that names the rule, the key and what to do.
    """
    rules = {rule.name: rule for rule in DEFAULTS} if defaults else {}
    for name, raw in given.items():
        if raw is None:
            if name not in rules:
                where = f"alerts.rules.{name}"
                raise refused(where, "", "there is no such rule to switch off", near(name, rules))
            del rules[name]
        else:
            rules[name] = _rule(name, raw, rules.get(name))
    return tuple(rules.values())


def _rule(name: str, raw: Mapping[str, Any], default: AnyRule | None) -> AnyRule:
    where = f"alerts.rules.{name}"
    check_config_name(name, where)
    kind = raw.get("kind", None if default is None else default.kind)
    if kind is None:
        raise refused(where, "kind", "is missing", f"write one of: {', '.join(KINDS)}")
    if kind not in KINDS:
        raise refused(where, "kind", f"{kind!r} is none", near(str(kind), KINDS))
    same = default is not None and default.kind == kind
    base = msgspec.to_builtins(default) if same else {}
    rest = {key: value for key, value in raw.items() if key != "kind"}
    rule = read_table(KINDS[kind], name, rest, where, {**base, "kind": kind})
    fault = rule.fault()
    if fault is not None:
        raise refused(where, fault[0], fault[1], f"see {fault[0]} in docs/observability.md")
    return rule


def check_config_name(name: str, where: str) -> None:
    """Raise InvalidConfig for what is no name of a rule or webhook."""
    if not _NAME.fullmatch(name):
        raise refused(where, "", "not a name", "use up to 63 small letters, digits and dashes")


def read_table(
    kind: type[_Read], name: str, raw: Mapping[str, Any], where: str, base: Mapping[str, Any]
) -> _Read:
    """The struct that a table of the configuration says; InvalidConfig names the key at fault."""
    known = [field for field in kind.__struct_fields__ if field != "name"]
    for key in raw:
        if key not in known:
            raise refused(where, str(key), "is no key here", near(str(key), known))
    try:
        return msgspec.convert({**base, **raw, "name": name}, kind)
    except msgspec.ValidationError as error:
        # Its message names types and bounds, not the value: that may be a secret.
        told, _, place = str(error).partition(" - at `$.")
        key = place.rstrip("`") or str(error).rpartition("field ")[2].strip("`")
        why = "is missing" if "missing required" in told else told[:1].lower() + told[1:]
        raise refused(where, key, why, f"mend {where}.{key}") from None


def refused(where: str, key: str, why: str, next_step: str) -> InvalidConfig:
    """The refusal of a table of the configuration, or of one of its keys."""
    full = f"{where}.{key}" if key else where
    return InvalidConfig(f"{full}: {why}", next_step=next_step, param=full)


def near(text: str, known: Iterable[str]) -> str:
    """Which of the known words may be meant."""
    words = list(known)
    nearest = difflib.get_close_matches(text, words, n=1)
    meant = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"{meant}known: {', '.join(words)}"
