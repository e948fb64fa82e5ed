"""Three ways to judge the same canary: ours, a fixed threshold, and tests looked at each minute."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from benchmarks._canary_traffic import LASTS_S, Floats, Requests

from modelyard.core.canary import CanaryRules, Comparison, Evidence

ALPHA = 0.05
LOOK_S = 60.0
LEAST = 10
"""Requests of each version before the two usual rules look."""
MORE_ERRORS = 0.02
SLOWER = 1.25
Judge = Callable[[Requests], float | None]
"""When the rule would have rolled back, in seconds since the canary began; None: never."""


def ours(requests: Requests, look_s: float = 1.0) -> float | None:
    """`core/canary.py` with its defaults, looked at each second, as the controller does."""
    comparison = Comparison(CanaryRules(alpha=ALPHA))
    began = requests.began_s >= 0  # as `core/trials.py` has it
    next_look = look_s
    columns = (
        requests.finished_s, requests.candidate, requests.failed, requests.truncated,
        requests.ttft_s, requests.itl_s, requests.tokens, requests.caller,
    )  # fmt: skip
    for at, candidate, failed, truncated, ttft_s, itl_s, tokens, who in zip(
        *(column.tolist() for column in (each[began] for each in columns)), strict=True
    ):
        if at >= next_look:
            if comparison.alarmed:
                return float(next_look)
            next_look = look_s * (math.floor(at / look_s) + 1)
        caller = "" if who < 0 else str(who)
        if failed:
            evidence = Evidence(failed=True, caller=caller)
        else:
            evidence = Evidence(
                failed=False, truncated=truncated, ttft_s=ttft_s, itl_s=itl_s, tokens=int(tokens),
                caller=caller,
            )  # fmt: skip
        comparison.add("candidate" if candidate else "baseline", evidence)
    return LASTS_S if comparison.alarmed else None


def _each_minute(worse: Callable[[Requests], bool], requests: Requests) -> float | None:
    """When `worse` first says so of all requests until then."""
    for minute in range(1, int(LASTS_S / LOOK_S) + 1):
        seen = requests.until(minute * LOOK_S)
        count = int(seen.candidate.sum())
        if min(count, len(seen.candidate) - count) >= LEAST and worse(seen):
            return minute * LOOK_S
    return None


def _over_threshold(seen: Requests) -> bool:
    """More errors by 2 points, or a p95 of the first token over the baseline's by a quarter."""
    ours_, theirs = seen.candidate, ~seen.candidate
    if seen.failed[ours_].mean() > seen.failed[theirs].mean() + MORE_ERRORS:
        return True
    fine = ~seen.failed
    slow, usual = (np.quantile(seen.ttft_s[arm & fine], 0.95) for arm in (ours_, theirs))
    return bool(slow > SLOWER * usual)


def _significant(seen: Requests) -> bool:
    """p < 0.05, one-sided: Mann-Whitney on the first token, two proportions on errors."""
    ours_, theirs = seen.candidate, ~seen.candidate
    fine = ~seen.failed
    if mann_whitney_p(seen.ttft_s[ours_ & fine], seen.ttft_s[theirs & fine]) < ALPHA:
        return True
    hits = (int(seen.failed[ours_].sum()), int(seen.failed[theirs].sum()))
    return two_proportions_p(*hits, int(ours_.sum()), int(theirs.sum())) < ALPHA


def mann_whitney_p(values: Floats, others: Floats) -> float:
    """Chance of values so much over the others; normal approximation, no ties."""
    a, b = len(values), len(others)
    if not a or not b:
        return 1.0
    over = np.searchsorted(np.sort(others), values).sum()
    deviation = math.sqrt(a * b * (a + b + 1) / 12)
    return _above((over - a * b / 2 - 0.5) / deviation)


def two_proportions_p(hits: int, other_hits: int, count: int, other_count: int) -> float:
    """Chance of a proportion so much over the other's; pooled, normal approximation."""
    pooled = (hits + other_hits) / (count + other_count)
    variance = pooled * (1 - pooled) * (1 / count + 1 / other_count)
    if variance == 0:
        return 1.0
    return _above((hits / count - other_hits / other_count) / math.sqrt(variance))


def _above(z: float) -> float:
    return 0.5 * math.erfc(z / math.sqrt(2))


RULES: dict[str, Judge] = {
    "ours": ours,
    "threshold": partial(_each_minute, _over_threshold),
    "tests each minute": partial(_each_minute, _significant),
}


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion: bounds at which so many, or so few, are as rare as stated."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else _root(lambda p: 1 - _at_most(hits - 1, count, p), tail)
    high = 1.0 if hits == count else _root(lambda p: -_at_most(hits, count, p), -tail)
    return low, high


def _root(rising: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if rising(middle) < value:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _at_most(hits: int, count: int, p: float) -> float:
    """Chance of `hits` or fewer of `count`."""
    if p <= 0:
        return 1.0
    if p >= 1:
        return float(hits >= count)
    k = np.arange(hits + 1)
    logs = [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k]
    return float(np.exp(np.array(logs) + k * math.log(p) + (count - k) * math.log1p(-p)).sum())
