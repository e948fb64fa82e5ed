"""One file over HTTP: continued where it stopped, and held against the hash that was announced."""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.errors import IntegrityError, Unavailable
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.progress import Progress

_ATTEMPTS = 5
_SEGMENT_BYTES = 8 * 1024**3
"""Asked for at once: hubs don't serve a whole file of over 50 GB in one answer."""


class HubFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as the hub lists it."""

    path: str
    size_bytes: int
    sha256: str = ""
    """Of its bytes; empty for small files that lie in git itself."""
    git_id: str = ""
    """SHA-1 of the git object, for those."""

    @property
    def content_id(self) -> str:
        """Names the content."""
        return self.sha256 or self.git_id


class Opener(msgspec.Struct, frozen=True):
    """How to ask for bytes."""

    open: Callable[[int, int], AbstractContextManager[Any]]
    """(first byte, last byte) → an answer with `status_code` and `iter_bytes`."""
    told: Callable[[], AbstractContextManager[None]]
    """Raises what goes wrong within it as an error of ours."""
    pause_s: float


def fetch(file: HubFile, part: Path, opener: Opener, progress: Progress) -> None:
    """Bring `file` to `part`, beginning with what is there; whole, durable and right on return.

    Broken connections are taken up again, up to five times without a byte in between. Raises
    Unavailable, IntegrityError (the bytes are not those announced; they are removed), OSError.
    """
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        if size > file.size_bytes:
            os.ftruncate(fd, 0)
            size = 0
        failures = 0
        while size < file.size_bytes:
            before = size
            try:
                with opener.told():
                    size = _continue(fd, size, file, opener, progress)
                if size <= before:
                    raise _nothing(file)
                failures = 0
            except Unavailable:
                size = os.fstat(fd).st_size
                failures = 1 if size > before else failures + 1
                if failures >= _ATTEMPTS:
                    raise
                time.sleep(opener.pause_s * 2 ** (failures - 1))
        _check(fd, file, progress)
        os.fsync(fd)
    except IntegrityError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _continue(fd: int, size: int, file: HubFile, opener: Opener, progress: Progress) -> int:
    """Append what one answer brings; return the size then."""
    last = min(size + _SEGMENT_BYTES, file.size_bytes) - 1
    with opener.open(size, last) as answer:
        if answer.status_code != 206 and size > 0:
            os.ftruncate(fd, 0)  # the whole file comes
            size = 0
        os.lseek(fd, size, os.SEEK_SET)
        for chunk in answer.iter_bytes():
            if size + len(chunk) > file.size_bytes:
                raise _wrong(file, "it has more bytes")
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
            size += len(chunk)
            progress(file.path, size, file.size_bytes)
    return size


def _check(fd: int, file: HubFile, progress: Progress) -> None:
    """Hash what was fetched, as the hub does: SHA-256, or git's SHA-1 of small files."""
    digest: Any
    if file.sha256:
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {file.size_bytes}\0".encode(), usedforsecurity=False)
    os.lseek(fd, 0, os.SEEK_SET)
    done = 0
    while chunk := os.read(fd, CHUNK_BYTES):
        digest.update(chunk)
        done += len(chunk)
        progress(file.path, done, file.size_bytes)
    if digest.hexdigest() != file.content_id:
        raise _wrong(file, "its bytes don't have the hash")


def _wrong(file: HubFile, what: str) -> IntegrityError:
    return IntegrityError(
        f"{file.path} is not what the hub announced: {what}",
        next_step="run the same command again: the file is fetched anew; a proxy or mirror in "
        "between may be at fault when it happens again",
    )


def _nothing(file: HubFile) -> Unavailable:
    return Unavailable(
        f"the hub sent nothing of {file.path}",
        next_step="run the same command again later: it goes on where it stopped",
    )
