"""Files of at most a chunk, by the thousand: they cost calls, not bytes.

Measured for 10,000 of them (docs/benchmarks.md): plain strings, and one call for each thing that
has to be done. A second thread gains up to a quarter: it works while the first is in the kernel.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from modelyard.registry.batches import Batch
from modelyard.registry.progress import Tally
from modelyard.registry.reading import OpenFile, storage_error
from modelyard.registry.source import SourceFile

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
Check = Callable[[SourceFile, bytes], None]
"""Told a file and its beginning; raises what is wrong with it."""


def allow(_file: SourceFile, _head: bytes) -> None:
    """Check nothing."""


class SmallFiles:
    """Puts small files into a batch, but for those that are stored already."""

    def __init__(self, blobs: str, staged: Batch, tally: Tally, check: Check) -> None:
        """`blobs`: the folder with a folder for each first two digits."""
        self._blobs = blobs
        self._staged = staged
        self._tally = tally
        self._check = check
        self._names: dict[str, frozenset[str]] = {}

    def put(self, files: Sequence[SourceFile]) -> list[str]:
        """Stage files; return their SHA-256. Raises StorageError, InvalidRequest, Conflict."""
        found = []
        for file in files:
            try:
                found.append(self._put(file))
            except OSError as error:
                where = Path(self._blobs).parent
                raise storage_error(error, f"copying {file.path}", where) from error
        return found

    def _put(self, file: SourceFile) -> str:
        data = _read(file)
        self._check(file, data)
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._holds(sha256, data):
            self._staged.add(sha256, data)
        self._tally.add(file.path, len(data))
        return sha256

    def _holds(self, sha256: str, data: bytes) -> bool:
        """Whether it is stored, byte for byte. What a file name promises is not enough."""
        start = sha256[:2]
        names = self._names.get(start)
        if names is None:  # one list instead of a look for each file
            names = self._names[start] = _listed(f"{self._blobs}/{start}")
        return sha256 in names and holds(f"{self._blobs}/{start}/{sha256}", data)


def holds(path: str, data: bytes) -> bool:
    """Whether the file at `path` consists of `data`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(data) + 1) == data
    except OSError:  # a disk that fails to give it back: written anew
        return False
    finally:
        os.close(fd)


def _listed(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except FileNotFoundError:
        return frozenset()


def _read(file: SourceFile) -> bytes:
    """The whole of a file that is what it was when it was listed."""
    try:
        fd = os.open(file.location, _READ)
        try:
            data = os.read(fd, file.size_bytes + 1)
            status = os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        return _read_slowly(file)
    if (
        len(data) == file.size_bytes
        and status.st_mtime_ns == file.mtime_ns
        and stat.S_ISREG(status.st_mode)
    ):
        return data
    return _read_slowly(file)


def _read_slowly(file: SourceFile) -> bytes:
    """Read once more, to tell what is wrong."""
    with OpenFile(Path(file.location)) as opened:
        data = opened.read_all()
        opened.check_unchanged(len(data))
        opened.check_listed(file.size_bytes, file.mtime_ns)
        return data
