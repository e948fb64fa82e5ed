"""Evidence that may be looked at after every request: e-processes, as small accumulators.

An e-process is wealth that starts at 1 and, while the null hypothesis holds, grows on no average:
whoever looks at it as often as they like finds it at 1/alpha or over with a probability of at most
alpha (Ville's inequality). That is what a rollout needs, which looks all the time and stops when it
has seen enough; a p-value that is looked at all the time finds something in the end.

Sources: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 2023; Turner, Ly, Grünwald, "Generic E-variables for exact
sequential k-sample tests that allow for optional stopping", JSPI 2024 (two proportions);
Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS-B 2024.
"""

import math
from collections.abc import Iterable, Sequence

STAKES = (0.1, 0.3, 0.6)
"""Shares of the wealth that are bet on each comparison; the mean of their wealths is kept."""
RISES = (0.01, 0.03, 0.1, 0.3)
"""By how much the candidate's proportion is suspected to be over the baseline's."""
_PRIOR_EVENTS = 0.5
_PRIOR_COUNT = 20.0
_LEAST = 1e-4


class TwoProportions:
    """Whether something happens more often to the candidate's requests than to the baseline's.

    Null hypothesis: in each block both have the same probability. For a block of a baseline and b
    candidate requests, bets on (p, q) pay the likelihood under (p, q) over that under the mixture
    (a·p + b·q) / (a + b) for all: an e-variable whatever the common probability is (Turner et al.,
    theorem 1). p is estimated from the blocks before, q is p and a suspected rise.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(RISES)
        self._events = _PRIOR_EVENTS
        self._count = _PRIOR_COUNT

    @property
    def wealth(self) -> float:
        """The evidence; 1 is none."""
        return mean_of_logs(self._logs)

    def add(self, baseline: Sequence[bool], candidate: Sequence[bool]) -> None:
        """One block of concurrent requests, both sides non-empty: whether it happened to each."""
        a, b = len(baseline), len(candidate)
        if not a or not b:
            raise ValueError("a block compares something with something")
        hit_a, hit_b = sum(baseline), sum(candidate)
        p = min(max(self._events / self._count, _LEAST), 1 - _LEAST)
        for index, rise in enumerate(RISES):
            q = min(p + rise, 1 - _LEAST)
            if q <= p:
                continue
            both = (a * p + b * q) / (a + b)
            self._logs[index] += hit_a * math.log(p / both)
            self._logs[index] += (a - hit_a) * math.log((1 - p) / (1 - both))
            self._logs[index] += hit_b * math.log(q / both)
            self._logs[index] += (b - hit_b) * math.log((1 - q) / (1 - both))
        self._events += hit_a
        self._count += a


class Signs:
    """Whether the candidate's values tend to be over the baseline's (or under, with signs turned).

    Null hypothesis: a candidate's value is over a concurrent baseline's at most every other time.
    Each comparison pays 1 + stake·(2z - 1), z in [0, 1] being the share of a block's pairs in which
    the candidate's is over: of a mean of 1 at most under the null, so a product of them is an
    e-process. Nothing is assumed about how the values are distributed.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(STAKES)

    @property
    def wealth(self) -> float:
        """The evidence; 1 is none."""
        return mean_of_logs(self._logs)

    def add(self, over: float) -> None:
        """One comparison: the share, 0 to 1, that was over; ties count half."""
        if not 0 <= over <= 1:
            raise ValueError(f"{over} is no share")
        for index, stake in enumerate(STAKES):
            self._logs[index] += math.log1p(stake * (2 * over - 1))


def mean(wealths: Iterable[float]) -> float:
    """The evidence of several e-processes against one null hypothesis: their mean is one too."""
    found = tuple(wealths)
    return sum(found) / len(found)


def mean_of_logs(logs: Sequence[float]) -> float:
    """The mean of exp(logs); infinite where no float can hold it."""
    most = max(logs)
    if most > 700:
        return math.inf
    return sum(math.exp(each) for each in logs) / len(logs)
