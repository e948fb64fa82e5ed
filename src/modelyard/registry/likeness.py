"""Guessing, before a large file is read, which stored blob it equals.

The guess saves writing what is there already. Its price when it is wrong is reading the file once
more; bytes are never taken for equal because of it.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable

from modelyard.registry.reading import OpenFile

_SAMPLES = 64
_SAMPLE_BYTES = 4096


def sample(file: OpenFile) -> str:
    """Size and a digest of pages spread over the file, as letters and digits.

    Most different files of one size differ in it.
    """
    digest = hashlib.sha256()
    last = max(0, file.size_bytes - _SAMPLE_BYTES)
    for place in range(_SAMPLES):
        digest.update(os.pread(file.fd, _SAMPLE_BYTES, last * place // (_SAMPLES - 1)))
    return f"{file.size_bytes:x}x{digest.hexdigest()[:16]}"


class SizeIndex:
    """Stored blobs by size; they are listed once, at the first question."""

    def __init__(self, stored: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """`stored`: lists SHA-256 and size of every blob."""
        self._stored = stored
        self._lock = threading.Lock()
        self._sizes: dict[int, set[str]] | None = None

    def of_size(self, size_bytes: int) -> list[str]:
        """SHA-256 of the blobs with so many bytes."""
        with self._lock:
            return sorted(self._listed().get(size_bytes, ()))

    def add(self, sha256: str, size_bytes: int) -> None:
        """Note a blob that was stored since."""
        with self._lock:
            if self._sizes is not None:
                self._sizes.setdefault(size_bytes, set()).add(sha256)

    def forget(self) -> None:
        """List them anew at the next question."""
        with self._lock:
            self._sizes = None

    def _listed(self) -> dict[int, set[str]]:
        if self._sizes is None:
            self._sizes = {}
            for sha256, size_bytes in self._stored():
                self._sizes.setdefault(size_bytes, set()).add(sha256)
        return self._sizes
