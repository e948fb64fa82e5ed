"""Streams of bytes through SHA-256, with bounded memory, and errors that name the file."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from modelyard.core.errors import Conflict, InvalidRequest, StorageError
from modelyard.registry.pipeline import CHUNK_BYTES, Pipeline, Sink

_PIPELINED_BYTES = 4 * CHUNK_BYTES
"""From here on threads are worth their start."""
HEAD_BYTES = 256
Report = Callable[[int], None]
"""Told the bytes done so far."""


class OpenFile:
    """A regular file being read; refuses to say that a file is whole which changed meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open without following a final link; raises InvalidRequest."""
        self.path = path
        try:
            # O_NONBLOCK: a fifo that took the file's place must not hang the open.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self.fd = os.open(path, flags)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._stat = os.fstat(self.fd)
        if not stat.S_ISREG(self._stat.st_mode):
            os.close(self.fd)
            raise InvalidRequest(
                f"{path} is not a regular file", next_step="remove it from the folder"
            )
        self.size_bytes = self._stat.st_size

    def read_into(self, buffer: memoryview) -> int:
        """Fill `buffer` as far as the file goes; return the number of bytes."""
        filled = 0
        try:
            while filled < len(buffer):
                count = os.readv(self.fd, [buffer[filled:]])
                if count == 0:
                    break
                filled += count
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return filled

    def read_all(self) -> bytes:
        """The whole of a small file, and a byte more when it grew."""
        data = b""
        try:
            while part := os.read(self.fd, self.size_bytes + 1 - len(data)):
                data += part
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return data

    def head(self) -> bytes:
        """The first bytes, as far as there are any; raises InvalidRequest."""
        try:
            return os.pread(self.fd, HEAD_BYTES, 0)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def rewind(self) -> None:
        """Begin again."""
        os.lseek(self.fd, 0, os.SEEK_SET)

    def check_unchanged(self, read_bytes: int) -> None:
        """Raise Conflict when the file was written to since it was opened."""
        self.check_listed(self._stat.st_size, self._stat.st_mtime_ns)
        if read_bytes != self.size_bytes:
            raise self._changed()

    def check_listed(self, size_bytes: int, mtime_ns: int) -> None:
        """Raise Conflict unless the file has this size and was written to last at that time."""
        now = os.fstat(self.fd)
        if (now.st_size, now.st_mtime_ns) != (size_bytes, mtime_ns):
            raise self._changed()

    def _changed(self) -> Conflict:
        return Conflict(
            f"{self.path} changed while it was read",
            next_step="wait until its writer is done, then run the same command again",
        )

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)


def stream(file: OpenFile, sink: Sink | None, report: Report | None) -> tuple[str, int]:
    """Read `file` to its end; return the hexadecimal SHA-256 and the number of bytes.

    With a `sink`, reading, hashing and the sink go on at once, in a few buffers whatever the
    file's size.
    """
    digest = hashlib.sha256()
    done = 0

    def advance(count: int) -> bool:
        nonlocal done
        done += count
        if report:
            report(done)
        return done <= file.size_bytes  # else somebody appends; `check_unchanged` will tell

    if sink is not None and file.size_bytes >= _PIPELINED_BYTES:
        Pipeline((digest.update, sink)).run(file.read_into, advance)
        return digest.hexdigest(), done
    # Nothing to overlap with but reading, which the kernel does ahead.
    buffer = memoryview(bytearray(min(file.size_bytes + 1, CHUNK_BYTES)))
    while count := file.read_into(buffer):
        digest.update(buffer[:count])
        if sink:
            sink(buffer[:count])
        if not advance(count):
            break
    return digest.hexdigest(), done


def hash_file(path: Path, report: Report | None = None) -> tuple[str, int]:
    """Return SHA-256 and size of a file; raises InvalidRequest, Conflict."""
    with OpenFile(path) as file:
        sha256, size_bytes = stream(file, None, report)
        file.check_unchanged(size_bytes)
        return sha256, size_bytes


def storage_error(error: OSError, doing: str, where: Path) -> StorageError:
    """Say in one line what the disk refused and what helps."""
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"no space left on the disk of {where} while {doing}",
            next_step="free some space there or choose another --home, then run the same command "
            "again; nothing half-done was left",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(
            f"no permission to write under {where} while {doing}",
            next_step="make the folder writable for this user or choose another --home",
        )
    return StorageError(
        f"the disk of {where} refused while {doing}: {error.strerror or error}",
        next_step="check the disk (dmesg names failing ones), then run the same command again",
    )


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest(
        f"can't read {path}: {error.strerror or error}",
        next_step="check that it exists and that this user may read it",
    )
