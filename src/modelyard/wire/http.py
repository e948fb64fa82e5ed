"""HTTP/1.1 heads and chunks as bytes (RFC 9112)."""

from collections.abc import Iterable
from http import HTTPStatus

Header = tuple[bytes, bytes]

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS = {499: b"Client Closed Request"} | {
    status.value: status.phrase.encode() for status in HTTPStatus
}
_STATUS_LINES = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in _REASONS.items()
}


def chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body; the payload is not empty."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def response_head(status: int, headers: Iterable[Header]) -> bytes:
    """A response's status line and headers, with the empty line."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
    return line + _header_block(headers)


def request_head(method: bytes, target: bytes, headers: Iterable[Header]) -> bytes:
    """A request's line and headers, with the empty line."""
    return b"%b %b HTTP/1.1\r\n" % (method, target) + _header_block(headers)


def _header_block(headers: Iterable[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n"
