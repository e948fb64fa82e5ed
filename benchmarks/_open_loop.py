"""Open-loop load on raw sockets: requests begin when their time has come, whatever is under way.

A latency counts from the moment at which the request was due, not from when it could be sent: what
waited for a free connection has waited for the service (no coordinated omission).
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import uvloop

_END_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is asked."""

    rate: float
    """Requests per second, arriving by chance (Poisson)."""
    seconds: float
    body: bytes
    target: str = "/v1/chat/completions"
    headers: Sequence[tuple[str, str]] = ()
    connections: int = 64
    seed: int = 1


@dataclass
class Found:
    """What became of them."""

    latencies_s: list[float] = field(default_factory=list)
    failed: int = 0

    def quantile_ms(self, share: float) -> float:
        """In milliseconds; 0 without answers."""
        ordered = sorted(self.latencies_s)
        at = min(len(ordered) - 1, int(share * len(ordered)))
        return ordered[at] * 1000 if ordered else 0.0


def measure(url: str, shape: Shape) -> Found:
    """Send it all and wait for the answers."""
    return uvloop.run(_measure(url, shape))


async def _measure(url: str, shape: Shape) -> Found:
    load = _Load(url, shape)
    await load.run()
    return load.found


class _Load:
    def __init__(self, url: str, shape: Shape) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._shape = shape
        lines = [f"POST {shape.target} HTTP/1.1", f"host: {parts.netloc}",
                 "content-type: application/json", f"content-length: {len(shape.body)}",
                 *(f"{name}: {value}" for name, value in shape.headers)]  # fmt: skip
        self._request = "\r\n".join(lines).encode() + b"\r\n\r\n" + shape.body
        self._due: deque[float] = deque()
        self._free: list[_Connection] = []
        self._left = 0
        self._over = asyncio.Event()
        self.found = Found()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._shape.connections):
            await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        draws, now = random.Random(self._shape.seed), time.perf_counter()
        end, due = now + self._shape.seconds, now
        while (due := due + draws.expovariate(self._shape.rate)) < end:
            if (wait_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait_s)
            self._left += 1
            self._due.append(due)
            self.send()
        if self._left:
            try:
                async with asyncio.timeout(_END_S):
                    await self._over.wait()
            except TimeoutError:
                self.found.failed += self._left

    def send(self) -> None:
        while self._due and self._free:
            self._free.pop().send(self._request, self._due.popleft())

    def free(self, connection: "_Connection") -> None:
        self._free.append(connection)
        self.send()

    def answered(self, due: float, *, well: bool) -> None:
        self._left -= 1
        if well:
            self.found.latencies_s.append(time.perf_counter() - due)
        else:
            self.found.failed += 1
        if not self._left:
            self._over.set()
        else:
            self._over.clear()


class _Connection(asyncio.Protocol):
    """Reads answers that tell their length; anything else counts as failed."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._got = bytearray()
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._load.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._end(well=False)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._got.clear()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._got.lower().find(b"content-length:", 0, head)
        end = self._got.find(b"\r\n", at)
        length = int(self._got[at + 15 : end]) if at >= 0 else 0
        if len(self._got) >= head + 4 + length:
            self._end(well=self._got.startswith(b"HTTP/1.1 200"))
            self._load.free(self)

    def _end(self, *, well: bool) -> None:
        due, self._due = self._due, None
        if due is not None:
            self._load.answered(due, well=well)
