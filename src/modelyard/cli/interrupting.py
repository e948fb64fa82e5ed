"""Lets Ctrl-C end a read that waits for bytes, whenever it comes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_TICK_S = 0.2


@contextmanager
def interruptible() -> Iterator[None]:
    """Have an interrupt noticed within a moment, in a main thread that reads from a socket.

    Python looks for signals between its own instructions, and when one breaks into a system call.
    One that comes between the last look and the call is noticed when the call is over, which of an
    answer that stalls is never. A timer's signal breaks into the call again and again.
    """
    before = signal.signal(signal.SIGALRM, _nothing)
    timer = signal.setitimer(signal.ITIMER_REAL, _TICK_S, _TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *timer)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The signal has done its work by coming."""
