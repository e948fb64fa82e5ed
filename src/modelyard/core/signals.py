"""Whether something has happened to a rollout, read from what is seen; else what it waits for.

No phase is left without a reason that can be told, and none can last for ever.
"""

from collections.abc import Callable

import msgspec

from modelyard.core.rollout import BEFORE_SWITCH, Phase, Rollout, Signal, compared_steps, move

UNPUBLISHED = ""
"""Among those that have not applied the newest routes: these are still to be published."""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen at one moment, as far as a rollout depends on it."""

    ready: int = 0
    """Candidate's replicas that get, or could get, requests."""
    wanted: int = 1
    failure: str = ""
    """Why the candidate's replicas will not, or no longer, do."""
    tests_passed: bool | None = None
    """None: not over yet."""
    tests_told: str = ""
    """What the failing ones answered."""
    alarm: str = ""
    """What speaks against the candidate."""
    hold: str = ""
    """Why a step that has had its time can't end yet."""
    unacknowledged: tuple[str, ...] = ()
    """Living gateways that have not applied the newest routes."""
    before_running: int = 0
    """Replicas of the version before that have not stopped."""
    before_ready: int = 0
    before_lost: str = ""
    """Why the version before can't be brought back."""
    candidate_running: int = 0


def signal(rollout: Rollout, sight: Sight, now: float) -> tuple[Signal | None, str]:
    """What has happened, and its reason; without a signal, what is waited for."""
    look = _LOOKS.get(rollout.phase)
    if look is None:
        return None, ""
    trouble = _trouble(rollout, sight)
    if trouble:
        return Signal.FAILED, trouble
    return look(rollout, sight, now - rollout.entered_at)


def _trouble(rollout: Rollout, sight: Sight) -> str:
    """Why the candidate has to go, while there is something to go back to."""
    if rollout.phase in BEFORE_SWITCH - {Phase.EMPTYING}:
        return sight.failure or ("" if rollout.phase is Phase.LAUNCHING else sight.alarm)
    if rollout.phase in (Phase.SWITCHING, Phase.BAKING) and rollout.before is not None:
        return sight.failure or sight.alarm
    return ""


Seen = tuple[Signal | None, str]


def _of(sight: Sight) -> str:
    return f"{sight.ready} of {sight.wanted} replicas ready"


def _emptying(_rollout: Rollout, sight: Sight, _spent_s: float) -> Seen:
    if sight.before_running == 0:
        return Signal.EMPTIED, ""
    return None, f"{sight.before_running} replicas of the version before to finish"


def _launching(rollout: Rollout, sight: Sight, spent_s: float) -> Seen:
    told = _of(sight)
    if sight.ready >= sight.wanted:
        return Signal.READY, ""
    deadline_s = rollout.plan.launch_deadline_s
    if rollout.paused_at is None and spent_s >= deadline_s:
        return Signal.OVERDUE, f"only {told} after {deadline_s:g} s"
    return None, told


def _testing(rollout: Rollout, sight: Sight, spent_s: float) -> Seen:
    if sight.tests_passed is not None:
        return (Signal.PASSED, "") if sight.tests_passed else (Signal.FAILED, sight.tests_told)
    deadline_s = rollout.plan.test_deadline_s
    if rollout.paused_at is None and spent_s >= deadline_s:
        return Signal.OVERDUE, f"the smoke tests were not over after {deadline_s:g} s"
    return None, "the smoke tests"


def _stepping(rollout: Rollout, sight: Sight, spent_s: float) -> Seen:
    steps = compared_steps(rollout)
    paused = rollout.paused_at is not None
    lacking = "" if sight.ready >= sight.wanted else _of(sight)
    if not steps:
        if paused:
            return None, "somebody to resume it"
        if lacking and spent_s >= rollout.plan.launch_deadline_s:
            return Signal.OVERDUE, f"only {lacking} after {spent_s:.0f} s"
        return (None, lacking) if lacking else (Signal.STEPS_OVER, "")
    step = steps[min(rollout.step, len(steps) - 1)]
    told = f"step {rollout.step + 1} of {len(steps)}, {step.share:.0%}"
    if paused:
        return None, f"{told}; somebody to resume it"
    if spent_s < step.min_s:
        return None, f"{told}, {step.min_s - spent_s:.0f} s more"
    hold = sight.hold or lacking
    if not hold:
        last = rollout.step + 1 >= len(steps)
        return (Signal.STEPS_OVER if last else Signal.STEP_OVER), told
    if spent_s >= rollout.plan.step_deadline_s:
        return Signal.OVERDUE, f"{told} could not end in time: {hold}"
    return None, f"{told}: {hold}"


def _switching(_rollout: Rollout, sight: Sight, _spent_s: float) -> Seen:
    if not sight.unacknowledged:
        return Signal.ACKNOWLEDGED, ""
    if sight.unacknowledged[0] == UNPUBLISHED:
        return None, "the new routes to be published"
    return None, f"the gateway {sight.unacknowledged[0]} to apply the new routes"


def _baking(rollout: Rollout, _sight: Sight, spent_s: float) -> Seen:
    if rollout.before is None or rollout.exclusive:
        return Signal.BAKED, ""
    if rollout.paused_at is not None:
        return None, "somebody to resume it; the version before stands by"
    if spent_s >= rollout.plan.bake_s:
        return Signal.BAKED, ""
    return None, f"{rollout.plan.bake_s - spent_s:.0f} s more; the version before stands by"


def _draining(rollout: Rollout, sight: Sight, _spent_s: float) -> Seen:
    if rollout.before is None or sight.before_running == 0:
        return Signal.DRAINED, ""
    return None, f"{sight.before_running} replicas of the version before to finish"


def _undoing(rollout: Rollout, sight: Sight, _spent_s: float) -> Seen:
    if sight.candidate_running:
        return None, f"{sight.candidate_running} replicas of the candidate to finish"
    if rollout.before is None or not rollout.exclusive or sight.before_ready:
        return Signal.DRAINED, ""
    if sight.before_lost:
        return Signal.DRAINED, f"the version before did not come back: {sight.before_lost}"
    return None, "the version before to be back"


_LOOKS: dict[Phase, Callable[[Rollout, Sight, float], Seen]] = {
    Phase.EMPTYING: _emptying,
    Phase.LAUNCHING: _launching,
    Phase.TESTING: _testing,
    Phase.STEPPING: _stepping,
    Phase.SWITCHING: _switching,
    Phase.BAKING: _baking,
    Phase.DRAINING: _draining,
    Phase.UNDOING: _undoing,
}


def advance(rollout: Rollout, sight: Sight, now: float) -> Rollout:
    """The rollout one move on, if something happened."""
    happened, told = signal(rollout, sight, now)
    return rollout if happened is None else move(rollout, happened, told, now)
