"""Many files made durable with one flush of the file system, then published together.

One `fsync` waits for the disk once per file; ten thousand small files would wait ten thousand
times. A batch is a locked staging folder: when its writer is killed, nothing of it is visible and
the next sweep removes it.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from modelyard.core.errors import InvalidRequest
from modelyard.registry.filesystem import reflink, sync_file_system
from modelyard.registry.staging import READ_ONLY, StagedFile, Staging, make_folder

PathOf = Callable[[str], Path]
_UNNAMED = "unnamed-"


class BatchFile(StagedFile):
    """A file of a batch while its bytes are being written."""

    def __init__(self, path: Path, fd: int, names: set[str]) -> None:
        super().__init__(path, fd)
        self._names = names

    def keep(self, sha256: str) -> None:
        """Let it be published with its batch, under this name."""
        os.fchmod(self.fd, READ_ONLY)
        self.path.replace(self.path.with_name(sha256))
        self._names.add(sha256)


class Batch:
    """Files by SHA-256 on their way into the store; `add` and `link` may be called by threads."""

    def __init__(self, folder: Path, fd: int) -> None:
        self._folder = folder
        self._fd = fd
        self._names: set[str] = set()
        self._mode_is_exact = False

    def add(self, sha256: str, data: bytes) -> None:
        """Write contents; the same ones again change nothing. Raises OSError."""
        with contextlib.suppress(FileExistsError):
            fd = self._new(sha256)
            try:
                if os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(fd)
            self._names.add(sha256)

    @contextlib.contextmanager
    def file(self) -> Iterator["BatchFile"]:
        """A file that is named once its bytes are known; gone afterwards unless it was kept."""
        path = self._folder / f"{_UNNAMED}{secrets.token_hex(8)}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            yield BatchFile(path, fd, self._names)
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
            self._names.add(sha256)
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
        if not self._names:
            return
        sync_file_system(self._fd)
        known: set[Path] = set()
        for name in self._names:
            target = path_of(name)
            folder = target.parent
            if folder not in known:
                known.add(folder)
                if not folder.is_dir():
                    make_folder(folder.parent)
                    folder.mkdir(exist_ok=True)
            os.rename(name, target, src_dir_fd=self._fd)
        sync_file_system(self._fd)

    def _new(self, sha256: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(sha256, flags, READ_ONLY, dir_fd=self._fd)
        if not self._mode_is_exact:  # the umask may take bits away
            if stat.S_IMODE(os.fstat(fd).st_mode) == READ_ONLY:
                self._mode_is_exact = True
            else:
                os.fchmod(fd, READ_ONLY)
        return fd


@contextlib.contextmanager
def batch(staging: Staging) -> Iterator[Batch]:
    """A batch that is gone afterwards but for what it published."""
    with staging.folder() as (folder, fd):
        yield Batch(folder, fd)
