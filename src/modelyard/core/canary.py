"""Whether a candidate does worse than the version that is live, judged on concurrent requests.

Requests come in as they finish, and make a block as soon as both sides have one, so that both have
seen the same moments. For each thing that is watched an e-process grows (`core/evidence.py`); an
alarm is raised when one of them passes its part of 1/alpha, so the chance of ever raising one on an
equal candidate is at most alpha, however often somebody looks. Too few requests are no verdict: the
answer is then how many more are needed.
"""

from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from modelyard.core.evidence import Signs, TwoProportions, mean
from modelyard.core.routes import Share

Watched = Literal["errors", "truncations", "ttft", "itl", "length", "quality"]
WATCHED: tuple[Watched, ...] = ("errors", "truncations", "ttft", "itl", "length", "quality")
Arm = Literal["baseline", "candidate"]
Verdict = Literal["hold", "pass", "alarm"]

MAX_BLOCK = 20
"""Requests of one side in a block; of more, the newest."""
TAIL = 0.95
_TAIL_AFTER = 40
"""Baseline values before the tail is compared."""
_KEPT = 400
"""Baseline values that the tail's threshold is read from."""


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


class _Tail:
    """Whether the candidate is beyond the baseline's slow end more often than the baseline is.

    The threshold of a block is read from the blocks before it, so it depends on nothing in it.
    """

    def __init__(self, slower: float) -> None:
        self._slower = slower
        self._seen: list[float] = []
        self._beyond = TwoProportions()

    @property
    def wealth(self) -> float:
        return self._beyond.wealth

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        if len(self._seen) >= _TAIL_AFTER:
            ordered = sorted(self._seen[-_KEPT:])
            threshold = ordered[int(TAIL * (len(ordered) - 1))] * (1 + self._slower)
            self._beyond.add(
                [value > threshold for value in baseline],
                [value > threshold for value in candidate],
            )
        self._seen += baseline
        del self._seen[:-_KEPT]


class _Times:
    """Evidence on a duration: its middle and its slow end."""

    def __init__(self, slower: float) -> None:
        self._slower = slower
        self._middle = Signs()
        self._tail = _Tail(slower)

    @property
    def wealth(self) -> float:
        return mean((self._middle.wealth, self._tail.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._middle.add(_over(candidate, [each * (1 + self._slower) for each in baseline]))
        self._tail.add(baseline, candidate)


class _Lengths:
    """Evidence on how long answers are, in either direction."""

    def __init__(self, longer: float) -> None:
        self._longer = longer
        self._above = Signs()
        self._below = Signs()

    @property
    def wealth(self) -> float:
        return mean((self._above.wealth, self._below.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._above.add(_over(candidate, [each * (1 + self._longer) for each in baseline]))
        self._below.add(_over(baseline, [each * (1 + self._longer) for each in candidate]))


class _Scores:
    """Evidence on quality: how often the candidate's score is under a baseline's."""

    def __init__(self, worse: float) -> None:
        self._worse = worse
        self._under = Signs()

    @property
    def wealth(self) -> float:
        return self._under.wealth

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._under.add(_over(baseline, [each + self._worse for each in candidate]))


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
        self._sums = {(watched, arm): [0.0, 0] for watched in rules.watch for arm in _ARMS}
        self._counts: dict[Arm, int] = {"baseline": 0, "candidate": 0}

    def add(self, arm: Arm, evidence: Evidence) -> None:
        """Take in one finished request, in the order in which they finished."""
        self._counts[arm] += 1
        for watched in self._rules.watch:
            value = _value(watched, evidence)
            if value is None:
                continue
            total = self._sums[watched, arm]
            total[0] += value
            total[1] += 1
            waiting = self._waiting[watched, arm]
            waiting.append(value)
            del waiting[:-MAX_BLOCK]
            baseline, candidate = (self._waiting[watched, each] for each in _ARMS)
            if baseline and candidate:
                self._growing[watched].add(baseline.copy(), candidate.copy())
                baseline.clear()
                candidate.clear()

    def finding(self) -> Finding:
        """What all requests so far show."""
        readings = tuple(self._reading(watched) for watched in self._rules.watch)
        loud = [each for each in readings if each.evidence >= each.alarm_at]
        missing = {arm: self._rules.min_requests - count for arm, count in self._counts.items()}
        unseen = [each.watched for each in readings if each.candidate is None]
        if loud:
            worst = max(loud, key=lambda each: each.evidence)
            return self._found("alarm", _told(worst), readings)
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
            alarm_at=len(self._rules.watch) / self._rules.alpha,
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
_WORDS: dict[Watched, str] = {
    "errors": "more requests fail",
    "truncations": "more answers end before they are over",
    "ttft": "the first token comes later",
    "itl": "tokens come more slowly",
    "length": "answers have another length",
    "quality": "answers are judged worse",
}


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


def _over(values: list[float], others: list[float]) -> float:
    """Of all pairs, the share in which the first is over the other; ties count half."""
    over = sum((value > other) + 0.5 * (value == other) for value in values for other in others)
    return over / (len(values) * len(others))
