"""What a rollout is shown of its replicas."""

import msgspec

from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.replicas import ReplicaState
from modelyard.core.restarts import RestartRule
from modelyard.core.rollout import Phase, Plan, Rollout, begin
from modelyard.core.sights import Judged, Routed, sight_of
from modelyard.core.signals import signal

RULE = RestartRule()


def _spec(version: int, generation: int) -> SlotSpec:
    return SlotSpec(
        model="small", version=version, digest=f"sha256:{version}", engine="fake",
        generation=generation,
    )  # fmt: skip


def _undoing(now: float) -> tuple[Deployment, Rollout]:
    begun = begin("small-2", Plan(strategy="recreate"), candidate="green", before="blue", now=now)
    rollout = msgspec.structs.replace(begun, phase=Phase.UNDOING)
    small = Deployment(name="small", blue=_spec(1, 1), green=_spec(2, 2), created_at=0.0)
    return small.with_rollout(rollout), rollout


def _crashed(number: int, at: float) -> Replica:
    return Replica(
        id=f"r{number}", deployment="small", slot="blue", version=1, digest="sha256:1",
        engine="fake", launcher="process", state=ReplicaState.STOPPED, created_at=at,
        changed_at=at + 1, ready_at=at + 0.5, error=f"crash {number}", generation=1,
    )  # fmt: skip


def _seen(crashed: list[Replica]) -> tuple[object, str]:
    deployment, rollout = _undoing(100.0)
    sight = sight_of(deployment, rollout, crashed, Routed(), Judged(), RULE)
    return signal(rollout, sight, 200.0)


def test_crashes_of_former_days_do_not_say_that_the_version_before_is_lost() -> None:
    told = _seen([_crashed(number, at=10.0 + 5 * number) for number in range(4)])
    assert told == (None, "the version before to be back")


def test_what_can_not_be_brought_back_is_told_and_waited_for_no_longer() -> None:
    happened, told = _seen([_crashed(number, at=110.0 + 5 * number) for number in range(3)])
    assert happened is not None
    assert "did not come back: crash 2" in told


def test_before_gateways_can_apply_them_the_new_routes_are_to_be_published() -> None:
    _, rollout = _undoing(100.0)
    switching = msgspec.structs.replace(rollout, phase=Phase.SWITCHING)
    small = Deployment(name="small", blue=_spec(1, 1), green=_spec(2, 2), created_at=0.0)
    seen = [
        sight_of(small.with_rollout(switching), switching, [], routed, Judged(), RULE)
        for routed in (Routed(live={"small": "blue"}), Routed(live={"small": "green"}))
    ]
    assert [signal(switching, sight, 101.0)[1] for sight in seen] == [
        "the new routes to be published",
        "",
    ]
