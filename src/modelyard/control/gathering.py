"""What requests show of a rollout's candidate, in the order in which they are heard of."""

from collections.abc import Iterable, Sequence

from modelyard.core.canary import Comparison, Finding
from modelyard.core.deployments import Deployment
from modelyard.core.levels import LevelCheck
from modelyard.core.records import RequestRecord
from modelyard.core.rollout import Phase, Rollout, compared_steps
from modelyard.core.routes import Slot
from modelyard.core.scores import Score
from modelyard.core.scoring import Scored, Scoring
from modelyard.core.trials import Side, arm_of, evidence_of, within_step


class Gathering:
    """The comparison and the service levels of one rollout. Same requests, same verdict."""

    def __init__(self, deployment: Deployment, rollout: Rollout) -> None:
        self._deployment = deployment.name
        self._candidate = _side(deployment, rollout.candidate)
        self._baseline = _side(deployment, rollout.before)
        self._comparison = Comparison(rollout.plan.canary)
        rules = rollout.plan.canary
        self._scoring = Scoring(rules.judge) if "quality" in rules.watch else None
        self._levels = LevelCheck(rollout.plan.levels)
        self._needs = rollout.plan.canary.min_requests
        self._step = -1
        self._in_step = 0
        """Requests of the candidate since this step began."""
        self.finding: Finding | None = None
        """None where nothing is compared."""

    def add(self, records: Sequence[RequestRecord], rollout: Rollout) -> None:
        """Take in what came while the rollout is in one of its phases with requests."""
        for record in records:
            self.take(record, rollout)
        self._begin_step(rollout)
        if rollout.phase is Phase.STEPPING:
            self._find(rollout)

    def judge(self, scores: Sequence[Score], rollout: Rollout) -> None:
        """Take in what judges said, in the order in which it was taken; it comes late, and what it
        says of a step still counts while the candidate bakes."""
        if self._scoring is None or not scores:
            return
        for score in scores:
            self._score(self._scoring.score(score))
        self._find(rollout)

    def _find(self, rollout: Rollout) -> None:
        if not compared_steps(rollout):
            return
        found = self._comparison.finding()
        self.finding = found if self._scoring is None else self._scoring.told(found)

    def _score(self, scored: Iterable[Scored]) -> None:
        for each in scored:
            self._comparison.judged(each.arm, each.score, each.caller)

    def take(self, record: RequestRecord, rollout: Rollout) -> None:
        """Take in one; `add` says what all of them show."""
        self._begin_step(rollout)
        if record.deployment != self._deployment or self._candidate is None:
            return
        arm = arm_of(record, self._baseline, self._candidate)
        if arm is None:
            return
        evidence = evidence_of(record)
        if arm == "candidate":
            self._levels.add(evidence)
            self._in_step += record.received_at >= rollout.entered_at
        if within_step(record, rollout.history):
            self._comparison.add(arm, evidence)
            if self._scoring is not None:
                self._score(self._scoring.request(record.request_id, arm, evidence.caller))

    def _begin_step(self, rollout: Rollout) -> None:
        if self._step != rollout.step:
            self._step, self._in_step = rollout.step, 0

    @property
    def alarm(self) -> str:
        """What speaks against the candidate; empty when nothing does."""
        found = self.finding
        return self._levels.alarm or (
            found.reason if found is not None and found.verdict == "alarm" else ""
        )

    @property
    def hold(self) -> str:
        """Why a step that has had its time can't end yet; empty when it can."""
        if self.finding is None:
            return "the comparison has not begun"
        if self.finding.verdict == "hold":
            return self.finding.reason
        missing = self._needs - self._in_step
        return (
            f"{missing} more requests of the candidate are needed in this step"
            if missing > 0
            else ""
        )


def _side(deployment: Deployment, slot: Slot | None) -> Side | None:
    spec = None if slot is None else deployment.slot(slot)
    return None if slot is None or spec is None else Side(slot, spec.digest)
