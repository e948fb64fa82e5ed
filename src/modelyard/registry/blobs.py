"""Contents of files by their SHA-256: each stored once, read-only, published whole or not at all.

    ROOT/sha256/ab/abcd…    contents, mode 0444
    ROOT/staging/           files being written; see staging.py for how a dead writer's are found

`put` reads a source once, hashing while it copies. Where a stored blob of the same size begins
with the same bytes, the source is compared with it instead of being copied: what is whole is not
written again, and a stored blob that no longer has its bytes is noticed and replaced.
"""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.registry.progress import Progress
from modelyard.registry.reading import (
    CHUNK_BYTES,
    OpenFile,
    Report,
    hash_file,
    storage_error,
    stream,
)
from modelyard.registry.staging import Staging, publish_bytes

_SAMPLES = 8
_SAMPLE_BYTES = 4096


class Blob(msgspec.Struct, frozen=True):
    """Stored contents: 64 hexadecimal digits, and their number of bytes."""

    sha256: str
    size_bytes: int


class BlobStore(Protocol):
    """Where contents lie, by SHA-256."""

    def put(self, source: Path, *, progress: Progress | None = None) -> Blob:
        """Store a file's bytes; the same bytes again change nothing.

        Raises InvalidRequest (unreadable), Conflict (it changed meanwhile), StorageError.
        """

    def path(self, sha256: str) -> Path:
        """Where the contents lie, or would lie."""

    def verify(self, sha256: str, *, progress: Progress | None = None) -> bool:
        """Hash the stored bytes; False when they are damaged or absent."""

    def stored(self) -> Iterator[Blob]:
        """Every stored blob, whole or damaged, in no order."""

    def remove(self, sha256: str) -> None:
        """Give the bytes back; only for who holds the registry alone. Raises OSError."""


class LocalBlobStore:
    """Blobs in a folder of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = Staging(root / "staging")
        self._lock = threading.Lock()
        self._sizes: dict[int, set[str]] | None = None
        self._swept = False

    def path(self, sha256: str) -> Path:
        return self._root / "sha256" / sha256[:2] / sha256

    def put(self, source: Path, *, progress: Progress | None = None) -> Blob:
        with OpenFile(source) as file:

            def report(done: int) -> None:
                if progress is not None:
                    progress(source.name, done, file.size_bytes)

            try:
                self._sweep_once()
                if file.size_bytes <= CHUNK_BYTES:
                    return self._put_small(file, report)
                blob = self._reuse(file, report) or self._copy(file, report)
            except OSError as error:
                raise storage_error(error, f"copying {source.name}", self._root) from error
        with self._lock:
            self._by_size().setdefault(blob.size_bytes, set()).add(blob.sha256)
        return blob

    def verify(self, sha256: str, *, progress: Progress | None = None) -> bool:
        path = self.path(sha256)
        try:
            size_bytes = path.lstat().st_size
            report = None
            if progress is not None:
                report = lambda done: progress(sha256, done, size_bytes)  # noqa: E731
            return hash_file(path, report)[0] == sha256
        except (FileNotFoundError, InvalidRequest):
            return False

    def stored(self) -> Iterator[Blob]:
        folder = self._root / "sha256"
        for shard in folder.iterdir() if folder.is_dir() else ():
            for path in shard.iterdir():
                yield Blob(path.name, path.lstat().st_size)

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
        with self._lock:
            self._sizes = None

    def _sweep_once(self) -> None:
        with self._lock:
            if not self._swept:
                self._staging.sweep()
                self._swept = True

    def _copy(self, file: OpenFile, report: Report) -> Blob:
        with self._staging.file() as staged:
            sha256, size_bytes = stream(file, staged.write, report)
            file.check_unchanged(size_bytes)
            staged.publish(self.path(sha256))
        return Blob(sha256, size_bytes)

    def _put_small(self, file: OpenFile, report: Report) -> Blob:
        """Store a file that fits into one buffer: nothing is written when it is there."""
        contents: list[bytes] = []
        sha256, size_bytes = stream(file, lambda view: contents.append(bytes(view)), report)
        file.check_unchanged(size_bytes)
        data = b"".join(contents)
        target = self.path(sha256)
        if not target.is_file() or target.read_bytes() != data:
            publish_bytes(self._staging, target, data)
        return Blob(sha256, size_bytes)

    def _reuse(self, file: OpenFile, report: Report) -> Blob | None:
        """Return the stored blob that equals `file` byte for byte, or None."""
        with self._lock:
            candidates = sorted(self._by_size().get(file.size_bytes, ()))
        samples = _samples(file) if candidates else ()
        for sha256 in candidates:
            try:
                with OpenFile(self.path(sha256)) as stored:
                    if _samples(stored) != samples:
                        continue
                    found, size_bytes = stream(file, _Same(stored), report)
            except (_Differs, InvalidRequest):
                # InvalidRequest: the stored blob can't be read; should it be the source, then the
                # copy that follows says so.
                file.rewind()
                continue
            if found == sha256:
                file.check_unchanged(size_bytes)
                return Blob(found, size_bytes)
            file.rewind()
        return None

    def _by_size(self) -> dict[int, set[str]]:
        """Stored blobs by size, scanned once; `put` adds to it."""
        if self._sizes is None:
            self._sizes = {}
            for blob in self.stored():
                self._sizes.setdefault(blob.size_bytes, set()).add(blob.sha256)
        return self._sizes


class _Differs(Exception):
    """The source is not the stored blob."""


class _Same:
    """A sink that holds what it is given against a stored file."""

    def __init__(self, stored: OpenFile) -> None:
        self._stored = stored
        self._buffer = bytearray()

    def __call__(self, view: memoryview) -> None:
        if len(self._buffer) < len(view):
            self._buffer = bytearray(len(view))
        # The buffer is as long as the longest chunk; the last one is shorter.
        mine = self._buffer if len(self._buffer) == len(view) else bytearray(len(view))
        if self._stored.read_into(mine) != len(view) or mine != view:
            raise _Differs


def _samples(file: OpenFile) -> tuple[bytes, ...]:
    """A few pages over the file's length; most files of one size differ in one of them."""
    return tuple(
        os.pread(file.fd, _SAMPLE_BYTES, file.size_bytes * place // _SAMPLES)
        for place in range(_SAMPLES)
    )
