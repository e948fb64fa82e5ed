"""What grows while a candidate is compared: evidence on one watched thing each."""

from bisect import bisect_left, insort
from collections import deque
from typing import Protocol

from modelyard.core.evidence import Means, Ranks, TwoProportions, mean

TAILS = (0.95, 0.99)
_TAIL_AFTER = 40
"""Baseline values before the tails are compared."""
_KEPT = 400
"""Baseline values that the tails' thresholds are read from."""


class Growing(Protocol):
    """Evidence on one watched thing."""

    @property
    def wealth(self) -> float: ...

    def add(self, baseline: list[float], candidate: list[float]) -> None: ...


class Tails:
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


class Times:
    """Evidence on a duration: its middle and its slow end."""

    def __init__(self, slower: float) -> None:
        self._allowed = 1 + slower
        self._middle = Ranks()
        self._tails = Tails()

    @property
    def wealth(self) -> float:
        return mean((self._middle.wealth, self._tails.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        allowed = [each * self._allowed for each in baseline]
        self._middle.add(allowed, candidate)
        self._tails.add(allowed, candidate)


class Lengths:
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


class Scores:
    """Evidence on quality: that the candidate's scores, 0 to 1, are under the baseline's.

    Ranks find a small shift of fine scores; means find it where most scores are alike, as with a
    judge that knows five marks.
    """

    def __init__(self, worse: float) -> None:
        self._worse = worse
        self._under = Ranks()
        self._means = Means(worse)

    @property
    def wealth(self) -> float:
        return mean((self._under.wealth, self._means.wealth))

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._under.add([each + self._worse for each in candidate], baseline)
        self._means.add(baseline, candidate)


class Happenings:
    """Evidence on something that happens to a request or does not."""

    def __init__(self) -> None:
        self._more = TwoProportions()

    @property
    def wealth(self) -> float:
        return self._more.wealth

    def add(self, baseline: list[float], candidate: list[float]) -> None:
        self._more.add([value > 0 for value in baseline], [value > 0 for value in candidate])
