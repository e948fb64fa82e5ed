"""The simulated canaries: seeded, with exact intervals, and judged by every rule."""

import math

import numpy as np
import pytest
from benchmarks._canary_rules import (
    RULES,
    clopper_pearson,
    mann_whitney_p,
    two_proportions_p,
)
from benchmarks._canary_traffic import EQUAL, LASTS_S, REGRESSIONS, Setting, draw

SETTING = Setting(rate=1, share=0.5)


def test_intervals_are_clopper_pearsons() -> None:
    """Against values that follow from the binomial distribution, and tabulated ones."""
    assert clopper_pearson(0, 100) == pytest.approx((0.0, 1 - 0.025 ** (1 / 100)), abs=1e-9)
    assert clopper_pearson(5, 100) == pytest.approx((0.016432, 0.112835), abs=1e-6)
    assert clopper_pearson(100, 100)[1] == 1.0


def test_the_same_seed_draws_the_same_canary() -> None:
    one, same, other = (draw(SETTING, EQUAL, seed) for seed in ((1, 2), (1, 2), (1, 3)))

    assert np.array_equal(one.ttft_s, same.ttft_s)
    assert len(one.ttft_s) != len(other.ttft_s)
    assert (np.diff(one.finished_s) >= 0).all()
    assert 0 <= one.finished_s[0] <= one.finished_s[-1] <= LASTS_S
    assert one.candidate.mean() == pytest.approx(0.5, abs=0.05)


def test_the_usual_tests_say_what_they_do_elsewhere() -> None:
    """Of 3 and 3 that are all over: 9 of 9 pairs, with the correction for whole numbers."""
    z = (9 - 4.5 - 0.5) / math.sqrt(9 * 7 / 12)
    expected = 0.5 * math.erfc(z / math.sqrt(2))

    assert mann_whitney_p(np.array([4.0, 5, 6]), np.array([1.0, 2, 3])) == pytest.approx(expected)
    assert two_proportions_p(5, 5, 100, 100) == pytest.approx(0.5)
    assert two_proportions_p(0, 0, 100, 100) == 1.0


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_what_is_twice_as_slow(rule: str) -> None:
    slow = next(each for each in REGRESSIONS if each.ttft == 2.0)
    found_s = RULES[rule](draw(SETTING, slow, (1, 1)))

    assert found_s is not None
    assert 0 < found_s <= LASTS_S
