"""Whatever happens to a rollout, in whatever order, exactly one version is live, and it ends."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.rollout import (
    BEFORE_SWITCH,
    MOVES,
    OVER,
    Phase,
    Plan,
    Rollout,
    Signal,
    Step,
    Strategy,
    arrange,
    begin,
    diagram,
    move,
    pause,
    resume,
)
from modelyard.core.signals import Sight, advance, signal

STEPS = (Step(share=0.1, min_s=30), Step(share=0.5, min_s=60))
CALM = Sight(ready=1, tests_passed=True)
"""All is well, and nothing of what is to stop runs any more."""


def _begun(
    strategy: Strategy = "blue-green", *, first: bool = False, steps: tuple[Step, ...] = ()
) -> Rollout:
    plan = Plan(strategy=strategy, steps=steps, bake_s=60)
    before = None if first else "blue"
    return begin("small-2", plan, candidate="green", before=before, now=0)  # type: ignore[arg-type]


def _until(rollout: Rollout, phase: Phase, sight: Sight = CALM, now: float = 0) -> Rollout:
    """Advance with the same sight until a phase is reached."""
    for tick in range(2000):
        if rollout.phase is phase:
            return rollout
        rollout = advance(rollout, sight, now + tick)
    raise AssertionError(f"{phase} was not reached: {rollout}")


def _way(rollout: Rollout) -> list[Phase]:
    return [entry.phase for entry in rollout.history]


P = Phase
PLAIN = [P.LAUNCHING, P.TESTING, P.STEPPING, P.SWITCHING, P.BAKING, P.DRAINING, P.DONE]


@pytest.mark.parametrize(
    ("begun", "way"),
    [
        (_begun(), PLAIN),
        (_begun(first=True), PLAIN),
        (_begun("canary", steps=STEPS), [*PLAIN[:3], P.STEPPING, *PLAIN[3:]]),
        (_begun("shadow", steps=STEPS[:1]), PLAIN),
        (_begun("recreate"), [P.EMPTYING, *PLAIN]),
    ],
)
def test_each_strategy_goes_its_way(begun: Rollout, way: list[Phase]) -> None:
    done = _until(begun, Phase.DONE)

    assert _way(done) == way
    assert arrange(done).live == "green"
    assert arrange(done).runs == ("green",)
    assert done.reason == ""


@pytest.mark.parametrize(
    ("phase", "sight", "reason"),
    [
        (P.LAUNCHING, Sight(failure="it crashed"), "it crashed"),
        (P.TESTING, Sight(ready=1, tests_passed=False, tests_told="no 4"), "no 4"),
        (P.STEPPING, Sight(ready=1, alarm="more requests fail"), "more requests fail"),
        (P.SWITCHING, Sight(ready=1, failure="it crashed"), "it crashed"),
        (P.BAKING, Sight(ready=1, alarm="too slow"), "too slow"),
    ],
)
def test_trouble_takes_it_back(phase: Phase, sight: Sight, reason: str) -> None:
    reached = _until(_begun("canary", steps=STEPS), phase)
    back = advance(reached, sight, reached.entered_at + 1)

    assert back.phase is Phase.UNDOING
    assert (arrange(back).live, arrange(back).runs) == ("blue", ("blue",))
    assert _until(back, Phase.UNDONE).reason == reason


def test_the_version_before_stands_by_while_it_bakes() -> None:
    baking = _until(_begun(), Phase.BAKING)

    assert arrange(baking).live == "green"
    assert set(arrange(baking).runs) == {"blue", "green"}
    assert advance(baking, CALM, baking.entered_at + 59).phase is Phase.BAKING
    assert advance(baking, CALM, baking.entered_at + 60).phase is Phase.DRAINING


def test_a_gateway_that_has_not_acknowledged_is_waited_for_and_named() -> None:
    switching = _until(_begun(), Phase.SWITCHING)
    happened, told = signal(switching, Sight(ready=1, unacknowledged=("g-1",)), 10_000)

    assert happened is None
    assert "g-1" in told


def test_a_step_without_requests_holds_and_never_passes() -> None:
    stepping = _until(_begun("canary", steps=STEPS), Phase.STEPPING)
    silent = Sight(ready=1, hold="100 more requests of the candidate are needed")
    happened, told = signal(stepping, silent, stepping.entered_at + 3600)

    assert happened is None
    assert "100 more requests" in told
    overdue = advance(stepping, silent, stepping.entered_at + 86_400)
    assert overdue.phase is Phase.UNDOING
    assert "100 more requests" in overdue.reason


def test_shares_grow_with_the_steps_and_copies_are_no_share() -> None:
    canary = _until(_begun("canary", steps=STEPS), Phase.STEPPING)
    second = move(canary, Signal.STEP_OVER, "", 100)
    shadow = _until(_begun("shadow", steps=STEPS), Phase.STEPPING)

    assert (arrange(canary).share, arrange(second).share) == (0.1, 0.5)
    assert (arrange(shadow).share, arrange(shadow).shadow) == (0.0, 0.1)


def test_with_one_accelerator_requests_are_held_and_versions_take_turns() -> None:
    emptying = _begun("recreate")
    assert arrange(emptying).runs == ()
    launching = advance(emptying, Sight(before_running=0), 1)
    assert (launching.phase, arrange(launching).runs) == (Phase.LAUNCHING, ("green",))
    assert arrange(launching).holds
    undoing = advance(launching, Sight(failure="no memory", candidate_running=1), 2)
    assert (arrange(undoing).runs, arrange(undoing).holds) == (("blue",), True)
    assert advance(undoing, Sight(candidate_running=1), 3).phase is Phase.UNDOING
    assert advance(undoing, Sight(), 4).phase is Phase.UNDOING
    assert advance(undoing, Sight(before_ready=1), 5).phase is Phase.UNDONE
    lost = advance(undoing, Sight(before_lost="its bytes are damaged"), 5)
    assert lost.phase is Phase.UNDONE
    assert "no memory" in lost.reason
    assert "its bytes are damaged" in lost.reason


def test_a_first_version_that_is_taken_back_keeps_nobody_in_line() -> None:
    undoing = advance(_begun("recreate", first=True), Sight(failure="no memory"), 2)
    assert undoing.phase is Phase.UNDOING
    assert not arrange(undoing).holds


def test_no_switch_while_replicas_are_lacking() -> None:
    some = Sight(ready=1, wanted=4, tests_passed=True)
    plain = _until(_begun(), Phase.STEPPING)
    waiting = signal(plain, some, plain.entered_at + 5)
    assert waiting == (None, "1 of 4 replicas ready")
    assert signal(plain, some, plain.entered_at + 1800)[0] is Signal.OVERDUE
    canary = _until(_begun("canary", steps=STEPS), Phase.STEPPING)
    assert "1 of 4 replicas ready" in signal(canary, some, canary.entered_at + 60)[1]
    assert signal(canary, CALM, canary.entered_at + 60)[0] is Signal.STEP_OVER


def test_a_pause_does_not_count_and_trouble_ends_it() -> None:
    stepping = _until(_begun("canary", steps=STEPS), Phase.STEPPING)
    start = stepping.entered_at
    paused = pause(stepping, start + 10)

    assert advance(paused, CALM, start + 1000).phase is Phase.STEPPING
    assert "resume" in signal(paused, CALM, start + 1000)[1]
    assert advance(paused, Sight(ready=1, alarm="worse"), start + 11).phase is Phase.UNDOING
    resumed = resume(paused, start + 1000)
    assert advance(resumed, CALM, start + 1019).step == 0
    assert advance(resumed, CALM, start + 1020).step == 1


def test_going_on_and_going_back_on_demand() -> None:
    stepping = _until(_begun("canary", steps=STEPS), Phase.STEPPING)
    assert move(stepping, Signal.PROMOTED, "", 1).phase is Phase.SWITCHING
    baking = _until(_begun(), Phase.BAKING)
    assert move(baking, Signal.PROMOTED, "", 1).phase is Phase.DRAINING
    assert arrange(move(baking, Signal.ABORTED, "by ann", 1)).live == "blue"
    done = _until(_begun(), Phase.DONE)
    assert move(done, Signal.ABORTED, "by ann", 1) == done


@dataclass
class _Do:
    """One thing that happens."""

    sight: Sight
    wait_s: float
    command: str


_SIGHTS = st.builds(
    Sight,
    ready=st.integers(0, 2),
    wanted=st.just(2),
    failure=st.sampled_from(("", "", "", "crashed")),
    tests_passed=st.sampled_from((None, True, True, False)),
    alarm=st.sampled_from(("", "", "", "worse")),
    hold=st.sampled_from(("", "more requests")),
    unacknowledged=st.sampled_from(((), ("g-1",))),
    before_running=st.integers(0, 1),
    before_ready=st.integers(0, 1),
    before_lost=st.sampled_from(("", "", "gone")),
    candidate_running=st.integers(0, 1),
)
_DOINGS = st.builds(
    _Do,
    sight=_SIGHTS,
    wait_s=st.floats(0, 200_000),
    command=st.sampled_from(("", "", "", "pause", "resume", "abort", "promote")),
)
_BEGUN = st.builds(
    _begun,
    st.sampled_from(("blue-green", "canary", "shadow", "recreate")),
    first=st.booleans(),
    steps=st.sampled_from(((), STEPS)),
)


def _done(rollout: Rollout, doing: _Do, now: float) -> Rollout:
    match doing.command:
        case "pause":
            return pause(rollout, now)
        case "resume":
            return resume(rollout, now)
        case "abort":
            return move(rollout, Signal.ABORTED, "by ann", now)
        case "promote":
            return move(rollout, Signal.PROMOTED, "by ann", now)
        case _:
            return advance(rollout, doing.sight, now)


@given(_BEGUN, st.lists(_DOINGS, max_size=40))
def test_whatever_happens_one_version_is_live_and_it_ends(
    rollout: Rollout, doings: list[_Do]
) -> None:
    now = 0.0
    for doing in doings:
        now += doing.wait_s
        before, rollout = rollout, _done(rollout, doing, now)
        asked, old = arrange(rollout), arrange(before)
        assert asked.live in (rollout.before, rollout.candidate)
        assert asked.live is not None or rollout.before is None
        if asked.live != old.live:
            assert (before.phase, rollout.phase) in {
                (P.STEPPING, P.SWITCHING), (P.SWITCHING, P.UNDOING), (P.BAKING, P.UNDOING),
            }  # fmt: skip
        assert asked.live in asked.runs or asked.holds or asked.live is None
        assert asked.share == 0 or rollout.phase is Phase.STEPPING
        assert (asked.live == rollout.candidate) == (
            rollout.phase not in BEFORE_SWITCH | {P.UNDOING, P.UNDONE}
        )
        if before.over:
            assert rollout == before
        if rollout.phase in (P.UNDOING, P.UNDONE):
            assert rollout.reason

    rollout = resume(rollout, now)
    for tick in range(1, 12):
        rollout = advance(rollout, Sight(ready=2, wanted=2, tests_passed=True, before_ready=1),
                          now + tick * 100_000)  # fmt: skip
    assert rollout.over


def test_every_phase_has_a_way_to_the_end() -> None:
    reached = set(OVER)
    while True:
        more = {phase for (phase, _), after in MOVES.items() if after in reached} - reached
        if not more:
            break
        reached |= more

    assert reached == set(Phase)


def test_the_picture_shows_every_move() -> None:
    shown = diagram()

    assert all(f"{one} --> {other}" in shown for (one, _), other in MOVES.items())
