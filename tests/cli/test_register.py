"""What `modelyard register` takes beside a folder: words on a version, a tokenizer, a hub."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.registry.conftest import write_model
from tests.registry.hub_stand_in import COMMIT, serving

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose catalogue is made; making one takes seconds."""
    from modelyard.registry.registry import Registry

    folder = tmp_path_factory.mktemp("register")
    Registry(folder / "home").register("other", write_model(folder / "other", seed=b"other"))
    return folder / "home"


@pytest.fixture
def root(empty_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(empty_home, tmp_path / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def test_words_on_a_version_are_recorded(cli: Cli, root: Path, model: Path) -> None:
    words = ["--metric", "accuracy=0.93", "--metric", "mmlu=41", "--alias", "candidate"]

    done = cli("register", "small", model, *words, "--licence", "mit", "--home", root, "--json")

    facts = json.loads(done.out)
    assert facts["metrics"] == {"accuracy": 0.93, "mmlu": 41.0}
    assert facts["aliases"] == ["candidate"]
    shown = cli("models", "show", "small@candidate", "--home", root)
    assert "mit (declared)" in shown.out


@pytest.mark.parametrize(
    "words",
    [
        ["--metric", "accuracy"],
        ["--metric", "accuracy=good"],
        ["--metric", "accuracy=nan"],
        ["--alias", "v3"],
        ["--licence", " "],
        ["--tokenizer", "/nothing/here"],
    ],
)
def test_words_that_mean_nothing_are_refused_before_anything_is_stored(
    cli: Cli, root: Path, model: Path, words: list[str]
) -> None:
    done = cli("register", "small", model, *words, "--home", root)

    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "\nnext: " in done.err
    assert "small" not in cli("models", "list", "--home", root).out


def test_a_tokenizer_from_elsewhere(cli: Cli, root: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")

    cli("register", "small", model, "--tokenizer", tmp_path / "tokenizer.json", "--home", root)

    assert "tokenizer.json" in cli("models", "show", "small", "--home", root).out


def test_an_address_on_a_hub(root: Path, model: Path, tmp_path: Path) -> None:
    """In a process of its own, which takes endpoint and token from its environment."""
    command = [sys.executable, "-m", "modelyard.cli.main", "register", "small"]
    with serving(model) as hub:
        done = subprocess.run(
            [*command, "hf://acme/small@main", "--home", root, "--json"],
            env=os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )

    assert json.loads(done.stdout)["version"] == 1
    assert "hf_x" not in done.stdout + done.stderr
    record = json.loads((root / "versions" / "small" / "1.json").read_text())
    assert (record["source"], record["source_commit"]) == ("hf://acme/small@main", COMMIT)


def test_without_the_hubs_package_the_command_that_installs_it_is_named(
    cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    done = cli("register", "small", "hf://acme/small", "--home", root)

    assert done.code == 1
    assert "pip install 'modelyard[hub]'" in done.err


def test_a_link_needs_read_only_files(cli: Cli, root: Path, model: Path) -> None:
    refused = cli("register", "small", model, "--link", "--home", root)
    for path in model.iterdir():
        path.chmod(0o444)
    done = cli("register", "small", model, "--link", "--home", root)

    assert (refused.code, done.code) == (1, 0)
    assert "can be written to" in refused.err
