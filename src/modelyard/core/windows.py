"""What was used lately, in cells of integers: a sliding minute, and days and months of UTC.

A counter is a row of integers that somebody else keeps (in memory, or in a file that outlives the
process), so that the same arithmetic serves both. Time is an argument: whole Unix seconds.

The minute is 61 cells of one second: those of the last 60 s touch at most so many, so the sum is
never less than what was used in any 60 s up to now. A bound held against it is never exceeded.
"""

from typing import Literal, Protocol


class Cells(Protocol):
    """A row of integers."""

    def __getitem__(self, place: int, /) -> int: ...
    def __setitem__(self, place: int, value: int, /) -> None: ...


MINUTE_S = 60
_SECONDS = MINUTE_S + 1
_FIRST = 2
CELLS = _FIRST + _SECONDS
"""How many integers a counter of any kind needs."""
_LATEST_JUMP_S = 2 * MINUTE_S
"""A clock that went back by more than this begins a new count."""

Period = Literal["day", "month"]
_DAY_S = 86_400


class Minute:
    """A sliding minute over cells: [newest second, sum, 61 counts by second modulo 61]."""

    __slots__ = ("_cells",)

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def used(self, now: int) -> int:
        """What counts at second `now`."""
        self._advance(now)
        return self._cells[1]

    def add(self, now: int, amount: int) -> int:
        """Count `amount` at `now`; return the second that it stands under, for `adjust`."""
        second = self._advance(now)
        self._put(second, amount)
        return second

    def adjust(self, second: int, change: int) -> None:
        """Correct what was counted at `second`, unless that no longer counts."""
        if self._cells[0] - second < _SECONDS:
            place = _FIRST + second % _SECONDS
            self._put(second, max(change, -self._cells[place]))

    def wait_s(self, now: int, surplus: int) -> int:
        """Seconds until `surplus` of what counts now no longer does; a minute when it never is."""
        newest = self._advance(now)
        for age in range(_SECONDS - 1, -1, -1):
            surplus -= self._cells[_FIRST + (newest - age) % _SECONDS]
            if surplus <= 0:
                return _SECONDS - age
        return _SECONDS

    def _put(self, second: int, amount: int) -> None:
        self._cells[_FIRST + second % _SECONDS] += amount
        self._cells[1] += amount

    def _advance(self, now: int) -> int:
        """Drop what is older than a minute; a clock that goes back a little stands still."""
        cells = self._cells
        newest = cells[0]
        if now == newest:
            return now
        if now < newest and newest - now <= _LATEST_JUMP_S:
            return newest
        if now - newest >= _SECONDS or now < newest:
            for place in range(_FIRST, CELLS):
                cells[place] = 0
            cells[1] = 0
        else:
            for second in range(newest + 1, now + 1):
                place = _FIRST + second % _SECONDS
                cells[1] -= cells[place]
                cells[place] = 0
        cells[0] = now
        return now


class Calendar:
    """A day or a month of UTC over cells: [number of the period, used in it]."""

    __slots__ = ("_cells", "_period")

    def __init__(self, cells: Cells, period: Period) -> None:
        self._cells = cells
        self._period = period

    def used(self, now: int) -> int:
        """What was used in the period of `now`."""
        self._advance(now)
        return self._cells[1]

    def add(self, now: int, amount: int) -> int:
        """Count `amount`; return the period's number, for `adjust`."""
        number = self._advance(now)
        self._cells[1] += amount
        return number

    def adjust(self, number: int, change: int) -> None:
        """Correct what was counted in that period, unless another one has begun."""
        if number == self._cells[0]:
            self._cells[1] = max(0, self._cells[1] + change)

    def wait_s(self, now: int, _surplus: int) -> int:
        """Seconds until the next period."""
        number = period_number(self._period, now)
        return period_start(self._period, number + 1) - now

    def _advance(self, now: int) -> int:
        number = period_number(self._period, now)
        # A clock that went back over a border stays in the period that it was in.
        if number > self._cells[0] or number < self._cells[0] - 1:
            self._cells[0] = number
            self._cells[1] = 0
        return self._cells[0]


def period_number(period: Period, at: int) -> int:
    """Days, or months, since 1970 began, at a Unix second."""
    days = at // _DAY_S
    if period == "day":
        return days
    year, month, _ = _civil(days)
    return (year - 1970) * 12 + month - 1


def period_start(period: Period, number: int) -> int:
    """The Unix second at which a period begins."""
    if period == "day":
        return number * _DAY_S
    return _days(1970 + number // 12, number % 12 + 1) * _DAY_S


def _civil(days: int) -> tuple[int, int, int]:
    """Year, month and day of the Gregorian calendar; Hinnant, "chrono-Compatible Low-Level Date
    Algorithms", `civil_from_days`."""
    days += 719_468
    era, of_era = divmod(days, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year + era * 400 + (month <= 2), month, of_year - (153 * shifted + 2) // 5 + 1


def _days(year: int, month: int) -> int:
    """Days from 1970 to the first of a month; the same source, `days_from_civil`."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
