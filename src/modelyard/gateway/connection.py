"""A client's connection: bytes in, requests out, answers back. Knows HTTP/1.1, not models.

One request is served at a time; what a client pipelines behind it is held back as bytes. The
connection goes on reading while a request is served, for that is how a client's leaving is seen.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, cast

import httptools

from modelyard.core.errors import (
    HeadersTooLarge,
    InvalidRequest,
    ModelyardError,
    PayloadTooLarge,
    RequestTimeout,
)
from modelyard.gateway.request import ConnectionLimits, Request
from modelyard.wire import http
from modelyard.wire.openai import error_body

_JSON: http.Header = (b"content-type", b"application/json")


class Handler(Protocol):
    """What serves requests, and is told of connections."""

    def opened(self, connection: "Connection") -> None: ...
    def closed(self, connection: "Connection") -> None: ...
    def handle(self, request: Request, connection: "Connection") -> Coroutine[Any, Any, None]: ...


class Connection(asyncio.Protocol):
    """See the module. The part that a handler uses is `send`, `begin`, `write`, `end`, `cut`."""

    _transport: asyncio.Transport

    def __init__(self, handler: Handler, limits: ConnectionLimits) -> None:
        self._handler = handler
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._request = Request()
        self._reading = False
        """A request has begun and is not whole."""
        self._in_head = False
        self._head_bytes = 0
        """Bytes of the head that is being read, but for those it began with."""
        self._ready: deque[Request] = deque()
        self._refusal: ModelyardError | None = None
        self._url = b""
        self._body = bytearray()
        self._size = 0
        self._headers = 0
        self._held = bytearray()
        self._failed = False
        self._chunked = False
        self._head_only = False
        self._writable = True
        self.closing_after = False
        """The answer being sent is the last one on this connection."""
        self.head_sent = False
        self.gone = False
        """The client has left."""
        self.on_writable: Callable[[bool], None] | None = None
        """Told when the client's buffer fills up (False) and when it has room again (True)."""

    # --- asyncio ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._arm(self._limits.head_timeout_s)
        self._handler.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self._task is not None:
            self._hold(data)
            return
        self._parse(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self._disarm()
        if self._task is not None:
            # Not before its first step: a request that was read whole gets its one outcome.
            self._loop.call_soon(self._task.cancel)
        self._handler.closed(self)

    def pause_writing(self) -> None:
        self._writable = False
        if self.on_writable is not None:
            self.on_writable(False)

    def resume_writing(self) -> None:
        self._writable = True
        if self.on_writable is not None:
            self.on_writable(True)

    # --- httptools -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._request = Request()
        self._reading = True
        self._in_head = True
        self._head_bytes = 0
        self._arm(self._limits.head_timeout_s)
        self._url = b""
        self._body = bytearray()
        self._size = 0
        self._headers = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._limits.max_head_bytes:
            raise _RefusedError(self._head_too_large())

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: nothing of it is wanted, and it must not pass for a header
        request = self._request
        self._headers += 1
        self._size += len(name) + len(value) + 4
        if self._headers > self._limits.max_headers or self._size > self._limits.max_head_bytes:
            raise _RefusedError(self._head_too_large())
        key = name.lower()
        known = request.headers.get(key)
        request.headers[key] = value if known is None else known + b"," + value

    def on_headers_complete(self) -> None:
        request = self._request
        self._in_head = False
        request.method = self._parser.get_method().decode("ascii")
        path, _, query = self._url.partition(b"?")
        if not path.startswith(b"/"):  # a whole URL (RFC 9112, 3.2.2)
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        request.path = path.decode("latin-1")
        request.query = query.decode("latin-1")
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _RefusedError(InvalidRequest(f"HTTP/{version} is not served; use HTTP/1.1"))
        request.streams = version == "1.1"
        host = request.headers.get(b"host")
        if (host is None and request.streams) or b"," in (host or b""):
            raise _RefusedError(InvalidRequest("one Host header is needed (RFC 9112, 3.2)"))
        # A client of HTTP/1.0 waits for the end of the connection where no `keep-alive` is offered.
        request.keep_alive = request.streams and self._parser.should_keep_alive()
        self._size = 0
        declared = request.headers.get(b"content-length")
        if declared is not None and int(declared) > self._limits.max_body_bytes:
            raise _RefusedError(self._too_large())
        if request.headers.get(b"expect", b"").lower() == b"100-continue":
            self._write(http.CONTINUE)
        self._arm(self._limits.body_timeout_s)

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > self._limits.max_body_bytes:
            raise _RefusedError(self._too_large())
        self._body += body  # a list of what may be single bytes would take many times their size

    def on_message_complete(self) -> None:
        request = self._request
        request.body = bytes(self._body)
        self._body = bytearray()
        self._reading = False
        self._ready.append(request)

    # --- reading ---------------------------------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        in_head = self._in_head
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._request.method != "CONNECT":
                self._parse(self._without_upgrade() + data[upgrade.args[0] :])
                return
            self.closing_after = True
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _RefusedError):
                self._refusal = cause.error
            else:
                self._refusal = InvalidRequest(f"the request is not valid HTTP/1.1: {error}")
        if in_head and self._in_head and self._refusal is None:
            # The parser shows a header only once it is whole; one without end must not grow here.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refusal = self._head_too_large()
        self._proceed()

    def _without_upgrade(self) -> bytes:
        """The head just read, as if no upgrade was offered (RFC 9110, 7.8), for another parser.

        The parser stops at an upgrade, but Java's own client offers h2c with every request, and the
        body follows.
        """
        request = self._ready.pop()
        dropped = (b"upgrade", b"connection", b"http2-settings", b"expect")
        kept = [header for header in request.headers.items() if header[0] not in dropped]
        self._parser = httptools.HttpRequestParser(self)
        return http.request_head(request.method.encode(), self._url, kept)

    def _proceed(self) -> None:
        """Serve what is whole, in order; then refuse what could not be parsed behind it."""
        if self._ready:
            self._serve(self._ready.popleft())
        elif self._refusal is not None:
            self._refuse(self._refusal)

    def _hold(self, data: bytes) -> None:
        """Keep what is pipelined. Reading never pauses: a client's leaving would not be seen."""
        if self.closing_after:
            return
        self._held += data
        if len(self._held) > self._limits.held_bytes:
            self.closing_after = True
            self._held.clear()

    def _serve(self, request: Request) -> None:
        self._disarm()
        self.head_sent = False
        self.on_writable = None
        if not request.keep_alive:
            self.closing_after = True
        self._chunked = request.streams
        self._head_only = request.method == "HEAD"
        self._task = self._loop.create_task(self._handler.handle(request, self))
        self._task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self.on_writable = None
        if not task.cancelled() and task.exception() is not None:
            self._loop.call_exception_handler(
                {"message": "a handler failed", "exception": task.exception(), "task": task}
            )
            self.cut()
        if self.gone or self._transport.is_closing():
            return
        if self.closing_after:
            self.cut()
            return
        if self._ready or self._refusal is not None:
            self._proceed()
        elif self._held:
            held, self._held = bytes(self._held), bytearray()
            self._parse(held)
        if self._task is None and self._refusal is None and self._timer is None:
            self._arm(self._time_left_s())

    def _refuse(self, error: ModelyardError) -> None:
        """Answer what can't be served and close: where the next request begins is not known.

        What the client still sends is read and dropped meanwhile: a reset would take the answer.
        """
        self._refusal = error
        self.closing_after = True
        self._head_only = False
        self.send(error.status, (_JSON,), error_body(error))
        if self._transport.can_write_eof():  # TLS can't: it closes both ways at once
            self._transport.write_eof()
        self._end_within(self._limits.linger_s)

    def _head_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"the request's head is over {self._limits.max_headers} headers "
            f"or {self._limits.max_head_bytes} bytes"
        )

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(
            f"the request's body is over {self._limits.max_body_bytes} bytes",
            next_step="send less, or raise the gateway's max_body_bytes",
        )

    # --- time ------------------------------------------------------------------------------------

    def _time_left_s(self) -> float:
        """For what is awaited while nothing is served; a part of a request may have come."""
        if not self._reading:
            return self._limits.idle_timeout_s
        return self._limits.head_timeout_s if self._in_head else self._limits.body_timeout_s

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._timed_out)

    def _end_within(self, seconds: float) -> None:
        """A closing transport waits for its client to read, which may never happen."""
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_out(self) -> None:
        self._timer = None
        if not self._reading:
            self.cut()
        else:
            self._refuse(RequestTimeout("the request was not sent in time"))

    # --- answering -------------------------------------------------------------------------------

    def send(
        self,
        status: int,
        headers: Iterable[http.Header],
        body: bytes,
    ) -> None:
        """Send a whole answer; to a HEAD request its head."""
        self.head_sent = True
        length = (b"content-length", b"%d" % len(body))
        head = http.response_head(status, (*headers, length, *self._closing()))
        self._write(head if self._head_only else head + body)

    def begin(self, status: int, headers: Iterable[http.Header]) -> None:
        """Send the head of a streamed answer."""
        self.head_sent = True
        if self._chunked:
            framing: tuple[http.Header, ...] = ((b"transfer-encoding", b"chunked"),)
        else:  # HTTP/1.0: the end of the connection is the end of the body
            self.closing_after = True
            framing = ()
        self._write(http.response_head(status, (*headers, *framing, *self._closing())))

    def write(self, payload: bytes) -> None:
        """Send a part of a streamed answer, at once; the payload is not empty."""
        self._write(http.chunk(payload) if self._chunked else payload)

    def end(self) -> None:
        """End a streamed answer that is whole."""
        if self._chunked:
            self._write(http.LAST_CHUNK)

    def cut(self) -> None:
        """Close without ending the answer: what was streamed must not look whole."""
        if not self.gone:
            self._transport.close()
            self._end_within(self._limits.linger_s)

    def interrupt(self) -> None:
        """Cancel the request being served (the drain deadline has passed)."""
        if self._task is not None:
            self._task.cancel()

    def close_when_idle(self) -> None:
        """Close now if no request is under way, else after its answer."""
        self.closing_after = True
        if self._task is None and not self._reading:
            self.cut()

    @property
    def peer(self) -> str:
        """The client's address."""
        address = self._transport.get_extra_info("peername")
        return str(address[0]) if address else ""

    @property
    def writable(self) -> bool:
        """Whether the client's buffer has room."""
        return self._writable

    @property
    def buffered_bytes(self) -> int:
        """Bytes written that the client has not taken yet."""
        return self._transport.get_write_buffer_size()

    def _closing(self) -> tuple[http.Header, ...]:
        return ((b"connection", b"close"),) if self.closing_after else ()

    def _write(self, data: bytes) -> None:
        if not self.gone:
            self._transport.write(data)


class _RefusedError(Exception):
    """Carries the reason through the parser, which wraps what its callbacks raise."""

    def __init__(self, error: ModelyardError) -> None:
        super().__init__(str(error))
        self.error = error
