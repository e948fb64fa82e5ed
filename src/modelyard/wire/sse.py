"""Server-sent events, as far as a relay has to know them (WHATWG HTML, section 9.2)."""

import re

DONE = b"[DONE]"
_END = re.compile(rb"\n\r?\n")


class EventSplitter:
    """Cuts a byte stream into whole events, however it was chunked.

    An event ends with an empty line; LF and CRLF line ends are understood. What has not ended yet
    is kept, at most `limit_bytes` of it; beyond that `feed` raises ValueError.
    """

    __slots__ = ("_limit_bytes", "_rest")

    def __init__(self, limit_bytes: int = 16 * 1024 * 1024) -> None:
        self._rest = b""
        self._limit_bytes = limit_bytes

    @property
    def rest(self) -> bytes:
        """The beginning of an event whose end has not come."""
        return self._rest

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return the events they complete, each with its empty line."""
        if not self._rest and _is_one_event(chunk):
            return [chunk]  # the common case: one write of the engine, one event
        # An end may lie across the border: its three bytes, less the one that is new.
        known = max(len(self._rest) - 2, 0)
        text = self._rest + chunk
        events = []
        begin = 0
        for found in _END.finditer(text, known):
            events.append(text[begin : found.end()])
            begin = found.end()
        self._rest = text[begin:]
        if len(self._rest) > self._limit_bytes:
            raise ValueError(f"an event is larger than {self._limit_bytes} bytes")
        return events


def _is_one_event(chunk: bytes) -> bool:
    end = chunk.find(b"\n\n")
    return end >= 0 and end == len(chunk) - 2 and b"\r" not in chunk


def data_of(event: bytes) -> bytes | None:
    """The event's data: its `data:` lines joined with LF; None when it has none (a comment)."""
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in event.replace(b"\r\n", b"\n").split(b"\n")
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None


def event(payload: bytes) -> bytes:
    """An event with one line of data."""
    return b"data: " + payload + b"\n\n"
