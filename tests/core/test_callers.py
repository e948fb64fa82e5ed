"""Callers are what is dealt out: one value each, and how likely their difference is by chance."""

import itertools

import pytest

from modelyard.core.callers import Callers, chance_of_over


def test_each_caller_is_one_value() -> None:
    callers = Callers()
    for value in (1.0, 2.0, 3.0):
        callers.add("candidate", "often", value)
    callers.add("candidate", "once", 9.0)
    callers.add("baseline", "often", 5.0)  # came over when the share grew

    assert sorted(callers.means("candidate")) == [2.0, 9.0]
    assert callers.means("baseline") == [5.0]


@pytest.mark.parametrize(
    "values", [range(9), (0, 0, 1, 1, 2, 2, 3, 3, 4), (0, 0, 0, 0, 0, 1, 1, 1, 2)]
)
def test_chances_are_about_those_of_all_deals(values: "tuple[int, ...]") -> None:
    """4 of 9: every deal is enumerated, and the chances are no smaller than they should be."""
    chances = []
    for ours in itertools.combinations(range(9), 4):
        mine = [float(values[i]) for i in ours]
        others = [float(values[i]) for i in range(9) if i not in ours]
        chances.append(chance_of_over(mine, others))

    for level in (0.02, 0.05, 0.1, 0.2):
        share = sum(chance <= level for chance in chances) / len(chances)
        assert share <= level * 1.35 + 0.01


def test_nothing_is_shown_by_nobody_or_by_equals() -> None:
    assert chance_of_over([], [1.0]) == 1.0
    assert chance_of_over([2.0, 2.0], [2.0, 2.0]) == 1.0
    assert chance_of_over([2.0], [1.0] * 40) == pytest.approx(1 / 41)  # one of 41 had to be it
