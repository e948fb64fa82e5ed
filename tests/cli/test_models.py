"""`register`, `models list` and `models show` on the packaged demo weights."""

import importlib.resources
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.registry.registry import Registry

Cli = Callable[..., Any]
KEYS = ["name", "version", "digest", "aliases", "parent", "facts", "metrics", "size_bytes"]


@pytest.fixture(scope="module")
def weights() -> Iterator[Path]:
    packaged = importlib.resources.files("modelyard.demo") / "yardling" / "1"
    with importlib.resources.as_file(packaged) as folder:
        yield folder


@pytest.fixture(scope="module")
def registered(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the demo weights as `small:1`."""
    root = tmp_path_factory.mktemp("home")
    Registry(root).register("small", weights)
    return root


def test_register_says_version_and_digest_and_what_comes_next(
    cli: Cli, weights: Path, tmp_path: Path
) -> None:
    done = cli("register", "small", weights, "--home", tmp_path)

    assert done.code == 0
    assert done.out.startswith("registered small:1\ndigest  sha256:")
    assert f"modelyard deploy small:1 --home {tmp_path}" in done.out
    assert max(len(line) for line in done.out.splitlines() if str(tmp_path) not in line) <= 80


def test_the_same_content_again_is_the_same_version(
    cli: Cli, weights: Path, registered: Path
) -> None:
    again = cli("register", "small", weights, "--home", registered)
    as_json = json.loads(cli("register", "small", weights, "--home", registered, "--json").out)

    assert again.code == 0
    assert again.out.startswith("already registered as small:1\n")
    assert (as_json["version"], as_json["created"]) == (1, False)


def test_a_folder_that_is_not_there_is_refused(cli: Cli, tmp_path: Path) -> None:
    done = cli("register", "small", tmp_path / "nothing", "--home", tmp_path / "home")

    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "\nnext: " in done.err


def test_list_shows_every_version(cli: Cli, registered: Path) -> None:
    table = cli("models", "list", "--home", registered)
    facts = json.loads(cli("models", "list", "--home", registered, "--json").out)

    assert "small:1" in table.out
    assert max(len(line) for line in table.out.splitlines()) <= 80
    assert [list(one) for one in facts] == [KEYS]
    assert facts[0]["facts"]["architecture"] == "Qwen3ForCausalLM"


def test_an_empty_list_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    assert "modelyard register NAME PATH" in cli("models", "list", "--home", tmp_path).out
    assert json.loads(cli("models", "list", "--home", tmp_path, "--json").out) == []


def test_show_names_every_file(cli: Cli, weights: Path, registered: Path) -> None:
    shown = cli("models", "show", "small", "--home", registered)
    facts = json.loads(cli("models", "show", "small:1", "--home", registered, "--json").out)

    assert list(facts) == [*KEYS, "recipe", "children", "files"]
    assert {file["path"] for file in facts["files"]} == {
        path.relative_to(weights).as_posix() for path in weights.rglob("*") if path.is_file()
    }
    assert facts["digest"] in shown.out
    for file in facts["files"]:
        assert file["path"] in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= 80


def test_show_of_an_unknown_model_names_those_there_are(cli: Cli, registered: Path) -> None:
    done = cli("models", "show", "smal", "--home", registered)

    assert done.code == 1
    assert "small" in done.err
