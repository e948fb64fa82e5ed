"""Which score counts for which request of a comparison, however late and in whatever order."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from modelyard.core.callers import Arm
from modelyard.core.canary import Finding
from modelyard.core.scores import Score

MOST_REQUESTS = 200_000
"""Requests that scores are waited for; of more, the oldest are given up."""
MOST_EARLY = 20_000
"""Scores of requests that were not heard of yet."""


class Scored(NamedTuple):
    """A score with the side of the comparison that it speaks of."""

    arm: Arm
    score: float
    caller: str


class Scoring:
    """The scores of one judge: the one that is named, else the only one that there is."""

    def __init__(self, judge: str = "") -> None:
        self._named = judge
        self.judges: list[str] = [judge] if judge else []
        """Those whose scores could be compared; the first one's are."""
        self.abstained = 0
        self._requests: dict[str, tuple[Arm, str]] = {}
        self._judged: dict[str, None] = {}
        """Requests that the judge has said something of."""
        self._early: dict[str, list[Score]] = {}
        self._early_count = 0

    def request(self, request_id: str, arm: Arm, caller: str) -> Iterator[Scored]:
        """Know a request that is compared; gives the scores that were there before it."""
        self._requests[request_id] = (arm, caller)
        _bound(self._requests, MOST_REQUESTS)
        for score in self._early.pop(request_id, ()):
            self._early_count -= 1
            yield from self.score(score)

    def score(self, score: Score) -> Iterator[Scored]:
        """Take in one score; gives it back when it counts."""
        if self._named and score.judge != self._named:
            return
        known = self._requests.get(score.request_id)
        if known is None:
            self._keep(score)
            return
        if score.judge not in self.judges:
            self.judges.append(score.judge)
        if score.judge != self.judges[0] or score.request_id in self._judged:
            return
        self._judged[score.request_id] = None
        _bound(self._judged, MOST_REQUESTS)
        if score.score is None:
            self.abstained += 1
        else:
            yield Scored(known[0], score.score, known[1])

    def told(self, finding: Finding) -> Finding:
        """The finding with whose scores it was made of. Where several judge and none is named,
        nothing passes: which of them is right is not ours to choose."""
        judge = self.judges[0] if self.judges else ""
        known = msgspec.structs.replace(finding, judge=judge, abstained=self.abstained)
        if finding.verdict == "alarm":
            return known
        if len(self.judges) > 1:
            names = ", ".join(sorted(self.judges))
            reason = (
                f"several judges score the answers ({names}): abort, and deploy again with one of "
                "them in canary.judge"
            )
            return msgspec.structs.replace(known, verdict="hold", reason=reason)
        if finding.verdict == "hold" and self.abstained:
            reason = f"{finding.reason} ({judge} could not say of {self.abstained})"
            return msgspec.structs.replace(known, reason=reason)
        return known

    def _keep(self, score: Score) -> None:
        self._early.setdefault(score.request_id, []).append(score)
        self._early_count += 1
        while self._early_count > MOST_EARLY:
            oldest = next(iter(self._early))
            self._early_count -= len(self._early.pop(oldest))


def _bound(known: dict[str, tuple[Arm, str]] | dict[str, None], most: int) -> None:
    while len(known) > most:
        del known[next(iter(known))]
