import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.routes import (
    Balancing,
    Caching,
    ModelRoute,
    Policy,
    ReplicaRoute,
    RouteSnapshot,
    SlotRoute,
)
from modelyard.core.routing import ENFORCED, Load, choose, choose_slot, unenforceable

loads = st.lists(
    st.builds(
        Load,
        st.integers(0, 50),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        st.none() | st.integers(1, 10),
    ),
    max_size=8,
)
draws = st.floats(0, 1, exclude_max=True)


@given(loads, st.sampled_from(sorted(ENFORCED)), draws, st.integers(0, 1000))
def test_only_a_replica_with_room_is_chosen_and_always_one(
    replicas: list[Load], balancing: Balancing, draw: float, turn: int
) -> None:
    index, reason = choose(replicas, balancing, draw=draw, turn=turn)

    able = [load for load in replicas if load.takes_more]
    if able:
        assert index is not None
        assert replicas[index].takes_more
        assert reason in {"only_one", balancing}
    else:
        assert (index, reason) == (None, "none_ready")


@given(loads, draws)
def test_least_in_flight_is_never_beaten(replicas: list[Load], draw: float) -> None:
    index, _ = choose(replicas, "least_in_flight", draw=draw, turn=0)

    if index is not None:
        able = [load.pressure for load in replicas if load.takes_more]
        assert replicas[index].pressure == min(able)


@given(st.integers(2, 6), draws)
def test_power_of_two_compares_two_different_replicas(count: int, draw: float) -> None:
    """With one idle replica among busy ones, it is never the busier of the pair that is chosen."""
    replicas = [Load(10 * (index + 1)) for index in range(count)]

    index, _ = choose(replicas, "power_of_two", draw=draw, turn=0)

    assert index != count - 1  # the busiest loses against any other


def test_round_robin_takes_turns() -> None:
    replicas = [Load(0), Load(0), Load(0, weight=0), Load(0)]

    taken = [choose(replicas, "round_robin", draw=0.0, turn=turn)[0] for turn in range(6)]

    assert taken == [0, 1, 3, 0, 1, 3]


def _slot(slot: str, weight: float, replicas: int) -> SlotRoute:
    return SlotRoute(
        slot=slot,  # type: ignore[arg-type]
        version=1,
        digest="sha256:" + "0" * 64,
        weight=weight,
        operations=("chat",),
        replicas=tuple(
            ReplicaRoute(id=f"{slot}-{n}", url="http://127.0.0.1:1") for n in range(replicas)
        ),
    )


def _route(*slots: SlotRoute, policy: Policy | None = None) -> ModelRoute:
    return ModelRoute(
        name="m", deployment="m", created_at=0, slots=slots, policy=policy or Policy()
    )


@pytest.mark.parametrize(
    ("draw", "expected"), [(0.0, "blue"), (0.89, "blue"), (0.91, "green"), (0.999, "green")]
)
def test_slots_are_chosen_by_weight(draw: float, expected: str) -> None:
    route = _route(_slot("blue", 0.9, 1), _slot("green", 0.1, 1))

    slot = choose_slot(route, draw=draw)

    assert slot is not None
    assert slot.slot == expected


def test_a_slot_without_replicas_gets_nothing() -> None:
    assert choose_slot(_route(_slot("blue", 1.0, 0)), draw=0.5) is None
    chosen = choose_slot(_route(_slot("blue", 0.9, 0), _slot("green", 0.1, 1)), draw=0.0)
    assert chosen is not None
    assert chosen.slot == "green"


def test_a_policy_that_is_not_enforced_yet_is_named() -> None:
    def snapshot(policy: Policy) -> RouteSnapshot:
        return RouteSnapshot(epoch="e", version=1, published_at=0, models=(_route(policy=policy),))

    assert unenforceable(snapshot(Policy())) is None
    assert "session" in str(unenforceable(snapshot(Policy(balancing="session"))))
    cached = unenforceable(snapshot(Policy(caching=Caching(mode="all"))))
    assert cached == "model 'm' asks for caching all"


def test_a_credential_that_is_not_sent_yet_is_named() -> None:
    replica = ReplicaRoute(id="r", url="https://there", credential="its-key")
    slot = SlotRoute(
        slot="blue", version=1, digest="d", weight=1.0, operations=("chat",), replicas=(replica,)
    )
    model = ModelRoute(name="m", deployment="m", created_at=0, slots=(slot,))
    snapshot = RouteSnapshot(epoch="e", version=1, published_at=0, models=(model,))

    assert "credentials" in str(unenforceable(snapshot))
