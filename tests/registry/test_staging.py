"""Files on their way: past the page cache where that is possible, whole either way."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from modelyard.registry import staging as module
from modelyard.registry.batches import batch
from modelyard.registry.pipeline import Pipeline
from modelyard.registry.reading import OpenFile
from modelyard.registry.staging import Staging

MEGABYTE = 1024 * 1024


def write_through(staging: Staging, source: Path, target: Path) -> list[bool]:
    """Copy by the pipeline; whether each chunk went past the cache."""
    direct: list[bool] = []
    with OpenFile(source) as opened, staging.file() as staged:
        staged.bypasses_cache = True

        def write(view: memoryview) -> None:
            staged.write(view)
            direct.append(bool(fcntl.fcntl(staged.fd, fcntl.F_GETFL) & os.O_DIRECT))

        Pipeline([write]).run(opened.read_into, lambda _count: True)
        staged.publish(target)
    return direct


@pytest.mark.parametrize("size_bytes", [MEGABYTE, MEGABYTE + 1, MEGABYTE + 4096, 3 * MEGABYTE - 5])
def test_whole_pages_go_past_the_cache_and_the_rest_through_it(
    tmp_path: Path, size_bytes: int
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))

    direct = write_through(Staging(tmp_path / "staging"), source, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    if not direct[0]:
        pytest.skip(f"the file system of {tmp_path} writes through the cache only")
    assert direct[:-1] == [True] * (len(direct) - 1)
    assert direct[-1] is (size_bytes % 4096 == 0)


@pytest.mark.parametrize("refusal", ["at once", "in the middle"])
def test_a_file_system_that_can_not_is_written_to_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(MEGABYTE))
    if refusal == "at once":

        def refuse(_fd: int, direct: bool) -> bool:
            if direct:
                raise OSError(errno.EINVAL, "Invalid argument")
            return False

        monkeypatch.setattr(module, "set_direct", refuse)
    else:
        write = os.pwrite

        def pwrite(fd: int, view: memoryview, at: int) -> int:
            if at and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                raise OSError(errno.EINVAL, "Invalid argument")
            return write(fd, view, at)

        monkeypatch.setattr(os, "pwrite", pwrite)

    direct = write_through(Staging(tmp_path / "staging"), source, tmp_path / "target")

    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert direct[-1] is False


def test_a_flush_that_failed_in_the_background_fails_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells a failed write once: who asks first must not keep it to himself."""
    told = iter([OSError(errno.EIO, "Input/output error")])

    def sync(_fd: int) -> None:
        for error in told:
            raise error

    monkeypatch.setattr("modelyard.registry.batches.sync_file_system", sync)
    monkeypatch.setattr("modelyard.registry.batches._FLUSHED_FILES", 1)
    with (
        pytest.raises(OSError, match="Input/output error"),
        batch(Staging(tmp_path / "staging")) as staged,
    ):
        staged.add("ab" * 32, b"x")
        staged.flush_meanwhile()
        staged.publish(str(tmp_path / "sha256"))
    assert list((tmp_path / "staging").iterdir()) == []
    assert not (tmp_path / "sha256").exists()
