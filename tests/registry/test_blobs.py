"""The blob store: one read, one copy, whole or not at all."""

import fcntl
import hashlib
import os
from pathlib import Path

import pytest

from modelyard.core.errors import Conflict, InvalidRequest
from modelyard.registry.blobs import LocalBlobStore
from modelyard.registry.progress import Cancelled, Tally
from modelyard.registry.reading import CHUNK_BYTES

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
