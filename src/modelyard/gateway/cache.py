"""Whole answers kept in memory, bounded in bytes; the least recently used make room (G15, G16)."""

from collections import OrderedDict

import msgspec

from modelyard.wire.openai import Usage

_OVERHEAD_BYTES = 512
"""What an entry costs beside its body, about."""


class CacheBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory answers may take."""

    max_bytes: int = 256 * 1024 * 1024
    max_entry_bytes: int = 4 * 1024 * 1024
    """Larger answers are not kept."""


class Entry(msgspec.Struct, frozen=True):
    """One answer, whole."""

    body: bytes
    content_type: bytes
    usage: Usage | None
    finish_reason: str | None
    stored_at: float
    """Monotonic seconds."""

    def age_s(self, now: float) -> int:
        """Whole seconds since it was made (RFC 9111, 5.1)."""
        return max(0, int(now - self.stored_at))


class AnswerCache:
    """Answers by the key that names all that could change them."""

    def __init__(self, bounds: CacheBounds) -> None:
        self.bounds = bounds
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes, ttl_s: float, now: float) -> Entry | None:
        """The answer, unless it is older than `ttl_s`."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now - entry.stored_at >= ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an answer, if it is not too large."""
        if len(entry.body) > self.bounds.max_entry_bytes:
            return
        self._drop(key)
        self._entries[key] = entry
        self.size_bytes += _size(entry)
        while self.size_bytes > self.bounds.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self.size_bytes -= _size(gone)


def _size(entry: Entry) -> int:
    return len(entry.body) + _OVERHEAD_BYTES
