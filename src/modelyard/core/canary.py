"""Whether a candidate does worse than the version that is live, judged on concurrent requests.

Requests come in as they finish; every ten make a block, so that both sides have seen the same
moments. A block's bounds do not depend on who is who in it: a block that ended with the first
request of the candidate would always compare it with earlier ones, and find it slower while the
load rises. For each thing that is watched an e-process grows (`core/evidence.py`); an
alarm is raised when one of them passes its part of 1/alpha, so the chance of ever raising one on an
equal candidate is at most alpha, however often somebody looks. Too few requests are no verdict: the
answer is then how many more are needed.

Callers stay with one version, and how long their requests take is their doing, too. Where they are
named, an alarm on times, lengths or quality is raised only when callers differ between the versions
by more than they do anyway (`core/callers.py`); until then there is no verdict. Hearing each caller
once would keep the rate, too, and miss half of what is worse (docs/benchmarks.md).
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from modelyard.core.callers import Arm, Callers, chance_of_over
from modelyard.core.evidence import Ranks, TwoProportions, mean
from modelyard.core.routes import Share

Watched = Literal["errors", "truncations", "ttft", "itl", "length", "quality"]
WATCHED: tuple[Watched, ...] = ("errors", "truncations", "ttft", "itl", "length", "quality")
Verdict = Literal["hold", "pass", "alarm"]

BLOCK = 10
"""Requests of both sides in a block; one that has only one side is dropped."""
TAILS = (0.95, 0.99)
_TAIL_AFTER = 40
"""Baseline values before the tails are compared."""
_KEPT = 400
"""Baseline values that the tails' thresholds are read from."""


CALLERS_BY_CHANCE = 0.4
"""Times alpha: differences between callers that are likelier by chance than this raise no alarm.
Under alpha, because they are looked at again and again while the evidence is there."""


class Tolerances(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much worse a candidate may be without anybody's minding."""

    slower: float = 0.1
    """Of times, relative: 0.1 lets it take a tenth more."""
    longer: float = 0.25
    """Of an answer's tokens, relative, in both directions."""
    worse: float = 0.0
    """Of quality scores, absolute."""


class CanaryRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a candidate before it gets a larger share."""

    alpha: Share = 0.05
    """Chance of rejecting a candidate that is equal to the baseline, over the whole canary."""
    min_requests: Annotated[int, Meta(ge=1)] = 100
    """Requests that each side must have finished before anything passes."""
    watch: tuple[Watched, ...] = ("errors", "truncations", "ttft", "itl", "length")
    tolerances: Tolerances = Tolerances()


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one finished request shows of the version that answered it."""

    failed: bool
    """The replica is at fault; requests that were rejected or cancelled are no evidence of it."""
    truncated: bool = False
    """It ended before it was over: cut, or without an end mark."""
    ttft_s: float | None = None
    itl_s: float | None = None
    tokens: int | None = None
    quality: float | None = None
    """Higher is better."""
    caller: str = ""
    """Whose it was, where callers stay with one version; empty: it was dealt out by itself."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One watched thing at one moment."""

    watched: Watched
    evidence: float
    """Wealth of the e-process."""
    alarm_at: float
    baseline: float | None
    candidate: float | None
    """Share of requests for errors and truncations, else the mean."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and why, in words for people."""

    verdict: Verdict
    reason: str
    readings: tuple[Reading, ...]
    baseline_requests: int
    candidate_requests: int
    more_needed: int = 0
    """Requests of the candidate that are missing; those of the baseline where it is short."""


class _Growing(Protocol):
    """Evidence on one watched thing."""

    @property
    def wealth(self) -> float: ...

    def add(self, baseline: list[float], candidate: list[float]) -> None: ...


class _Tails:
    """Whether the candidate is beyond the baseline's slow end more often than the baseline is.

    The thresholds of a block are read from the blocks before it, so they depend on nothing in it.
    """

    def __init__(self) -> None:
        self._seen: deque[float] = deque()
        self._ordered: list[float] = []
        """The same, by size."""
        self._beyond = [TwoProportions() for _ in TAILS]

    @property
    def wealth(self) -> float:
        return mean(each.wealth for each in self._beyond)

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        ordered = self._ordered
        if len(ordered) >= _TAIL_AFTER:
            for tail, beyond in zip(TAILS, self._beyond, strict=True):
                threshold = ordered[int(tail * (len(ordered) - 1))]
                beyond.add(
                    [value > threshold for value in baseline],
                    [value > threshold for value in candidate],
                )
        for value in baseline:
            self._seen.append(value)
            insort(ordered, value)
            if len(ordered) > _KEPT:
                del ordered[bisect_left(ordered, self._seen.popleft())]


class _Times:
    """Evidence on a duration: its middle and its slow end."""

    def __init__(self, slower: float) -> None:
        self._allowed = 1 + slower
        self._middle = Ranks()
        self._tails = _Tails()

    @property
    def wealth(self) -> float:
        return mean((self._middle.wealth, self._tails.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        allowed = [each * self._allowed for each in baseline]
        self._middle.add(allowed, candidate)
        self._tails.add(allowed, candidate)


class _Lengths:
    """Evidence on how long answers are, in either direction."""

    def __init__(self, longer: float) -> None:
        self._allowed = 1 + longer
        self._above = Ranks()
        self._below = Ranks()

    @property
    def wealth(self) -> float:
        return mean((self._above.wealth, self._below.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._above.add([each * self._allowed for each in baseline], candidate)
        self._below.add([each * self._allowed for each in candidate], baseline)


class _Scores:
    """Evidence on quality: how often the candidate's score is under a baseline's."""

    def __init__(self, worse: float) -> None:
        self._worse = worse
        self._under = Ranks()

    @property
    def wealth(self) -> float:
        return self._under.wealth

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._under.add([each + self._worse for each in candidate], baseline)


class _Happenings:
    """Evidence on something that happens to a request or does not."""

    def __init__(self) -> None:
        self._more = TwoProportions()

    @property
    def wealth(self) -> float:
        return self._more.wealth

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._more.add([value > 0 for value in baseline], [value > 0 for value in candidate])


class Comparison:
    """Gathers requests of both sides and says what they show. Same requests, same answer."""

    def __init__(self, rules: CanaryRules) -> None:
        self._rules = rules
        tolerances = rules.tolerances
        makers: dict[Watched, Callable[[], _Growing]] = {
            "errors": _Happenings,
            "truncations": _Happenings,
            "ttft": lambda: _Times(tolerances.slower),
            "itl": lambda: _Times(tolerances.slower),
            "length": lambda: _Lengths(tolerances.longer),
            "quality": lambda: _Scores(tolerances.worse),
        }
        self._growing = {watched: makers[watched]() for watched in rules.watch}
        self._waiting: dict[tuple[Watched, Arm], list[float]] = {
            (watched, arm): [] for watched in rules.watch for arm in _ARMS
        }
        """Values of the block that is not full yet."""
        self._sums = {(watched, arm): [0.0, 0] for watched in rules.watch for arm in _ARMS}
        self._counts: dict[Arm, int] = {"baseline": 0, "candidate": 0}
        self._callers = {watched: Callers() for watched in rules.watch if watched in _OF_CALLERS}
        self._named = 0
        """Requests of the candidate that named their caller."""

    def add(self, arm: Arm, evidence: Evidence) -> None:
        """Take in one finished request, in the order in which they finished."""
        self._counts[arm] += 1
        self._named += bool(arm == "candidate" and evidence.caller)
        for watched in self._rules.watch:
            value = _value(watched, evidence)
            if value is None:
                continue
            total = self._sums[watched, arm]
            total[0] += value
            total[1] += 1
            if evidence.caller and watched in self._callers:
                self._callers[watched].add(arm, evidence.caller, value)
            self._waiting[watched, arm].append(value)
            baseline = self._waiting[watched, "baseline"]
            candidate = self._waiting[watched, "candidate"]
            if len(baseline) + len(candidate) < BLOCK:
                continue
            if baseline and candidate:
                self._growing[watched].add(baseline.copy(), candidate.copy())
            baseline.clear()
            candidate.clear()

    @property
    def alarmed(self) -> bool:
        """Whether anything speaks against the candidate: what `finding` says, at less cost."""
        alarm_at = self._alarm_at
        return any(
            growing.wealth >= alarm_at and not self._may_be_callers(watched)
            for watched, growing in self._growing.items()
        )

    def _may_be_callers(self, watched: Watched) -> bool:
        """Whether callers alone may make the difference that was found."""
        callers = self._callers.get(watched)
        if callers is None or 2 * self._named <= self._counts["candidate"]:
            return False
        chance = _chance(watched, callers, self._rules.tolerances)
        return chance > CALLERS_BY_CHANCE * self._rules.alpha

    @property
    def _alarm_at(self) -> float:
        return len(self._rules.watch) / self._rules.alpha

    def finding(self) -> Finding:
        """What all requests so far show."""
        readings = tuple(self._reading(watched) for watched in self._rules.watch)
        found = [each for each in readings if each.evidence >= each.alarm_at]
        loud = [each for each in found if not self._may_be_callers(each.watched)]
        missing = {arm: self._rules.min_requests - count for arm, count in self._counts.items()}
        unseen = [each.watched for each in readings if each.candidate is None]
        if loud:
            worst = max(loud, key=lambda each: each.evidence)
            return self._found("alarm", _told(worst), readings)
        if found:
            reason = f"{_told(found[0])}, or its callers differ: more of them are needed"
            return self._found("hold", reason, readings, 1)
        if missing["candidate"] > 0:
            more = missing["candidate"]
            return self._found(
                "hold", f"{more} more requests of the candidate are needed", readings, more
            )
        if missing["baseline"] > 0:
            more = missing["baseline"]
            return self._found(
                "hold", f"{more} more requests of the live version are needed", readings, more
            )
        if "quality" in unseen:
            return self._found("hold", "no answer of the candidate was judged yet", readings, 1)
        return self._found("pass", "nothing speaks against the candidate", readings)

    def _reading(self, watched: Watched) -> Reading:
        return Reading(
            watched=watched,
            evidence=self._growing[watched].wealth,
            alarm_at=self._alarm_at,
            baseline=self._mean(watched, "baseline"),
            candidate=self._mean(watched, "candidate"),
        )

    def _mean(self, watched: Watched, arm: Arm) -> float | None:
        total, count = self._sums[watched, arm]
        return total / count if count else None

    def _found(
        self, verdict: Verdict, reason: str, readings: tuple[Reading, ...], more: int = 0
    ) -> Finding:
        return Finding(
            verdict=verdict,
            reason=reason,
            readings=readings,
            baseline_requests=self._counts["baseline"],
            candidate_requests=self._counts["candidate"],
            more_needed=more,
        )


_ARMS: tuple[Arm, ...] = ("baseline", "candidate")
_OF_CALLERS: frozenset[Watched] = frozenset({"ttft", "itl", "length", "quality"})
"""What depends on who asks; that requests fail or are cut does so much less."""
_WORDS: dict[Watched, str] = {
    "errors": "more requests fail",
    "truncations": "more answers end before they are over",
    "ttft": "the first token comes later",
    "itl": "tokens come more slowly",
    "length": "answers have another length",
    "quality": "answers are judged worse",
}


def _chance(watched: Watched, callers: Callers, tolerances: Tolerances) -> float:
    """How often callers dealt out by chance would differ so much beyond what is tolerated."""
    ours, theirs = callers.means("candidate"), callers.means("baseline")
    match watched:
        case "length":
            allowed = 1 + tolerances.longer
            above = chance_of_over(ours, [each * allowed for each in theirs])
            return 2 * min(above, chance_of_over(theirs, [each * allowed for each in ours]))
        case "quality":
            return chance_of_over(theirs, [each + tolerances.worse for each in ours])
        case _:
            return chance_of_over(ours, [each * (1 + tolerances.slower) for each in theirs])


def _told(reading: Reading) -> str:
    return (
        f"{_WORDS[reading.watched]}: {_number(reading.candidate)} against "
        f"{_number(reading.baseline)} of the live version (evidence {reading.evidence:.3g}, "
        f"alarm at {reading.alarm_at:.3g})"
    )


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"


def _value(watched: Watched, evidence: Evidence) -> float | None:
    match watched:
        case "errors":
            return float(evidence.failed)
        case "truncations":
            return float(evidence.truncated)
        case "ttft":
            return evidence.ttft_s
        case "itl":
            return evidence.itl_s
        case "length":
            return None if evidence.tokens is None else float(evidence.tokens)
        case "quality":
            return evidence.quality
