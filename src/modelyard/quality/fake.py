"""A judge that reads nothing: its scores are drawn from the request's id and the version's digest.

The same request gets the same score at any time, so a test can foretell it. Each version has a
mean that is told beforehand; a share of the answers is abstained from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from modelyard.core.scores import Score

_NAME = "fake/none/1"
_OF_HASH = float(2**64)


@dataclass(frozen=True, kw_only=True)
class FakeJudge:
    """Scores by version."""

    means: Mapping[str, float] = field(default_factory=dict)
    """Digest, or how it begins → mean of its scores, 0 to 1."""
    mean: float = 0.8
    """Of every other version."""
    spread: float = 0.3
    """Between the highest and the lowest score of a version, where the mean leaves the room."""
    abstains: float = 0.0
    """Share of the answers that it does not score."""
    name: str = _NAME

    def score(self, request_id: str, digest: str) -> Score:
        """What it says of an answer of this version."""
        if _draw("abstain", request_id, digest) < self.abstains:
            return Score(
                request_id=request_id, judge=self.name, score=None, reason="drawn to abstain"
            )
        mean = self._mean_of(digest)
        half = min(self.spread / 2, mean, 1 - mean)
        score = mean + half * (2 * _draw("score", request_id, digest) - 1)
        return Score(request_id=request_id, judge=self.name, score=min(max(score, 0.0), 1.0))

    def _mean_of(self, digest: str) -> float:
        known = [begin for begin in self.means if digest.startswith(begin)]
        return self.means[max(known, key=len)] if known else self.mean


def _draw(what: str, request_id: str, digest: str) -> float:
    """In [0, 1)."""
    text = "\0".join((what, request_id, digest)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") / _OF_HASH
