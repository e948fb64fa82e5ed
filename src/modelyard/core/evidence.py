"""Evidence that may be looked at after every request: e-processes, as small accumulators.

An e-process is wealth that starts at 1 and, while the null hypothesis holds, grows on no average:
whoever looks at it as often as they like finds it at 1/alpha or over with a probability of at most
alpha (Ville's inequality). That is what a rollout needs, which looks all the time and stops when it
has seen enough; a p-value that is looked at all the time finds something in the end.

The accumulators here take blocks of requests and bet on who of a block is which: that was drawn
by chance, so under the null every way to deal the block's values out to the two sides is as likely
as any other, whatever the load did meanwhile to both. Two of them pay the likelihood of what is
seen under a suspected difference over its likelihood under that null, exactly; the third stakes a
share of the wealth on the difference of two means, which under the null is nothing on average.

Sources: Ramdas, Grünwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid
inference", Statistical Science 2023; Turner, Ly, Grünwald, "Generic E-variables for exact
sequential k-sample tests that allow for optional stopping", JSPI 2024 (blocks); Fisher's noncentral
hypergeometric distribution (two proportions, given how often it happened at all); Mann, Whitney,
"On a test of whether one of two random variables is stochastically larger than the other", Annals
of Mathematical Statistics 1947 (the distribution of the number of pairs that are over);
Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

ODDS = (2.0, 5.0, 25.0)
"""By how much the candidate's odds are suspected to be over the baseline's."""
OVERS = (0.55, 0.65, 0.8, 0.95)
"""Shares of pairs in which the candidate's value is suspected to be over the baseline's."""
STAKES = (0.1, 0.3, 0.6, 0.95)
"""Shares of the largest stake that no block can lose all of."""


class TwoProportions:
    """Whether something happens more often to the candidate's requests than to the baseline's.

    Null hypothesis: given how often it happened in a block, it is as likely to have happened to any
    of its requests. Blocks in which it happened to nobody, or to all, say nothing and cost nothing.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(ODDS)

    @property
    def wealth(self) -> float:
        """The evidence; 1 is none."""
        return mean_of_logs(self._logs)

    def add(self, baseline: Sequence[bool], candidate: Sequence[bool]) -> None:
        """One block of concurrent requests, both sides non-empty: whether it happened to each."""
        a, b = len(baseline), len(candidate)
        _refuse_nothing(a, b)
        ours = sum(candidate)
        hits = sum(baseline) + ours
        if hits in (0, a + b):
            return
        for index, odds in enumerate(ODDS):
            self._logs[index] += ours * math.log(odds) - _log_mean_of_odds(odds, hits, a, b)


class Ranks:
    """Whether the candidate's values are over the baseline's (or under, with sides turned).

    Null hypothesis: in each block both are distributed alike, or the candidate's values are smaller
    (stochastically). The bet is on the number of pairs in which the candidate's is over, ties being
    half; nothing else is assumed about how the values are distributed. Ties only narrow the
    distribution of that number around its mean, so they make no evidence.
    """

    def __init__(self) -> None:
        self._logs = [0.0] * len(OVERS)

    @property
    def wealth(self) -> float:
        """The evidence; 1 is none."""
        return mean_of_logs(self._logs)

    def add(self, baseline: Sequence[float], candidate: Sequence[float]) -> None:
        """One block of concurrent requests, both sides non-empty: the value of each."""
        a, b = len(baseline), len(candidate)
        _refuse_nothing(a, b)
        over = 0.0
        for value in candidate:
            for other in baseline:
                over += (value > other) + 0.5 * (value == other)
        for index, share in enumerate(OVERS):
            tilt, log_mean = _bet_on_pairs(share, a, b)
            self._logs[index] += tilt * over - log_mean


class Means:
    """Whether the baseline's values, which lie in [0, 1], are over the candidate's on average.

    Null hypothesis: in each block the candidate's values fall short of the baseline's by `worse` at
    most, on average. Each block is a bet on the difference of both means: the stakes are fixed
    beforehand, and what is staked can't be lost whole, because the difference is bounded.
    """

    def __init__(self, worse: float = 0.0) -> None:
        self._worse = worse
        self._logs = [0.0] * len(STAKES)

    @property
    def wealth(self) -> float:
        """The evidence; 1 is none."""
        return mean_of_logs(self._logs)

    def add(self, baseline: Sequence[float], candidate: Sequence[float]) -> None:
        """One block of concurrent requests, both sides non-empty: the value of each."""
        _refuse_nothing(len(baseline), len(candidate))
        if not all(0 <= value <= 1 for value in (*baseline, *candidate)):
            raise ValueError("values from 0 to 1 are compared")
        short = sum(baseline) / len(baseline) - sum(candidate) / len(candidate) - self._worse
        for index, stake in enumerate(STAKES):
            self._logs[index] += math.log1p(stake / (1 + self._worse) * short)


def mean(wealths: Iterable[float]) -> float:
    """The evidence of several e-processes against one null hypothesis: their mean is one too."""
    found = tuple(wealths)
    return sum(found) / len(found)


def mean_of_logs(logs: Sequence[float]) -> float:
    """The mean of exp(logs); infinite where no float can hold it."""
    if max(logs) > 700:
        return math.inf
    return sum(map(math.exp, logs)) / len(logs)


@lru_cache(maxsize=4096)
def _log_mean_of_odds(odds: float, hits: int, a: int, b: int) -> float:
    """Log of the mean of odds^k, k being the candidate's part of the hits under the null."""
    ways = (
        math.comb(b, k) * math.comb(a, hits - k) * odds**k
        for k in range(max(0, hits - a), min(hits, b) + 1)
    )
    return math.log(sum(ways) / math.comb(a + b, hits))


@lru_cache(maxsize=4096)
def _bet_on_pairs(share: float, a: int, b: int) -> tuple[float, float]:
    """How much a bet on this share of pairs rises with each pair, as a log; and its mean's log.

    The number of pairs that are over has the Gaussian binomial as its generating function. The rise
    is what tilts the null's mean to the suspected one: exactly for a pair, nearly for more.
    """
    tilt = 3.0 * math.log(share / (1 - share)) / (a + b + 1)
    log_mean = -math.log(math.comb(a + b, b))
    for i in range(1, b + 1):
        log_mean += math.log(math.expm1(tilt * (a + i)) / math.expm1(tilt * i))
    return tilt, log_mean


def _refuse_nothing(a: int, b: int) -> None:
    if not a or not b:
        raise ValueError("a block compares something with something")
