"""Limits at work: reserve before a request is sent, settle when it ends, release once (G13)."""

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence

from modelyard.core.errors import LimitExceeded
from modelyard.core.limits import PERIODS, Bound, Refusal, Use, first_refusal, told
from modelyard.core.windows import Calendar, Minute
from modelyard.gateway.counters import Counters

_DAY_S = 86_400
Clock = Callable[[], float]


class SteadyClock:
    """Unix seconds that never jump while the process runs: the wall clock is read once."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset


class Reservation:
    """What one request holds of its bounds. `settle` counts once, whoever calls it again."""

    __slots__ = ("_book", "_held", "_use")

    def __init__(self, book: "LimitBook", held: Sequence[tuple[Bound, int]], use: Use) -> None:
        self._book = book
        self._held = held
        self._use = use

    def settle(self, tokens: int, nanos: int | None = None) -> None:
        """The request is over and used so much: what was reserved beyond is given back.

        `nanos`: its cost in billionths; None when nobody knows: then what was reserved stands.
        """
        used = Use(tokens, self._use.nanos if nanos is None else nanos)
        held, self._held = self._held, ()
        for bound, stamp in held:
            self._book.settle(bound, stamp, bound.need(used) - bound.need(self._use))

    def cancel(self) -> None:
        """The request was not sent to any replica: it used nothing, not even a request."""
        held, self._held = self._held, ()
        for bound, stamp in held:
            self._book.settle(bound, stamp, -bound.need(self._use))


class LimitBook:
    """Counts what is used of every bound."""

    def __init__(self, counters: Counters, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock
        self._running: Counter[str] = Counter()
        self._windows: dict[str, Minute | Calendar] = {}
        self._day = 0

    def reserve(self, bounds: Sequence[Bound], tokens: int, nanos: int = 0) -> Reservation:
        """Hold so many tokens and so much money (billionths), one request and one place of each
        bound, or nothing of any.

        Raises LimitExceeded, which names the first bound that would be broken; StorageError.
        """
        now = int(self._clock())
        use = Use(tokens, nanos)
        used = [self._used(bound, now) for bound in bounds]
        broken = first_refusal(bounds, used, use)
        if broken is not None:
            index, surplus = broken
            raise self._refused(bounds[index], used[index], use, surplus, now)
        held = [(bound, self._hold(bound, use, now)) for bound in bounds]
        return Reservation(self, held, use)

    def settle(self, bound: Bound, stamp: int, change: int) -> None:
        """Correct what was held under `stamp`."""
        if bound.kind == "concurrent_requests":
            self._running[bound.id] -= 1
            if self._running[bound.id] <= 0:
                del self._running[bound.id]
        elif change:
            self._window(bound, int(self._clock())).adjust(stamp, change)

    def used(self, bound: Bound) -> int:
        """What counts against a bound now."""
        return self._used(bound, int(self._clock()))

    def _used(self, bound: Bound, now: int) -> int:
        if bound.kind == "concurrent_requests":
            return self._running[bound.id]
        return self._window(bound, now).used(now)

    def _hold(self, bound: Bound, use: Use, now: int) -> int:
        if bound.kind == "concurrent_requests":
            self._running[bound.id] += 1
            return 0
        return self._window(bound, now).add(now, bound.need(use))

    def _window(self, bound: Bound, now: int) -> Minute | Calendar:
        day = now // _DAY_S
        if day != self._day:
            # Each counter notes the day that it is used on, and what nobody uses any more goes.
            self._day = day
            self._windows.clear()
        window = self._windows.get(bound.id)
        if window is None:
            cells = self._counters.cells(bound.id, day)
            period = PERIODS.get(bound.kind)
            window = Minute(cells) if period is None else Calendar(cells, period)
            self._windows[bound.id] = window
        return window

    def _refused(self, bound: Bound, used: int, use: Use, surplus: int, now: int) -> LimitExceeded:
        need = bound.need(use)
        wait_s: int | None = None
        if need <= bound.amount:
            wait_s = 1
            if bound.kind != "concurrent_requests":
                wait_s = self._window(bound, now).wait_s(now, surplus)
        refusal = Refusal(bound=bound, used=used, need=need, wait_s=wait_s)
        error = LimitExceeded(
            told(refusal),
            next_step="ask for fewer tokens (max_tokens)"
            if wait_s is None
            else f"try again in {math.ceil(wait_s)} s",
            retry_after_s=wait_s,
        )
        error.limit = bound.shown
        return error
