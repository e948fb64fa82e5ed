"""Evidence grows on no average while nothing is wrong: checked exactly, by adding up outcomes."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.evidence import Means, Ranks, TwoProportions, mean, mean_of_logs

SIDES = [(1, 1), (3, 1), (1, 4), (3, 3), (5, 2)]


def _deals(values: tuple[float, ...], b: int) -> list[tuple[list[float], list[float]]]:
    """Every way to deal the values out to a baseline and a candidate that gets b of them."""
    places = range(len(values))
    return [
        ([values[i] for i in places if i not in ours], [values[i] for i in ours])
        for ours in itertools.combinations(places, b)
    ]


@pytest.mark.parametrize(("a", "b"), SIDES)
def test_a_block_pays_one_on_average_over_all_deals_of_what_happened(a: int, b: int) -> None:
    """Whatever happened to however many: who was who was drawn by chance."""
    for hits in range(a + b + 1):
        happened = tuple(float(i < hits) for i in range(a + b))
        paid = []
        for baseline, candidate in _deals(happened, b):
            bet = TwoProportions()
            bet.add([x > 0 for x in baseline], [x > 0 for x in candidate])
            paid.append(bet.wealth)

        assert math.isclose(sum(paid) / len(paid), 1.0, rel_tol=1e-9)


@pytest.mark.parametrize(("a", "b"), SIDES)
def test_a_block_of_values_pays_one_on_average_over_all_deals(a: int, b: int) -> None:
    paid = []
    for baseline, candidate in _deals(tuple(float(i) for i in range(a + b)), b):
        bet = Ranks()
        bet.add(baseline, candidate)
        paid.append(bet.wealth)

    assert math.isclose(sum(paid) / len(paid), 1.0, rel_tol=1e-9)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=7), st.data())
def test_ties_are_no_evidence(values: list[int], data: st.DataObject) -> None:
    """Lengths are whole numbers: with ties a block pays one at most."""
    b = data.draw(st.integers(1, len(values) - 1))
    paid = []
    for baseline, candidate in _deals(tuple(map(float, values)), b):
        bet = Ranks()
        bet.add(baseline, candidate)
        paid.append(bet.wealth)

    assert sum(paid) / len(paid) <= 1 + 1e-9


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.floats(0, 0.5), st.data())
def test_means_pay_one_at_most_over_all_deals(
    values: list[float], worse: float, data: st.DataObject
) -> None:
    b = data.draw(st.integers(1, len(values) - 1))
    paid = []
    for baseline, candidate in _deals(tuple(values), b):
        bet = Means(worse)
        bet.add(baseline, candidate)
        paid.append(bet.wealth)

    assert min(paid) > 0
    assert sum(paid) / len(paid) <= 1 + 1e-9


def test_means_hold_to_what_is_tolerated() -> None:
    """A candidate that is worse by just what is tolerated gains nothing on average."""
    bet, strict = Means(worse=0.5), Means()
    for _ in range(20):
        for bits in itertools.product((0.0, 1.0), repeat=2):
            bet.add([1.0], [sum(bits) / 2])
            strict.add([1.0], [sum(bits) / 2])

    assert bet.wealth < 1 < 100 < strict.wealth
    with pytest.raises(ValueError, match="from 0 to 1"):
        bet.add([1.5], [0.0])


def test_what_happens_to_all_or_to_nobody_says_nothing() -> None:
    bet = TwoProportions()
    bet.add([True] * 5, [True] * 5)
    bet.add([False] * 5, [False] * 5)

    assert bet.wealth == 1.0


def test_a_difference_is_found() -> None:
    draws = random.Random(7)
    failing, slow = TwoProportions(), Ranks()
    for _ in range(300):
        failing.add([draws.random() < 0.01], [draws.random() < 0.15])
        slow.add([draws.gauss(1, 1)], [draws.gauss(1.5, 1)])

    assert failing.wealth > 1000
    assert slow.wealth > 20


def test_less_is_no_evidence_of_more() -> None:
    fewer = TwoProportions()
    for _ in range(100):
        fewer.add([True, False], [False])

    assert fewer.wealth < 1


def test_what_compares_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="compares"):
        TwoProportions().add([], [True])
    with pytest.raises(ValueError, match="compares"):
        Ranks().add([1.0], [])


def test_a_lot_of_evidence_is_no_overflow() -> None:
    assert mean_of_logs([5000.0, 0.0]) == math.inf
    assert mean((1.0, 3.0)) == 2.0
