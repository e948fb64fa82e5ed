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
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, Thread

from modelyard.core.errors import InvalidRequest
from modelyard.registry.filesystem import reflink, sync_file_system
from modelyard.registry.staging import READ_ONLY, StagedFile, Staging, make_folder

_UNNAMED = "unnamed-"
_FLUSHED_FILES = 3000
"""So many files are worth a flush before the last one (measured: a tenth of the time)."""


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
    """Files by SHA-256 on their way into the store; threads may work on one."""

    def __init__(self, folder: Path, fd: int) -> None:
        self._folder = folder
        self._fd = fd
        self._names: set[str] = set()
        self._mode_is_exact = False
        self._flush = _Flush(fd)

    def flush_meanwhile(self) -> None:
        """Let the disk begin with what is written so far: less to wait for at the end."""
        self._flush.begin(len(self._names))

    def close(self) -> None:
        """Wait until nothing works on it any more."""
        self._flush.wait()

    def add(self, sha256: str, data: bytes) -> None:
        """Write contents; the same ones again change nothing. Raises OSError."""
        if sha256 in self._names:
            return
        try:
            fd = self._new(sha256)
        except FileExistsError:  # an equal file of another thread's
            return
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

    def publish(self, blobs: str) -> None:
        """Flush, then put every file in place: BLOBS/ab/abcd…; raises OSError."""
        if not self._names:
            return
        self._flush.finish()
        make_folder(Path(blobs))
        made: set[str] = set()
        target = os.open(blobs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in sorted(self._names):
                start = name[:2]
                if start not in made:
                    made.add(start)
                    Path(blobs, start).mkdir(exist_ok=True)
                os.rename(name, f"{start}/{name}", src_dir_fd=self._fd, dst_dir_fd=target)
        finally:
            os.close(target)
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


class _Flush:
    """Flushes a file system in the background, one time after another, and once at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = Lock()
        self._thread: Thread | None = None
        self._covered = 0
        self._error: OSError | None = None

    def begin(self, files: int) -> None:
        """`files` are written by now; flush if it is many more than the last time."""
        with self._lock:
            busy = self._thread is not None and self._thread.is_alive()
            if not busy and files - self._covered >= _FLUSHED_FILES:
                self._covered = files
                self._thread = Thread(target=self._run, name="registry-flush")
                self._thread.start()

    def wait(self) -> None:
        """Wait for the background."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Flush all; raises OSError, for what failed in the background too: it is told once."""
        self.wait()
        sync_file_system(self._fd)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            sync_file_system(self._fd)
        except OSError as error:
            self._error = error


@contextlib.contextmanager
def batch(staging: Staging) -> Iterator[Batch]:
    """A batch that is gone afterwards but for what it published."""
    with staging.folder() as (folder, fd):
        staged = Batch(folder, fd)
        try:
            yield staged
        finally:
            staged.close()
