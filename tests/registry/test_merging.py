"""Who moved an alias: we, the catalogue, or both."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.registry.merging import FOREIGN, Merged, merge

A = "production"


@pytest.mark.parametrize(
    ("before", "here", "there", "expected"),
    [
        (1, 1, 1, Merged({}, {}, {}, ())),
        (1, 2, 1, Merged({}, {}, {A: 2}, ())),
        (1, None, 1, Merged({}, {}, {A: None}, ())),
        (1, 1, 2, Merged({A: 2}, {}, {}, ())),
        (1, 1, None, Merged({A: None}, {}, {}, ())),
        (None, None, 2, Merged({A: 2}, {}, {}, ())),
        (1, 2, 2, Merged({}, {}, {}, ())),
        (1, 2, 3, Merged({}, {A: 3}, {A: 2}, ())),
        (1, 2, None, Merged({}, {A: None}, {A: 2}, ())),
        (1, 1, FOREIGN, Merged({}, {}, {}, (A,))),
        (1, 2, FOREIGN, Merged({}, {}, {A: 2}, ())),
    ],
)
def test_whoever_differs_from_what_was_agreed_has_moved(
    before: int | None, here: int | None, there: int | None, expected: Merged
) -> None:
    views = [{} if version is None else {A: version} for version in (before, here, there)]
    assert merge(*views) == expected


VIEW = st.dictionaries(st.sampled_from("abc"), st.integers(1, 3))


@given(base=VIEW, ours=VIEW, theirs=VIEW)
def test_after_a_merge_both_sides_agree(
    base: dict[str, int], ours: dict[str, int], theirs: dict[str, int]
) -> None:
    merged = merge(base, ours, theirs)
    here = {**ours, **merged.taken}
    there = {**theirs, **merged.pushed}
    assert {a: v for a, v in here.items() if v} == {a: v for a, v in there.items() if v}
