"""Reports of cost: exact sums, idle time beside them, rows folded with a count (O6)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.capacity import Capacity, Place
from modelyard.core.pinning import PINNED_BY
from modelyard.core.records import Attempt, RequestRecord
from modelyard.core.rollups import Step
from modelyard.observe.costs import By, apportioned, report
from modelyard.state.store import Store, open_sqlite

DAY = 20_000
AT_S = DAY * 86_400 + 3600.0
DIGEST = "sha256:" + "5" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_sqlite(tmp_path / "state.db")
    yield opened
    opened.close()


def record(number: int, cost: float | None = 0.25, **fields: object) -> RequestRecord:
    """A request that one replica answered."""
    attempt = Attempt(replica="r", slot="blue", digest=DIGEST, outcome="completed",
                      started_s=0.0, duration_s=1.0)  # fmt: skip
    known: dict[str, object] = {
        "request_id": f"q{number}", "gateway": "g", "received_at": AT_S, "operation": "chat",
        "stream": False, "outcome": "completed", "status": 200, "e2e_s": 1.0, "tenant": "blue",
        "key_id": "alice", "model": "m", "version": 3, "digest": DIGEST, "slot": "blue",
        "prompt_tokens": 10, "completion_tokens": 5, "cost": cost, "attempts": (attempt,),
    }  # fmt: skip
    return RequestRecord(**(known | fields))  # type: ignore[arg-type]


def ran(store: Store, cost_nanos: int, model: str = "m", version: int = 3,
        priced: bool = True) -> None:  # fmt: skip
    """A replica ran for an hour of the day."""
    place = Place(Step.DAY, DAY * 86_400, model, version, "blue")
    capacity = Capacity(3_600_000, 0, 3_600_000 if priced else 0, cost_nanos if priced else 0)
    store.capacity.add({place: capacity})


@pytest.mark.parametrize("by", ["tenant", "key", "model", "version", "day"])
def test_rows_and_idle_sum_to_what_ran_and_what_was_asked(store: Store, by: By) -> None:
    fields = [("blue", "alice", "m", 3), ("blue", "bob", "m", 4), ("red", "carol", "n", 1)]
    store.records.add(
        [
            record(number, 0.1 + number / 7, tenant=tenant, key_id=key, model=model,
                   version=version, received_at=AT_S + 86_400 * (number % 3))
            for number in range(60)
            for tenant, key, model, version in [fields[number % 3]]
        ]
    )  # fmt: skip
    ran(store, 900 * 10**9, "m", 3)
    ran(store, 500 * 10**9, "m", 4)
    ran(store, 400 * 10**9, "n", 1)
    ran(store, 7 * 10**9, "never_asked", 1)

    found = report(store, by, DAY)

    cost = sum(round((0.1 + number / 7) * 1e9) for number in range(60))
    assert found.total.spent.cost_nanos == cost
    assert sum(row.spent.cost_nanos for row in found.rows) == cost
    assert sum(row.spent.requests for row in found.rows) == 60
    assert found.total.capacity is not None
    assert found.total.capacity.cost_nanos == 1807 * 10**9
    assert found.idle_nanos == 1807 * 10**9 - cost
    if by in ("model", "version", "day"):
        assert sum(row.idle_nanos or 0 for row in found.rows if row.capacity) == sum(
            row.capacity.cost_nanos - row.spent.cost_nanos for row in found.rows if row.capacity
        )
    if by == "model":
        assert {row.name: row.idle_nanos for row in found.rows}["never_asked",] == 7 * 10**9
    assert found.unpriced == ()


def test_what_one_tenant_or_model_spent_is_told_without_the_others(store: Store) -> None:
    store.records.add([record(1), record(2, tenant="red", key_id="b", model="n"),
                       record(3, tenant="red", key_id="c")])  # fmt: skip
    ran(store, 10**9)
    ran(store, 10**9, "n")
    mine = report(store, "model", DAY, tenant="red")
    assert sorted(row.name for row in mine.rows) == [("m",), ("n",)]
    assert mine.idle_nanos is None  # idle time is nobody's
    (row,) = report(store, "tenant", DAY, model="n").rows
    assert (row.name, row.spent.requests) == (("red",), 1)
    assert report(store, "tenant", DAY, model="n").idle_nanos == 750_000_000
    assert report(store, "tenant", DAY + 1).rows == ()


def test_copies_and_smoke_tests_cost_nobody_and_are_idle(store: Store) -> None:
    store.records.add([record(1), record(2, shadow_of="q1"), record(3, key_id=PINNED_BY)])
    ran(store, 10**9)
    asked: tuple[By, ...] = ("tenant", "version")
    for by in asked:
        found = report(store, by, DAY)
        assert found.total.spent.cost_nanos == 250_000_000
        assert found.idle_nanos == 750_000_000


def test_what_has_no_price_is_unknown_and_named(store: Store) -> None:
    store.records.add(
        [record(1, None), record(2), record(3, None, attempts=(), outcome="rejected", status=429),
         record(4, None, model="n")]
    )  # fmt: skip
    ran(store, 10**9, "old", priced=False)
    found = report(store, "model", DAY)
    rows = {row.name[0]: row for row in found.rows}
    assert (rows["m"].spent.requests, rows["m"].spent.priced) == (3, 2)  # a refused one is free
    assert rows["n"].spent.priced == 0
    assert rows["old"].idle_nanos is None
    assert found.idle_nanos is None
    assert found.unpriced == ("m", "n", "old")


def test_ten_thousand_tenants_are_folded_and_counted(store: Store) -> None:
    store.records.add(
        [record(number, number / 1000, tenant=f"t{number}") for number in range(10_000)]
    )
    found = report(store, "tenant", DAY, top=20)
    assert [row.name[0] for row in found.rows] == [f"t{n}" for n in range(9999, 9979, -1)]
    assert found.folded_count == 9980
    assert found.folded is not None
    shown = sum(row.spent.cost_nanos for row in found.rows) + found.folded.spent.cost_nanos
    assert shown == found.total.spent.cost_nanos == sum(range(10_000)) * 10**6
    assert len(report(store, "tenant", DAY).rows) == 10_000


@given(
    st.lists(st.integers(-(10**15), 10**15), max_size=30), st.sampled_from([1, 10, 10**3, 10**7])
)
def test_what_is_printed_adds_up(amounts: list[int], unit: int) -> None:
    shown = apportioned(amounts, unit)
    assert all(each % unit == 0 for each in shown)
    assert all(abs(each - amount) < unit for each, amount in zip(shown, amounts, strict=True))
    total = sum(amounts)
    assert sum(shown) == (2 * total + unit) // (2 * unit) * unit
