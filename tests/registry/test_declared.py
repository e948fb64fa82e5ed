"""What is said of a version at its registration, beside what its files say (R12)."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.registry.conftest import MakeModel
from tests.registry.hub_stand_in import COMMIT, StandIn, serving
from tests.registry.test_hub import use_endpoint

from modelyard.core.errors import InvalidRequest
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text('{"model": {}}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ x }}"}))
    (folder / "pytorch_model.bin").write_bytes(b"not a part of it")
    return folder


@pytest.fixture
def stand_in(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    folder = make_model("on-the-hub")
    (folder / "flax_model.msgpack").write_bytes(b"another framework's")
    with serving(folder) as hub:
        use_endpoint(monkeypatch, hub.url)
        yield hub


def test_a_declared_licence_stands_beside_what_the_files_say(
    registry: Registry, make_model: MakeModel
) -> None:
    folder = make_model()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")

    done = registry.register("small", folder, origin=Origin(licence="apache-2.0"))

    version = registry.get("small")
    assert (version.facts.licence, version.declared_licence) == ("mit", "apache-2.0")
    assert any("the files say that the licence is mit" in said for said in done.warnings)


def test_what_is_said_later_changes_no_version_and_is_told(
    registry: Registry, make_model: MakeModel
) -> None:
    folder = make_model()
    registry.register("small", folder, origin=Origin(metrics={"accuracy": 0.5}, licence="mit"))

    again = registry.register(
        "small", folder, origin=Origin(metrics={"accuracy": 0.9}, licence="gpl")
    )

    assert (again.created, again.version.metrics) == (False, {"accuracy": 0.5})
    assert again.version.declared_licence == "mit"
    assert any("stays as it was registered" in warning for warning in again.warnings)


def test_a_tokenizer_that_lies_elsewhere_becomes_part_of_the_version(
    registry: Registry, make_model: MakeModel, tokenizer: Path
) -> None:
    version = registry.register("small", make_model(), tokenizer=tokenizer).version

    paths = [file.path for file in version.manifest.files]
    assert {"tokenizer.json", "tokenizer_config.json", "model.safetensors"} <= set(paths)
    assert "pytorch_model.bin" not in paths
    assert version.facts.chat_template
    one = registry.register("one", make_model("b"), tokenizer=tokenizer / "tokenizer.json").version
    assert "tokenizer.json" in [file.path for file in one.manifest.files]


def test_a_tokenizer_replaces_none_that_is_there(
    registry: Registry, make_model: MakeModel, tokenizer: Path
) -> None:
    folder = make_model()
    (folder / "tokenizer.json").write_text('{"model": {}}')
    registry.register("small", folder, tokenizer=tokenizer)
    (folder / "tokenizer.json").write_text('{"model": 1}')

    with pytest.raises(InvalidRequest, match=r"has a tokenizer\.json of its own"):
        registry.register("small", folder, tokenizer=tokenizer)
    assert len(registry.versions("small")) == 1


def test_a_folder_without_a_tokenizer_is_refused(
    registry: Registry, make_model: MakeModel, tmp_path: Path
) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(InvalidRequest, match="holds no tokenizer"):
        registry.register("small", make_model(), tokenizer=tmp_path / "bare")
    with pytest.raises(InvalidRequest, match="does not exist"):
        registry.register("small", make_model("b"), tokenizer=tmp_path / "nothing")


def test_a_model_from_a_hub_is_recorded_with_its_commit(
    registry: Registry, stand_in: StandIn
) -> None:
    done = registry.register("small", "hf://acme/small", origin=Origin(metrics={"accuracy": 0.5}))

    version = registry.get("small")
    assert (version.source, version.source_commit) == ("hf://acme/small@main", COMMIT)
    assert version.metrics == {"accuracy": 0.5}
    assert any("flax_model.msgpack" in warning for warning in done.warnings)
    assert not list(registry.home.downloads.rglob("*.safetensors"))
    registry.verify("small")
    assert {file.path: file.size_bytes for file in version.manifest.files} == {
        path: len(data) for path, data in stand_in.files.items() if path != "flax_model.msgpack"
    }


def test_the_same_files_from_the_hub_and_from_disk_are_one_version(
    registry: Registry, stand_in: StandIn, tmp_path: Path, tokenizer: Path
) -> None:
    folder = tmp_path / "on-the-hub"
    (folder / "flax_model.msgpack").unlink()
    registry.register("small", folder)

    again = registry.register("small", "hf://acme/small")
    other = registry.register("small", "hf://acme/small", tokenizer=tokenizer)

    assert (again.created, again.version.version) == (False, 1)
    assert (other.created, other.version.version) == (True, 2)


def test_a_model_that_can_not_be_registered_stays_for_the_next_attempt(
    registry: Registry, stand_in: StandIn, tokenizer: Path
) -> None:
    stand_in.files["tokenizer.json"] = b"{}"
    with pytest.raises(InvalidRequest, match="of its own"):
        registry.register("small", "hf://acme/small", tokenizer=tokenizer)
    sent = dict(stand_in.sent)

    registry.register("small", "hf://acme/small")

    assert stand_in.sent == sent
    assert registry.get("small").source_commit == COMMIT


def test_gc_gives_back_an_abandoned_fetch_and_leaves_one_that_runs(
    registry: Registry, stand_in: StandIn
) -> None:
    seen: list[int] = []

    def collect_meanwhile(stage: str, done: int, total: int) -> None:
        seen.append(sum(item.kind == "download" for item in registry.gc(dry_run=True).garbage))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.register("small", "hf://acme/small", progress=collect_meanwhile)
    removed = [item.path for item in registry.gc().garbage if item.kind == "download"]

    assert set(seen) == {0}
    assert removed == [f"downloads/acme--small/{COMMIT}"]
    assert not list(registry.home.downloads.glob("*/*/*"))
