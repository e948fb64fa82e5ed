"""One client's connection: HTTP/1.1 parsed by httptools, one answer at a time, in order."""

import asyncio
import socket
import struct
from collections import deque
from typing import Protocol, cast

import httptools

from modelyard.core.errors import (
    HeadersTooLarge,
    InvalidRequest,
    ModelyardError,
    PayloadTooLarge,
)
from modelyard.engines.fake_server.generations import Job
from modelyard.engines.fake_server.replies import error_reply

MAX_HEADER_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_PIPELINED = 64
"""Requests that a client may send ahead of the answers."""
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST


class Request:
    """One parsed request."""

    __slots__ = ("body", "expects", "headers", "http_1_0", "id", "keep_alive", "method", "path")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.id = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.expects = False
        self.keep_alive = True
        self.http_1_0 = False


class Host(Protocol):
    """What a connection belongs to."""

    draining: bool

    def opened(self, connection: "Connection") -> None:
        """A client connected."""

    def closed(self, connection: "Connection") -> None:
        """The connection is gone, and with it who waited on it."""

    def handle(self, connection: "Connection", request: Request) -> None:
        """Answer a request, now or later."""

    def crash(self, code: int) -> None:
        """End the process."""


class Connection(asyncio.Protocol):
    """Bytes in, requests to the host; one request is in hand at a time."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser = httptools.HttpRequestParser(self)
        self._head_bytes = 0
        self._reading = Request()
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._ahead: deque[Request] = deque()
        self.current: Request | None = None
        self.job: Job | None = None
        """What runs for the request in hand, where it takes a slot."""

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ahead.clear()
        self._host.closed(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(InvalidRequest("this server does not upgrade connections"))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, ModelyardError):
                raise
            self._refuse(cause)
        except httptools.HttpParserError as error:
            self._refuse(InvalidRequest(f"not HTTP/1.1: {error}"))

    # httptools callbacks, in the order of a message

    def on_message_begin(self) -> None:
        self._reading = Request()
        self._url = b""
        self._body = []
        self._head_bytes = self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        self._reading.headers.append((name, value))
        name = name.lower()
        if name == b"x-request-id":
            self._reading.id = value
        elif name == b"expect":
            self._reading.expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        if self._reading.expects and self.current is None:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the body is over {MAX_BODY_BYTES} bytes")
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = self._reading
        parser = self._parser
        request.method = parser.get_method().decode("latin-1")
        request.path = self._url.partition(b"?")[0].decode("latin-1")
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.keep_alive = parser.should_keep_alive()
        request.http_1_0 = parser.get_http_version() != "1.1"
        if self.current is None and not self._ahead:
            self._take(request)
        elif len(self._ahead) < MAX_PIPELINED:
            self._ahead.append(request)
        else:
            self.cut()

    # what handlers and jobs call

    def headers(self) -> bytes:
        """Lines that the answer in hand carries: its request id, and whether the last one."""
        request = self.current
        if request is None:
            return b"Connection: close\r\n"
        lines = b"x-request-id: %b\r\n" % request.id if request.id else b""
        if self._is_last(request):
            lines += b"Connection: close\r\n"
        return lines

    def send(self, data: bytes) -> None:
        """Write without flow control: an answer is bounded, and engines buffer it too."""
        self._transport.write(data)

    @property
    def unsent_bytes(self) -> int:
        """What was written and the client has not taken yet, beyond what the kernel holds."""
        return self._transport.get_write_buffer_size()

    def answered(self) -> None:
        """The answer in hand is whole."""
        request, self.current, self.job = self.current, None, None
        if request is None or self._is_last(request):
            self.cut()
        elif self._ahead:
            # Not at once: a client that sent many requests ahead would nest the calls.
            self._loop.call_soon(self._take_next)

    def cut(self) -> None:
        """Close after what is written; what was sent ahead is forgotten."""
        self._ahead.clear()
        self._transport.close()

    def reset(self) -> None:
        """Close with RST, nothing answered."""
        self._ahead.clear()
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def crash(self, code: int) -> None:
        """End the process once the loop has passed on what was written."""
        self._loop.call_later(0.01, self._host.crash, code)

    def close_if_idle(self) -> None:
        """For draining: nobody waits on this connection."""
        if self.current is None and not self._ahead:
            self._transport.close()

    def _take_next(self) -> None:
        if self.current is None and self._ahead:
            self._take(self._ahead.popleft())

    def _take(self, request: Request) -> None:
        self.current = request
        self._host.handle(self, request)

    def _is_last(self, request: Request) -> bool:
        return not request.keep_alive or self._host.draining

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEADER_BYTES:
            raise HeadersTooLarge(f"the request's head is over {MAX_HEADER_BYTES} bytes")

    def _refuse(self, error: ModelyardError) -> None:
        """Bytes that are no request: say so where nobody waits for another answer, and close."""
        if self.current is None:
            self.send(error_reply(error, b"Connection: close\r\n"))
        self.cut()
