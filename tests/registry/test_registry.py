"""What the registry promises, through its own surface: R1, R3, R5, R6, R8, and bad input."""

import hashlib
import os
import pickle
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import msgspec
import numpy as np
import pytest

import modelyard
from modelyard.core.errors import IntegrityError, InvalidRequest, NotFound, StorageError
from modelyard.core.home import Home
from modelyard.registry import blobs
from modelyard.registry.pipeline import CHUNK_BYTES
from modelyard.registry.registry import Registry

from .conftest import CONFIG, MakeModel, as_nobody, write_model

YARDLING = Path(modelyard.__file__).parent / "demo" / "yardling"


def blob_of(registry: Registry, ref: str, name: str = "model.safetensors") -> Path:
    (sha256,) = [f.sha256 for f in registry.get(ref).manifest.files if f.path == name]
    return registry.blobs.path(sha256)


def damage(path: Path, offset: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.chmod(0o644)
    with path.open("r+b") as file:  # the same inode, as a failing disk would
        file.write(data)
    path.chmod(0o444)


def test_a_manifest_lists_every_file_and_its_digest_is_the_versions(
    registry: Registry, make_model: MakeModel
) -> None:
    model = make_model()

    version = registry.register("yard", model).version

    assert {f.path: (f.size_bytes, f.sha256) for f in version.manifest.files} == {
        file.name: (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest())
        for file in model.iterdir()
    }
    stored = registry.home.manifests / f"{version.digest.removeprefix('sha256:')}.json"
    assert version.digest == f"sha256:{hashlib.sha256(stored.read_bytes()).hexdigest()}"
    assert version.size_bytes == sum(file.stat().st_size for file in model.iterdir())


def test_what_is_loaded_is_what_was_registered(registry: Registry, make_model: MakeModel) -> None:
    model = make_model(size_bytes=2 * CHUNK_BYTES + 64)
    (model / "original").mkdir()
    (model / "original" / "params.json").write_text("{}")
    done: list[tuple[int, int]] = []

    registered = registry.register("yard", model, progress=lambda _n, *now: done.append(now))
    tree = registry.load("yard:1", progress=lambda _n, *now: done.append(now))

    def read(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    assert read(tree) == read(model)
    assert all(file.stat().st_mode & 0o222 == 0 for file in tree.rglob("*") if file.is_file())
    size = registered.version.size_bytes
    assert [now for now in done if now[0] == size] == [(size, size)] * 2


def test_the_demo_model_is_registered_and_loaded(registry: Registry) -> None:
    version = registry.register("yardling", YARDLING / "1").version
    assert version.facts.architecture == "Qwen3ForCausalLM"
    assert version.facts.chat_template
    assert version.facts.context_length
    assert (registry.load("yardling:1") / "config.json").is_file()


def test_the_same_content_again_is_the_same_version(
    registry: Registry, make_model: MakeModel
) -> None:
    first = registry.register("yard", make_model("one"))
    os.utime(make_model("two") / "config.json", (1, 1))

    again = registry.register("yard", make_model("three"))

    assert first.created
    assert not again.created
    assert (again.version.version, again.version.digest) == (1, first.version.digest)
    assert again.version.created_at == first.version.created_at
    assert len(registry.versions("yard")) == 1


def test_other_content_is_the_next_version_and_the_first_stays(
    registry: Registry, make_model: MakeModel
) -> None:
    first = registry.register("yard", make_model("one", seed=b"1")).version
    second = registry.register("yard", make_model("two", seed=b"2")).version
    assert (second.version, second.digest != first.digest) == (2, True)
    assert registry.get("yard:1") == first
    assert registry.get("yard") == second
    assert registry.get(f"yard@{first.digest}") == first
    assert [str(version) for version in registry.versions()] == ["yard:1", "yard:2"]


def test_versions_and_models_share_equal_files(registry: Registry, make_model: MakeModel) -> None:
    model = make_model("one")
    registry.register("a", model)
    (model / "notes.txt").write_text("new")
    registry.register("a", model)
    registry.register("b", make_model("two"))
    trees = [registry.load(ref) / "model.safetensors" for ref in ("a:1", "a:2", "b:1")]

    blobs = [path for path in registry.home.blobs.glob("sha256/*/*") if path.is_file()]
    assert len(blobs) == 4
    assert registry.get("b:1").digest == registry.get("a:1").digest
    assert {path.read_bytes() for path in trees} == {(model / "model.safetensors").read_bytes()}


def test_materialising_a_version_takes_no_space(registry: Registry, make_model: MakeModel) -> None:
    registry.register("a", make_model(size_bytes=CHUNK_BYTES))
    tree = registry.load("a")
    stored = blob_of(registry, "a")
    loaded = tree / "model.safetensors"
    reflinked = stored.stat().st_ino != loaded.stat().st_ino
    assert reflinked or stored.samefile(loaded)


@pytest.mark.parametrize("offset", [0, CHUNK_BYTES, -1])
def test_a_flipped_bit_is_found_at_load_and_the_file_is_named(
    registry: Registry, make_model: MakeModel, offset: int
) -> None:
    model = make_model(size_bytes=2 * CHUNK_BYTES)
    registry.register("yard", model)
    registry.load("yard:1")
    damage(blob_of(registry, "yard:1"), offset)

    with pytest.raises(IntegrityError, match=r"^model\.safetensors of yard:1 \(sha256:\w+\) is"):
        registry.load("yard:1")


def test_a_damaged_version_is_quarantined_until_the_same_content_repairs_it(
    registry: Registry, make_model: MakeModel
) -> None:
    model = make_model()
    registry.register("yard", model)
    registry.register("other", model)
    registry.load("yard:1")
    damage(blob_of(registry, "yard:1"))
    with pytest.raises(IntegrityError):
        registry.verify("yard:1")
    damage(blob_of(registry, "yard:1"))  # the flipped bit flips back: the disk is not to be trusted

    for ref in ("yard:1", "other:1"):
        assert "model.safetensors of yard:1" in registry.get(ref).quarantined
        with pytest.raises(IntegrityError, match="damaged") as caught:
            registry.load(ref)
        assert "register the same folder" in caught.value.next_step

    assert not registry.register("yard", model).created
    assert registry.get("yard:1").quarantined == ""
    registry.load("yard:1")
    registry.load("other:1")


@pytest.mark.parametrize("kind", ["flipped", "truncated", "emptied", "missing", "grown"])
def test_each_kind_of_damage_is_found_named_and_repaired(
    registry: Registry, make_model: MakeModel, kind: str
) -> None:
    model = make_model()
    registry.register("yard", model)
    registry.load("yard")
    blob = blob_of(registry, "yard")
    blob.chmod(0o644)
    if kind == "flipped":
        damage(blob, 1000)
    elif kind == "truncated":
        os.truncate(blob, 1000)
    elif kind == "emptied":
        os.truncate(blob, 0)
    elif kind == "missing":
        blob.unlink()
    else:
        with blob.open("ab") as file:
            file.write(b"x")

    for check in (registry.verify, registry.load):
        with pytest.raises(IntegrityError, match=r"model\.safetensors of yard:1"):
            check("yard:1")

    registry.register("yard", model)
    registry.verify("yard:1")
    assert (registry.load("yard:1") / "model.safetensors").read_bytes() == (
        model / "model.safetensors"
    ).read_bytes()


def test_what_was_put_into_a_tree_is_not_loaded(registry: Registry, make_model: MakeModel) -> None:
    registry.register("yard", make_model())
    tree = registry.load("yard")
    (tree / "modeling_evil.py").write_text("x")
    (tree / "sub").mkdir()
    (tree / "sub" / "x").write_text("x")
    (tree / "empty.txt").unlink()
    (tree / "config.json").unlink()
    (tree / "config.json").symlink_to("/etc/hostname")

    registry.load("yard")

    assert sorted(path.name for path in tree.iterdir()) == [
        "config.json", "empty.txt", "model.safetensors",
    ]  # fmt: skip
    assert msgspec.json.decode((tree / "config.json").read_bytes()) == CONFIG
    assert not (tree / "config.json").is_symlink()


def test_a_spoilt_copy_of_a_whole_blob_is_replaced(
    registry: Registry, make_model: MakeModel
) -> None:
    registry.register("yard", make_model())
    config = registry.load("yard") / "config.json"
    text = config.read_bytes()
    config.unlink()
    config.write_bytes(text.replace(b"512", b"999"))

    assert (registry.load("yard") / "config.json").read_bytes() == text
    assert registry.get("yard").quarantined == ""


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a:1", ".hidden", "x" * 129])
def test_a_bad_name_is_refused(registry: Registry, make_model: MakeModel, name: str) -> None:
    with pytest.raises(InvalidRequest):
        registry.register(name, make_model())


def test_a_folder_whose_own_name_is_not_utf8_can_be_registered(
    registry: Registry, make_model: MakeModel
) -> None:
    model = make_model()
    odd = Path(os.fsdecode(os.fsencode(model.parent) + b"/caf\xe9"))
    model.rename(odd)
    assert registry.register("yard", odd).created


def test_corrupt_weights_are_refused_before_anything_is_stored(
    registry: Registry, make_model: MakeModel
) -> None:
    model = make_model()
    os.truncate(model / "model.safetensors", 1000)
    with pytest.raises(InvalidRequest, match=r"model\.safetensors is damaged"):
        registry.register("yard", model)
    assert registry.versions() == []
    assert not registry.home.blobs.exists()


def test_a_pickle_is_refused_before_anything_is_stored(
    registry: Registry, make_model: MakeModel
) -> None:
    model = make_model()
    (model / "training_args.bin").write_bytes(b"x")
    with pytest.raises(InvalidRequest, match=r"training_args\.bin"):
        registry.register("yard", model)
    assert not registry.home.blobs.exists()


@pytest.mark.parametrize("padding", [0, CHUNK_BYTES, 5 * CHUNK_BYTES])
@pytest.mark.parametrize("link", [False, True])
def test_pickles_are_refused_by_content(
    registry: Registry,
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    padding: int,
    link: bool,
) -> None:
    monkeypatch.setattr(blobs, "LARGE_BYTES", 4 * CHUNK_BYTES)
    plain = make_model("plain")
    (plain / "notes.txt").write_bytes(pickle.dumps({"a": 1}) + bytes(padding))
    zipped = make_model("zipped")
    with zipfile.ZipFile(zipped / "weights.dat", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}) + bytes(padding))
    for model, name in ((plain, r"notes\.txt"), (zipped, r"weights\.dat")):
        for file in model.iterdir():
            file.chmod(0o444)
        with pytest.raises(InvalidRequest, match=f"'{name}' can hold a pickle"):
            registry.register("yard", model, link=link)
    assert registry.versions() == []
    assert list(registry.blobs.stored()) == []


def test_an_unreadable_file_is_named(open_folder: Path) -> None:
    model = write_model(open_folder / "model")
    (model / "config.json").chmod(0)
    with (
        as_nobody(),
        pytest.raises(InvalidRequest, match=r"can't read .*config\.json: Permission denied"),
    ):
        Registry(open_folder / "home").register("yard", model)


def test_a_home_that_may_not_be_written_to_is_said(open_folder: Path) -> None:
    model = write_model(open_folder / "model")
    (open_folder / "root").mkdir(mode=0o555)
    with (
        as_nobody(),
        pytest.raises(StorageError, match=r"no permission to write under .*home"),
    ):
        Registry(open_folder / "root" / "home").register("yard", model)


def test_a_single_gguf_file_is_registered_and_loaded(registry: Registry, tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "qwen3")
    writer.add_tensor("w", np.ones((3, 5), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    version = registry.register("yard", tmp_path / "m.gguf").version

    assert (version.facts.format, version.facts.architecture) == ("gguf", "qwen3")
    loaded = registry.load("yard") / "m.gguf"
    assert loaded.read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_a_ref_that_does_not_exist_names_what_does(
    registry: Registry, make_model: MakeModel
) -> None:
    with pytest.raises(NotFound, match="the registry is empty"):
        registry.get("yard")
    registry.register("yardling", make_model())
    registry.set_alias("yardling:1", "production")
    with pytest.raises(NotFound, match="no model 'yardlign'; there is yardling"):
        registry.get("yardlign")
    with pytest.raises(NotFound, match="no version yardling:2; there is yardling:1"):
        registry.get("yardling:2")
    with pytest.raises(NotFound, match="there is yardling@production"):
        registry.get("yardling@staging")
    with pytest.raises(NotFound, match="there is yardling:1"):
        registry.get("yardling@sha256:" + "0" * 64)


def test_an_alias_moves_and_is_resolved(registry: Registry, make_model: MakeModel) -> None:
    registry.register("yard", make_model("one", seed=b"1"))
    registry.register("yard", make_model("two", seed=b"2"))
    registry.set_alias("yard:1", "production", reason="first")
    registry.set_alias("yard:2", "production", reason="better")
    registry.set_alias("yard:2", "canary")
    assert registry.get("yard@production").version == 2
    assert registry.get("yard:2").aliases == ("canary", "production")
    assert registry.get("yard:1").aliases == ()
    with pytest.raises(InvalidRequest):
        registry.set_alias("yard:1", "v3")


def test_ctrl_c_leaves_nothing_half_done(registry: Registry, make_model: MakeModel) -> None:
    model = make_model(size_bytes=3 * CHUNK_BYTES)

    def interrupt(_name: str, done: int, _total: int) -> None:
        if done > CHUNK_BYTES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.register("yard", model, progress=interrupt)
    assert registry.versions() == []
    assert list((registry.home.blobs / "staging").iterdir()) == []
    assert registry.register("yard", model).created


def test_registrations_at_once_get_numbers_of_their_own(
    prepared_home: Home, make_model: MakeModel
) -> None:
    models = [make_model(str(number), seed=bytes([number // 2])) for number in range(6)]
    start = threading.Barrier(len(models))

    def register(model: Path) -> tuple[int, bool]:
        registry = Registry(prepared_home)
        start.wait(timeout=30)
        registration = registry.register("yard", model)
        return registration.version.version, registration.created

    with ThreadPoolExecutor(len(models)) as pool:
        results = list(pool.map(register, models))

    assert sorted(number for number, created in results if created) == [1, 2, 3]
    assert [results[i][0] == results[i + 1][0] for i in (0, 2, 4)] == [True] * 3


def test_one_damaged_manifest_hides_no_other_version(home: Home, tmp_path: Path) -> None:
    registry = Registry(home)
    whole = registry.register("whole", write_model(tmp_path / "a", seed=b"a")).version
    spoilt = registry.register("spoilt", write_model(tmp_path / "b", seed=b"b")).version
    manifest = home.manifests / f"{spoilt.digest.removeprefix('sha256:')}.json"
    manifest.chmod(0o644)
    manifest.write_bytes(manifest.read_bytes().replace(b"config.json", b"gonfic.json"))

    listed = {version.name: version for version in registry.versions()}

    assert listed["whole"] == whole
    assert "manifest" in listed["spoilt"].quarantined
    with pytest.raises(IntegrityError):
        registry.get("spoilt")
