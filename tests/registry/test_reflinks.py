"""R5 where the file system shares blocks between files: a real btrfs of some megabytes."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.registry.registry import Registry

from .conftest import write_model

MEGABYTE = 1024 * 1024


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A mounted btrfs of 256 MB; skips where none can be mounted."""
    image, folder = tmp_path / "image", tmp_path / "btrfs"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(256 * MEGABYTE)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    mount = ["mount", "-o", "loop", str(image), str(folder)]
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"no btrfs can be mounted here: {result.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def used_bytes(folder: Path) -> int:
    os.sync()
    disk = os.statvfs(folder)
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


@pytest.mark.service("btrfs")
@pytest.mark.parametrize("link", [False, True])
def test_registering_and_loading_share_the_sources_blocks(btrfs: Path, link: bool) -> None:
    model = write_model(btrfs / "model", size_bytes=32 * MEGABYTE, seed=os.urandom(MEGABYTE))
    for path in model.iterdir():
        path.chmod(0o444)
    registry = Registry(btrfs / "home", tracking_uri="sqlite:////proc/nowhere/catalogue.db")
    before = used_bytes(btrfs)

    registry.register("yard", model, link=link)
    tree = registry.load("yard")

    assert used_bytes(btrfs) - before < 8 * MEGABYTE
    weights = tree / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"spoilt")  # as somebody with permission may
    assert (model / "model.safetensors").stat().st_size > 32 * MEGABYTE
    registry.verify("yard")
    assert (registry.load("yard") / "model.safetensors").stat().st_size > 32 * MEGABYTE
