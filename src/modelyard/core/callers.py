"""Whether two versions differ, or only the callers that each of them has.

A caller stays with one version while shares change. So what is dealt out by chance is callers, not
requests: one who writes long prompts makes each of a hundred requests slow, and a comparison that
takes them for a hundred draws finds an equal version slow. Of callers themselves each is one draw.

The test: Mann, Whitney, "On a test of whether one of two random variables is stochastically larger
than the other", Annals of Mathematical Statistics 1947, by its normal approximation with ties.
"""

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from typing import Literal

Arm = Literal["baseline", "candidate"]
MOST = 10_000
"""Callers of each version that are remembered; of more, the first."""


class Callers:
    """The mean of one watched value for each caller of each version."""

    def __init__(self) -> None:
        self._sums: dict[Arm, dict[str, tuple[float, int]]] = {"baseline": {}, "candidate": {}}

    def add(self, arm: Arm, caller: str, value: float) -> None:
        """Take in one request."""
        sums = self._sums[arm]
        known = sums.get(caller)
        if known is not None:
            sums[caller] = (known[0] + value, known[1] + 1)
        elif len(sums) < MOST:
            sums[caller] = (value, 1)

    def means(self, arm: Arm) -> list[float]:
        """One value for each caller of a version."""
        return [total / count for total, count in self._sums[arm].values()]


def chance_of_over(values: Sequence[float], others: Sequence[float]) -> float:
    """How often values that are dealt out by chance would be so much over the others; 1 of none."""
    a, b = len(values), len(others)
    if not a or not b:
        return 1.0
    ordered = sorted(others)
    over = sum((bisect_left(ordered, x) + bisect_right(ordered, x)) / 2 for x in values)
    ties = sum(n**3 - n for n in Counter((*values, *others)).values())
    count = a + b
    variance = a * b / 12 * (count + 1 - ties / (count * (count - 1)))
    if variance <= 0:
        return 1.0
    chance = 0.5 * math.erfc((over - a * b / 2 - 0.5) / math.sqrt(2 * variance))
    # One deal of all that there are: with few values, or many ties, the approximation goes under.
    log_deals = math.lgamma(count + 1) - math.lgamma(a + 1) - math.lgamma(b + 1)
    return max(chance, math.exp(-log_deals))
