"""The book of limits: what is let in never goes over, and what is held is given back once (G13)."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import LimitExceeded
from modelyard.core.keys import LimitKind
from modelyard.core.limits import Bound, Use
from modelyard.gateway.counters import Counters
from modelyard.gateway.limits import LimitBook, Reservation

KINDS: list[LimitKind] = [
    "requests_per_min", "tokens_per_min", "concurrent_requests", "tokens_per_day",
    "tokens_per_month", "cost_per_day", "cost_per_month",
]  # fmt: skip

COUNTED = {"requests_per_min", "concurrent_requests"}


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counters]:
    """One file of counters; each test counts under names of its own."""
    opened = Counters(tmp_path_factory.mktemp("counted") / "counters")
    opened.open(today=19_675)
    yield opened
    opened.close()


names = (f"n{number}" for number in itertools.count())
steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "settle", "cancel", "wait"]), st.integers(0, 40), st.integers(0, 90)
    ),
    max_size=60,
)


def _asked(book: LimitBook, bound: Bound, use: Use) -> Reservation | LimitExceeded:
    try:
        return book.reserve([bound], use.tokens, use.nanos)
    except LimitExceeded as refused:
        return refused


@pytest.mark.parametrize("kind", KINDS)
@given(steps=steps)
def test_what_is_let_in_never_exceeds_a_limit(
    counters: Counters, kind: LimitKind, steps: list[tuple[str, int, int]]
) -> None:
    clock = Clock()
    book = LimitBook(counters, clock)
    bound = Bound(kind, "key", next(names), 100 if kind not in COUNTED else 5)
    held: list[tuple[Reservation, int]] = []
    for word, number, amount in steps:
        if word == "wait":
            clock.now += number / 4
        elif word == "ask":
            before = book.used(bound)
            use = Use(amount, amount)
            made = _asked(book, bound, use)
            if isinstance(made, Reservation):
                held.append((made, amount))
                continue
            assert before + bound.need(use) > bound.amount
            assert made.limit == f"{kind}:key"
            assert (made.retry_after_s is None) is (bound.need(use) > bound.amount)
            assert book.used(bound) == before  # a refusal holds nothing
        elif held:
            reservation, most = held.pop(number % len(held))
            if word == "settle":
                reservation.settle(min(amount, most), min(amount, most))
            else:
                reservation.cancel()
            after = book.used(bound)
            reservation.settle(0, 0)
            reservation.cancel()
            assert book.used(bound) == after  # once, whoever says it again
        assert 0 <= book.used(bound) <= bound.amount
    for reservation, _ in held:
        reservation.cancel()
    if kind == "concurrent_requests":
        assert book.used(bound) == 0


def test_one_bound_that_breaks_holds_nothing_of_the_others(counters: Counters) -> None:
    book = LimitBook(counters, Clock())
    wide = Bound("requests_per_min", "key", next(names), 100)
    narrow = Bound("concurrent_requests", "model", "m", 1)
    book.reserve([wide, narrow], 0)
    with pytest.raises(LimitExceeded, match="model 'm' may use 1 concurrent requests") as refused:
        book.reserve([wide, narrow], 0)
    assert refused.value.limit == "concurrent_requests:model"
    assert (book.used(wide), book.used(narrow)) == (1, 1)


def test_whoever_waits_as_long_as_told_is_let_in(counters: Counters) -> None:
    clock = Clock()
    book = LimitBook(counters, clock)
    bound = Bound("tokens_per_min", "tenant", next(names), 100)
    book.reserve([bound], 60)
    clock.now += 20
    book.reserve([bound], 30)
    with pytest.raises(LimitExceeded) as refused:
        book.reserve([bound], 50)
    assert refused.value.retry_after_s is not None
    clock.now += math.ceil(refused.value.retry_after_s)
    book.reserve([bound], 50)
    assert book.used(bound) == 80


def test_money_is_counted_beside_tokens_and_kept_where_nobody_knows(counters: Counters) -> None:
    book = LimitBook(counters, Clock())
    money = Bound("cost_per_day", "key", next(names), 1_000)
    tokens = Bound("tokens_per_day", "key", next(names), 1_000)
    known, unknown = book.reserve([money, tokens], 10, 400), book.reserve([money, tokens], 10, 400)

    with pytest.raises(LimitExceeded, match=r"may spend 0\.000001 per day") as refused:
        book.reserve([money, tokens], 10, 400)
    known.settle(4, 150)
    unknown.settle(4)

    assert refused.value.limit == "cost_per_day:key"
    assert refused.value.retry_after_s == 86_400 - Clock().now % 86_400
    assert (book.used(money), book.used(tokens)) == (150 + 400, 8)
    book.reserve([money, tokens], 10, 400).settle(10, 700)  # it cost more than was reckoned
    assert book.used(money) == 1_250
    with pytest.raises(LimitExceeded):
        book.reserve([money], 0, 1)


def test_what_was_spent_outlives_the_process(tmp_path: Path) -> None:
    bound = Bound("cost_per_month", "tenant", "blue", 10**18)
    for spent in (0, 3_000_000_000_000):
        opened = Counters(tmp_path / "counters")
        opened.open(today=19_675)
        book = LimitBook(opened, Clock())
        assert book.used(bound) == spent
        book.reserve([bound], 0, 5_000_000_000_000).settle(0, 3_000_000_000_000)
        opened.close()
