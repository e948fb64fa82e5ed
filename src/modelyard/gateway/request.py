"""A client's request as it was read, and the bounds on reading it."""

import msgspec


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on what one client may make the gateway hold, in bytes and seconds."""

    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_body_bytes: int = 8 * 1024 * 1024
    head_timeout_s: float = 15.0
    """From a request's first byte to the end of its head."""
    body_timeout_s: float = 60.0
    """From the end of the head to the end of the body."""
    idle_timeout_s: float = 120.0
    """Between requests on a connection that is kept."""
    held_bytes: int = 64 * 1024
    """Pipelined bytes behind the request being served; with more, that request is the last one."""
    linger_s: float = 5.0
    """From the last byte written to a closing connection to the client's having taken it."""


class Request:
    """One request, whole."""

    __slots__ = ("body", "headers", "keep_alive", "method", "path", "query", "streams")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        """Without the query."""
        self.query = ""
        self.headers: dict[bytes, bytes] = {}
        """Names in lower case; values of a repeated header are joined with a comma."""
        self.body = b""
        self.keep_alive = True
        self.streams = True
        """Whether the client understands a chunked body (HTTP/1.1)."""
