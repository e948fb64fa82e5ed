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

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from modelyard.core.callers import Arm, Callers, chance_of_over
from modelyard.core.routes import Share
from modelyard.core.watching import Growing, Happenings, Lengths, Scores, Times

Watched = Literal["errors", "truncations", "ttft", "itl", "length", "quality"]
WATCHED: tuple[Watched, ...] = ("errors", "truncations", "ttft", "itl", "length", "quality")
Verdict = Literal["hold", "pass", "alarm"]

BLOCK = 10
"""Requests of both sides in a block; one that has only one side is dropped."""

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
    """Of quality scores, which are 0 to 1: absolute."""


class CanaryRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of a candidate before it gets a larger share."""

    alpha: Share = 0.05
    """Chance of rejecting a candidate that is equal to the baseline, over the whole canary."""
    min_requests: Annotated[int, Meta(ge=1)] = 100
    """Requests that each side must have finished before anything passes."""
    watch: tuple[Watched, ...] = ("errors", "truncations", "ttft", "itl", "length")
    tolerances: Tolerances = Tolerances()
    judge: Annotated[str, Meta(max_length=128)] = ""
    """Whose scores `quality` compares; empty: the only judge that there is."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What one finished request shows of the version that answered it."""

    failed: bool
    """The replica is at fault; requests that were rejected or cancelled are no evidence of it."""
    truncated: bool = False
    """It ended before it was over: cut, or without an end mark."""
    ttft_s: float | None = None
    itl_s: float | None = None
    tokens: int | None = None
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
    judge: str = ""
    """Whose scores were compared; empty: nobody's."""
    judged_baseline: int = 0
    judged_candidate: int = 0
    """Answers with a score that was compared."""
    abstained: int = 0
    """Answers of either version of which the judge could not say."""


class Comparison:
    """Gathers requests of both sides and says what they show. Same requests, same answer."""

    def __init__(self, rules: CanaryRules) -> None:
        self._rules = rules
        tolerances = rules.tolerances
        makers: dict[Watched, Callable[[], Growing]] = {
            "errors": Happenings,
            "truncations": Happenings,
            "ttft": lambda: Times(tolerances.slower),
            "itl": lambda: Times(tolerances.slower),
            "length": lambda: Lengths(tolerances.longer),
            "quality": lambda: Scores(tolerances.worse),
        }
        self._growing = {watched: makers[watched]() for watched in rules.watch}
        self._waiting: dict[tuple[Watched, Arm], list[float]] = {
            (watched, arm): [] for watched in rules.watch for arm in _ARMS
        }
        """Values of the block that is not full yet."""
        self._sums = {(watched, arm): [0.0, 0] for watched in rules.watch for arm in _ARMS}
        self._compared = dict.fromkeys(self._waiting, 0)
        """Values in blocks that had both sides."""
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
            self._take(watched, arm, value, evidence.caller)

    def judged(self, arm: Arm, score: float, caller: str) -> None:
        """Take in a judge's score of one of the requests, in the order in which they are heard of.

        A judge that does not look at who answered deals scores out to blocks as chance does.
        """
        if "quality" in self._growing:
            self._take("quality", arm, score, caller)

    def _take(self, watched: Watched, arm: Arm, value: float, caller: str) -> None:
        total = self._sums[watched, arm]
        total[0] += value
        total[1] += 1
        if caller and watched in self._callers:
            self._callers[watched].add(arm, caller, value)
        self._waiting[watched, arm].append(value)
        baseline = self._waiting[watched, "baseline"]
        candidate = self._waiting[watched, "candidate"]
        if len(baseline) + len(candidate) < BLOCK:
            return
        if baseline and candidate:
            self._growing[watched].add(baseline.copy(), candidate.copy())
            self._compared[watched, "baseline"] += len(baseline)
            self._compared[watched, "candidate"] += len(candidate)
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
        if not any(self._compared.values()):
            # So few may pass that no block is full: they say nothing (promise D6).
            reason = "more requests are needed: too few were at the same time to be compared"
            return self._found("hold", reason, readings, 1)
        unjudged = {arm: self._rules.min_requests - self._judged(arm) for arm in _ARMS}
        short: Arm = "candidate" if unjudged["candidate"] > 0 else "baseline"
        if "quality" in self._growing and (more := unjudged[short]) > 0:
            whose = "the candidate" if short == "candidate" else "the live version"
            reason = f"scores of at least {more} more answers of {whose} are needed"
            return self._found("hold", reason, readings, more)
        return self._found("pass", "nothing speaks against the candidate", readings)

    def _judged(self, arm: Arm) -> int:
        return self._compared.get(("quality", arm), 0)

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
            judged_baseline=self._judged("baseline"),
            judged_candidate=self._judged("candidate"),
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
            return None  # it is judged later: `Comparison.judged`
