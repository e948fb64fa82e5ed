"""What speaks for and against candidates: their smoke tests, and the requests they answered.

Everything is in memory and made again after a restart: tests are asked anew, comparisons are
rebuilt from the stored records.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from modelyard.control.ledger import Ledger
from modelyard.control.smoke import Candidate, SmokeTester
from modelyard.core.canary import Comparison, Finding
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import ModelyardError
from modelyard.core.gateways import GatewayFacts
from modelyard.core.levels import LevelCheck
from modelyard.core.records import RequestRecord
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase, Rollout
from modelyard.core.sights import Judged
from modelyard.core.smoke import SmokeResult
from modelyard.core.trials import Side, arm_of, evidence_of, within_step
from modelyard.state.records import Records

log = logging.getLogger(__name__)
_WATCHED = frozenset({Phase.STEPPING, Phase.SWITCHING, Phase.BAKING})
_HEARD_AT_MOST = 200_000
ChatOf = Callable[[SlotSpec], bool]
"""Whether the version of a slot takes prompts as a user message."""


@dataclass
class Trial:
    """One rollout's candidate."""

    rollout: str
    tests: "asyncio.Task[list[SmokeResult]] | None" = None
    results: tuple[SmokeResult, ...] = ()
    passed: bool | None = None
    comparison: Comparison | None = None
    finding: Finding | None = None
    levels: LevelCheck | None = None
    step: int = -1
    step_requests: int = 0
    """Of the candidate, since this step began."""
    step_needs: int = 0
    known: set[str] = field(default_factory=set)
    """Records that were read from the state, which may be heard of once more."""


class Judge:
    """Keeps a trial for each rollout that is under way."""

    def __init__(self, tester: SmokeTester, records: Records, ledger: Ledger) -> None:
        self._tester = tester
        self._records = records
        self._ledger = ledger
        self._trials: dict[str, Trial] = {}
        self._heard: deque[RequestRecord] = deque(maxlen=_HEARD_AT_MOST)

    def hear(self, records: Sequence[RequestRecord]) -> None:
        """Take in what gateways reported, in any order; from any thread."""
        if self._trials:
            self._heard.extend(records)

    @property
    def judged(self) -> Mapping[str, Judged]:
        """What is known by now, by rollout id."""
        return {rollout: _judged(trial) for rollout, trial in self._trials.items()}

    def told(self, rollout: Rollout) -> Rollout:
        """The rollout with what was found so far."""
        trial = self._trials.get(rollout.id)
        if trial is None:
            return rollout
        return msgspec.structs.replace(
            rollout,
            smoke=trial.results or rollout.smoke,
            finding=trial.finding or rollout.finding,
        )

    async def look(
        self,
        deployments: Sequence[Deployment],
        replicas: Sequence[Replica],
        gateways: Sequence[GatewayFacts],
        chat_of: ChatOf,
    ) -> None:
        """Begin what is to be begun, and take in what has come since the last time."""
        active = {
            d.rollout.id: d for d in deployments if d.rollout is not None and not d.rollout.over
        }
        for gone in self._trials.keys() - active.keys():
            _end(self._trials.pop(gone))
        for rollout_id, deployment in active.items():
            rollout, trial = deployment.rollout, self._trials.get(rollout_id)
            if rollout is None:
                continue
            if trial is None:
                trial = self._trials[rollout_id] = Trial(rollout_id)
            if rollout.phase is Phase.TESTING:
                self._test(deployment, rollout, trial, replicas, gateways, chat_of)
            elif rollout.phase in _WATCHED and trial.comparison is None:
                await self._backfill(deployment, rollout, trial)
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        for rollout_id, deployment in active.items():
            self._take(deployment, self._trials[rollout_id], heard)

    # --- smoke tests -----------------------------------------------------------------------------

    def _test(
        self,
        deployment: Deployment,
        rollout: Rollout,
        trial: Trial,
        replicas: Sequence[Replica],
        gateways: Sequence[GatewayFacts],
        chat_of: ChatOf,
    ) -> None:
        spec = deployment.slot(rollout.candidate)
        if trial.passed is not None or spec is None:
            return
        if not rollout.plan.smoke:
            trial.passed = True
            return
        if trial.tests is None:
            ready = [
                r
                for r in replicas
                if r.deployment == deployment.name
                and r.generation == spec.generation
                and r.state is ReplicaState.READY
            ]
            if not ready:
                return
            candidate = Candidate(
                gateway=next((g.url for g in gateways if g.url), ""),
                replica=ready[0].url,
                model=deployment.name,
                slot=rollout.candidate,
                version=spec.version,
                chat=chat_of(spec),
            )
            trial.tests = asyncio.create_task(self._tester.run(candidate, rollout.plan.smoke))
            trial.tests.add_done_callback(lambda _: self._ledger.poke())
            return
        if trial.tests.done():
            self._tested(deployment, rollout, trial)

    def _tested(self, deployment: Deployment, rollout: Rollout, trial: Trial) -> None:
        if trial.tests is None:
            return
        error = trial.tests.exception()
        if error is not None:  # a defect of ours must not let a candidate pass
            log.error("the smoke tests of %s could not be asked", rollout.id, exc_info=error)
            trial.passed = False
            trial.results = (
                SmokeResult(test="all", passed=False, told=f"could not be asked: {error}",
                            answer=""),
            )  # fmt: skip
            return
        trial.results = tuple(trial.tests.result())
        trial.passed = all(result.passed for result in trial.results)
        for result in trial.results:
            verdict = "passed" if result.passed else "failed"
            self._ledger.tell(f"smoke.{verdict}", deployment.name, f"{result.test}: {result.told}")

    # --- requests --------------------------------------------------------------------------------

    async def _backfill(self, deployment: Deployment, rollout: Rollout, trial: Trial) -> None:
        """Begin the comparison, with the requests that were recorded before this look."""
        trial.comparison = Comparison(rollout.plan.canary)
        trial.levels = LevelCheck(rollout.plan.levels)
        since = next((e.at for e in rollout.history if e.phase in _WATCHED), rollout.started_at)
        try:
            stored = await asyncio.to_thread(self._records.since, deployment.name, since)
        except ModelyardError as error:
            log.warning("the comparison of %s begins without the past: %s", rollout.id, error)
            return
        trial.known = {record.request_id for record in stored}
        self._add(deployment, rollout, trial, stored)

    def _take(self, deployment: Deployment, trial: Trial, heard: list[RequestRecord]) -> None:
        rollout = deployment.rollout
        if rollout is None or trial.comparison is None or rollout.phase not in _WATCHED:
            return
        if trial.step != rollout.step:
            trial.step, trial.step_requests = rollout.step, 0
            trial.step_needs = rollout.plan.canary.min_requests
        fresh = [r for r in heard if r.request_id not in trial.known]
        self._add(deployment, rollout, trial, fresh)

    def _add(
        self,
        deployment: Deployment,
        rollout: Rollout,
        trial: Trial,
        records: Sequence[RequestRecord],
    ) -> None:
        spec = deployment.slot(rollout.candidate)
        before = None if rollout.before is None else deployment.slot(rollout.before)
        if spec is None or trial.comparison is None or trial.levels is None:
            return
        candidate = Side(rollout.candidate, spec.digest)
        baseline = None
        if rollout.before is not None and before is not None:
            baseline = Side(rollout.before, before.digest)
        for record in records:
            if record.deployment != deployment.name:
                continue
            arm = arm_of(record, baseline, candidate)
            if arm is None:
                continue
            evidence = evidence_of(record)
            if arm == "candidate":
                trial.levels.add(evidence)
                trial.step_requests += record.received_at >= rollout.entered_at
            if rollout.phase is Phase.STEPPING and within_step(record, rollout.history):
                trial.comparison.add(arm, evidence)
        trial.finding = trial.comparison.finding()


def _judged(trial: Trial) -> Judged:
    finding = trial.finding
    failed = [result for result in trial.results if not result.passed]
    alarm = "" if trial.levels is None else trial.levels.alarm
    hold = "the comparison has not begun"
    if finding is not None:
        alarm = alarm or (finding.reason if finding.verdict == "alarm" else "")
        hold = finding.reason if finding.verdict == "hold" else ""
        missing = trial.step_needs - trial.step_requests
        if not hold and missing > 0:
            hold = f"{missing} more requests of the candidate are needed in this step"
    return Judged(
        tests_passed=trial.passed,
        tests_told="; ".join(f"smoke test {result.test}: {result.told}" for result in failed),
        alarm=alarm,
        hold=hold,
    )


def _end(trial: Trial) -> None:
    if trial.tests is not None:
        trial.tests.cancel()
