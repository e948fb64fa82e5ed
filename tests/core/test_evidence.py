"""Evidence grows on no average while nothing is wrong: checked exactly, by adding up outcomes."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.evidence import Signs, TwoProportions, mean, mean_of_logs


@given(
    st.floats(0.001, 0.999),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30),
)
def test_a_block_pays_one_at_most_when_both_are_equal(
    p: float, a: int, b: int, before: list[tuple[bool, bool]]
) -> None:
    """Whatever came before, and whatever the common probability is."""
    began = TwoProportions()
    for one, other in before:
        began.add([one], [other])
    start = began.wealth
    expected = 0.0
    for outcomes in itertools.product((False, True), repeat=a + b):
        after = TwoProportions()
        for one, other in before:
            after.add([one], [other])
        after.add(outcomes[:a], outcomes[a:])
        hits = sum(outcomes)
        expected += p**hits * (1 - p) ** (a + b - hits) * after.wealth

    assert expected <= start * (1 + 1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0, 0.5))
def test_a_comparison_pays_one_at_most_when_it_is_over_half_the_time(
    before: list[float], chance: float
) -> None:
    over, under = Signs(), Signs()
    for share in before:
        over.add(share)
        under.add(share)
    start = over.wealth
    over.add(1.0)
    under.add(0.0)

    assert chance * over.wealth + (1 - chance) * under.wealth <= start * (1 + 1e-9)


def test_a_difference_is_found() -> None:
    draws = random.Random(7)
    failing, slow = TwoProportions(), Signs()
    for _ in range(300):
        failing.add([draws.random() < 0.01], [draws.random() < 0.15])
        slow.add(float(draws.gauss(1.5, 1) > draws.gauss(1, 1)))

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
    with pytest.raises(ValueError, match="share"):
        Signs().add(1.5)


def test_a_lot_of_evidence_is_no_overflow() -> None:
    assert mean_of_logs([5000.0, 0.0]) == math.inf
    assert mean((1.0, 3.0)) == 2.0
