"""What ran and what was spent, on both kinds of database: exact sums, kept as long as said."""

from tests.observe.test_costs import record

from modelyard.core.capacity import Capacity, Place, Stretch, spread
from modelyard.core.cost import Price
from modelyard.core.rollups import KEPT_S, Step
from modelyard.state.capacity import Metered
from modelyard.state.spending import Spent
from modelyard.state.store import Store

DAY = 20_000
DAY_S = 86_400
LARGE = 10**17
"""Billionths that no float holds exactly beside 1."""


def place(at: int = DAY * DAY_S, model: str = "m", version: int = 1) -> Place:
    return Place(Step.DAY, at, model, version, "blue")


def test_capacity_is_added_to_together_with_its_marks(store: Store) -> None:
    table = store.capacity
    table.add({place(): Capacity(10, 20, 10, LARGE)}, [Metered("a", 5, 2), Metered("b", 6, 0)])
    table.add(
        {place(): Capacity(1, 2, 1, 1), place(version=2): Capacity(7, 0, 0, 0)},
        [Metered("a", 9, 2)],
        gone=["b", "never-known"],
    )
    assert table.marks() == {"a": Metered("a", 9, 2)}
    assert table.by("version", 0) == {
        ("m", 1): Capacity(11, 22, 11, LARGE + 1),
        ("m", 2): Capacity(7, 0, 0, 0),
    }
    assert table.by("model", 0) == {("m",): Capacity(18, 22, 11, LARGE + 1)}
    assert table.by("day", 0, model="m") == {(DAY * DAY_S,): Capacity(18, 22, 11, LARGE + 1)}
    assert table.by("day", (DAY + 1) * DAY_S) == {}
    assert table.by("model", 0, model="another") == {}
    table.add({}, [], [])


def test_a_long_stretch_is_the_same_in_each_length_of_steps(store: Store) -> None:
    now = DAY * DAY_S + 5 * 3600
    stretch = Stretch(model="m", version=1, slot="blue", until_ms=now * 1000 + 250,
                      length_ms=30 * 3600 * 1000 + 777, accelerators=3,
                      price=Price(replica_hour=7.77))  # fmt: skip
    sums = spread([stretch], float(now))
    store.capacity.add(sums)
    by_step = {
        step: [capacity for at, capacity in sums.items() if at.step is step] for step in Step
    }
    totals = {step: Capacity(*map(sum, zip(*found, strict=True)))
              for step, found in by_step.items()}  # fmt: skip
    assert totals[Step.MINUTE] == totals[Step.QUARTER] == totals[Step.DAY]
    assert totals[Step.DAY].replica_ms == stretch.length_ms
    assert totals[Step.DAY].accelerator_ms == 3 * stretch.length_ms
    assert store.capacity.by("model", 0) == {("m",): totals[Step.DAY]}
    assert len(store.capacity.by("day", 0)) == 3 - (stretch.length_ms < 29 * 3600 * 1000)

    later = now + (KEPT_S[Step.MINUTE] or 0) + 86_400
    assert dropped(store, later) == len(by_step[Step.MINUTE])
    later = now + (KEPT_S[Step.QUARTER] or 0) + 3 * DAY_S
    assert dropped(store, later) == len(by_step[Step.QUARTER])
    assert store.capacity.by("model", 0) == {("m",): totals[Step.DAY]}


def test_what_was_spent_is_summed_by_whoever_is_asked_for(store: Store) -> None:
    store.records.add(
        [record(n, 0.1 + n / 7, received_at=(DAY + n) * DAY_S + 1.0)
         for n in range(3)]
        + [record(9, None, tenant=None, key_id=None, model="n", version=2)]
    )  # fmt: skip
    spending = store.spending
    mine = spending.by("tenant", DAY)[("blue",)]
    assert mine == Spent(3, 3, 30, 15, sum(round((0.1 + n / 7) * 1e9) for n in range(3)))
    assert spending.by("tenant", DAY)[("",)] == Spent(1, 0, 10, 5, 0)
    assert spending.by("key", DAY)[("alice",)] == mine
    assert spending.by("model", DAY, tenant="blue") == {("m",): mine}
    assert spending.by_version(DAY, model="m") == {("m", 3): mine}
    assert spending.by_version(DAY)[("n", 2)] == Spent(1, 0, 10, 5, 0)
    days = spending.by("day", DAY + 1, model="m")
    assert {name: spent.requests for name, spent in days.items()} == {(DAY + 1,): 1, (DAY + 2,): 1}


def dropped(store: Store, now: float) -> int:
    """All that is old enough, part by part."""
    total = 0
    while part := store.capacity.forget(now):
        total += part
    return total
