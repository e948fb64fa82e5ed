"""Writes that a database does not take at once keep their order; what it never takes goes."""

import logging

import pytest

from modelyard.control.backlog import Backlog
from modelyard.core.errors import StorageAway, StorageError


class Written:
    """Takes numbers while it is there."""

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.numbers: list[int] = []

    def take(self, number: int) -> None:
        self.asked += 1
        if self.away:
            raise StorageAway("the state database is away")
        if number < 0:
            raise StorageError("a negative number is refused")
        self.numbers.append(number)


def write(backlog: Backlog, written: Written, *numbers: int) -> None:
    for number in numbers:
        backlog.write(lambda number=number: written.take(number))


def test_what_waited_is_written_in_its_order_before_anything_later() -> None:
    written, backlog = Written(), Backlog()
    write(backlog, written, 1)
    written.away = True
    write(backlog, written, 2, 3, 4)
    assert written.asked == 2  # who waits behind another asks nobody
    with pytest.raises(StorageAway):
        backlog.flush()
    written.away = False
    write(backlog, written, 5)
    backlog.flush()
    assert written.numbers == [1, 2, 3, 4, 5]


def test_what_is_refused_for_good_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    written, backlog = Written(), Backlog()
    written.away = True
    write(backlog, written, 1, -2, 3)
    written.away = False
    backlog.flush()
    assert written.numbers == [1, 3]
    assert "a negative number is refused" in caplog.text


def test_a_long_absence_costs_the_oldest_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    written, backlog = Written(), Backlog(max_waiting=3)
    written.away = True
    write(backlog, written, 1, 2, 3, 4, 5)
    written.away = False
    with caplog.at_level(logging.WARNING):
        backlog.flush()
    assert written.numbers == [3, 4, 5]
    assert "3 changes that waited are stored, 2 were lost" in caplog.text


def test_what_is_still_waiting_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    written, backlog = Written(), Backlog()
    written.away = True
    write(backlog, written, 1, 2)
    backlog.close()
    assert "2 changes could not be stored" in caplog.text
