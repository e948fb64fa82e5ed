"""Open-loop load whose every answer is checked: whole, nobody else's, of the version it names.

Requests begin when their time has come, whether or not earlier ones are over: a service that is
slow for a moment is asked on. Each begins a connection of its own, as a stranger's would.
"""

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelyard.conformance.client import Connection, Cut, Reply, origin, request
from modelyard.engines.fake_server.answers import check_answer
from modelyard.wire import sse

SHORTEST_S, LONGEST_S = 1.0, 120.0
MEDIAN_S, SIGMA = 8.0, 1.1
"""Length of streams, log-normal, before it is scaled down."""
STEP_S = 0.01
"""Of the engines: one token."""
PATIENCE_S = 60.0
Versions = Mapping[str, str]
"""What an engine says of its weights (`system_fingerprint`) by the version's name."""


@dataclass
class Asked:
    """One request and what became of it; times are Unix seconds."""

    gateway: str
    began: float
    head_at: float | None = None
    ttft_s: float | None = None
    ended: float = 0.0
    version: str = ""
    begun: bool = False
    """An answer with status 200 began."""
    problem: str = ""
    """What was wrong with the answer; empty: nothing."""
    connected: bool = False


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is asked."""

    rate: float = 20.0
    """Requests per second, over all gateways."""
    scale: float = 1 / 60
    """Of the streams' lengths."""
    whole: float = 0.25
    """Of the requests, those that ask for their answer in one piece."""
    model: str = "yardling"


@dataclass
class Load:
    """Asks gateways in turn from a thread of its own until it is told to end."""

    gateways: Sequence[str]
    seed: int
    shape: Shape = field(default_factory=Shape)
    fingerprints: Versions = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    """Finished ones; only ever appended to."""

    def __post_init__(self) -> None:
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ask nothing more, and wait for what was asked."""
        self._ending.set()
        self._thread.join()

    async def _run(self) -> None:
        draws = random.Random(self.seed)
        due = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        number = 0
        while not self._ending.is_set():
            due += draws.expovariate(self.shape.rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            number += 1
            one = self._one(
                self.gateways[number % len(self.gateways)],
                number,
                tokens(draws, self.shape.scale),
                stream=draws.random() >= self.shape.whole,
            )
            task = asyncio.create_task(one)
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _one(self, gateway: str, number: int, count: int, *, stream: bool) -> None:
        asked = Asked(gateway, time.time())
        prompt = f"{self.seed}-{number} [[fake: tokens={count}]]"
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._ask(asked, prompt, stream=stream)
        except TimeoutError:
            asked.problem = f"nothing more came for {PATIENCE_S:g} s"
        except (Cut, OSError, ValueError, KeyError) as error:
            asked.problem = f"{type(error).__name__}: {error}"
        asked.ended = time.time()
        self.asked.append(asked)

    async def _ask(self, asked: Asked, prompt: str, *, stream: bool) -> None:
        place = origin(asked.gateway)
        body = {
            "model": self.shape.model,
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
        }
        begun = time.monotonic()
        connection = await Connection.open(place)
        asked.connected = True
        try:
            await connection.send(request(place, "/v1/chat/completions", json.dumps(body).encode(),
                                          {"Connection": "close"}))  # fmt: skip
            reply = await connection.reply()
            asked.head_at = time.time()
            asked.version = reply.headers.get("x-modelyard-version", "")
            asked.begun = reply.status == 200
            if not asked.begun:
                told = (await reply.body())[:200]
                asked.problem = f"status {reply.status}: {told!r}"
                return

            def first() -> None:
                asked.ttft_s = asked.ttft_s or time.monotonic() - begun

            text, maker = await (_streamed(reply, first) if stream else _whole(reply))
            asked.problem = self._wrong(asked.version, prompt, text, maker)
        finally:
            connection.leave()

    def _wrong(self, version: str, prompt: str, text: str, maker: str) -> str:
        check = check_answer(text, prompt=prompt)
        if not check.complete:
            return f"not whole: {text[-60:]!r} {check.errors}"
        expected = self.fingerprints.get(version)
        if self.fingerprints and maker != expected:
            return f"{version or 'nobody'} is named, {maker} answered"
        return ""


async def _whole(reply: Reply) -> tuple[str, str]:
    body = json.loads(await reply.body())
    return str(body["choices"][0]["message"]["content"]), str(body["system_fingerprint"])


async def _streamed(reply: Reply, first: Callable[[], None]) -> tuple[str, str]:
    """The text and its maker; a stream that ends without its mark is Cut."""
    splitter = sse.EventSplitter()
    said: list[str] = []
    maker, done = "", False
    while (part := await reply.part()) is not None:
        for event in splitter.feed(part):
            data = sse.data_of(event)
            if data is None:
                continue
            if data.strip() == sse.DONE:
                done = True
                continue
            body: dict[str, Any] = json.loads(data)
            if body.get("error"):
                raise Cut(f"an error in the stream: {body['error']}")
            maker = str(body.get("system_fingerprint") or maker)
            for choice in body["choices"]:
                if choice["delta"].get("content"):
                    first()
                    said.append(choice["delta"]["content"])
    if not done:
        raise Cut("the stream ended without its mark")
    return "".join(said), maker


def tokens(draws: random.Random, scale: float) -> int:
    """Length of one answer: a log-normal time, scaled, in steps of the engine."""
    length_s = MEDIAN_S * draws.lognormvariate(0, SIGMA)
    return max(1, round(min(max(length_s, SHORTEST_S), LONGEST_S) * scale / STEP_S))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
