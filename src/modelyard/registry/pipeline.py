"""One reader and several consumers, each in a thread of its own, over a few shared buffers.

What reads, hashes and writes lets go of the interpreter's lock, so that all three go on at once.
Buffers begin at a page's border, as writing past the page cache needs it (open(2), O_DIRECT).
"""

import mmap
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

CHUNK_BYTES = 256 * 1024
"""Small enough that a chunk is still in the processor's cache when it is hashed and written."""
_BUFFERS = 8

Sink = Callable[[memoryview], None]
Fill = Callable[[memoryview], int]
"""Fills a buffer as far as there is anything; returns the number of bytes, 0 at the end."""


class _Slot:
    """A buffer, and how many consumers are not done with it."""

    __slots__ = ("filled", "users", "view")

    def __init__(self) -> None:
        self.view = memoryview(mmap.mmap(-1, CHUNK_BYTES))
        self.filled = self.view
        self.users = 0


class Pipeline:
    """Hands every chunk that is read to each sink, in order."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = sinks
        self._free: SimpleQueue[_Slot] = SimpleQueue()
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []

    def run(self, fill: Fill, advance: Callable[[int], bool]) -> None:
        """Read until `fill` returns 0 or `advance`, told the size of each chunk, returns False.

        Raises what a sink raised; no sink is called any more once this returns.
        """
        for _ in range(_BUFFERS):
            self._free.put(_Slot())
        feeds: list[SimpleQueue[_Slot | None]] = [SimpleQueue() for _ in self._sinks]
        threads = [
            threading.Thread(target=self._consume, args=pair, name="registry-pipeline")
            for pair in zip(self._sinks, feeds, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            while not self._failures:
                slot = self._free.get()
                count = fill(slot.view)
                if count == 0:
                    break
                slot.filled = slot.view[:count]
                slot.users = len(feeds)
                for feed in feeds:
                    feed.put(slot)
                if not advance(count):
                    break
        finally:
            for feed in feeds:
                feed.put(None)
            for thread in threads:
                thread.join()
        if self._failures:
            raise self._failures[0]

    def _consume(self, sink: Sink, feed: "SimpleQueue[_Slot | None]") -> None:
        while (slot := feed.get()) is not None:
            try:
                if not self._failures:
                    sink(slot.filled)
            except BaseException as error:  # noqa: BLE001 - raised again where the caller waits
                self._failures.append(error)
            with self._lock:
                slot.users -= 1
                done = slot.users == 0
            if done:
                self._free.put(slot)
