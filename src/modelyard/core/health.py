"""Whether a replica is asked: a circuit breaker for each, and what takes an outlier out.

States and moves are the table `MOVES`; what is counted decides when `tripped` happens. Time is an
argument, in monotonic seconds. The pattern: Nygard, "Release It!", 2007, chapter 5.
"""

from collections.abc import Sequence
from enum import StrEnum

from modelyard.core.records import AttemptOutcome
from modelyard.core.routes import Breaking

WINDOW_S = 30
"""How far back failures are counted for the comparison with others."""


class State(StrEnum):
    CLOSED = "closed"
    """It is asked."""
    OPEN = "open"
    """It is left alone until a time, which grows with each opening in a row."""
    TRIAL = "trial"
    """One request at a time finds out whether it is back."""


class Signal(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """No connection, a 5xx, a cut or silent answer: the replica is at fault."""
    REFUSED = "refused"
    """A 4xx: the request was at fault, which says nothing of the replica."""
    TRIPPED = "tripped"
    """Enough failures were counted."""
    COOLED = "cooled"
    """The time of an open breaker is over, or a probe was answered."""


MOVES: dict[tuple[State, Signal], State] = {
    (State.CLOSED, Signal.TRIPPED): State.OPEN,
    (State.OPEN, Signal.COOLED): State.TRIAL,
    (State.TRIAL, Signal.SUCCEEDED): State.CLOSED,
    (State.TRIAL, Signal.FAILED): State.OPEN,
}
"""Every other signal leaves the state as it is."""

SIGNALS: dict[AttemptOutcome, Signal] = {
    "completed": Signal.SUCCEEDED,
    "refused": Signal.REFUSED,
    "unreachable": Signal.FAILED,
    "error_status": Signal.FAILED,
    "timeout": Signal.FAILED,
    "cut": Signal.FAILED,
}
"""`busy` (429) puts a replica aside, `cancelled` (the client left) says nothing."""


class Circuit:
    """What is known of one replica's health."""

    __slots__ = ("_aside_until", "_failures", "_opened", "_trials", "_until", "_window", "state")

    def __init__(self) -> None:
        self.state = State.CLOSED
        self._failures = 0
        """In a row."""
        self._opened = 0
        """How often in a row it opened."""
        self._until = 0.0
        self._aside_until = 0.0
        self._trials = 0
        self._window: list[tuple[int, int, int]] = []
        """Second, attempts, failures; the newest last."""

    def takes(self, now: float) -> bool:
        """Whether it may be asked now."""
        if now < self._aside_until:
            return False
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            return now >= self._until
        return self._trials == 0

    def back_in_s(self, now: float) -> float:
        """Seconds until it may be asked again, as far as that is known; 0 when it may."""
        until = self._until if self.state is State.OPEN else now
        return max(0.0, until - now, self._aside_until - now)

    def begin(self, now: float) -> None:
        """A request goes to it."""
        if self.state is State.OPEN and now >= self._until:
            self._move(Signal.COOLED)
        if self.state is State.TRIAL:
            self._trials += 1

    def end(self, outcome: AttemptOutcome, breaking: Breaking, now: float) -> None:
        """A request that went to it ended; called once for every `begin`."""
        if self.state is State.TRIAL:
            self._trials = max(0, self._trials - 1)
        signal = SIGNALS.get(outcome)
        if signal is not None:
            self._observe(signal, breaking, now)

    def put_aside(self, seconds: float, now: float) -> None:
        """It said itself when to come back."""
        self._aside_until = max(self._aside_until, now + seconds)

    def probed(self, answered: bool, breaking: Breaking, now: float) -> None:
        """A probe came back, or did not."""
        if answered:
            if self.state is State.OPEN:
                self._move(Signal.COOLED)
        elif self.state is State.CLOSED:
            self._observe(Signal.FAILED, breaking, now)

    def trip(self, breaking: Breaking, now: float) -> None:
        """Open it: it was found to be worse than the others."""
        if self._move(Signal.TRIPPED):
            self._open(breaking, now)

    def recent(self, now: float) -> tuple[int, int]:
        """Attempts and failures of the last half minute."""
        oldest = int(now) - WINDOW_S
        while self._window and self._window[0][0] <= oldest:
            self._window.pop(0)
        attempts = sum(cell[1] for cell in self._window)
        return attempts, sum(cell[2] for cell in self._window)

    def _observe(self, signal: Signal, breaking: Breaking, now: float) -> None:
        if signal is Signal.REFUSED:
            return
        failed = signal is Signal.FAILED
        self._count(failed, now)
        self._failures = self._failures + 1 if failed else 0
        if self._move(signal):
            if failed:
                self._open(breaking, now)
            else:
                self._opened = 0
        elif failed and self._failures >= breaking.failures:
            self.trip(breaking, now)

    def _open(self, breaking: Breaking, now: float) -> None:
        self._opened += 1
        longest = max(breaking.open_s, breaking.max_open_s)
        self._until = now + min(longest, breaking.open_s * 2.0 ** min(self._opened - 1, 30))
        self._failures = 0
        self._trials = 0

    def _count(self, failed: bool, now: float) -> None:
        second = int(now)
        window = self._window
        if window and window[-1][0] == second:
            _, attempts, failures = window[-1]
            window[-1] = (second, attempts + 1, failures + failed)
        else:
            self.recent(now)
            window.append((second, 1, int(failed)))

    def _move(self, signal: Signal) -> bool:
        after = MOVES.get((self.state, signal))
        if after is None:
            return False
        self.state = after
        return True


def outliers(recent: Sequence[tuple[int, int]], breaking: Breaking) -> list[int]:
    """Which replicas fail so much more than the others that they are taken out, the worst first.

    `recent`: attempts and failures of each that is asked now. At least half of them stay, for what
    half of them fail at is not one replica's fault.
    """
    ratios = {
        index: failures / attempts
        for index, (attempts, failures) in enumerate(recent)
        if attempts >= breaking.outlier_requests
    }
    worst = sorted(
        (index for index, ratio in ratios.items() if ratio >= breaking.outlier_ratio),
        key=lambda index: -ratios[index],
    )
    return worst[: len(recent) // 2]
