"""The fake engines behind the gateway, seen and told by their control routes."""

import asyncio
from typing import Any

import msgspec

from modelyard.conformance.client import Connection, Cut, Origin, origin, request
from modelyard.core.errors import Unavailable
from modelyard.engines.fake_server.faults import FaultRule
from modelyard.engines.fake_server.ledger import Arrival, Entry

ATTEMPTS = 200
"""A script for connections resets ours too, as often as it was told."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine says of itself."""

    running: int
    waiting: int
    slots: list[Any]
    """As many as it works on at once."""
    unsent_bytes: int
    """What was written of answers and not taken yet, beyond what the kernel holds."""
    seen: int
    faults: list[FaultRule]
    log: list[Entry]

    @property
    def busy(self) -> int:
        """Requests under way."""
        return self.running + self.waiting


class Engine:
    """One fake engine. Its connection is kept, for a script may refuse new ones."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        """A, B or C."""
        self.url = url
        self._place: Origin = origin(url)
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()

    async def state(self) -> State:
        """Raises Unavailable when it can't be reached or is no fake engine."""
        return self._read(await self._ask("GET", "/control/state"))

    async def entries(self, tag: str) -> list[Entry]:
        """What the log says of the requests whose prompt begins with `tag`, oldest first."""
        return [entry for entry in (await self.state()).log if entry.prompt.startswith(tag)]

    async def arrivals(self, tag: str) -> list[Arrival]:
        """The requests that hold `tag`, as they came; oldest first, of the last few only."""
        body = await self._ask("GET", "/control/requests")
        try:
            found = msgspec.json.decode(body, type=list[Arrival])
        except msgspec.MsgspecError as error:
            raise self._absent(f"its requests can't be read: {error}") from None
        return [arrival for arrival in found if tag in arrival.body]

    async def fault(self, script: str, **rule: Any) -> None:
        """Put a rule in force (docs/fake-engine.md)."""
        body = msgspec.json.encode({"script": script, **rule})
        await self._ask("POST", "/control/faults", body)

    async def clear(self) -> None:
        """Forget all rules."""
        await self._ask("DELETE", "/control/faults")

    async def cut(self) -> None:
        """End every request under way."""
        await self._ask("POST", "/control/cut", b"{}")

    async def reset(self) -> None:
        """Forget rules, counts and log."""
        await self._ask("POST", "/control/reset", b"{}")

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.leave()
            self._connection = None

    def _read(self, body: bytes) -> State:
        try:
            return msgspec.json.decode(body, type=State)
        except msgspec.MsgspecError as error:
            raise self._absent(f"its state can't be read: {error}") from None

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        async with self._turn:
            for attempt in range(ATTEMPTS):
                try:
                    return await self._once(request(self._place, path, body, {}, method))
                except (OSError, Cut) as error:
                    self.close()
                    if attempt == ATTEMPTS - 1 or isinstance(error, ConnectionRefusedError):
                        raise self._absent(str(error)) from None
                except asyncio.CancelledError:
                    self.close()  # its answer may be on the way
                    raise
        raise self._absent("it refuses every connection")

    async def _once(self, data: bytes) -> bytes:
        if self._connection is None:
            self._connection = await Connection.open(self._place)
        await self._connection.send(data)
        reply = await self._connection.reply()
        body = await reply.body()
        if reply.status != 200:
            raise self._absent(f"it answered {reply.status} {body[:100]!r}")
        return body

    def _absent(self, why: str) -> Unavailable:
        return Unavailable(
            f"there is no fake engine {self.name} at {self.url}: {why}",
            next_step="start engines with: modelyard conformance engines",
        )
