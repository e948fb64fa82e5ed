"""A disk that fills up while a model is copied: a real one, of a few megabytes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.errors import StorageError
from modelyard.core.home import Home
from modelyard.registry.registry import Registry

from .conftest import MakeModel

MEGABYTE = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs of 6 MB."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        reason = f"no tmpfs can be mounted here: {result.stderr.strip()}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def files_under(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("size_bytes", [8 * MEGABYTE, 3 * MEGABYTE])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing_half_done(
    small_disk: Path, make_model: MakeModel, size_bytes: int
) -> None:
    registry = Registry(Home(small_disk / "home"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (4 * MEGABYTE))
    model = make_model(size_bytes=size_bytes)

    with pytest.raises(StorageError, match=r"no space left on the disk of .*home.* while") as error:
        registry.register("yard", model)

    assert "\n" not in str(error.value)
    assert "free some space" in error.value.next_step
    assert registry.versions() == []
    assert files_under(small_disk / "home" / "blobs" / "staging") == 0

    ballast.unlink()
    remount = ["mount", "-o", "remount,size=32m", str(small_disk)]
    subprocess.run(remount, check=True, capture_output=True)
    assert registry.register("yard", model).created
    registry.verify("yard")


def test_a_disk_that_fills_at_the_last_small_files_leaves_no_version(
    small_disk: Path, make_model: MakeModel
) -> None:
    """The blobs fit; manifest and record don't, by a few kilobytes more each round."""
    model = make_model(size_bytes=MEGABYTE)
    ballast = small_disk / "ballast"
    for free_pages in range(256 + 4, 256 + 14):
        home = Home(small_disk / f"home-{free_pages}")
        ballast.write_bytes(b"")
        available = os.statvfs(small_disk).f_bavail * 4096
        ballast.write_bytes(b"\0" * (available - free_pages * 4096))
        registry = Registry(home, tracking_uri="sqlite:////proc/nowhere/catalogue.db")
        try:
            registry.register("yard", model)
        except StorageError:
            assert registry.versions() == []
        else:
            registry.verify("yard")
        ballast.unlink()
        subprocess.run(["rm", "-rf", str(home.root)], check=True)
