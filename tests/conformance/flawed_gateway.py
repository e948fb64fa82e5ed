"""A small gateway that is right, or wrong in one way that is chosen: what the suite must notice.

It serves `m` from engines A and B, and `cached`, whose answers it keeps. It knows only what the
checks of tests/conformance ask of it.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

Flaw = Literal[
    "none",
    "buffers_streams",
    "reads_ahead",
    "loses_a_chunk",
    "says_done_after_a_cut",
    "says_done_twice",
    "begins_before_the_engine",
    "retries_after_the_first_byte",
    "retries_the_same_engine",
    "retries_refusals",
    "never_fails_over",
    "never_cancels",
    "takes_out_who_is_left",
    "takes_out_who_refuses",
    "errors_as_200",
    "passes_half_answers",
    "hangs_without_engines",
    "cache_of_all_tenants",
]
_CHUNK_END = b"0\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_DONE = b"data: [DONE]\n\n"


class EngineFailed(Exception):
    """No answer, a 5xx, or one that broke off."""


class Asked(msgspec.Struct, frozen=True):
    """A client's request."""

    path: str
    key: str
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        return json.loads(self.body)  # type: ignore[no-any-return]


class Outgoing:
    """A stream to a client."""

    def __init__(self, writer: asyncio.StreamWriter, flaw: Flaw) -> None:
        self.writer = writer
        self._flaw = flaw
        self._kept: list[bytes] = []
        self.begun = False
        self.tokens = 0

    def begin(self) -> None:
        """Send the head, once."""
        if not self.begun:
            self.begun = True
            self.writer.write(_STREAM_HEAD)

    async def send(self, chunk: bytes) -> None:
        """Pass an engine's chunk on, at the client's pace."""
        self.tokens += 1
        if self._flaw == "loses_a_chunk" and self.tokens == 7:
            return
        if self._flaw == "says_done_twice" and _DONE in chunk:
            chunk += _DONE
        if self._flaw == "buffers_streams":
            self._kept.append(chunk)
            return
        self.begin()
        self.writer.write(_chunk(chunk))
        if self._flaw != "reads_ahead":
            await self._drain()

    async def end(self, *, whole: bool) -> None:
        """The engine sends no more."""
        self.begin()
        for chunk in self._kept:
            self.writer.write(_chunk(chunk))
        if not whole and self._flaw == "says_done_after_a_cut":
            self.writer.write(_chunk(_DONE))
        elif not whole:
            self.writer.write(_chunk(b"\n\ndata: " + _error("the engine broke off") + b"\n\n"))
        self.writer.write(_CHUNK_END)
        await self._drain()

    async def _drain(self) -> None:
        try:
            await self.writer.drain()
        except ConnectionError:
            if self._flaw != "never_cancels":
                raise


class FlawedGateway:
    """Listens on a free port of its loop; one engine connection per request."""

    def __init__(self, engines: Sequence[str], flaw: Flaw) -> None:
        self._engines = [
            (str(parts.hostname), int(parts.port or 0)) for parts in map(urlsplit, engines)
        ]
        self._flaw = flaw
        self._turns = itertools.count()
        self._kept: dict[object, bytes] = {}
        self._out: set[int] = set()
        self._refusals = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

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
            while (asked := await _read_request(reader)) is not None:
                if not await self._watched(asked, reader, writer):
                    return
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _watched(
        self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Serve, and stop where the client leaves; whether the connection can go on."""
        serving = asyncio.ensure_future(self._serve(asked, writer))
        self._tasks.add(serving)
        serving.add_done_callback(self._tasks.discard)
        leaving = asyncio.ensure_future(_until_left(reader))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                return False
            serving.result()
            return True
        finally:
            ended = {leaving} if self._flaw == "never_cancels" else {leaving, serving}
            for task in ended:
                task.cancel()
            await asyncio.gather(*ended, return_exceptions=True)

    async def _serve(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        if asked.fields["model"] == "cached":
            await self._serve_cached(asked, writer)
        elif asked.fields.get("stream"):
            await self._serve_stream(asked, writer)
        else:
            status, body = await self._whole(asked)
            _answer(writer, status, body)
        await writer.drain()

    async def _serve_cached(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        tenant = "" if self._flaw == "cache_of_all_tenants" else asked.key
        known = (tenant, asked.body)
        if known not in self._kept:
            _, self._kept[known] = await self._whole(asked)
        _answer(writer, 200, self._kept[known])

    # --- engines ---------------------------------------------------------------------------------

    def _order(self) -> list[int]:
        """The engines that may be asked, in turn."""
        turn = next(self._turns) % 2
        order = [engine for engine in (turn, 1 - turn) if engine not in self._out]
        if self._flaw == "never_fails_over":
            return order[:1]
        if self._flaw == "retries_the_same_engine":
            return [engine for engine in order for _ in range(3)]
        return order

    async def _whole(self, asked: Asked) -> tuple[int, bytes]:
        """An engine's answer, or an error in OpenAI's form."""
        for engine in self._order():
            async with self._exchange(engine, asked) as (status, headers, reader):
                if status in (0, 429) or status >= 500:
                    continue
                if status >= 400:
                    self._note_refusal(engine)
                    if self._flaw == "retries_refusals":
                        continue
                try:
                    return status, await self._body(headers, reader)
                except EngineFailed:
                    continue
        if self._flaw == "hangs_without_engines":
            await asyncio.Event().wait()
        return (200 if self._flaw == "errors_as_200" else 502), _error("no engine answered")

    async def _body(self, headers: dict[str, str], reader: asyncio.StreamReader) -> bytes:
        try:
            length = int(headers["content-length"])
            body = await reader.readexactly(length)
            json.loads(body)
        except asyncio.IncompleteReadError as cut:
            if self._flaw == "passes_half_answers":
                return cut.partial
            raise EngineFailed from None
        except (KeyError, ValueError, OSError):
            raise EngineFailed from None
        return body

    def _note_refusal(self, engine: int) -> None:
        self._refusals += 1
        if self._flaw == "takes_out_who_refuses" and self._refusals > 5:
            self._out = {engine}

    async def _serve_stream(self, asked: Asked, writer: asyncio.StreamWriter) -> None:
        out = Outgoing(writer, self._flaw)
        if self._flaw == "begins_before_the_engine":
            out.begin()
        order = self._order()
        for place, engine in enumerate(order):
            try:
                await self._stream(engine, asked, out)
                return
            except EngineFailed:
                again = self._flaw == "retries_after_the_first_byte" and place + 1 < len(order)
                if out.tokens and not again:
                    await out.end(whole=False)
                    return
            except asyncio.CancelledError:
                if self._flaw == "takes_out_who_is_left":
                    self._out = {engine}
                raise
        if self._flaw == "hangs_without_engines":
            await asyncio.Event().wait()
        if out.begun:
            await out.end(whole=True)
        else:
            _answer(writer, 502, _error("no engine answered"))

    async def _stream(self, engine: int, asked: Asked, out: "Outgoing") -> None:
        """Pass one engine's stream on; raises EngineFailed."""
        async with self._exchange(engine, asked) as (status, headers, reader):
            if 400 <= status < 500 and status != 429:
                _answer(out.writer, status, await self._body(headers, reader))
                return
            if status != 200 or "event-stream" not in headers.get("content-type", ""):
                raise EngineFailed
            async for chunk in _chunks(reader):
                await out.send(chunk)
        await out.end(whole=True)

    @contextlib.asynccontextmanager
    async def _exchange(
        self, engine: int, asked: Asked
    ) -> AsyncIterator[tuple[int, dict[str, str], asyncio.StreamReader]]:
        """Ask an engine; status 0: it gave no answer. The connection ends with the block."""
        writer: asyncio.StreamWriter | None = None
        head: tuple[int, dict[str, str]] = (0, {})
        reader = asyncio.StreamReader()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(*self._engines[engine])
                writer.write(
                    b"POST %b HTTP/1.1\r\nhost: e\r\ncontent-length: %d\r\n\r\n%b"
                    % (asked.path.encode(), len(asked.body), asked.body)
                )
                await writer.drain()
                head = await _read_head(reader)
            yield (*head, reader)
        finally:
            if writer is not None:
                writer.transport.abort()


async def _until_left(reader: asyncio.StreamReader) -> None:
    """Wait for the client to go away; nothing is read of a next request."""
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.005)


async def _read_request(reader: asyncio.StreamReader) -> Asked | None:
    line = await reader.readline()
    if not line.strip():
        return None
    headers = await _read_headers(reader)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(line.split()[1].decode(), headers.get("authorization", ""), body)


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    line = await reader.readline()
    if not line.strip():
        raise asyncio.IncompleteReadError(b"", None)
    return int(line.split()[1]), await _read_headers(reader)


async def _read_headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers = {}
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return headers


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The chunks of a body; raises EngineFailed where it breaks off."""
    try:
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
    except (OSError, ValueError, asyncio.IncompleteReadError):
        raise EngineFailed from None


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "server_error"}}).encode()


def _answer(writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
    writer.write(
        b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(body), body)
    )
