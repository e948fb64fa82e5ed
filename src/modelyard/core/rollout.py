"""One move of a deployment to another version: a table of phases and signals, and what is routed.

`move` goes by the table, `arrange` says for each phase which slot is live, which ones run and who
gets which share of the requests. What has happened is read by `core/signals.py`.
"""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from modelyard.core.canary import CanaryRules, Finding
from modelyard.core.routes import Seconds, Share, Slot
from modelyard.core.smoke import SmokeResult, SmokeTest

Strategy = Literal["blue-green", "canary", "shadow", "recreate"]
Wait = Annotated[float, Meta(ge=0, le=30 * 86_400)]


class Phase(StrEnum):
    EMPTYING = "emptying"
    """`recreate`: requests are held, the live version's replicas finish and stop."""
    LAUNCHING = "launching"
    """The candidate's bytes are verified, its replicas load and answer a first generation."""
    TESTING = "testing"
    """Smoke tests ask the candidate, through a gateway."""
    STEPPING = "stepping"
    """The candidate gets a share of the requests, or copies of them, and is compared."""
    SWITCHING = "switching"
    """The candidate is live; every gateway has yet to say that it routes so."""
    BAKING = "baking"
    """The candidate is live, the version before stands by: going back is one snapshot."""
    DRAINING = "draining"
    """The version before finishes what it has and stops."""
    DONE = "done"
    UNDOING = "undoing"
    """The version before is live; the candidate finishes what it has and stops."""
    UNDONE = "undone"


class Signal(StrEnum):
    EMPTIED = "emptied"
    """Nothing of the version before runs any more."""
    READY = "ready"
    """All replicas of the candidate generated something."""
    PASSED = "passed"
    """Every smoke test did."""
    STEP_OVER = "step_over"
    """Its time is over and nothing speaks against the candidate; another step follows."""
    STEPS_OVER = "steps_over"
    """The last step is over, or there was none."""
    ACKNOWLEDGED = "acknowledged"
    """Every living gateway has applied the routes."""
    BAKED = "baked"
    """The time to go back at once is over."""
    DRAINED = "drained"
    """What was to stop has stopped."""
    PROMOTED = "promoted"
    """Somebody said: go on without waiting."""
    FAILED = "failed"
    """It did not start, a test failed, it does worse, or it crashed."""
    OVERDUE = "overdue"
    """The phase's deadline is over."""
    ABORTED = "aborted"
    """Somebody said: go back."""


P, S = Phase, Signal
MOVES: dict[tuple[Phase, Signal], Phase] = {
    (P.EMPTYING, S.EMPTIED): P.LAUNCHING,
    (P.EMPTYING, S.ABORTED): P.UNDOING,
    (P.LAUNCHING, S.READY): P.TESTING,
    (P.LAUNCHING, S.FAILED): P.UNDOING,
    (P.LAUNCHING, S.OVERDUE): P.UNDOING,
    (P.LAUNCHING, S.ABORTED): P.UNDOING,
    (P.TESTING, S.PASSED): P.STEPPING,
    (P.TESTING, S.FAILED): P.UNDOING,
    (P.TESTING, S.OVERDUE): P.UNDOING,
    (P.TESTING, S.ABORTED): P.UNDOING,
    (P.STEPPING, S.STEP_OVER): P.STEPPING,
    (P.STEPPING, S.STEPS_OVER): P.SWITCHING,
    (P.STEPPING, S.PROMOTED): P.SWITCHING,
    (P.STEPPING, S.FAILED): P.UNDOING,
    (P.STEPPING, S.OVERDUE): P.UNDOING,
    (P.STEPPING, S.ABORTED): P.UNDOING,
    (P.SWITCHING, S.ACKNOWLEDGED): P.BAKING,
    (P.SWITCHING, S.FAILED): P.UNDOING,
    (P.SWITCHING, S.ABORTED): P.UNDOING,
    (P.BAKING, S.BAKED): P.DRAINING,
    (P.BAKING, S.PROMOTED): P.DRAINING,
    (P.BAKING, S.FAILED): P.UNDOING,
    (P.BAKING, S.ABORTED): P.UNDOING,
    (P.DRAINING, S.DRAINED): P.DONE,
    (P.UNDOING, S.DRAINED): P.UNDONE,
}
"""Every other signal changes nothing. The picture of it is in docs/deployments.md."""

OVER = frozenset({Phase.DONE, Phase.UNDONE})
BEFORE_SWITCH = frozenset({Phase.EMPTYING, Phase.LAUNCHING, Phase.TESTING, Phase.STEPPING})
SWITCHED = frozenset({Phase.SWITCHING, Phase.BAKING, Phase.DRAINING, Phase.DONE})


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One share that a candidate has to prove itself with."""

    share: Share
    """Of the requests, 0 to 1; of copies where the strategy is `shadow`."""
    min_s: Wait = 60.0
    """It lasts so long at least; longer while too few requests came to tell."""


class Levels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a candidate has to keep while it has a share and while it bakes."""

    max_error_ratio: Share | None = None
    """Of its requests, those that failed."""
    ttft_p95_s: Seconds | None = None
    min_requests: Annotated[int, Meta(ge=1)] = 20
    """Fewer say nothing."""


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a candidate becomes live: what is asked of it, and how long each part may take."""

    strategy: Strategy = "blue-green"
    steps: tuple[Step, ...] = ()
    """Of `canary` and `shadow`."""
    smoke: tuple[SmokeTest, ...] = ()
    canary: CanaryRules = CanaryRules()
    levels: Levels = Levels()
    launch_deadline_s: Wait = 1800.0
    test_deadline_s: Wait = 300.0
    step_deadline_s: Wait = 86_400.0
    """Of each step; too few requests until then are a reason to go back, never to go on."""
    bake_s: Wait = 60.0
    """How long the version before stands by after the switch."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a rollout's history."""

    at: float
    """Unix seconds."""
    phase: Phase
    step: int
    why: str
    """The signal, with its reason where it has one."""


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One move, as it stands. `id` is DEPLOYMENT-GENERATION."""

    id: str
    plan: Plan
    candidate: Slot
    before: Slot | None
    """The slot that was live when it began."""
    phase: Phase
    step: int = 0
    started_at: float
    """Unix seconds; so are the next two."""
    entered_at: float
    """When this phase, or this step, began; moved on by the length of each pause."""
    paused_at: float | None = None
    reason: str = ""
    """Why it goes, or went, back."""
    history: tuple[Entry, ...] = ()
    smoke: tuple[SmokeResult, ...] = ()
    """What the smoke tests were answered."""
    finding: Finding | None = None
    """What the comparison showed last."""
    finished: int = 0
    """Requests that were in flight on replicas when these began to drain, and came to their end."""
    cut: int = 0
    """Those that did not: the drain budget was over."""

    @property
    def over(self) -> bool:
        """Whether nothing is under way any more."""
        return self.phase in OVER

    @property
    def generation(self) -> int:
        """The deployment's generation that it brings about."""
        return generation_of(self.id)

    @property
    def exclusive(self) -> bool:
        """Whether only one version can run at a time."""
        return self.plan.strategy == "recreate"


def generation_of(rollout_id: str) -> int:
    """The last part of an id."""
    return int(rollout_id.rpartition("-")[2])


class Arrangement(msgspec.Struct, frozen=True, kw_only=True):
    """What a phase asks of processes and routes."""

    live: Slot | None
    runs: tuple[Slot, ...]
    """Slots whose replicas should run."""
    share: float = 0.0
    """Of the requests, what the candidate gets while it is not live."""
    shadow: float = 0.0
    """Of the requests, what the candidate gets copies of."""
    holds: bool = False
    """Gateways keep requests in line instead of refusing them."""


def begin(
    rollout_id: str, plan: Plan, *, candidate: Slot, before: Slot | None, now: float
) -> Rollout:
    """A rollout at its first phase."""
    exclusive = plan.strategy == "recreate" and before is not None
    phase = Phase.EMPTYING if exclusive else Phase.LAUNCHING
    first = Entry(at=now, phase=phase, step=0, why="asked for")
    return Rollout(
        id=rollout_id,
        plan=plan,
        candidate=candidate,
        before=before,
        phase=phase,
        started_at=now,
        entered_at=now,
        history=(first,),
    )


def arrange(rollout: Rollout) -> Arrangement:
    """What the rollout's phase asks for."""
    before, candidate = rollout.before, rollout.candidate
    both = (before, candidate) if before is not None else (candidate,)
    alone = (candidate,)
    match rollout.phase:
        case Phase.EMPTYING:
            return Arrangement(live=before, runs=(), holds=True)
        case Phase.LAUNCHING | Phase.TESTING:
            runs = alone if rollout.exclusive else both
            return Arrangement(live=before, runs=runs, holds=rollout.exclusive and len(both) == 2)
        case Phase.STEPPING:
            steps = compared_steps(rollout)
            if not steps:
                runs = alone if rollout.exclusive else both
                return Arrangement(
                    live=before, runs=runs, holds=rollout.exclusive and len(both) == 2
                )
            share = steps[min(rollout.step, len(steps) - 1)].share
            if rollout.plan.strategy == "shadow":
                return Arrangement(live=before, runs=both, shadow=share)
            return Arrangement(live=before, runs=both, share=share)
        case Phase.SWITCHING | Phase.BAKING:
            return Arrangement(live=candidate, runs=alone if rollout.exclusive else both)
        case Phase.DRAINING | Phase.DONE:
            return Arrangement(live=candidate, runs=alone)
        case Phase.UNDOING | Phase.UNDONE:
            back: tuple[Slot, ...] = () if before is None else (before,)
            holds = rollout.exclusive and rollout.phase is Phase.UNDOING and bool(back)
            return Arrangement(live=before, runs=back, holds=holds)


def compared_steps(rollout: Rollout) -> tuple[Step, ...]:
    """Its steps; none of a version alone, of which nothing can be compared."""
    return () if rollout.before is None or rollout.exclusive else rollout.plan.steps


def move(rollout: Rollout, happened: Signal, reason: str, now: float) -> Rollout:
    """The rollout after a signal; itself when the table has no move for it."""
    after = MOVES.get((rollout.phase, happened))
    if after is None:
        return rollout
    step = rollout.step + 1 if happened is Signal.STEP_OVER else rollout.step
    why = f"{happened}: {reason}" if reason else str(happened)
    entry = Entry(at=now, phase=after, step=step, why=why)
    goes_back = after is Phase.UNDOING or (after is Phase.UNDONE and bool(reason))
    told = reason or str(happened)
    if after is Phase.UNDONE and rollout.reason:
        told = f"{rollout.reason}; {told}"
    stays_paused = rollout.paused_at is not None and after not in (*OVER, Phase.UNDOING)
    return msgspec.structs.replace(
        rollout,
        phase=after,
        step=step,
        entered_at=now,
        paused_at=now if stays_paused else None,
        reason=told if goes_back else rollout.reason,
        history=(*rollout.history, entry),
    )


def close(rollout: Rollout, why: str, now: float) -> Rollout:
    """The rollout as it is when nobody goes on with it: what it moves was taken away, or another
    one follows while the version before still finishes."""
    if rollout.over:
        return rollout
    switched = rollout.phase is Phase.DRAINING
    after = Phase.DONE if switched else Phase.UNDONE
    entry = Entry(at=now, phase=after, step=rollout.step, why=why)
    return msgspec.structs.replace(
        rollout,
        phase=after,
        entered_at=now,
        paused_at=None,
        reason=rollout.reason if switched else rollout.reason or why,
        history=(*rollout.history, entry),
    )


def pause(rollout: Rollout, now: float) -> Rollout:
    """Stay where it is; what speaks against the candidate still takes it back."""
    if rollout.over or rollout.paused_at is not None:
        return rollout
    return msgspec.structs.replace(rollout, paused_at=now)


def resume(rollout: Rollout, now: float) -> Rollout:
    """Go on; the time of the pause does not count."""
    if rollout.paused_at is None:
        return rollout
    return msgspec.structs.replace(
        rollout, paused_at=None, entered_at=rollout.entered_at + (now - rollout.paused_at)
    )


def diagram() -> str:
    """The table as a Mermaid state diagram, for the guide."""
    lines = ["stateDiagram-v2", f"  [*] --> {Phase.LAUNCHING}", f"  [*] --> {Phase.EMPTYING}"]
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, happened), after in MOVES.items():
        arrows.setdefault((phase, after), []).append(str(happened))
    lines += [f"  {one} --> {other}: {', '.join(why)}" for (one, other), why in arrows.items()]
    lines += [f"  {phase} --> [*]" for phase in Phase if phase in OVER]
    return "\n".join(lines)
