"""A form is derived once, hashed at every launch, remade when it is damaged."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from modelyard.core.errors import IntegrityError, StorageError, Unsupported
from modelyard.core.home import Home
from modelyard.forms import forms as forms_module
from modelyard.forms.forms import Forms
from modelyard.registry.registry import Registry
from modelyard.registry.versions import ModelVersion

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a tiny Qwen3 in it; making its catalogue takes seconds."""
    root = tmp_path_factory.mktemp("registered") / "home"
    Registry(root).register("tiny", GOLDEN / "qwen3")
    return root


@pytest.fixture
def registry(registered: Path, home: Home) -> Registry:
    """A copy of that home's registry."""
    shutil.copytree(registered, home.root)
    return Registry(home)


@pytest.fixture
def version(registry: Registry) -> ModelVersion:
    """The tiny Qwen3."""
    return registry.get("tiny")


def damage(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def test_it_is_made_once(registry: Registry, version: ModelVersion) -> None:
    first = Forms(registry).prepare(version, "gguf")
    made = first.stat().st_mtime_ns
    assert first.read_bytes()[:4] == b"GGUF"
    again = Forms(registry).prepare(version, "gguf")
    assert (again, again.stat().st_mtime_ns) == (first, made)


def test_its_provenance_is_kept(registry: Registry, version: ModelVersion) -> None:
    path = Forms(registry).prepare(version, "gguf")
    kept = registry.home.forms / f"{version.digest.removeprefix('sha256:')}.gguf.json"
    provenance = json.loads(kept.read_text())
    assert provenance["source_digest"] == version.digest
    assert provenance["blob_sha256"] == path.name
    assert provenance["converter_version"] == 1
    assert not list(registry.home.forms.glob("*.half"))


def test_a_damaged_form_is_made_again(registry: Registry, version: ModelVersion) -> None:
    path = Forms(registry).prepare(version, "gguf")
    whole = path.read_bytes()
    damage(path)
    assert Forms(registry).prepare(version, "gguf").read_bytes() == whole


def test_a_damaged_version_is_not_started_though_its_form_is_whole(
    registry: Registry, version: ModelVersion
) -> None:
    Forms(registry).prepare(version, "gguf")
    weights = next(f for f in version.manifest.files if f.path == "model.safetensors")
    damage(registry.blobs.path(weights.sha256))
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        Forms(registry).prepare(version, "gguf")


def test_another_converter_version_makes_it_anew(
    registry: Registry, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    Forms(registry).prepare(version, "gguf")
    monkeypatch.setattr(forms_module, "CONVERTER_VERSION", 2)
    Forms(registry).prepare(version, "gguf")
    (kept,) = registry.home.forms.glob("*.json")
    assert json.loads(kept.read_text())["converter_version"] == 2


def test_a_failed_or_interrupted_conversion_leaves_nothing(
    registry: Registry, version: ModelVersion
) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "convert" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Forms(registry).prepare(version, "gguf", progress=interrupt)
    assert {path.suffix for path in registry.home.forms.iterdir()} == {".lock"}
    assert Forms(registry).prepare(version, "gguf").exists()


def test_a_full_disk_is_said_and_leaves_nothing(
    registry: Registry, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(source: Path, target: Path, **_: object) -> None:
        target.write_bytes(b"half")
        raise OSError("4 requested and 0 written")  # what numpy raises on a full disk

    monkeypatch.setattr(forms_module, "convert", fill)
    with pytest.raises(StorageError, match="no space left"):
        Forms(registry).prepare(version, "gguf")
    assert {path.suffix for path in registry.home.forms.iterdir()} == {".lock"}


def test_the_version_s_own_format_needs_no_form(
    registry: Registry, version: ModelVersion, tmp_path: Path
) -> None:
    folder = Forms(registry).prepare(version, "safetensors")
    assert (folder / "model.safetensors").exists()
    file = shutil.copy(Forms(registry).prepare(version, "gguf"), tmp_path / "own.gguf")
    own = registry.register("own", file).version
    assert Forms(registry).prepare(own, "gguf").read_bytes()[:4] == b"GGUF"
    with pytest.raises(Unsupported, match="safetensors"):
        Forms(registry).prepare(own, "safetensors")


def prepare(root: str) -> str:
    """In another process: the path of the form."""
    registry = Registry(root)
    return str(Forms(registry).prepare(registry.get("tiny"), "gguf"))


def test_two_processes_at_once_get_the_same(registry: Registry, version: ModelVersion) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        paths = pool.map(prepare, [str(registry.home.root)] * 2)
    assert paths == [str(Forms(registry).prepare(version, "gguf"))] * 2
