"""Request records on their way to the controller: in memory for a moment, then on disk until taken.

Every tick the records of the moment are written as one batch file, and the oldest files are sent.
A file is removed when the controller has taken it, so records outlive a controller that is away and
a gateway that is killed (but for the last tick). The controller counts each record once.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from modelyard.core.records import RequestRecord
from modelyard.wire.feed import RecordBatch

log = logging.getLogger(__name__)

Receipt = Literal["taken", "refused", "later"]
"""`refused`: the controller will never take this batch; `later`: it may, when asked again."""
Post = Callable[[bytes], Awaitable[Receipt]]
"""Sends an encoded RecordBatch."""

TICK_S = 0.25
MAX_BATCH = 1000


class RecordSink(Protocol):
    """Where records go."""

    @property
    def dropped(self) -> int:
        """Records lost because there was no room."""

    @property
    def refuses(self) -> bool:
        """Whether a new request must be refused because its record could not be kept."""

    @property
    def waiting(self) -> int:
        """What is not yet where it belongs."""

    def put(self, record: RequestRecord) -> None:
        """Take a record; never waits."""


class SpoolPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds, and what happens at them."""

    max_bytes: int = 256 * 1024 * 1024
    """Batches on disk."""
    max_in_memory: int = 100_000
    """Records between two ticks."""
    when_full: Literal["refuse", "drop"] = "drop"
    """Refuse new requests with 503 (the choice where keys have budgets), or drop and count."""


class RecordSpool:
    """A bounded queue that survives the controller's absence."""

    def __init__(self, folder: Path, gateway: str, policy: SpoolPolicy) -> None:
        self._folder = folder
        self._gateway = gateway
        self._policy = policy
        self._fresh: deque[RequestRecord] = deque()
        self._files: deque[tuple[Path, int]] = deque()
        self._bytes = 0
        self._written = 0
        self.dropped = 0

    def open(self) -> None:
        """Make the folder and take over the batches that earlier processes left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for file in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # another gateway of this home has sent it
                facts = file.stat()
                found.append((facts.st_mtime_ns, file, facts.st_size))
        for _, file, size in sorted(found):
            self._keep(file, size)

    def put(self, record: RequestRecord) -> None:
        """Take a record; when the spool is full it is dropped and counted."""
        if self._full:
            self.dropped += 1
            return
        self._fresh.append(record)

    @property
    def refuses(self) -> bool:
        """Whether a new request must be refused because its record could not be kept."""
        return self._policy.when_full == "refuse" and self._full

    @property
    def waiting(self) -> int:
        """Records in memory, and batches on disk."""
        return len(self._fresh) + len(self._files)

    @property
    def _full(self) -> bool:
        return (
            len(self._fresh) >= self._policy.max_in_memory or self._bytes >= self._policy.max_bytes
        )

    async def run(self, post: Post) -> None:
        """Write and send until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.flush()
            while self._files and await self._send_oldest(post):
                pass

    def flush(self) -> None:
        """Write what is in memory as batch files. A full disk counts its records as dropped."""
        while self._fresh:
            count = min(len(self._fresh), MAX_BATCH)
            records = tuple(self._fresh.popleft() for _ in range(count))
            body = msgspec.json.encode(RecordBatch(gateway=self._gateway, records=records))
            self._written += 1
            file = self._folder / f"{self._gateway}-{self._written:08d}.json"
            partial = file.with_suffix(".part")
            try:
                partial.write_bytes(body)
                partial.rename(file)
            except OSError as error:
                self.dropped += count
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
                log.error("%d request records are lost: %s: %s", count, file, error.strerror)
            else:
                self._keep(file, len(body))

    def _keep(self, file: Path, size: int) -> None:
        self._files.append((file, size))
        self._bytes += size

    async def _send_oldest(self, post: Post) -> bool:
        file, size = self._files[0]
        try:
            body = file.read_bytes()
            receipt = await post(body) if body else "refused"
            if receipt == "later":
                return False
            if receipt == "refused":
                # One batch that nobody can take must not hold up all that come after it.
                log.error("a batch of request records is set aside: %s.refused", file)
                file.rename(f"{file}.refused")
            else:
                file.unlink()
        except FileNotFoundError:
            pass  # another gateway of this home has sent it
        except OSError as error:  # it stays for the next start; the controller counts it once
            log.error("request records are left in %s: %s", file, error.strerror)
        self._files.popleft()
        self._bytes -= size
        return True
