"""Proof: whatever breaks during a rollout, one version serves and nobody notices (D3, D4, D9, D12).

A controller, two gateways, fake engines and the load of the proof `deploy`. In turns the controller
is killed at a random moment of a rollout; a candidate never becomes ready; it is killed while it
loads, crashes in its smoke test, is killed while it bakes; a gateway is ended or killed in
mid-drain. Afterwards there is one live slot with one replica, no other worker, the replica that
served is the same process as before or gave way to the candidate, and no request was lost: except
those on a gateway that was itself ended, and what a killed replica had begun to answer.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak._load import Asked, Load, quantile
from tests.soak._proof import Proof, parse, say
from tests.soak._yard import FINGERPRINTS, NAME, Yard, until

from modelyard.api.messages import RolloutView
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import OVER, Phase

RESUMED_WITHIN_S = 10.0
WHOLE_S = 3.0
"""What a rollout takes, about: moments are drawn from it."""
CRASH = {"name": "crash", "prompt": "Count [[fake: crash]]", "regex": "^t0:"}
BAKES_LONG = {"bake_s": 3.0}
SAID_EVERY = 20


@dataclass
class Excuse:
    """Requests that may be lost: of a gateway that was ended, or of a replica that was killed."""

    begin: float
    end: float
    gateway: str = ""
    version: str = ""
    begun_answers_too: bool = True
    """Those that were connected; else only those that found nobody to connect to."""

    def covers(self, asked: Asked) -> bool:
        """Whether this lost request was to be expected."""
        if asked.ended < self.begin or asked.began > self.end:
            return False
        if self.gateway:
            return asked.gateway == self.gateway and (self.begun_answers_too or not asked.connected)
        return asked.version == self.version and asked.begun


@dataclass
class Trouble:
    """The yard under trial, and what went wrong in it."""

    yard: Yard
    draws: random.Random
    version: int = 1
    """The live one."""
    excuses: list[Excuse] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    started_s: list[float] = field(default_factory=list)
    """From the start of a controller's process until it answers: the machine's part, mostly."""
    resumed_s: list[float] = field(default_factory=list)
    """From then until the rollout was over."""
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def other(self) -> int:
        """The version to switch to."""
        return 3 - self.version

    def until_phase(self, rollout: str, *phases: Phase) -> None:
        """Wait until it is in one of them, or over."""
        wanted = {*phases, *OVER}
        until(lambda: self.yard.client.rollout(rollout).phase in wanted, f"{rollout}: {phases}")

    def candidate(self, wait: bool = True) -> int | None:
        """Process id of the candidate's worker, as soon as it has one."""
        found: list[int] = []

        def known() -> bool:
            found.extend(
                each.pid for each in self.yard.replicas() if each.version == self.other and each.pid
            )
            return bool(found) or not wait

        until(known, "the candidate has a process")
        return found[0] if found else None


def controller_killed(trouble: Trouble) -> RolloutView:
    """At a random moment; started again at once or a little later."""
    yard, draws = trouble.yard, trouble.draws
    rollout = yard.deploy(trouble.other)
    time.sleep(draws.uniform(0, WHOLE_S))
    yard.controller.end(signal.SIGKILL)
    time.sleep(draws.choice((0.0, draws.uniform(0, 2))))
    begun = time.monotonic()
    yard.restart_controller()
    answered = time.monotonic()
    view = yard.until_over(rollout)
    trouble.started_s.append(answered - begun)
    trouble.resumed_s.append(time.monotonic() - answered)
    if trouble.resumed_s[-1] > RESUMED_WITHIN_S:
        trouble.problems.append(
            f"{rollout} was over {trouble.resumed_s[-1]:.1f} s after the controller's restart"
        )
    return view


def never_ready(trouble: Trouble) -> RolloutView:
    """A candidate that loads for ever."""
    rollout = trouble.yard.deploy(
        trouble.other, extra=("--slow-start-s", "600"), launch_deadline_s=1.5
    )
    return trouble.yard.until_over(rollout)


def killed_while_it_loads(trouble: Trouble) -> RolloutView:
    """The candidate's process, before it is ready."""
    rollout = trouble.yard.deploy(trouble.other, extra=("--slow-start-s", "0.5"))
    pid = trouble.candidate()
    time.sleep(trouble.draws.uniform(0, 0.8))
    _kill(trouble, pid)
    return trouble.yard.until_over(rollout)


def crashes_in_its_smoke_test(trouble: Trouble) -> RolloutView:
    """The test's prompt makes it crash."""
    return trouble.yard.until_over(trouble.yard.deploy(trouble.other, smoke=[CRASH]))


def killed_while_it_bakes(trouble: Trouble) -> RolloutView:
    """The version that is live for a moment."""
    rollout = trouble.yard.deploy(trouble.other, **BAKES_LONG)
    trouble.until_phase(rollout, Phase.BAKING)
    time.sleep(trouble.draws.uniform(0, 1.5))
    _kill(trouble, trouble.candidate(wait=False))
    return trouble.yard.until_over(rollout)


def gateway_restarted(trouble: Trouble) -> RolloutView:
    """While the version before drains, or a little earlier; ended in order, or killed."""
    yard, draws = trouble.yard, trouble.draws
    rollout = yard.deploy(trouble.other)
    trouble.until_phase(rollout, Phase.SWITCHING, Phase.BAKING, Phase.DRAINING)
    time.sleep(draws.uniform(0, 0.6))
    which = draws.randrange(len(yard.gateways))
    how = draws.choice((signal.SIGTERM, signal.SIGKILL))
    begin = time.time()
    yard.gateways[which].end(how)
    yard.gateways[which].start()
    yard.gateways_follow()
    trouble.excuses.append(
        Excuse(begin, time.time(), gateway=yard.gateway_urls[which],
               begun_answers_too=how == signal.SIGKILL)
    )  # fmt: skip
    return yard.until_over(rollout)


FAULTS: tuple[Callable[[Trouble], RolloutView], ...] = (
    controller_killed,
    killed_while_it_bakes,
    controller_killed,
    gateway_restarted,
    controller_killed,
    never_ready,
    killed_while_it_loads,
    crashes_in_its_smoke_test,
)


def main(argv: Sequence[str]) -> int:
    """Run the proof; 0 when it holds."""
    proof = parse(argv, "rollouts in which something breaks", count=500)
    with tempfile.TemporaryDirectory(prefix="modelyard-soak-") as folder:
        yard = Yard(Path(folder))
        try:
            return _prove(proof, yard)
        finally:
            yard.close()


def _prove(proof: Proof, yard: Yard) -> int:
    yard.gateways_follow()
    yard.until_over(yard.deploy(1))
    trouble = Trouble(yard, proof.random)
    with Load(yard.gateway_urls, proof.seed, fingerprints=FINGERPRINTS) as load:
        for number in range(proof.count):
            fault = FAULTS[number % len(FAULTS)]
            _one(trouble, fault)
            if (number + 1) % SAID_EVERY == 0:
                say(f"{number + 1} faults, {len(load.asked)} requests, {trouble.problems[-3:]}")
        time.sleep(1.0)
    lost = [each for each in load.asked if each.problem]
    unexcused = [e for e in lost if not any(x.covers(e) for x in trouble.excuses)]
    trouble.problems += [
        f"lost at {each.began:.3f} by {each.gateway}: {each.problem}" for each in unexcused
    ]
    for told in trouble.problems[:30]:
        say(f"  {told}")
    starts, resumed = trouble.started_s, trouble.resumed_s
    say(
        f"{proof.count} faults, {len(load.asked)} requests: {len(unexcused)} lost, "
        f"{len(lost) - len(unexcused)} more on what was itself ended; {dict(trouble.ends)}\n"
        f"a controller that was started again answered after {quantile(starts, 0.5):.1f} s "
        f"(median; at most {quantile(starts, 1):.1f} s), its rollout was over "
        f"{quantile(resumed, 0.5):.1f} s later (median; at most {quantile(resumed, 1):.1f} s)"
    )
    say("holds" if not trouble.problems else "FAILS")
    return 0 if not trouble.problems else 1


def _one(trouble: Trouble, fault: Callable[[Trouble], RolloutView]) -> None:
    """One fault, and what must be true after it."""
    yard = trouble.yard
    [serving] = yard.replicas(ReplicaState.READY)
    before = trouble.version
    try:
        view = fault(trouble)
    except TimeoutError as error:
        trouble.problems.append(f"{fault.__name__}: {error}")
        raise
    done = view.phase is Phase.DONE
    trouble.version = trouble.other if done else before
    trouble.ends[f"{fault.__name__}: {view.phase}"] += 1
    until(lambda: len(yard.workers()) == 1, f"{fault.__name__}: one worker is left")
    replicas = yard.replicas()
    told = f"{fault.__name__} ({view.id} {view.phase}, {view.reason!r})"
    if [each.version for each in replicas] != [trouble.version]:
        trouble.problems.append(f"{told}: {[(e.id, e.version, e.state) for e in replicas]}")
    elif {each.pid for each in replicas} != yard.workers():
        trouble.problems.append(f"{told}: {yard.workers()} run, {replicas[0].pid} is known")
    elif not done and replicas[0].pid != serving.pid:
        trouble.problems.append(f"{told}: the replica that served was stopped")
    live = [d.live for d in yard.client.deployments() if d.name == NAME]
    if len(live) != 1 or live[0] is None:
        trouble.problems.append(f"{told}: live are {live}")


def _kill(trouble: Trouble, pid: int | None) -> None:
    """End a candidate's process; what it had begun to answer is lost."""
    if pid is None:
        return
    begin = time.time()
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    trouble.excuses.append(Excuse(begin, time.time() + 0.5, version=f"{NAME}:{trouble.other}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
