"""Cells: the sum is never less than what any minute saw, and nothing counts for longer."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.windows import CELLS, Calendar, Minute, period_number, period_start

uses = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 50)), max_size=60)


def _minute() -> Minute:
    return Minute([0] * CELLS)


@given(uses)
def test_a_minute_counts_all_of_the_last_sixty_seconds(steps: list[tuple[int, int]]) -> None:
    minute, now, history = _minute(), 1_790_000_000, []
    for wait, amount in steps:
        now += wait
        minute.add(now, amount)
        history.append((now, amount))

        counted = minute.used(now)

        assert counted >= sum(many for at, many in history if at > now - 60)
        assert counted == sum(many for at, many in history if at > now - 61)


@given(uses, st.integers(1, 200))
def test_waiting_frees_what_it_said(steps: list[tuple[int, int]], surplus: int) -> None:
    minute, now = _minute(), 1_790_000_000
    for wait, amount in steps:
        now += wait
        minute.add(now, amount)
    before = minute.used(now)

    wait_s = minute.wait_s(now, surplus)

    assert 1 <= wait_s <= 61
    assert minute.used(now + wait_s) <= max(0, before - surplus)


def test_what_was_held_is_corrected_where_it_stands() -> None:
    minute = _minute()
    second = minute.add(1000, 50)
    minute.add(1030, 7)

    minute.adjust(second, -40)
    assert minute.used(1030) == 17
    assert minute.used(1061) == 7  # the rest of it left with its second
    minute.adjust(second, -10)  # settled too late: it no longer counts
    assert minute.used(1061) == 7


@given(st.integers(-100, 100))
def test_a_correction_never_makes_less_than_nothing(change: int) -> None:
    minute = _minute()
    second = minute.add(1000, 5)
    minute.adjust(second, change)
    assert minute.used(1000) == max(0, 5 + change)


def test_a_clock_that_goes_back_a_little_stands_still_and_a_lot_begins_anew() -> None:
    minute = _minute()
    minute.add(5000, 10)
    assert minute.used(4990) == 10
    assert minute.used(4000) == 0


moments = st.integers(0, 4_000_000_000)


@given(moments)
def test_periods_are_those_of_the_calendar(at: int) -> None:
    then = datetime.fromtimestamp(at, UTC)
    for period, begins in (
        ("day", datetime(then.year, then.month, then.day, tzinfo=UTC)),
        ("month", datetime(then.year, then.month, 1, tzinfo=UTC)),
    ):
        number = period_number(period, at)  # type: ignore[arg-type]
        assert period_start(period, number) == begins.timestamp()  # type: ignore[arg-type]
        assert period_start(period, number + 1) > at  # type: ignore[arg-type]


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_budget_begins_anew_with_its_period(period: str) -> None:
    calendar = Calendar([0] * CELLS, period)  # type: ignore[arg-type]
    now = int(datetime(2026, 11, 30, 23, 59, tzinfo=UTC).timestamp())
    stamp = calendar.add(now, 100)
    assert calendar.wait_s(now, 1) == 60
    calendar.adjust(stamp, -30)
    assert calendar.used(now) == 70

    assert calendar.used(now + 60) == 0
    calendar.adjust(stamp, -30)  # of the period before
    assert calendar.used(now + 60) == 0
    assert calendar.used(now) == 0  # a clock that goes back over the border stays in the new one
