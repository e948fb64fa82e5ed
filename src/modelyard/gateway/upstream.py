"""Connections to replicas: pooled, HTTP/1.1, one exchange at a time each.

`Exchange` is one request and its answer. Its body either gathers (`body`) or goes to a sink chunk
by chunk as it comes (`relay`), without waking the waiting coroutine for each.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools

from modelyard.core.errors import (
    InvalidConfig,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelyard.core.routes import Timeouts

MAX_IDLE = 64
"""Connections kept open to one replica while nothing is under way on them."""
MAX_HEAD_BYTES = 256 * 1024


class AnswerTooLarge(UpstreamError):
    """An answer that is not streamed is over the bound of what is kept in memory."""


class Exchange:
    """One request on one connection. Errors are those of the upstream branch of the tree."""

    def __init__(
        self, connection: "UpstreamConnection", timeouts: Timeouts, total_s: float
    ) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._limit = 0
        self._sink: Callable[[bytes], None] | None = None
        self._timeouts = timeouts
        self._begun = self._loop.time()
        self._ends = self._begun + total_s
        self._last = self._begun
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.head_seen = False
        self.body_seen = False
        self.done = False
        self.error: UpstreamError | None = None
        self.overran = False
        """The request's time was over while the answer was still coming."""
        self._arm()

    async def head(self) -> int:
        """Wait for the answer's head; return its status."""
        await self.until(lambda: self.head_seen)
        return self.status

    async def body(self, limit_bytes: int) -> bytes:
        """Wait for the whole body; raise UpstreamError when it is over the limit."""
        self._limit = limit_bytes
        self._check_size()
        await self.until(lambda: False)
        return b"".join(self._parts)

    def relay(self, sink: Callable[[bytes], None]) -> None:
        """Give the body to `sink`, what has come first and every chunk from now on."""
        parts, self._parts = self._parts, []
        self._sink = sink
        for part in parts:
            sink(part)

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`, told by `wake`, or until the answer is whole; raise its error."""
        while self.error is None and not self.done and not ready():
            self._waiter = self._loop.create_future()
            await self._waiter
        if self.error is not None:
            raise self.error

    def wake(self) -> None:
        """Let the coroutine that waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def pause(self, paused: bool) -> None:
        """Stop or go on reading from the replica; its silence meanwhile is not its fault."""
        if self.done:
            return  # the connection may be another exchange's by now
        self._paused = paused
        self._last = self._loop.time()
        self._connection.pause(paused)

    def abandon(self) -> None:
        """Leave: the connection is closed unless the answer is whole, so the replica stops."""
        self._disarm()
        self._sink = None
        self._connection.release(self)

    # --- called by the connection ----------------------------------------------------------------

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self.headers = headers
        self.head_seen = True
        self._last = self._loop.time()
        self.wake()

    def on_body(self, part: bytes) -> None:
        if self.error is not None:
            return
        self._last = self._loop.time()
        if not self.body_seen:
            self.body_seen = True
            self._disarm()
            self._arm()  # another limit holds from here on, and it may be the shorter one
        if self._sink is not None:
            self._sink(part)
            return
        self._parts.append(part)
        self._size += len(part)
        self._check_size()

    def on_complete(self) -> None:
        if self._paused:
            self.pause(False)
        self.done = True
        self._disarm()
        self.wake()

    def fail(self, error: UpstreamError) -> None:
        """End with an error, once."""
        if self.error is None and not self.done:
            self.error = error
            self._disarm()
            self.wake()

    def _check_size(self) -> None:
        if self._limit and self._size > self._limit:
            self.fail(AnswerTooLarge(f"the replica's answer is over {self._limit} bytes"))
            self._connection.abort()

    # --- time (promise G6) -----------------------------------------------------------------------

    def _arm(self) -> None:
        self._timer = self._loop.call_at(min(self._due()[0], self._ends), self._timed_out)

    def _due(self) -> tuple[float, str]:
        if not self.body_seen:
            limit = self._timeouts.first_token_s
            return self._begun + limit, f"sent nothing for {limit:g} s (first_token_s)"
        limit = self._timeouts.gap_s
        return self._last + limit, f"fell silent for {limit:g} s in mid-answer (gap_s)"

    def _timed_out(self) -> None:
        now = self._loop.time()
        due, what = self._due()
        if now >= self._ends:
            self.overran = self.body_seen
            what = "did not finish within the request's total time (total_s)"
        elif self._paused or now < due:
            if self._paused:
                self._last = now
            self._arm()
            return
        self.fail(UpstreamTimeout(f"the replica {what}"))
        self._connection.abort()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class UpstreamConnection(asyncio.Protocol):
    """One connection to a replica."""

    _transport: asyncio.Transport

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: Exchange | None = None
        self._status = 0
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = 0
        self._keep_alive = True
        self.used = False
        """It has carried an answer before: the replica may have closed it meanwhile."""

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # bytes that nobody asked for: never mix them into the next answer
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(UpstreamError(f"the replica's answer is not valid HTTP/1.1: {error}"))
            self.abort()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        exchange = self._exchange
        if exchange is None:
            return
        if exc is None and exchange.head_seen and self._ends_with_connection():
            self._exchange = None
            exchange.on_complete()
            return
        self._fail(UpstreamCut("the replica closed the connection before its answer was whole"))

    # --- httptools -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._exchange is None:
            raise ValueError("an answer that nobody asked for")
        self._headers = {}
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            raise ValueError("head too large")
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        self._status = status
        self._keep_alive = self._parser.should_keep_alive()
        if status >= 200 and self._exchange is not None:
            self._exchange.on_head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        if self._exchange is not None:
            self._exchange.on_body(body)

    def on_message_complete(self) -> None:
        if self._status < 200 or self._exchange is None:
            return  # 100 Continue and its kin: the answer is still to come
        exchange, self._exchange = self._exchange, None
        exchange.on_complete()
        # An answer may come before its request was sent: the rest would go before the next one.
        sent = self._transport.get_write_buffer_size() == 0
        if self._keep_alive and sent and not self._pool.closed:
            self._pool.put_back(self)
        else:
            self.close()

    # --- used by the exchange and the pool -------------------------------------------------------

    def send(self, payload: bytes, timeouts: Timeouts, total_s: float) -> Exchange:
        """Send a whole request."""
        exchange = Exchange(self, timeouts, total_s)
        self._exchange = exchange
        self._transport.write(payload)
        return exchange

    @property
    def alive(self) -> bool:
        """Whether it can carry another exchange."""
        return not self._transport.is_closing()

    def pause(self, paused: bool) -> None:
        """Stop or go on reading."""
        if not self._transport.is_closing():
            if paused:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def release(self, exchange: Exchange) -> None:
        """The exchange is over; an unfinished answer ends the connection."""
        if self._exchange is exchange:
            self._exchange = None
            self.abort()

    def abort(self) -> None:
        """Close at once, dropping what was not sent: the replica sees that nobody reads."""
        self._transport.abort()

    def close(self) -> None:
        """Close after what was written is sent."""
        self._transport.close()

    def _fail(self, error: UpstreamError) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.fail(error)

    def _ends_with_connection(self) -> bool:
        return (
            b"content-length" not in self._headers
            and b"chunked" not in self._headers.get(b"transfer-encoding", b"").lower()
        )


def check_url(url: str) -> None:
    """Raise InvalidConfig unless it is an HTTP URL."""
    _split(url)


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidConfig(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidConfig(f"{url!r} is not a URL", next_step="give http://HOST:PORT")
    return parts, port


class Pool:
    """Connections to one origin. Raises InvalidConfig for what is not an HTTP URL."""

    def __init__(
        self, url: str, tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    ) -> None:
        """`tls`: what an `https` origin is checked by; asked only where there is one."""
        parts, port = _split(url)
        self.tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        self.port = port or (443 if self.tls else 80)
        self.prefix = parts.path.rstrip("/").encode()
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.closed = False
        self._idle: list[UpstreamConnection] = []
        self._ssl = tls() if self.tls else None

    async def acquire(self, connect_s: float, *, fresh: bool = False) -> UpstreamConnection:
        """A connection: the one used last if there is one, else a new one.

        Raises UpstreamUnreachable, after `connect_s` seconds at the latest.
        """
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.alive:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(connect_s):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self), self.host, self.port, ssl=self._ssl
                )
        except TimeoutError:
            raise UpstreamUnreachable(  # nothing was asked yet: unlike a slow answer, it is retried
                f"no connection to the replica within {connect_s:g} s (connect_s)"
            ) from None
        except (OSError, UnicodeError) as error:  # a host name that IDNA refuses is the latter
            reason = getattr(error, "strerror", None) or str(error)
            raise UpstreamUnreachable(f"no connection to the replica: {reason}") from None
        return connection

    def put_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection whose answer was whole."""
        connection.used = True
        if len(self._idle) >= MAX_IDLE:
            connection.close()
        else:
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection was lost."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close what is idle; what is in use closes when its answer is whole."""
        self.closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
