"""What becomes of a deployment when somebody asks for something."""

import msgspec
import pytest

from modelyard.core.deployments import Deployment, SlotSpec
from modelyard.core.errors import Conflict
from modelyard.core.rollout import Phase, Plan, Rollout
from modelyard.core.wishes import aborted, deployed, paused, rolled_back, undeployed


def spec(version: int = 1, **changes: object) -> SlotSpec:
    base = SlotSpec(model="yardling", version=version, digest=f"sha256:{version}", engine="fake")
    return msgspec.structs.replace(base, **changes)


@pytest.fixture
def live() -> Deployment:
    first = deployed(None, "chat", spec(), now=5.0)
    return msgspec.structs.replace(first, live="blue", rollout=None)


def _in(moving: Deployment, phase: Phase) -> Rollout:
    assert moving.rollout
    return msgspec.structs.replace(moving.rollout, phase=phase)


def test_the_first_version_comes_into_blue() -> None:
    first = deployed(None, "chat", spec(), now=5.0)
    assert (first.incoming, first.live, first.generation) == ("blue", None, 1)
    assert first.blue == spec(generation=1)


def test_one_that_was_taken_away_before_is_counted_on_from_there() -> None:
    again = deployed(None, "chat", spec(), now=5.0, generations=7)
    assert again.rollout
    assert (again.generation, again.rollout.id, again.rollout.generation) == (8, "chat-8", 8)
    assert again.blue == spec(generation=8)


def test_another_version_comes_into_the_other_slot(live: Deployment) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    assert (moving.live, moving.incoming, moving.generation) == ("blue", "green", 2)
    assert moving.blue == live.blue
    assert moving.green == spec(2, generation=2)


def test_the_same_wish_changes_nothing(live: Deployment) -> None:
    assert deployed(live, "chat", spec(), now=6.0) is live
    moving = deployed(live, "chat", spec(2), now=6.0)
    assert deployed(moving, "chat", spec(2), now=7.0) is moving


def test_more_replicas_of_the_same_are_added_in_place(live: Deployment) -> None:
    scaled = deployed(live, "chat", spec(replicas=3), now=6.0)
    assert (scaled.live, scaled.incoming) == ("blue", None)
    assert scaled.blue == spec(replicas=3, generation=1)


def test_other_arguments_are_another_worker(live: Deployment) -> None:
    assert deployed(live, "chat", spec(parallel=8), now=6.0).incoming == "green"


def test_a_second_move_is_refused_and_named(live: Deployment) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    with pytest.raises(Conflict, match="moving to yardling:2: rollout chat-2 is launching"):
        deployed(moving, "chat", spec(3), now=7.0)


def test_the_same_version_by_another_plan_is_another_move(live: Deployment) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    canary = Plan(strategy="canary")
    with pytest.raises(Conflict, match="moving to yardling:2 by another plan: rollout chat-2"):
        deployed(moving, "chat", spec(2), now=7.0, plan=canary)
    baking = msgspec.structs.replace(moving, rollout=_in(moving, Phase.BAKING), live="green")
    assert deployed(baking, "chat", spec(2), now=7.0, plan=canary) is baking


def test_what_goes_back_is_not_there_already_and_can_not_be_given_up_again(
    live: Deployment,
) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    undoing = msgspec.structs.replace(moving, rollout=_in(moving, Phase.UNDOING))
    for version in (2, 3):
        with pytest.raises(Conflict, match="moving back from yardling:2") as refused:
            deployed(undoing, "chat", spec(version), now=7.0)
        assert "abort" not in refused.value.next_step
        assert "modelyard rollouts watch chat-2" in refused.value.next_step


@pytest.mark.parametrize("phase", [Phase.DRAINING, Phase.UNDOING])
def test_what_is_decided_can_not_be_paused(live: Deployment, phase: Phase) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    decided = msgspec.structs.replace(moving, rollout=_in(moving, phase))
    with pytest.raises(Conflict, match=f"nothing to pause: rollout chat-2 is {phase}"):
        paused(decided, 7.0)


def test_who_took_it_back_is_told_with_what_they_did(live: Deployment) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    assert aborted(moving, 7.0, "admin").message == "given up by admin"
    assert rolled_back(moving, 7.0, "admin", Plan()).message == "rolled back by admin"


def test_what_failed_is_tried_again(live: Deployment) -> None:
    failed = msgspec.structs.replace(live, live=None, message="out of memory")
    again = deployed(failed, "chat", spec(), now=6.0)
    assert again.incoming == "blue"
    assert again.message == ""
    assert again.blue is not None
    assert again.blue.generation == 2


def test_what_is_live_and_broken_is_brought_up_beside_itself(live: Deployment) -> None:
    assert deployed(live, "chat", spec(), now=6.0, broken=True).incoming == "green"


def test_a_move_ends_when_its_deployment_is_taken_away(live: Deployment) -> None:
    moving = deployed(live, "chat", spec(2), now=6.0)
    going = undeployed(moving, 9.0)
    assert going.rollout
    assert (going.rollout.phase, going.rollout.reason) == (Phase.UNDONE, "taken away")
    assert going.rollout.history[-1].at == 9.0
    assert going.arranged.runs == ()
    assert undeployed(live, 9.0).rollout is None


def test_nothing_is_deployed_onto_what_is_being_taken_away(live: Deployment) -> None:
    going = undeployed(live, 6.0)
    assert going.removed
    assert undeployed(going, 7.0) is going
    with pytest.raises(Conflict, match="taken away"):
        deployed(going, "chat", spec(2), now=7.0)
