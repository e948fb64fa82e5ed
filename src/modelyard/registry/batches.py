"""Many files made durable with one flush of the file system, then published together.

One `fsync` waits for the disk once per file; ten thousand small files would wait ten thousand
times. A batch is a locked staging folder: when its writer is killed, nothing of it is visible and
the next sweep removes it.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from modelyard.core.errors import InvalidRequest
from modelyard.registry.filesystem import reflink, sync_file_system
from modelyard.registry.staging import READ_ONLY, StagedFile, Staging, make_folder

PathOf = Callable[[str], Path]
_UNNAMED = "unnamed-"


class BatchFile(StagedFile):
    """A file of a batch while its bytes are being written."""

    def keep(self, sha256: str) -> None:
        """Let it be published with its batch, under this name."""
        os.fchmod(self.fd, READ_ONLY)
        self.path.replace(self.path.with_name(sha256))


class Batch:
    """Files by SHA-256 on their way into the store; `add` and `link` may be called by threads."""

    def __init__(self, folder: Path, fd: int) -> None:
        self._folder = folder
        self._fd = fd

    def add(self, sha256: str, data: bytes) -> None:
        """Write contents; the same ones again change nothing. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            fd = self._new(sha256)
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def file(self) -> Iterator["BatchFile"]:
        """A file that is named once its bytes are known; gone afterwards unless it was kept."""
        path = self._folder / f"{_UNNAMED}{secrets.token_hex(8)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield BatchFile(path, fd)
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def link(self, sha256: str, source: int, path: Path) -> None:
        """Take the file open as `source` in without a copy: a reflink, else a hard link.

        `path` is its name in errors. Raises InvalidRequest where the disk can't, OSError.
        """
        with contextlib.suppress(FileExistsError):
            name = self._folder / sha256
            fd = self._new(sha256)
            try:
                if reflink(source, fd):
                    return
            finally:
                os.close(fd)
            name.unlink()
            try:
                # By its descriptor: what was hashed is what is linked, whatever `path` is by now.
                # Only with a folder's descriptor does Python call linkat(2), which follows.
                os.link(f"/proc/self/fd/{source}", sha256, dst_dir_fd=self._fd)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                    raise
                raise InvalidRequest(
                    f"can't link to {path}: {error.strerror}",
                    next_step="register without --link: that copies it",
                ) from error

    def publish(self, path_of: PathOf) -> None:
        """Flush, then put every file in place; raises OSError."""
        staged = list(self._folder.iterdir())
        if not staged:
            return
        sync_file_system(self._fd)
        known: set[Path] = set()
        for file in staged:
            target = path_of(file.name)
            if target.parent not in known:
                known.add(target.parent)
                if not target.parent.is_dir():
                    make_folder(target.parent.parent)
                    target.parent.mkdir(exist_ok=True)
            file.replace(target)
        sync_file_system(self._fd)

    def _new(self, sha256: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(self._folder / sha256, flags, READ_ONLY)
        os.fchmod(fd, READ_ONLY)  # whatever the umask
        return fd


@contextlib.contextmanager
def batch(staging: Staging) -> Iterator[Batch]:
    """A batch that is gone afterwards but for what it published."""
    with staging.folder() as (folder, fd):
        yield Batch(folder, fd)
