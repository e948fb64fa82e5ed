"""Files that become visible whole or not at all.

A file is written under a temporary name in a staging folder of the same file system, flushed to
the disk and then renamed (or linked, where the first to come wins) to its place. Its writer holds
an `flock` on it, or on the folder that it lies in: the kernel lets go when the process dies however
it dies, so what nobody locks is a dead writer's leftover. No process ids are compared, so a
recycled one, or another container's, can't be mistaken.

A leftover is removed by the next sweep, or taken up: a file that was begun under a `key` is
continued by the next one to write under that key.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from modelyard.registry.filesystem import begin_writing, set_direct

READ_ONLY = 0o444
_WRITE_AHEAD_BYTES = 16 * 1024 * 1024
_PAGE_BYTES = 4096


class StagedFile:
    """One temporary file, open for writing and locked by this process.

    What a leftover holds already is compared instead of written, as far as it is the same.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.reused_bytes = 0
        """How many bytes a leftover spared."""
        self._at = 0
        self._begun = 0
        self._continues = os.fstat(fd).st_size > 0
        self.bypasses_cache = False
        """Write whole pages straight to the disk, where the file system can: a large file is then
        stored as fast as the disk takes it (docs/benchmarks.md), and pushes nothing out of memory.
        """
        self._direct = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append all of `data`; raises OSError."""
        view = memoryview(data)
        if self._continues:
            if os.pread(self.fd, len(view), self._at) == view:
                self._at += len(view)
                self.reused_bytes = self._begun = self._at
                return
            self._continues = False
        if self.bypasses_cache:
            view = self._written_directly(view)
        while view:
            count = os.pwrite(self.fd, view, self._at)
            self._at += count
            view = view[count:]
        if self._at - self._begun >= _WRITE_AHEAD_BYTES and not self._direct:
            begin_writing(self.fd, self._begun, self._at - self._begun)
            self._begun = self._at

    def _written_directly(self, view: memoryview) -> memoryview:
        """Write what can be written past the page cache; return the rest, for the cache."""
        try:
            if len(view) % _PAGE_BYTES or self._at % _PAGE_BYTES:
                self._direct = set_direct(self.fd, False)  # the end of the file
                return view
            if not self._direct:
                self._direct = set_direct(self.fd, True)
            while view:
                count = os.pwrite(self.fd, view, self._at)
                self._at += count
                view = view[count:]
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # The file system does not do it, or not at this border.
            self.bypasses_cache = self._direct = set_direct(self.fd, False)
        return view

    def publish(self, target: Path, *, exclusive: bool = False) -> None:
        """Flush and put in place, read-only. `exclusive`: FileExistsError when `target` is there;
        otherwise it is replaced. Raises OSError."""
        if self._at:
            os.ftruncate(self.fd, self._at)  # a leftover may have been longer
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
    def file(
        self, key: str = "", *, keep_on: tuple[type[BaseException], ...] = ()
    ) -> Iterator[StagedFile]:
        """A temporary file; unless it was renamed into place it is gone afterwards.

        With a `key` (letters and digits), a leftover of the same key is continued; and the file
        stays as one when it is left by an exception of a kind in `keep_on`.
        """
        make_folder(self._folder)
        path, fd = (self._adopt(key) if key else None) or self._create(key or str(os.getpid()))
        kept = False
        try:
            yield StagedFile(path, fd)
        except BaseException as error:
            kept = bool(key) and isinstance(error, keep_on)
            raise
        finally:
            if not kept:
                path.unlink(missing_ok=True)
            os.close(fd)

    @contextlib.contextmanager
    def folder(self) -> Iterator[tuple[Path, int]]:
        """A temporary folder, locked, and its file descriptor; gone afterwards with its files."""
        make_folder(self._folder)
        while True:
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(8)}"
            path.mkdir(mode=0o700)
            fd = _locked_if_there(path)
            if fd is not None:
                break
        try:
            yield path, fd
        finally:
            shutil.rmtree(path, ignore_errors=True)
            os.close(fd)

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Remove what dead writers left, but for what was begun under the keys `keep`."""
        if not self._folder.is_dir():
            return
        for leftover in sorted(self._folder.iterdir()):
            if leftover.name.partition(".")[0] in keep:
                continue
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                fd = os.open(leftover, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if leftover.is_dir():
                        shutil.rmtree(leftover)
                    else:
                        leftover.unlink()
                finally:
                    os.close(fd)

    def _create(self, stem: str) -> tuple[Path, int]:
        while True:
            path = self._folder / f"{stem}.{secrets.token_hex(8)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            # A sweep may have taken it for a leftover between its creation and the lock.
            if os.fstat(fd).st_nlink > 0:
                return path, fd
            os.close(fd)

    def _adopt(self, key: str) -> tuple[Path, int] | None:
        for path in sorted(self._folder.glob(f"{key}.*")):
            with contextlib.suppress(FileNotFoundError, PermissionError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if os.fstat(fd).st_nlink > 0:
                        return path, fd
                os.close(fd)
        return None


def _locked_if_there(folder: Path) -> int | None:
    """Lock a folder that was just made; None when a sweep took it for a leftover before."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    fcntl.flock(fd, fcntl.LOCK_EX)
    if folder.is_dir():
        return fd
    os.close(fd)
    return None


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
