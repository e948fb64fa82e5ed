import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.overflow import Overflow, fit, leave_out, oldest_turns

policies: st.SearchStrategy[Overflow] = st.sampled_from(["reject", "clamp", "truncate_oldest"])


@given(policies, st.integers(1, 300), st.none() | st.integers(1, 300), st.integers(1, 200))
def test_what_is_sent_fits(policy: Overflow, prompt: int, wanted: int | None, context: int) -> None:
    decided = fit(policy, prompt=prompt, wanted=wanted, context=context)

    if decided.action == "send":
        assert prompt + (wanted or 1) <= context
    elif decided.action == "clamp":
        assert decided.max_tokens is not None
        assert decided.max_tokens >= 1
        assert prompt + decided.max_tokens == context
        assert policy == "clamp"
    elif decided.action == "truncate":
        assert policy == "truncate_oldest"
        assert decided.excess > 0
        assert prompt - decided.excess + (wanted or 1) <= context
    else:
        assert prompt + (wanted or 1) > context


@pytest.mark.parametrize(
    ("roles", "turns"),
    [
        ("su", []),
        ("suau", [[1, 2]]),
        ("suatauau", [[1, 2, 3, 4], [5, 6]]),
        ("usau", [[0, 2]]),
        ("au", [[0]]),
        ("", []),
    ],
)
def test_turns_go_as_a_whole_and_the_last_one_stays(roles: str, turns: list[list[int]]) -> None:
    names = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    assert oldest_turns([names[letter] for letter in roles]) == turns


@given(st.lists(st.integers(1, 50), min_size=2, max_size=12), st.integers(1, 200))
def test_the_fewest_oldest_turns_are_left_out(tokens: list[int], excess: int) -> None:
    turns = oldest_turns(["user"] * len(tokens))
    gone = leave_out(turns, tokens, excess)

    if gone is None:
        assert sum(tokens[:-1]) < excess
    else:
        assert gone == set(range(len(gone)))
        assert sum(tokens[index] for index in gone) >= excess
        assert sum(tokens[: len(gone) - 1]) < excess
