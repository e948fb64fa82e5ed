"""Versions out of the registry and into another: every byte is checked on the way."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.core.errors import Conflict, IntegrityError, InvalidRequest
from modelyard.core.home import Home
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry
from modelyard.registry.versions import Recipe

from .conftest import MakeModel

RECIPE = Recipe(kind="finetune", seed=7)


@pytest.fixture
def child(registry: Registry, make_model: MakeModel) -> Registry:
    registry.register("base", make_model("one", seed=b"1"))
    origin = Origin(parent="base", recipe=RECIPE, metrics={"accuracy": 0.5})
    registry.register("a", make_model("two", seed=b"2"), origin=origin)
    return registry


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _damage(registry: Registry, ref: str, name: str) -> None:
    file = next(file for file in registry.get(ref).manifest.files if file.path == name)
    path = registry.blobs.path(file.sha256)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_pulled_folder_is_what_was_registered(child: Registry, tmp_path: Path) -> None:
    target = child.pull("a", tmp_path / "out")

    assert _contents(target) == _contents(tmp_path / "two")
    assert child.register("again", target).version.digest == child.get("a").digest


def test_a_pull_that_was_interrupted_goes_on(child: Registry, tmp_path: Path) -> None:
    def interrupt(name: str, _done: int, _total: int) -> None:
        if name == "model.safetensors":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.pull("a", tmp_path / "out", progress=interrupt)
    assert not (tmp_path / "out").exists()
    kept = tmp_path / "out.partial" / "config.json"
    inode = kept.stat().st_ino
    (tmp_path / "out.partial" / "stranger").write_text("of another version")

    child.pull("a", tmp_path / "out")

    assert _contents(tmp_path / "out") == _contents(tmp_path / "two")
    assert (tmp_path / "out" / "config.json").stat().st_ino == inode
    assert not (tmp_path / "out.partial").exists()


def test_nothing_is_pulled_over_what_is_there(child: Registry, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="is there already"):
        child.pull("a", tmp_path / "one")


def test_damage_is_found_on_the_way_out(child: Registry, tmp_path: Path) -> None:
    _damage(child, "a", "model.safetensors")

    with pytest.raises(IntegrityError, match=r"model\.safetensors of a:1"):
        child.pull("a", tmp_path / "out")

    assert not (tmp_path / "out").exists()
    assert child.get("a").quarantined
    with pytest.raises(IntegrityError):
        child.export("a", tmp_path / "a.tar")


def test_damage_is_found_while_exporting(child: Registry, tmp_path: Path) -> None:
    _damage(child, "a", "model.safetensors")

    with pytest.raises(IntegrityError, match=r"model\.safetensors of a:1"):
        child.export("a", tmp_path / "a.tar")

    assert not list(tmp_path.glob("a.tar*"))


@pytest.fixture
def archive(child: Registry, tmp_path: Path) -> Path:
    child.export("a", tmp_path / "a.tar")
    return tmp_path / "a.tar"


def test_an_archive_is_the_same_version_on_another_home(
    child: Registry, archive: Path, tmp_path: Path
) -> None:
    other = Registry(Home(tmp_path / "other"), tracking_uri=f"sqlite:///{child.home.catalogue}")

    registration = other.import_archive(archive, name="b")

    original = child.get("a")
    imported = registration.version
    assert (str(imported), imported.digest) == ("b:1", original.digest)
    assert (imported.parent, imported.recipe) == (original.parent, RECIPE)
    assert imported.metrics == {"accuracy": 0.5}
    other.verify("b")
    assert not list(other.home.downloads.iterdir())
    with pytest.raises(Conflict):
        child.export("a", archive)


def _flip(data: bytearray) -> None:
    at = data.index(b"2222222")
    data[at] ^= 1


def _cut(data: bytearray) -> None:
    del data[data.index(b"2222222") :]


def _other_digest(data: bytearray) -> None:
    at = data.index(b'"digest":"sha256:') + 17
    data[at] = ord("0") if data[at] != ord("0") else ord("1")


@pytest.mark.parametrize("damage", [_flip, _cut, _other_digest])
def test_a_damaged_archive_registers_nothing(
    child: Registry, archive: Path, damage: Callable[[bytearray], None]
) -> None:
    data = bytearray(archive.read_bytes())
    damage(data)
    archive.write_bytes(data)

    with pytest.raises((IntegrityError, InvalidRequest), match=r"model\.safetensors|a\.tar"):
        child.import_archive(archive, name="b")

    assert child.versions("b") == []
    assert not list(child.home.downloads.glob("*"))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil"])
def test_an_archive_writes_nowhere_else(child: Registry, tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))

    with pytest.raises(InvalidRequest, match="not an archive of a version"):
        child.import_archive(tmp_path / "evil.tar")


def test_what_is_no_archive_is_refused(child: Registry, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no tar")

    with pytest.raises(InvalidRequest, match="not an archive"):
        child.import_archive(tmp_path / "text")
    with pytest.raises(InvalidRequest, match="does not exist"):
        child.import_archive(tmp_path / "nothing")
