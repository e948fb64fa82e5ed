"""Contents of files by their SHA-256: each stored once, read-only, published whole or not at all.

    ROOT/sha256/ab/abcd…    contents, mode 0444
    ROOT/staging/           files being written; see staging.py for how a dead writer's are found

A source is read once and hashed while it is copied. Large files are flushed and published one by
one, each continued where a killed writer left it; the others in batches with one flush for all.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from modelyard.core.errors import InvalidRequest
from modelyard.registry.batches import Batch, batch
from modelyard.registry.filesystem import reflink
from modelyard.registry.likeness import SizeIndex, sample
from modelyard.registry.linking import check_linkable
from modelyard.registry.parallel import each
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.progress import Cancelled, Progress, Tally
from modelyard.registry.reading import OpenFile, Report, hash_file, storage_error, stream
from modelyard.registry.smallfiles import Check, SmallFiles, allow, holds
from modelyard.registry.source import SourceFile
from modelyard.registry.staging import StagedFile, Staging, make_folder, publish_bytes

LARGE_BYTES = 64 * 1024 * 1024
"""From here on a file is flushed by itself and can be continued."""
_BATCH_FILES = 16384
_PART_FILES = 1024
_BATCH_BYTES = 4 * LARGE_BYTES


class Blob(msgspec.Struct, frozen=True, gc=False):
    """Stored contents: 64 hexadecimal digits, and their number of bytes."""

    sha256: str
    size_bytes: int


class BlobStore(Protocol):
    """Where contents lie, by SHA-256."""

    def put(self, source: Path, *, progress: Progress | None = None) -> Blob:
        """Store a file's bytes; the same bytes again repair what is stored, or change nothing.

        Raises InvalidRequest (unreadable), Conflict (it changed meanwhile), StorageError.
        """

    def put_all(
        self,
        files: Sequence[SourceFile],
        tally: Tally,
        *,
        link: bool = False,
        suspects: Collection[str] = (),
        check: Check = allow,
    ) -> list[Blob]:
        """Store many files, in their order. What is stored already is trusted to be whole, but
        for `suspects` (SHA-256). `link`: take them in without a copy. `check` is asked about each
        file before it is stored. Raises as `put`, and what `check` raises."""

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
        self._folder = f"{root}/sha256"
        self._staging = Staging(root / "staging")
        self._sizes = SizeIndex(lambda: ((b.sha256, b.size_bytes) for b in self.stored()))

    def path(self, sha256: str) -> Path:
        return Path(f"{self._folder}/{sha256[:2]}/{sha256}")

    def put(self, source: Path, *, progress: Progress | None = None) -> Blob:
        with self._storing(source.name), OpenFile(source) as file:

            def report(done: int) -> None:
                if progress is not None:
                    progress(source.name, done, file.size_bytes)

            self._staging.sweep()
            if file.size_bytes <= CHUNK_BYTES:
                return self._put_small(file, report)
            return self._equal(file, report) or self._copy(file, report)

    def put_all(
        self,
        files: Sequence[SourceFile],
        tally: Tally,
        *,
        link: bool = False,
        suspects: Collection[str] = (),
        check: Check = allow,
    ) -> list[Blob]:
        large = [] if link else [file for file in files if file.size_bytes >= LARGE_BYTES]
        large.sort(key=lambda file: -file.size_bytes)  # the longest first: cores end together
        others = [file for file in files if link or file.size_bytes < LARGE_BYTES]
        intake = _Intake(self, tally, link, suspects, check)
        with self._storing("the files"):
            make_folder(self._root)
            if link:
                check_linkable(files, self._root)
            self._staging.sweep(keep=intake.samples(large))
        blobs: dict[str, Blob] = {}
        try:
            # What is refused for its content is refused before hours of copying, not after them.
            for group in _groups(others):
                blobs |= intake.put_group(group)
            blobs |= zip((f.path for f in large), each(intake.put_large, large, tally), strict=True)
        except KeyboardInterrupt:  # what is half done is continued by the next attempt
            raise
        except BaseException:
            self._staging.sweep()
            raise
        self._staging.sweep()
        return [blobs[file.path] for file in files]

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
            with os.scandir(shard) as entries:
                for entry in entries:
                    yield Blob(entry.name, entry.stat(follow_symlinks=False).st_size)

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
        self._sizes.forget()

    @contextlib.contextmanager
    def _storing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, f"copying {what}", self._root) from error

    def _copy(self, file: OpenFile, report: Report) -> Blob:
        key = sample(file) if file.size_bytes >= LARGE_BYTES else ""
        with self._staging.file(key, keep_on=(KeyboardInterrupt, Cancelled)) as staged:
            staged.bypasses_cache = file.size_bytes >= LARGE_BYTES
            self._require_space(file.size_bytes - os.fstat(staged.fd).st_size)
            sha256, size_bytes = _fill(staged, file, report)
            file.check_unchanged(size_bytes)
            staged.publish(self.path(sha256))
        self._sizes.add(sha256, size_bytes)
        return Blob(sha256, size_bytes)

    def _require_space(self, size_bytes: int) -> None:
        """Fail before hours of copying, not after them."""
        disk = os.statvfs(self._root)
        free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail
        if size_bytes > free * disk.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put_small(self, file: OpenFile, report: Report) -> Blob:
        data = file.read_all()
        sha256 = hashlib.sha256(data).hexdigest()
        report(len(data))
        file.check_unchanged(len(data))
        if not holds(str(self.path(sha256)), data):
            publish_bytes(self._staging, self.path(sha256), data)
        return Blob(sha256, len(data))

    def _equal(self, file: OpenFile, report: Report) -> Blob | None:
        """Return the stored blob that equals `file` byte for byte, or None."""
        for sha256 in self._alike(file):
            try:
                with OpenFile(self.path(sha256)) as stored:
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

    def _alike(self, file: OpenFile) -> list[str]:
        candidates = self._sizes.of_size(file.size_bytes)
        mine = sample(file) if candidates else ""
        alike = []
        for sha256 in candidates:
            with contextlib.suppress(InvalidRequest, OSError), OpenFile(self.path(sha256)) as blob:
                if sample(blob) == mine:
                    alike.append(sha256)
        return alike


class _Intake:
    """What one `put_all` goes by, and how it stores each file."""

    def __init__(
        self,
        store: LocalBlobStore,
        tally: Tally,
        link: bool,
        suspects: Collection[str],
        check: Check,
    ) -> None:
        self._store = store
        self._tally = tally
        self._link = link
        self._suspects = suspects
        self._check = check

    def samples(self, files: Sequence[SourceFile]) -> set[str]:
        """The keys under which large files are continued; each is checked on the way."""
        found = set()
        for file in files:
            with OpenFile(Path(file.location)) as opened:
                self._check(file, opened.head())
                found.add(sample(opened))
        return found

    def put_large(self, file: SourceFile) -> Blob:
        """Store a file by itself."""
        report = _report(self._tally, file)
        with self._store._storing(file.path), OpenFile(Path(file.location)) as opened:
            return self._recognised(opened, report) or self._store._copy(opened, report)

    def put_group(self, group: Sequence[SourceFile]) -> dict[str, Blob]:
        """Store files with one flush for all of them; return them by path."""
        with self._store._storing(f"{len(group)} files"), batch(self._store._staging) as staged:
            small = SmallFiles(self._store._folder, staged, self._tally, self._check)

            def put_part(part: Sequence[SourceFile]) -> list[Blob]:
                if self._link or part[0].size_bytes > CHUNK_BYTES:
                    return [self._put(file, staged) for file in part]
                found = [
                    Blob(sha256, file.size_bytes)
                    for sha256, file in zip(small.put(part), part, strict=True)
                ]
                staged.flush_meanwhile()
                return found

            parts = _parts(group)
            stored = each(put_part, parts, self._tally)
            staged.publish(self._store._folder)
        blobs: dict[str, Blob] = {}
        for part, found in zip(parts, stored, strict=True):
            for file, blob in zip(part, found, strict=True):
                blobs[file.path] = blob
                self._store._sizes.add(blob.sha256, blob.size_bytes)
        return blobs

    def _put(self, file: SourceFile, staged: Batch) -> Blob:
        report = _report(self._tally, file)
        with self._store._storing(file.path), OpenFile(Path(file.location)) as opened:
            self._check(file, opened.head())
            if self._link:
                return self._linked(opened, staged, report)
            return self._recognised(opened, report) or _stage(opened, staged, report)

    def _linked(self, file: OpenFile, staged: Batch, report: Report) -> Blob:
        blob = Blob(*stream(file, None, report))
        if not self._has(blob):
            staged.link(blob.sha256, file.fd, file.path)
        file.check_unchanged(blob.size_bytes)
        return blob

    def _recognised(self, file: OpenFile, report: Report) -> Blob | None:
        """Return the stored blob that `file` equals, by its hash; None when it has to be copied."""
        if not self._store._alike(file):
            return None
        blob = Blob(*stream(file, None, report))
        file.check_unchanged(blob.size_bytes)
        if self._has(blob):
            return blob
        file.rewind()
        return None

    def _has(self, blob: Blob) -> bool:
        """Whether it is stored, with its size, and not suspect: it is trusted to have its bytes."""
        try:
            size_bytes = self._store.path(blob.sha256).lstat().st_size
        except FileNotFoundError:
            return False
        return size_bytes == blob.size_bytes and blob.sha256 not in self._suspects


class _Differs(Exception):
    """The source is not the stored blob."""


class _Same:
    """A sink that holds what it is given against a stored file."""

    def __init__(self, stored: OpenFile) -> None:
        self._stored = stored
        self._buffer = memoryview(b"")

    def __call__(self, view: memoryview) -> None:
        if len(self._buffer) != len(view):
            self._buffer = memoryview(bytearray(len(view)))
        if self._stored.read_into(self._buffer) != len(view) or self._buffer != view:
            raise _Differs


def _fill(target: StagedFile, source: OpenFile, report: Report) -> tuple[str, int]:
    """Copy, by sharing blocks where the file system can; return SHA-256 and size."""
    if reflink(source.fd, target.fd):
        # What is hashed is what is stored, whatever becomes of the source meanwhile.
        with OpenFile(target.path) as clone:
            return stream(clone, None, report)
    return stream(source, target.write, report)


def _stage(file: OpenFile, staged: Batch, report: Report) -> Blob:
    with staged.file() as target:
        sha256, size_bytes = _fill(target, file, report)
        file.check_unchanged(size_bytes)
        target.keep(sha256)
    return Blob(sha256, size_bytes)


def _report(tally: Tally, file: SourceFile) -> Report:
    part = tally.part(file.path)
    return lambda done: part(file.path, done, file.size_bytes)


def _parts(files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
    """Cut into what a thread takes at once: a file, or many small ones."""
    small = [file for file in files if file.size_bytes <= CHUNK_BYTES]
    many = [small[start : start + _PART_FILES] for start in range(0, len(small), _PART_FILES)]
    return [*([file] for file in files if file.size_bytes > CHUNK_BYTES), *many]


def _groups(files: Sequence[SourceFile]) -> list[list[SourceFile]]:
    """Cut into batches that are bounded in files and bytes: what a kill costs at most."""
    groups: list[list[SourceFile]] = []
    size_bytes = 0
    for file in files:
        if not groups or len(groups[-1]) >= _BATCH_FILES or size_bytes >= _BATCH_BYTES:
            groups.append([])
            size_bytes = 0
        groups[-1].append(file)
        size_bytes += file.size_bytes
    return groups
