from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.estimates import Estimate


@given(st.floats(1.0, 8.0))
def test_it_learns_a_models_ratio(bytes_per_token: float) -> None:
    estimate = Estimate()
    for _ in range(300):
        estimate.learn_prompt(round(1000 * bytes_per_token), 1000)
    assert 950 <= estimate.prompt_tokens(round(1000 * bytes_per_token)) <= 1100


def test_it_leans_to_the_high_side_while_prompts_differ() -> None:
    estimate = Estimate()
    for number in range(300):
        estimate.learn_prompt(3000 if number % 2 else 5000, 1000)
    assert estimate.prompt_tokens(4000) > 1000


@given(st.lists(st.tuples(st.integers(-5, 10**9), st.integers(-5, 10**9)), max_size=50),
       st.integers(0, 10**7))  # fmt: skip
def test_nothing_that_an_engine_says_makes_it_absurd(
    said: list[tuple[int, int]], size: int
) -> None:
    estimate = Estimate()
    for size_bytes, tokens in said:
        estimate.learn_prompt(size_bytes, tokens)
        estimate.learn_speed(tokens, size_bytes / 1000)
    assert 1 <= estimate.prompt_tokens(size) <= max(1, size * 10)
    assert estimate.completion_tokens(1.0) >= 0


def test_it_learns_how_fast_a_model_answers() -> None:
    estimate = Estimate()
    for _ in range(300):
        estimate.learn_speed(100, 2.0)
    assert 480 <= estimate.completion_tokens(10.0) <= 520


@given(st.floats(0.001, 1.0))
def test_it_learns_how_long_requests_have_a_replica(seconds_per_token: float) -> None:
    estimate = Estimate()
    for _ in range(300):
        estimate.learn_time(0, 100, 100 * seconds_per_token)
    expected = 200 * seconds_per_token
    assert expected * 0.95 <= estimate.replica_s(0, 200) <= expected * 1.1
    assert estimate.replica_s(80, 200) > estimate.replica_s(0, 200)


def test_it_leans_to_the_high_side_while_times_differ() -> None:
    estimate = Estimate()
    for number in range(300):
        estimate.learn_time(0, 100, 1.0 if number % 2 else 3.0)
    assert estimate.replica_s(0, 100) > 2.0


@given(st.lists(st.tuples(st.integers(-5, 10**9), st.floats(-5, 1e9)), max_size=50))
def test_no_time_makes_it_absurd(said: list[tuple[int, float]]) -> None:
    estimate = Estimate()
    for tokens, seconds in said:
        estimate.learn_time(tokens, tokens, seconds)
    assert 0 <= estimate.replica_s(8, 1) <= 2 * 180
