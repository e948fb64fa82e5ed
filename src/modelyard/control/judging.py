"""What speaks for and against candidates: their smoke tests, and the requests they answered.

Everything is in memory and made again after a restart: tests are asked anew, comparisons are
rebuilt from the stored records.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from modelyard.control.gathering import Gathering
from modelyard.control.ledger import Ledger
from modelyard.control.smoke import Candidate, SmokeTester
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import ModelyardError
from modelyard.core.gateways import GatewayFacts
from modelyard.core.records import RequestRecord
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import Phase, Rollout
from modelyard.core.scores import Score, in_order
from modelyard.core.sights import Judged
from modelyard.core.smoke import SmokeResult
from modelyard.state.records import Records
from modelyard.state.scores import Scores

log = logging.getLogger(__name__)
_WATCHED = frozenset({Phase.STEPPING, Phase.SWITCHING, Phase.BAKING})
_HEARD_AT_MOST = 200_000
_HEARD_AGAIN_S = 60.0
"""A record that was stored is heard of within this time."""
ChatOf = Callable[[SlotSpec], bool]
"""Whether the version of a slot takes prompts as a user message."""


@dataclass
class Trial:
    """One rollout's candidate."""

    rollout: str
    tests: "asyncio.Task[list[SmokeResult]] | None" = None
    results: tuple[SmokeResult, ...] = ()
    passed: bool | None = None
    gathering: Gathering | None = None
    """What requests show; None: those of the past are still being read."""
    reading: "asyncio.Task[Gathering] | None" = None
    told: bool = False
    """That they can't be read now."""
    waiting: deque[RequestRecord] = field(default_factory=lambda: deque(maxlen=_HEARD_AT_MOST))
    """Heard of meanwhile."""
    scores: deque[Score] = field(default_factory=lambda: deque(maxlen=_HEARD_AT_MOST))
    """The same, of judges."""
    known: set[str] = field(default_factory=set)
    """Records that were read from the state, which may be heard of once more."""
    forget_at: float = 0.0
    """On the monotonic clock; when that can't happen any more."""
    ended: bool = False


class Judge:
    """Keeps a trial for each rollout that is under way."""

    def __init__(
        self, tester: SmokeTester, records: Records, scores: Scores, ledger: Ledger
    ) -> None:
        self._tester = tester
        self._records = records
        self._stored_scores = scores
        self._ledger = ledger
        self._trials: dict[str, Trial] = {}
        self._gateway = ""
        """URL of one that runs."""
        self._heard: deque[RequestRecord] = deque(maxlen=_HEARD_AT_MOST)
        self._scores: deque[Score] = deque(maxlen=_HEARD_AT_MOST)

    def hear(self, records: Sequence[RequestRecord]) -> None:
        """Take in what gateways reported, in any order; from any thread."""
        if self._trials:
            self._heard.extend(records)

    def hear_scores(self, scores: Sequence[Score]) -> None:
        """Take in what judges said, in any order; from any thread."""
        if self._trials:
            self._scores.extend(scores)

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
            finding=(trial.gathering and trial.gathering.finding) or rollout.finding,
        )

    def look(
        self,
        deployments: Sequence[Deployment],
        replicas: Sequence[Replica],
        gateways: Sequence[GatewayFacts],
        chat_of: ChatOf,
    ) -> None:
        """Begin what is to be begun, and take in what has come since the last time."""
        self._gateway = next((gateway.url for gateway in gateways if gateway.url), "")
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
                self._test(deployment, rollout, trial, replicas, chat_of)
            elif rollout.phase in _WATCHED and trial.gathering is None:
                self._gather(deployment, rollout, trial)
        heard = [self._heard.popleft() for _ in range(len(self._heard))]
        scores = [self._scores.popleft() for _ in range(len(self._scores))]
        for rollout_id, deployment in active.items():
            self._trials[rollout_id].scores.extend(in_order(scores))
            self._take(deployment, self._trials[rollout_id], heard)

    def close(self) -> None:
        """End what is under way; the next controller begins it anew."""
        for trial in self._trials.values():
            _end(trial)

    # --- smoke tests -----------------------------------------------------------------------------

    def _test(
        self,
        deployment: Deployment,
        rollout: Rollout,
        trial: Trial,
        replicas: Sequence[Replica],
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
                gateway=lambda: self._gateway,
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

    def _gather(self, deployment: Deployment, rollout: Rollout, trial: Trial) -> None:
        """Begin with the requests that were recorded before this look; there may be many."""
        if trial.reading is None:
            reading = asyncio.to_thread(self._read, deployment, rollout, trial)
            trial.reading = asyncio.create_task(reading)
            trial.reading.add_done_callback(lambda _: self._ledger.poke())
        if not trial.reading.done():
            return
        error = trial.reading.exception()
        if isinstance(error, ModelyardError):  # the state is away: what it holds is not lost
            if not trial.told:
                log.warning("the comparison of %s waits for its past: %s", rollout.id, error)
            trial.told, trial.reading = True, None
        elif error is not None:  # a defect of ours must not hold a candidate up for ever
            log.error("the comparison of %s begins without its past", rollout.id, exc_info=error)
            trial.gathering = Gathering(deployment, rollout)
        else:
            trial.gathering = trial.reading.result()
            trial.forget_at = time.monotonic() + _HEARD_AGAIN_S

    def _read(self, deployment: Deployment, rollout: Rollout, trial: Trial) -> Gathering:
        """In a thread of its own."""
        gathering = Gathering(deployment, rollout)
        since = next((e.at for e in rollout.history if e.phase in _WATCHED), rollout.started_at)
        trial.known = set()
        for record in self._records.since(deployment.name, since):
            if trial.ended:
                break
            trial.known.add(record.request_id)
            gathering.take(record, rollout)
        gathering.judge(in_order(self._stored_scores.since(deployment.name, since)), rollout)
        return gathering

    def _take(self, deployment: Deployment, trial: Trial, heard: list[RequestRecord]) -> None:
        rollout = deployment.rollout
        if rollout is None or rollout.phase not in _WATCHED:
            return
        trial.waiting.extend(record for record in heard if record.deployment == deployment.name)
        if trial.gathering is None:
            return
        fresh = [record for record in trial.waiting if record.request_id not in trial.known]
        trial.waiting.clear()
        trial.gathering.add(fresh, rollout)
        if trial.scores:
            trial.gathering.judge(list(trial.scores), rollout)
            trial.scores.clear()
        if trial.known and time.monotonic() > trial.forget_at:
            trial.known = set()


def _judged(trial: Trial) -> Judged:
    failed = [result for result in trial.results if not result.passed]
    gathering = trial.gathering
    return Judged(
        tests_passed=trial.passed,
        tests_told="; ".join(f"smoke test {result.test}: {result.told}" for result in failed),
        alarm="" if gathering is None else gathering.alarm,
        hold="the requests so far are being read" if gathering is None else gathering.hold,
    )


def _end(trial: Trial) -> None:
    trial.ended = True
    for task in (trial.tests, trial.reading):
        if task is not None:
            task.cancel()
