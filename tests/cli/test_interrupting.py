"""An interrupt that came between Python's last look and a blocking read is noticed all the same."""

import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from modelyard.cli.interrupting import interruptible


def test_a_read_that_blocks_lets_python_look_at_signals() -> None:
    """The read waits for good; what Python has to do meanwhile, the timer lets it do."""
    one, other = socket.socketpair()
    with one, other:
        seen, main = threading.Event(), threading.get_native_id()
        late = []

        def break_in() -> None:
            _until_it_reads(main)
            # To this thread: the read of the main thread is not broken by the signal itself.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            if not seen.wait(5):
                late.append("nobody noticed")
                other.send(b"x")

        def noticed(_number: int, _frame: object) -> None:
            seen.set()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, noticed)
        breaking = threading.Thread(target=break_in)
        try:
            with pytest.raises(KeyboardInterrupt), interruptible():
                breaking.start()
                one.recv(1)
        finally:
            breaking.join()
            signal.signal(signal.SIGUSR1, before)
        assert late == []


def _until_it_reads(thread: int) -> None:
    """Until a thread of this process waits in the kernel for bytes, and not for Python's lock."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        waits_in = Path(f"/proc/self/task/{thread}/wchan").read_text()
        if "unix_stream" in waits_in:
            return


def test_it_leaves_the_timer_and_its_signal_as_they_were() -> None:
    before, left_s = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with interruptible():
        assert signal.getitimer(signal.ITIMER_REAL)[1] > 0

    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == pytest.approx(left_s, abs=10)
