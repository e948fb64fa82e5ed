"""Files that become visible whole or not at all.

A file is written under a temporary name in a staging folder of the same file system, flushed to
the disk and then renamed (or linked, where the first to come wins) to its place. Its writer holds
an `flock` on it: the kernel lets go when the process dies however it dies, so a file that nobody
locks is a dead writer's leftover. No process ids are compared, so a recycled one, or another
container's, can't be mistaken.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

READ_ONLY = 0o444


class StagedFile:
    """One temporary file, open for writing and locked by this process."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`; raises OSError."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]

    def publish(self, target: Path, *, exclusive: bool = False) -> None:
        """Flush and put in place, read-only. `exclusive`: FileExistsError when `target` is there;
        otherwise it is replaced. Raises OSError."""
        os.fchmod(self.fd, READ_ONLY)
        os.fsync(self.fd)
        make_folder(target.parent)
        if exclusive:
            os.link(self.path, target)
        else:
            self.path.replace(target)
        sync_folder(target.parent)


class Staging:
    """A folder of temporary files on the file system of what they become."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def file(self) -> Iterator[StagedFile]:
        """A new temporary file; unless it was renamed into place it is gone afterwards."""
        make_folder(self._folder)
        path, fd = self._create()
        try:
            yield StagedFile(path, fd)
        finally:
            path.unlink(missing_ok=True)
            os.close(fd)

    def sweep(self) -> None:
        """Remove what dead writers left."""
        if not self._folder.is_dir():
            return
        for leftover in sorted(self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fd = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    leftover.unlink()
                finally:
                    os.close(fd)

    def _create(self) -> tuple[Path, int]:
        while True:
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}"
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # A sweep may have taken it for a leftover between its creation and the lock.
            if os.fstat(fd).st_nlink > 0:
                return path, fd
            os.close(fd)


def publish_bytes(staging: Staging, target: Path, data: bytes, *, exclusive: bool = False) -> None:
    """Put a small file in place atomically; raises OSError (FileExistsError when exclusive)."""
    with staging.file() as staged:
        staged.write(data)
        staged.publish(target, exclusive=exclusive)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; released by the kernel when the holder dies."""
    make_folder(path.parent)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
