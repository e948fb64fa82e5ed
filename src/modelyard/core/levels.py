"""Whether a candidate keeps the service levels that its plan names, on its latest requests."""

from collections import deque

from modelyard.core.canary import Evidence
from modelyard.core.rollout import Levels

WINDOW = 500
"""Latest requests that are looked at."""


class LevelCheck:
    """The latest requests of one candidate."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._failed: deque[bool] = deque(maxlen=WINDOW)
        self._ttft_s: deque[float] = deque(maxlen=WINDOW)

    def add(self, evidence: Evidence) -> None:
        """Take in one finished request."""
        self._failed.append(evidence.failed)
        if evidence.ttft_s is not None:
            self._ttft_s.append(evidence.ttft_s)

    @property
    def alarm(self) -> str:
        """Which level is not kept, with the numbers; empty while all are, or too few came."""
        levels = self._levels
        count = len(self._failed)
        if levels.max_error_ratio is not None and count >= levels.min_requests:
            ratio = sum(self._failed) / count
            if ratio > levels.max_error_ratio:
                told = f"{ratio:.1%} of its last {count} requests failed"
                return f"{told}, {levels.max_error_ratio:.1%} are allowed"
        if levels.ttft_p95_s is not None and len(self._ttft_s) >= levels.min_requests:
            ordered = sorted(self._ttft_s)
            p95 = ordered[int(0.95 * (len(ordered) - 1))]
            if p95 > levels.ttft_p95_s:
                told = f"the first token comes after {p95:.3f} s at the 95th percentile"
                return f"{told}, {levels.ttft_p95_s:g} s are allowed"
        return ""
