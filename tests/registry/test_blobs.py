"""The blob store: one read, one copy, whole or not at all."""

import fcntl
import hashlib
import os
import tempfile
import tracemalloc
from pathlib import Path

import pytest

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry import blobs
from modelyard.registry.blobs import LocalBlobStore
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.progress import Cancelled, Tally
from modelyard.registry.source import SourceFile

LARGE = 2 * CHUNK_BYTES + 12_345
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE]


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def source(tmp_path: Path, data: bytes, name: str = "weights") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def staged(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "blobs" / "staging"
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("size_bytes", SIZES)
def test_stored_bytes_are_those_of_the_source(
    store: LocalBlobStore, tmp_path: Path, size_bytes: int
) -> None:
    data = os.urandom(size_bytes)
    done: list[int] = []

    blob = store.put(source(tmp_path, data), progress=lambda _name, now, _all: done.append(now))

    assert (blob.sha256, blob.size_bytes) == (hashlib.sha256(data).hexdigest(), size_bytes)
    stored = store.path(blob.sha256)
    assert stored.read_bytes() == data
    assert stored.stat().st_mode & 0o777 == 0o444
    assert store.verify(blob.sha256)
    assert done == sorted(done)
    assert (done or [0])[-1] == size_bytes
    assert staged(tmp_path) == []


@pytest.mark.parametrize("size_bytes", [100, LARGE])
def test_the_same_bytes_again_are_not_written_again(
    store: LocalBlobStore, tmp_path: Path, size_bytes: int
) -> None:
    path = source(tmp_path, os.urandom(size_bytes))
    before = store.path(store.put(path).sha256).stat()
    blob = LocalBlobStore(tmp_path / "blobs").put(path)
    after = store.path(blob.sha256).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


@pytest.mark.parametrize("size_bytes", [100, LARGE])
@pytest.mark.parametrize("place", [0, 0.4, 1])
def test_a_damaged_blob_is_found_and_replaced_by_the_same_bytes(
    store: LocalBlobStore, tmp_path: Path, size_bytes: int, place: float
) -> None:
    path = source(tmp_path, os.urandom(size_bytes))
    blob = store.put(path)
    flip(store.path(blob.sha256), int(place * (size_bytes - 1)))
    assert not store.verify(blob.sha256)

    assert LocalBlobStore(tmp_path / "blobs").put(path) == blob

    assert store.verify(blob.sha256)


def flip(path: Path, offset: int) -> None:
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o444)


def test_another_file_of_the_same_size_and_beginning_is_another_blob(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    data = bytearray(os.urandom(LARGE))
    first = store.put(source(tmp_path, bytes(data), "one"))
    data[LARGE // 3] ^= 1  # in none of the sampled pages
    second = store.put(source(tmp_path, bytes(data), "two"))
    assert second.sha256 == hashlib.sha256(data).hexdigest() != first.sha256
    assert store.verify(first.sha256)
    assert store.verify(second.sha256)


def test_an_absent_blob_does_not_verify(store: LocalBlobStore) -> None:
    assert not store.verify("0" * 64)


def test_a_source_that_changes_while_it_is_read_is_refused(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    path = source(tmp_path, os.urandom(LARGE))

    def grow(_name: str, done: int, _total: int) -> None:
        if done == CHUNK_BYTES:
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(Conflict, match="changed while it was read"):
        store.put(path, progress=grow)
    assert staged(tmp_path) == []


def test_a_cancelled_copy_leaves_nothing(store: LocalBlobStore, tmp_path: Path) -> None:
    tally = Tally(None, LARGE)
    tally.cancel()
    with pytest.raises(Cancelled):
        store.put(source(tmp_path, os.urandom(LARGE)), progress=tally.part("weights"))
    assert staged(tmp_path) == []


def test_a_fifo_is_refused_without_waiting_for_its_writer(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        store.put(tmp_path / "pipe")


def test_a_dead_writers_leftover_is_removed_and_a_living_ones_is_not(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    folder = tmp_path / "blobs" / "staging"
    folder.mkdir(parents=True)
    (folder / "1-dead").write_bytes(b"half")
    living = folder / "2-living"
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        store.put(source(tmp_path, b"x"))
        assert staged(tmp_path) == [living]


def listed(*paths: Path) -> list[SourceFile]:
    return [
        SourceFile(path.name, str(path), path.stat().st_size, path.stat().st_mtime_ns)
        for path in paths
    ]


@pytest.fixture
def low_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large, and how long a batch is, without gigabytes."""
    monkeypatch.setattr(blobs, "LARGE_BYTES", 4 * CHUNK_BYTES)
    monkeypatch.setattr(blobs, "_BATCH_FILES", 7)


@pytest.mark.usefixtures("low_limits")
def test_many_files_come_back_in_their_order(store: LocalBlobStore, tmp_path: Path) -> None:
    sizes = [0, 10, 10, CHUNK_BYTES, CHUNK_BYTES + 1, LARGE, 4 * CHUNK_BYTES, 5 * CHUNK_BYTES]
    sizes += [20] * 20
    paths = [source(tmp_path, os.urandom(size), f"f{n}") for n, size in enumerate(sizes)]
    paths.append(source(tmp_path, paths[1].read_bytes(), "equal"))
    paths.append(source(tmp_path, paths[5].read_bytes(), "equal-too"))

    stored = store.put_all(listed(*paths), Tally(None, 0))

    for path, blob in zip(paths, stored, strict=True):
        data = path.read_bytes()
        assert (blob.sha256, blob.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        assert store.path(blob.sha256).read_bytes() == data
        assert store.path(blob.sha256).stat().st_mode & 0o777 == 0o444
    assert len(list(store.stored())) == len(paths) - 2
    assert staged(tmp_path) == []


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("size_bytes", [100, 2 * CHUNK_BYTES, 5 * CHUNK_BYTES])
def test_what_is_stored_is_not_written_again_unless_it_is_suspect(
    store: LocalBlobStore, tmp_path: Path, size_bytes: int
) -> None:
    files = listed(source(tmp_path, os.urandom(size_bytes)))
    [blob] = store.put_all(files, Tally(None, 0))
    path = store.path(blob.sha256)
    inode = path.stat().st_ino

    again = LocalBlobStore(tmp_path / "blobs")
    assert again.put_all(files, Tally(None, 0)) == [blob]
    assert path.stat().st_ino == inode

    flip(path, size_bytes // 2)
    assert again.put_all(files, Tally(None, 0), suspects={blob.sha256}) == [blob]
    assert store.verify(blob.sha256)


@pytest.mark.usefixtures("low_limits")
@pytest.mark.parametrize("spoilt", [False, True])
def test_an_interrupted_large_file_is_continued(
    store: LocalBlobStore, tmp_path: Path, spoilt: bool
) -> None:
    path = source(tmp_path, os.urandom(8 * CHUNK_BYTES))

    def interrupt(_name: str, done: int, _total: int) -> None:
        if done >= 5 * CHUNK_BYTES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_all(listed(path), Tally(interrupt, 0))
    [leftover] = staged(tmp_path)
    assert leftover.stat().st_size >= 5 * CHUNK_BYTES
    inode = leftover.stat().st_ino
    if spoilt:
        with leftover.open("r+b") as file:
            file.seek(2 * CHUNK_BYTES)
            file.write(bytes(CHUNK_BYTES))

    [blob] = LocalBlobStore(tmp_path / "blobs").put_all(listed(path), Tally(None, 0))

    assert store.path(blob.sha256).stat().st_ino == inode
    assert store.verify(blob.sha256)
    assert staged(tmp_path) == []


@pytest.mark.usefixtures("low_limits")
def test_a_leftover_of_other_content_is_removed(store: LocalBlobStore, tmp_path: Path) -> None:
    path = source(tmp_path, os.urandom(8 * CHUNK_BYTES))

    def interrupt(_name: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.put_all(listed(path), Tally(interrupt, 0))
    store.put_all(listed(source(tmp_path, b"x", "other")), Tally(None, 0))
    assert staged(tmp_path) == []


def test_a_failing_file_leaves_nothing_of_its_batch(store: LocalBlobStore, tmp_path: Path) -> None:
    good = [source(tmp_path, bytes([n]), f"f{n}") for n in range(5)]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequest, match="not a regular file"):
        store.put_all(listed(*good, tmp_path / "pipe"), Tally(None, 0))
    assert list(store.stored()) == []
    assert staged(tmp_path) == []


@pytest.mark.parametrize("size_bytes", [0, 100, LARGE])
def test_read_only_files_are_linked_without_a_copy(
    store: LocalBlobStore, tmp_path: Path, size_bytes: int
) -> None:
    path = source(tmp_path, os.urandom(size_bytes))
    path.chmod(0o444)
    [blob] = store.put_all(listed(path), Tally(None, 0), link=True)
    assert store.path(blob.sha256).samefile(path)
    assert store.verify(blob.sha256)
    assert store.put_all(listed(path), Tally(None, 0), link=True) == [blob]
    assert staged(tmp_path) == []


def test_what_can_be_written_to_is_not_linked(store: LocalBlobStore, tmp_path: Path) -> None:
    files = listed(source(tmp_path, b"x"))
    with pytest.raises(
        InvalidRequest, match=r"can't link 'weights': it can be written to"
    ) as error:
        store.put_all(files, Tally(None, 0), link=True)
    assert "chmod a-w" in error.value.next_step
    assert list(store.stored()) == []


def test_what_lies_on_another_disk_is_not_linked(store: LocalBlobStore, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")  # noqa: S108 - a second file system is what is wanted
    if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("only one file system here")
    with tempfile.NamedTemporaryFile(dir=elsewhere) as file:
        Path(file.name).chmod(0o444)
        with pytest.raises(InvalidRequest, match="it lies on another file system"):
            store.put_all(listed(Path(file.name)), Tally(None, 0), link=True)


def test_memory_stays_bounded_whatever_the_size(store: LocalBlobStore, tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(200 * 1024 * 1024)
    tracemalloc.start()
    try:
        store.put_all(listed(path), Tally(None, 0))
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()
