"""A proxy before a right gateway that spoils what passes through it, in one way that is chosen.

Without a flaw it passes bytes on as they come. With one it reads HTTP as carelessly as it can, asks
the gateway on a connection of its own for each request, and passes the answer on.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from modelyard.conformance.target import Target


class Asked(msgspec.Struct):
    """A request, as far as a careless reader sees it; headers by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @key.setter
    def key(self, key: str) -> None:
        self.headers["authorization"] = f"Bearer {key}"

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the fields of a body that has any."""
        with contextlib.suppress(ValueError):
            fields = json.loads(self.body)
            if isinstance(fields, dict):
                change(fields)
                self.body = json.dumps(fields).encode()


class Flaw(msgspec.Struct, frozen=True, kw_only=True):
    """What is spoilt; all left out: HTTP is read carelessly, and nothing else."""

    ask: Callable[[Asked, Target], None] | None = None
    """Changes a request."""
    tell: Callable[[bytes, Target], bytes] | None = None
    """Changes a whole answer: its head and its body, which ends with the connection."""
    keeps_open: bool = False
    """After an answer the connection goes on, whatever was read before."""
    forgets_bodies: bool = False
    """Of a request that is no POST to a known path: the body is taken for the next request."""
    never_leaves: bool = False
    """A client's leaving is not passed on."""


class MeddlingProxy:
    """Listens on a free port of its loop."""

    def __init__(self, target: Target, flaw: Flaw | None) -> None:
        parts = urlsplit(target.url)
        self._gateway = (str(parts.hostname), int(parts.port or 0))
        self._target = target
        self._flaw = flaw
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Target:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**24)
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return msgspec.structs.replace(self._target, url=url)

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self._flaw is None:
                await self._tunnel(reader, writer)
                return
            while (asked := await _read(reader, self._flaw)) is not None:
                await self._pass_on(asked, self._flaw, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._gateway)
        try:
            await _first_of(_copy(reader, back), _copy(there, writer))
            if writer.can_write_eof():
                writer.write_eof()
        finally:
            back.transport.abort()

    async def _pass_on(
        self, asked: Asked, flaw: Flaw, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if flaw.ask is not None:
            flaw.ask(asked, self._target)
        there, back = await asyncio.open_connection(*self._gateway)
        try:
            version = "1.0" if flaw.tell is not None else "1.1"  # without chunks it can be changed
            back.write(_bytes(asked, version))
            await _first_of(
                self._answer(there, writer, flaw), _never() if flaw.never_leaves else _left(reader)
            )
        finally:
            back.transport.abort()

    async def _answer(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, flaw: Flaw
    ) -> None:
        if flaw.tell is None:
            with contextlib.suppress(OSError):
                await _copy(there, writer)
            while flaw.never_leaves and await there.read(65_536):
                pass
            if not flaw.keeps_open:
                writer.close()
            return
        head, _, body = (await there.read()).partition(b"\r\n\r\n")
        head = re.sub(rb"\r\ncontent-length: \d+", b"", head)
        writer.write(flaw.tell(head + b"\r\n\r\n" + body, self._target))
        writer.close()


async def _read(reader: asyncio.StreamReader, flaw: Flaw) -> Asked | None:
    """Whatever looks like a request."""
    line = (await reader.readline()).decode("latin-1").split()
    if not line:
        return None
    headers: dict[str, str] = {}
    while text := (await reader.readline()).decode("latin-1").strip():
        name, _, value = text.partition(":")
        headers[name.strip().lower()] = value.strip()
    if flaw.forgets_bodies and (line[0] != "POST" or not headers.get("authorization")):
        return Asked(line[0], line[1], headers, b"")
    if "chunked" in headers.get("transfer-encoding", ""):
        body = await _chunks(reader)
    else:
        body = await reader.readexactly(abs(_number(headers.get("content-length", "0"))))
    return Asked(line[0], line[1], headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := abs(int(await reader.readline(), 16)):
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass
    return body


def _number(text: str) -> int:
    """The first one that is found in it."""
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0


def _bytes(asked: Asked, version: str) -> bytes:
    kept = ("authorization", "cache-control", "x-request-id", "content-type")
    headers = {name: asked.headers[name] for name in kept if name in asked.headers}
    lines = [f"{asked.method} {asked.path} HTTP/{version}", "host: gateway", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(asked.body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + asked.body


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


async def _left(reader: asyncio.StreamReader) -> None:
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.005)


async def _never() -> None:
    await asyncio.Event().wait()


async def _first_of(*work: Any) -> None:
    """Do all until one is done."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
