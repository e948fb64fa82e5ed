"""What requests cost, and the clock by which they share a replica."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.cost import (
    NANOS,
    Price,
    PriceList,
    SharedTime,
    capacity_nanos,
    cost_of_tokens,
    nanos,
    plain,
)

spans = st.lists(st.tuples(st.integers(0, 1_000), st.integers(0, 1_000)), max_size=12)


def _shares(requests: list[tuple[int, int]]) -> list[float]:
    """What each of the requests (begin, end) had of one replica."""
    clock = SharedTime()
    changes = sorted(
        [(begin, 1, which) for which, (begin, _) in enumerate(requests)]
        + [(end, -1, which) for which, (_, end) in enumerate(requests)],
        key=lambda change: (change[0], -change[1]),
    )
    begun, had, users = {}, [0.0] * len(requests), 0
    for at, step, which in changes:
        reading = clock.share_s(at, users)
        if step > 0:
            begun[which] = reading
        else:
            had[which] = reading - begun[which]
        users += step
    return had


def _busy_s(requests: list[tuple[int, int]]) -> int:
    return sum(any(begin <= s < end for begin, end in requests) for s in range(2_001))


@given(spans)
def test_what_overlapping_requests_had_sums_to_the_time_that_was_busy(
    drawn: list[tuple[int, int]],
) -> None:
    requests = [(begin, begin + length) for begin, length in drawn]

    had = _shares(requests)

    assert math.isclose(sum(had), _busy_s(requests), abs_tol=1e-6)
    for (begin, end), share in zip(requests, had, strict=True):
        assert -1e-9 <= share <= end - begin + 1e-9
        alone = sum(
            not any(b <= s < e for b, e in requests if (b, e) != (begin, end))
            for s in range(begin, end)
        )
        twins = requests.count((begin, end))
        assert share >= alone / twins - 1e-9


def test_two_at_once_have_half_of_it_each() -> None:
    assert _shares([(0, 10), (4, 8)]) == [4 + 2 + 2, 2]


def test_tokens_are_paid_for_by_their_table() -> None:
    price = Price(input_per_million=2.0, output_per_million=8.0, cached_per_million=0.5)
    assert cost_of_tokens(price, 1_000_000, 500_000, 400_000) == 0.6 * 2 + 0.4 * 0.5 + 4
    assert cost_of_tokens(price, 10, 0, 1_000) == pytest.approx(10 * 0.5e-6)  # more than there are
    plain_price = Price(input_per_million=2.0)
    assert cost_of_tokens(plain_price, 1_000_000, 7, 1_000_000) == 2.0


def test_a_replica_costs_itself_and_its_accelerators() -> None:
    prices = PriceList(
        replica_hour={"process": 0.12}, accelerator_hour={"process": 2.5, "docker": 3.0}
    )
    assert prices.of("process", 0) == Price(replica_hour=0.12)
    assert prices.of("process", 2) == Price(replica_hour=0.12 + 5.0)
    assert prices.of("docker", 1) == Price(replica_hour=3.0)
    assert prices.of("docker", 0) is None  # not 0: nobody said
    assert prices.missing("docker", 0) == "cost.replica_hour.docker"
    assert prices.of("ray", 4) is None
    assert prices.missing("ray", 4) == "cost.accelerator_hour.ray"
    assert not prices.empty
    assert PriceList().empty
    assert PriceList(replica_hour={"process": 0.0}).of("process", 0) == Price()  # said to be free


@given(st.floats(0, 1e6), st.lists(st.integers(0, 10_000_000), max_size=20))
def test_capacity_adds_up_however_it_is_cut(hour: float, parts: list[int]) -> None:
    price = Price(replica_hour=hour)
    whole = capacity_nanos(price, sum(parts))
    exact = Fraction(hour) * sum(parts) * NANOS / 3_600_000
    assert abs(whole - exact) <= 1 + abs(exact) * Fraction(1, 10**14)
    cut = sum(capacity_nanos(price, part) for part in parts)
    assert abs(cut - exact) <= len(parts) + abs(exact) * Fraction(1, 10**14)


@given(st.integers(-(10**19), 10**19))
def test_billionths_are_told_exactly(amount: int) -> None:
    assert Fraction(plain(amount)) * NANOS == amount


def test_a_cost_that_nobody_knows_adds_nothing() -> None:
    assert nanos(None) == 0
    assert nanos(0.25) == 250_000_000
    assert plain(250_000_000) == "0.25"
    assert plain(-3 * NANOS) == "-3"
