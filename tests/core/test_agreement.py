"""How far two answers agree."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.agreement import agreement


@given(st.text(), st.text(), st.text())
def test_it_is_the_share_of_the_common_beginning(shared: str, one: str, other: str) -> None:
    one, other = shared + "a" + one, shared + "b" + other
    expected = len(shared) / max(len(one), len(other))

    assert agreement(one, other) == agreement(other, one) == expected


@given(st.text(), st.text())
def test_it_is_one_of_equal_answers_only(one: str, other: str) -> None:
    assert agreement(one, one) == 1.0
    assert (agreement(one, other) == 1.0) is (one == other)


def test_an_answer_that_goes_on_is_not_equal() -> None:
    assert agreement("yes", "yes, and") == 3 / 8
    assert agreement("", "yes") == 0.0
