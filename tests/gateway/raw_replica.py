"""A replica that says exactly the bytes that a test wants it to say."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

OK = b"HTTP/1.1 200 OK\r\n"
SSE = OK + b"content-type: text/event-stream\r\n"
FIRST = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
END = b'data: {"choices":[{"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

Speak = Callable[["Client"], Awaitable[None]]
"""Serves one connection; it is closed when this returns."""


class Client:
    """The gateway, as the replica sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request's body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await self.reader.readexactly(length)

    async def say(self, *parts: bytes) -> None:
        """Send each part in a segment of its own, as far as that is in our hands."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def replica(speak: Speak) -> AsyncIterator[str]:
    """Runs `speak` for every connection; gives the URL, and leaves no connection open."""
    open_tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await speak(Client(reader, writer))
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            open_tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        left = list(open_tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def always(answer: bytes) -> Speak:
    """Every connection's one request gets this, and the connection is closed."""

    async def speak(client: Client) -> None:
        await client.request()
        await client.say(answer)

    return speak


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with its length."""
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
