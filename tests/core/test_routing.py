import msgspec
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
    ShadowRoute,
    SlotRoute,
)
from modelyard.core.routing import Load, choose, choose_slot, is_copied, unenforceable

BALANCING: list[Balancing] = [
    "round_robin", "least_in_flight", "power_of_two", "prefix_affinity", "session",
]  # fmt: skip

loads = st.lists(
    st.builds(
        Load,
        st.integers(0, 50),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
        st.none() | st.integers(1, 10),
        st.text(max_size=3),
        st.booleans(),
    ),
    max_size=8,
)
draws = st.floats(0, 1, exclude_max=True)


@given(loads, st.sampled_from(BALANCING), draws, st.integers(0, 1000))
def test_only_a_replica_with_room_is_chosen_and_always_one(
    replicas: list[Load], balancing: Balancing, draw: float, turn: int
) -> None:
    index, reason = choose(replicas, balancing, draw=draw, turn=turn)

    able = [load for load in replicas if load.takes_more]
    if able:
        assert index is not None
        assert replicas[index].takes_more
        assert reason in {"only_one", "least_in_flight", "prefix_miss", balancing}
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


def _snapshot(*models: ModelRoute) -> RouteSnapshot:
    return RouteSnapshot(epoch="e", version=1, published_at=0, models=models)


def test_what_a_gateway_could_not_enforce_is_named() -> None:
    whole = _route(policy=Policy(balancing="session", caching=Caching(mode="all")))
    assert unenforceable(_snapshot(whole), frozenset()) is None

    falling = _route(policy=Policy(fallbacks=("nowhere",)))
    assert "'nowhere'" in str(unenforceable(_snapshot(falling), frozenset()))
    shadowed = msgspec.structs.replace(whole, shadow=ShadowRoute(slot="green", sample=0.1))
    assert "green" in str(unenforceable(_snapshot(shadowed), frozenset()))
    there = msgspec.structs.replace(shadowed, slots=(_slot("blue", 1, 1), _slot("green", 0, 1)))
    assert unenforceable(_snapshot(there), frozenset()) is None


def test_a_credential_that_is_not_there_is_named() -> None:
    replica = ReplicaRoute(id="r", url="https://there", credential="its-key")
    slot = SlotRoute(
        slot="blue", version=1, digest="d", weight=1.0, operations=("chat",), replicas=(replica,)
    )
    snapshot = _snapshot(_route(slot))

    assert "'its-key'" in str(unenforceable(snapshot, frozenset()))
    assert unenforceable(snapshot, frozenset({"its-key"})) is None


@given(st.text(min_size=1, max_size=20), st.integers(2, 8), st.integers(0, 7))
def test_a_session_moves_only_when_its_replica_is_out(session: str, count: int, out: int) -> None:
    replicas = [Load(0, id=f"r{index}") for index in range(count)]
    first, _ = choose(replicas, "session", draw=0.3, turn=5, sticky=session)
    assert choose(replicas, "session", draw=0.9, turn=6, sticky=session)[0] == first

    out %= count
    replicas[out] = Load(0, id=f"r{out}", healthy=False)
    again, _ = choose(replicas, "session", draw=0.3, turn=5, sticky=session)
    assert (again == first) is (out != first)


@given(st.text(min_size=1, max_size=20), st.floats(0.01, 0.98), st.floats(0.001, 0.01))
def test_a_slot_whose_share_grows_loses_nobody(key: str, share: float, more: float) -> None:
    """Sticky assignment of a canary (promise D6): with a growing share, callers only come."""
    before = choose_slot(_route(_slot("blue", 1 - share, 1), _slot("green", share, 1)),
                         draw=0.5, sticky=key)  # fmt: skip
    grown = share + more
    after = choose_slot(_route(_slot("blue", 1 - grown, 1), _slot("green", grown, 1)),
                        draw=0.5, sticky=key)  # fmt: skip

    assert before is not None
    assert after is not None
    assert not (before.slot == "green" and after.slot == "blue")


@given(st.text(min_size=1, max_size=20), st.lists(st.floats(0.01, 1), min_size=2, max_size=8))
def test_nobody_moves_back_while_a_share_grows(key: str, shares: list[float]) -> None:
    """From the first step of a canary to the switch, each caller moves once at most."""
    went = []
    for share in sorted(shares):
        route = _route(_slot("blue", 1 - share, 1), _slot("green", share, 1))
        chosen = choose_slot(route, draw=0.5, sticky=key)
        assert chosen is not None
        went.append(chosen.slot)
    assert went == sorted(went)  # blue, then green


def test_it_is_not_always_the_same_callers_that_come_first() -> None:
    def first(name: str, digest: str) -> set[int]:
        green = msgspec.structs.replace(_slot("green", 0.1, 1), digest=digest)
        route = msgspec.structs.replace(_route(_slot("blue", 0.9, 1), green), name=name)
        chosen = [choose_slot(route, draw=0.5, sticky=f"user-{n}") for n in range(2000)]
        return {n for n, slot in enumerate(chosen) if slot is not None and slot.slot == "green"}

    tries = [first("m", "sha256:a"), first("m", "sha256:b"), first("other", "sha256:a")]
    assert all(tries)
    assert len(set.intersection(*tries)) < 20  # about 2 of 2000, were they independent


def test_copies_are_sampled_by_the_request() -> None:
    def copied(sample: float) -> set[int]:
        shadow = ShadowRoute(slot="green", sample=sample)
        return {n for n in range(4000) if is_copied(shadow, f"req-{n:x}")}

    assert copied(0.0) == set()
    assert len(copied(1.0)) == 4000
    assert 300 < len(copied(0.1)) < 500
    assert copied(0.1) < copied(0.5)


def test_sticky_shares_are_those_of_the_weights() -> None:
    route = _route(_slot("blue", 0.9, 1), _slot("green", 0.1, 1))
    chosen = [choose_slot(route, draw=0.5, sticky=f"user-{n}") for n in range(5000)]
    share = sum(slot is not None and slot.slot == "green" for slot in chosen) / len(chosen)
    assert 0.08 < share < 0.12


def test_unequal_weights_take_turns_in_their_proportion() -> None:
    replicas = [Load(0, weight=3.0), Load(0, weight=1.0)]
    taken = [choose(replicas, "round_robin", draw=0.0, turn=turn)[0] for turn in range(1000)]
    assert taken.count(0) == 750
    assert (
        max(len(run) for run in "".join(map(str, taken)).split("1")) <= 6
    )  # spread, not in blocks


def test_prefix_affinity_yields_to_load() -> None:
    def pick(favourite_load: int, favourite: int | None = 0) -> tuple[int | None, str]:
        loads = [Load(favourite_load), Load(0), Load(2)]
        return choose(loads, "prefix_affinity", draw=0.99, turn=0, favourite=favourite)

    assert pick(3) == (0, "prefix_hit")
    assert pick(20) == (1, "prefix_yields")
    assert pick(0, None) == (2, "prefix_miss")
