"""What the command line does with versions that are there: page, compare, carry out, clean up."""

import importlib.resources
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.registry.registry import Registry

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with small:1."""
    root = tmp_path_factory.mktemp("home")
    packaged = importlib.resources.files("modelyard.demo") / "yardling"
    with importlib.resources.as_file(packaged) as folder:
        registry = Registry(root)
        registry.register("small", folder / "1")
    return root


@pytest.fixture
def home(family: Path, cli: Cli, tmp_path: Path) -> Path:
    """A copy of it, with the child small:2."""
    root = shutil.copytree(family, tmp_path / "home")
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"kind": "finetune", "tool": "trl 1.0", "seed": 7}')
    packaged = importlib.resources.files("modelyard.demo") / "yardling" / "2"
    with importlib.resources.as_file(packaged) as folder:
        made = ("--parent", "small:1", "--recipe", recipe, "--metric", "accuracy=0.967")
        done = cli("register", "small", folder, *made, "--home", root)
    assert done.code == 0, done.err
    return root


def test_a_list_goes_on_where_it_ended(cli: Cli, home: Path) -> None:
    first = cli("models", "list", "--limit", 1, "--home", home)
    rest = cli("models", "list", "--after", "small:2", "--home", home, "--json")

    assert "small:2" in first.out
    assert "models list --after small:2" in first.err
    assert [one["version"] for one in json.loads(rest.out)] == [1]


def test_a_child_is_shown_with_how_it_was_made(cli: Cli, home: Path) -> None:
    parent = json.loads(cli("models", "show", "small:1", "--home", home, "--json").out)
    child = json.loads(cli("models", "show", "small:2", "--home", home, "--json").out)
    text = cli("models", "show", "small:2", "--home", home).out
    tree = cli("models", "lineage", "small:1", "--home", home)
    nodes = json.loads(cli("models", "lineage", "small:1", "--home", home, "--json").out)

    assert parent["children"] == ["small:2"]
    assert (child["parent"], child["recipe"]["seed"]) == (parent["digest"], 7)
    assert child["metrics"] == {"accuracy": 0.967}
    assert "finetune by trl 1.0, seed 7" in text
    assert "small:1" in tree.out.splitlines()[0]
    assert "── small:2" in tree.out
    assert [node["versions"] for node in nodes] == [["small:1"], ["small:2"]]


def test_a_difference_names_files_and_tensors(cli: Cli, home: Path) -> None:
    told = cli("models", "diff", "small:1", "small:2", "--home", home)
    facts = json.loads(cli("models", "diff", "small:1", "small:2", "--home", home, "--json").out)

    assert "file model.safetensors" in told.out
    assert "other values" in told.out
    assert "accuracy" in told.out
    assert max(len(line) for line in told.out.splitlines()) <= 80
    assert facts["tensors"][0]["name"] == "model.embed_tokens.weight"


def test_a_version_goes_out_and_comes_in(cli: Cli, home: Path, tmp_path: Path) -> None:
    pulled = cli("models", "pull", "small:1", tmp_path / "out", "--home", home)
    again = cli("models", "pull", "small:1", tmp_path / "out", "--home", home)
    exported = cli("models", "export", "small:1", tmp_path / "small.tar", "--home", home)
    taken = cli("models", "import", tmp_path / "small.tar", "--name", "copy", "--home", home)

    assert (pulled.code, exported.code, taken.code) == (0, 0, 0)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert again.code == 1
    assert "is there already" in again.err
    shown = json.loads(cli("models", "show", "copy", "--home", home, "--json").out)
    assert shown["digest"] == Registry(home).get("small:1").digest


def test_what_is_needed_is_refused_and_what_is_not_goes(cli: Cli, home: Path) -> None:
    needed = cli("models", "rm", "small:1", "--home", home)
    removed = cli("models", "rm", "small:2", "--home", home)
    planned = json.loads(cli("models", "gc", "--dry-run", "--home", home, "--json").out)
    done = cli("models", "gc", "--home", home)
    nothing = cli("models", "gc", "--home", home)

    assert needed.code == 1
    assert "is needed by its child small:2" in needed.err
    assert (removed.code, done.code) == (0, 0)
    assert not planned["removed"]
    assert planned["size_bytes"] > 2_000_000
    assert "MB removed (" in done.out
    assert nothing.out.startswith("nothing to remove")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--metric", "accuracy"), "--metric accuracy=0.93"),
        (("--metric", "accuracy=much"), "--metric accuracy=0.93"),
        (("--recipe", "nothing.json"), "can't read the recipe"),
        (("--parent", "smal:1"), "there is small"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    cli: Cli, family: Path, tmp_path: Path, option: tuple[str, str], words: str
) -> None:
    done = cli("register", "other", tmp_path, *option, "--home", family)

    assert done.code == 1
    assert words in done.err


def test_a_recipe_with_an_unknown_field_is_refused(cli: Cli, family: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"kind": "prune", "sead": 7}')

    done = cli(
        "register", "other", tmp_path, "--recipe", tmp_path / "recipe.json", "--home", family
    )

    assert done.code == 1
    assert "sead" in done.err
