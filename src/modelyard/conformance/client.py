"""A raw HTTP/1.1 client: what it sends is what it was given, byte for byte.

One exchange at a time on a connection. Nothing is decoded that was not asked for, no redirect is
followed, nothing is retried.
"""

import asyncio
import contextlib
import socket
import ssl
from urllib.parse import urlsplit

import msgspec

from modelyard.core.errors import InvalidConfig

MAX_HEAD_BYTES = 256 * 1024


class Cut(Exception):
    """The connection ended before the answer did; the text says where."""


class Origin(msgspec.Struct, frozen=True):
    """Where an HTTP server is reached."""

    host: str
    port: int
    tls: bool
    prefix: str
    """Path before `/v1`, without a slash at its end."""

    @property
    def authority(self) -> str:
        """The `Host` header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def target(self, path: str) -> str:
        """The request target of a path."""
        return self.prefix + path


def origin(url: str) -> Origin:
    """Read a URL; raises InvalidConfig."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidConfig(f"{url!r} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidConfig(f"{url!r} is not a URL", next_step="give http://HOST:PORT")
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Origin(parts.hostname, port or (443 if tls else 80), tls, prefix)


class Reply:
    """An answer as it comes: the head is here, the body is taken part by part."""

    def __init__(
        self, reader: asyncio.StreamReader, status: int, headers: dict[str, str], *, bodiless: bool
    ) -> None:
        self._reader = reader
        self.status = status
        self.headers = headers
        """Names in lower case; a repeated one is joined with commas."""
        coding = headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._chunked = "chunked" in coding
        self._left = None if self._chunked or length is None else int(length)
        self.ended = bodiless or self._left == 0

    @property
    def content_type(self) -> str:
        """The media type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def part(self) -> bytes | None:
        """The next bytes of the body; None at its end. Raises Cut."""
        if self.ended:
            return None
        try:
            found = await (self._chunk() if self._chunked else self._plain())
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Cut(f"the connection ended amid the body ({type(error).__name__})") from None
        self.ended = self.ended or found is None
        return found

    async def body(self) -> bytes:
        """The whole body. Raises Cut."""
        parts = []
        while (part := await self.part()) is not None:
            parts.append(part)
        return b"".join(parts)

    async def _chunk(self) -> bytes | None:
        line = await self._reader.readuntil(b"\n")
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise Cut(f"a chunk's size is {line[:40]!r}") from None
        if size == 0:
            while (await self._reader.readuntil(b"\n")).strip():
                pass
            return None
        data = await self._reader.readexactly(size)
        await self._reader.readexactly(2)
        return data

    async def _plain(self) -> bytes | None:
        data = await self._reader.read(65_536 if self._left is None else min(self._left, 65_536))
        if self._left is None:
            return data or None
        if not data:
            raise Cut(f"the connection ended {self._left} bytes short of its content-length")
        self._left -= len(data)
        if self._left == 0:
            self.ended = True
        return data


class Connection:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, place: Origin, *, receive_buffer: int | None = None) -> "Connection":
        """Connect; raises OSError. `receive_buffer`: bytes that the kernel may take in unread."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        raw = socket.socket(family, kind, protocol)
        try:
            raw.setblocking(False)
            if receive_buffer is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await loop.sock_connect(raw, address)
            reader, writer = await asyncio.open_connection(
                sock=raw,
                limit=MAX_HEAD_BYTES if receive_buffer is None else max(receive_buffer, 4096),
                ssl=ssl.create_default_context() if place.tls else None,
                server_hostname=place.host if place.tls else None,
            )
        except BaseException:
            raw.close()
            raise
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; a server that closed meanwhile is seen by who reads."""
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def reply(self, *, bodiless: bool = False) -> Reply:
        """Wait for an answer's head; interim answers (1xx) are passed over. Raises Cut."""
        while True:
            found = await self.head()
            if found.status >= 200:
                found.ended = found.ended or bodiless or found.status in (204, 304)
                return found

    async def head(self) -> Reply:
        """The next head, of an interim answer too. Raises Cut."""
        try:
            text = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            got = f"after {error.partial[:60]!r}" if error.partial else "without any answer"
            raise Cut(f"the connection ended {got}") from None
        except OSError as error:
            raise Cut(f"the connection was reset ({type(error).__name__})") from None
        except asyncio.LimitOverrunError:
            raise Cut("the answer's head is too large") from None
        lines = text.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Cut(f"the answer begins with {lines[0][:60]!r}")
        headers: dict[str, str] = {}
        for line in filter(None, lines[1:]):
            name, _, value = line.partition(":")
            key, value = name.strip().lower(), value.strip()
            headers[key] = f"{headers[key]},{value}" if key in headers else value
        status = int(words[1])
        return Reply(self._reader, status, headers, bodiless=status < 200)

    async def closed(self) -> bool:
        """Wait until the server closes; False when it sends something instead."""
        try:
            return not await self._reader.read(1)
        except OSError:
            return True

    def leave(self) -> None:
        """Close at once, whatever is still to come: what a client does that goes away."""
        self._writer.transport.abort()


def request(
    place: Origin, path: str, body: bytes | None, headers: dict[str, str], method: str = "POST"
) -> bytes:
    """A well-formed request."""
    lines = [f"{method} {place.target(path)} HTTP/1.1", f"Host: {place.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
