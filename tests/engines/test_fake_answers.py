"""Numbered, checksummed tokens: every way to damage an answer is seen."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.engines.fake_server.answers import (
    answer_seed,
    answer_text,
    answer_tokens,
    check_answer,
    cut_at_stop,
)

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 200))
def test_a_whole_answer_is_complete(seed: int, count: int) -> None:
    check = check_answer(answer_text(seed, count))
    assert check.complete
    assert check.tokens == count
    assert check.errors == ()


@given(seeds, st.integers(2, 60), st.data())
def test_a_lost_token_is_seen(seed: int, count: int, data: st.DataObject) -> None:
    tokens = list(answer_tokens(seed, count))
    del tokens[data.draw(st.integers(0, count - 1))]
    assert not check_answer(b"".join(tokens).decode()).complete


@given(seeds, st.integers(2, 60), st.data())
def test_a_repeated_token_is_an_error(seed: int, count: int, data: st.DataObject) -> None:
    tokens = list(answer_tokens(seed, count))
    at = data.draw(st.integers(0, count - 1))
    tokens.insert(at, tokens[at])
    assert check_answer(b"".join(tokens).decode()).errors


@given(seeds, st.integers(2, 60), st.data())
def test_swapped_tokens_are_an_error(seed: int, count: int, data: st.DataObject) -> None:
    tokens = list(answer_tokens(seed, count))
    at = data.draw(st.integers(0, count - 2))
    tokens[at], tokens[at + 1] = tokens[at + 1], tokens[at]
    assert check_answer(b"".join(tokens).decode()).errors


@given(seeds, seeds, st.integers(3, 60), st.data())
def test_a_token_of_another_answer_is_an_error(
    seed: int, other: int, count: int, data: st.DataObject
) -> None:
    tokens, foreign = list(answer_tokens(seed, count)), list(answer_tokens(other, count))
    at = data.draw(st.integers(1, count - 1))
    if tokens[at] == foreign[at]:
        return
    tokens[at] = foreign[at]
    assert check_answer(b"".join(tokens).decode()).errors


@given(st.text(max_size=60))
def test_any_text_is_checked_without_raising(text: str) -> None:
    assert not check_answer(text).complete


@given(seeds, st.integers(2, 40), st.data())
def test_a_cut_answer_is_never_complete(seed: int, count: int, data: st.DataObject) -> None:
    whole = answer_text(seed, count)
    assert not check_answer(whole[: data.draw(st.integers(0, len(whole) - 1))]).complete


def test_an_answer_cut_between_tokens_is_incomplete_without_an_error() -> None:
    tokens = list(answer_tokens(7, 5))
    check = check_answer(b"".join(tokens[:3]).decode())
    assert (check.tokens, check.complete, check.errors) == (3, False, ())


def test_the_error_says_what_is_lost() -> None:
    tokens = list(answer_tokens(7, 5))
    check = check_answer(b"".join([*tokens[:1], *tokens[3:]]).decode())
    assert check.errors[0] == "token 3 follows token 0: 2 lost"


def test_somebody_elses_answer_is_seen_when_the_prompt_is_known() -> None:
    mine = answer_text(answer_seed("mine"), 4)
    assert check_answer(mine, prompt="mine").complete
    assert not check_answer(mine, prompt="yours").complete
    assert not check_answer(mine, prompt="mine", seed=1).complete


def test_a_stop_string_across_tokens_is_left_out() -> None:
    tokens = list(answer_tokens(7, 5))
    text = b"".join(tokens)
    border = len(tokens[0]) + len(tokens[1])
    stop = text[border - 2 : border + 3]
    kept, stopped = cut_at_stop(iter(tokens), (b"absent", stop))
    assert stopped
    assert b"".join(kept) == text[: border - 2]


def test_without_its_stop_string_an_answer_is_whole() -> None:
    tokens = list(answer_tokens(7, 5))
    assert cut_at_stop(iter(tokens), (b"absent",)) == (tokens, False)
