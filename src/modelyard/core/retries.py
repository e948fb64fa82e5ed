"""Whether a failed attempt is followed by another. Pure: time and random draws are arguments."""

from collections import deque

import msgspec

from modelyard.core.records import AttemptOutcome
from modelyard.core.routes import Retries

BUDGET_WINDOW_S = 10.0
RETRIED: frozenset[AttemptOutcome] = frozenset({"unreachable", "error_status", "busy", "cut"})
"""A replica that was too slow is not retried elsewhere: the next would be asked for double work."""


class RetryBudget:
    """Requests and retries of the last 10 s, in ten buckets (promise G8)."""

    def __init__(self) -> None:
        self._buckets: deque[tuple[int, int, int]] = deque()

    def request(self, now: float) -> None:
        """Count a request; `now` in seconds, never going backwards."""
        self._add(now, requests=1, retries=0)

    def retry(self, now: float) -> None:
        """Count a retry."""
        self._add(now, requests=0, retries=1)

    def allows(self, policy: Retries, now: float) -> bool:
        """Whether one more retry stays within the ratio, or under the floor."""
        self._expire(now)
        requests = sum(bucket[1] for bucket in self._buckets)
        retries = sum(bucket[2] for bucket in self._buckets)
        floor = policy.budget_floor_per_s * BUDGET_WINDOW_S
        return retries + 1 <= max(policy.budget_ratio * requests, floor)

    def _add(self, now: float, *, requests: int, retries: int) -> None:
        self._expire(now)
        second = int(now)
        if self._buckets and self._buckets[-1][0] == second:
            _, before, again = self._buckets.pop()
            self._buckets.append((second, before + requests, again + retries))
        else:
            self._buckets.append((second, requests, retries))

    def _expire(self, now: float) -> None:
        while self._buckets and self._buckets[0][0] <= now - BUDGET_WINDOW_S:
            self._buckets.popleft()


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that did not reach its first byte, as the retry decision sees it."""

    outcome: AttemptOutcome
    attempt: int
    """1 for the first."""
    untried: int
    """Replicas that were not tried yet."""
    left_s: float
    """Seconds until the request's deadline."""


def decide(failure: Failure, policy: Retries, *, budget_allows: bool, draw: float) -> float | None:
    """Seconds to wait before the next attempt, or None for no further one.

    Full jitter over an exponential: Brooker, "Exponential Backoff and Jitter", AWS, 2015.
    """
    if failure.outcome not in RETRIED or failure.untried == 0 or not budget_allows:
        return None
    if failure.attempt >= policy.max_attempts:
        return None
    ceiling = min(policy.backoff_max_s, policy.backoff_base_s * 2 ** (failure.attempt - 1))
    delay = draw * ceiling
    return delay if delay < failure.left_s else None
