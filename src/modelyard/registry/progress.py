"""How far a long operation is, by bytes, over files that are worked on in parallel."""

import threading
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""(stage or file name, bytes done, bytes in all). Called one at a time, from any thread; what it
raises ends the operation, which leaves nothing half-done."""


class Cancelled(Exception):
    """Raised in worker threads after the operation was given up."""


class Tally:
    """Sums the bytes of all files of one operation and hands them to the caller's callback."""

    def __init__(self, progress: Progress | None, total_bytes: int) -> None:
        self._progress = progress
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._lock = threading.Lock()
        self._cancelled = False

    def cancel(self) -> None:
        """Make every worker stop at its next chunk."""
        self._cancelled = True

    def add(self, label: str, count: int) -> None:
        """A file of `count` bytes is done."""
        if self._cancelled:
            raise Cancelled
        with self._lock:
            self._done_bytes += count
            if self._progress is not None:
                self._progress(label, self._done_bytes, self._total_bytes)

    def part(self, label: str) -> Progress:
        """Return the callback of one file; a file that begins anew is counted once."""
        furthest = 0

        def advance(_name: str, done: int, _total: int) -> None:
            nonlocal furthest
            if self._cancelled:
                raise Cancelled
            with self._lock:
                self._done_bytes += max(0, done - furthest)
                furthest = max(furthest, done)
                if self._progress is not None:
                    self._progress(label, self._done_bytes, self._total_bytes)

        return advance
