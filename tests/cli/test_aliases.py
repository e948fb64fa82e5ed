"""`models alias`, `history`, `rebuild-catalogue` and `import` as a user types them."""

import importlib.resources
import json
import shutil
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from modelyard.registry.registry import Registry

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with `small:1` and `small:2`."""
    root = tmp_path_factory.mktemp("registered")
    for number in ("1", "2"):
        packaged = importlib.resources.files("modelyard.demo") / "yardling" / number
        with importlib.resources.as_file(packaged) as folder:
            Registry(root).register("small", folder)
    return root


@pytest.fixture
def home(registered: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(registered, tmp_path / "home")


def test_an_alias_is_moved_shown_and_removed(cli: Cli, home: Path) -> None:
    first = cli("models", "alias", "small:1", "production", "--reason", "passed", "--home", home)
    assert (first.code, first.err) == (0, "")
    assert first.out.startswith("small@production is small:1\n")
    moved = cli("models", "alias", "small", "production", "--home", home)
    assert moved.out.startswith("small@production is small:2 (it was small:1)\n")

    told = cli("models", "history", "small", "--home", home)
    assert told.code == 0
    assert "passed" in told.out
    assert told.out.endswith("now: small@production is small:2\n")

    removed = cli("models", "alias", "small", "production", "--remove", "--home", home)
    assert removed.out.startswith("small@production is no more (it was small:2)\n")
    again = cli("models", "alias", "small", "production", "--remove", "--home", home)
    assert again.code == 1
    assert again.err.startswith("error: no alias small@production; there is none\nnext: ")


def test_what_production_was_at_a_time_has_an_answer(cli: Cli, home: Path) -> None:
    Registry(home).set_alias("small:1", "production", reason="first")
    between = datetime.now(UTC)
    Registry(home).set_alias("small:2", "production")

    then = cli("models", "history", "small", "--at", between.isoformat(), "--home", home, "--json")

    facts = json.loads(then.out)
    assert facts["aliases"] == {"production": 1}
    (move,) = facts["moves"]
    assert (move["version"], move["reason"], move["origin"]) == (1, "first", "modelyard")
    assert move["actor"].startswith("user:")
    before = cli("models", "history", "small", "--at", "2020-01-01", "--home", home)
    assert before.out == "at 2020-01-01 00:00:00 UTC: small has no alias\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alias", "small", "3"], "the alias '3' is not allowed"),
        (["alias", "small", "v2"], "the alias 'v2' is not allowed"),
        (["alias", "small", "latest"], "the alias 'latest' is not allowed"),
        (["alias", "small:7", "production"], "no version small:7; there is small:1, small:2"),
        (["alias", "smal", "production"], "no model 'smal'; there is small"),
        (["history", "smal"], "no model 'smal'; there is small"),
        (["history", "small", "--at", "noon"], "'noon' is no time"),
        (["import", "runs:/abc"], "runs:/abc names no model"),
        (["import", "models:/yard"], "'models:/yard' is no address of a model in MLflow"),
        (["import", "models:/yard/1", "--from", "sqlite:////nowhere.db"], "no MLflow store at"),
    ],
)
def test_what_can_not_be_is_refused_in_one_line(
    cli: Cli, home: Path, arguments: list[str], message: str
) -> None:
    refused = cli("models", *arguments, "--home", home)
    assert refused.code == 1
    assert refused.err.startswith(f"error: {message}")
    assert "\nnext: " in refused.err
    assert Registry(home).aliases("small") == {}


def test_a_lost_catalogue_is_rebuilt(cli: Cli, home: Path) -> None:
    Registry(home).set_alias("small:1", "production")
    (home / "catalogue.db").unlink()
    done = cli("models", "rebuild-catalogue", "--home", home)
    assert (done.code, done.err) == (0, "")
    assert done.out == "versions added to the catalogue: 2\ntampering found: 0\n"
    again = cli("models", "rebuild-catalogue", "--home", home, "--json")
    assert json.loads(again.out)["added"] == 0


def test_the_teams_server_comes_from_config_and_environment(
    cli: Cli, home: Path, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"http://someone:secret@127.0.0.1:{free_port}"
    (home / "config.yaml").write_text(f"registry:\n  tracking_uri: {away}\n")

    asked = cli("models", "rebuild-catalogue", "--home", home)
    moved = cli("models", "alias", "small:1", "production", "--home", home)
    told = cli("models", "history", "small", "--home", home)

    assert asked.code == 1
    assert asked.err == (
        f"error: the MLflow at http://127.0.0.1:{free_port}: nobody answers there\n"
        "next: start that server or correct registry.tracking_uri, then repeat the command; "
        "versions that are registered and services that are deployed do without it\n"
    )
    assert moved.code == told.code == 0
    assert moved.err.startswith("warning: the MLflow catalogue was not updated")
    assert "now: small@production is small:1" in told.out
    assert told.err.startswith("warning: moves made in MLflow are not known")
    assert not any("secret" in text for text in (*asked, *moved, *told) if isinstance(text, str))

    monkeypatch.setenv("MODELYARD_REGISTRY__TRACKING_URI", f"sqlite:///{home / 'team.db'}")
    assert cli("models", "rebuild-catalogue", "--home", home).code == 0
    assert (home / "team.db").is_file()
    monkeypatch.setenv("MODELYARD_REGISTRY__TRACKING_URI", "sqlite:///team.db")
    relative = cli("models", "rebuild-catalogue", "--home", home)
    assert relative.code == 2
    assert "a relative path" in relative.err


def test_a_model_in_a_teams_store_is_imported(cli: Cli, home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'team.db'}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri, uri)
        place = (tmp_path / "artifacts").as_uri()
        run = client.create_run(client.create_experiment("team", place)).info.run_id
        packaged = importlib.resources.files("modelyard.demo") / "yardling" / "1"
        with importlib.resources.as_file(packaged) as folder:
            client.log_artifacts(run, str(folder), "model")
            client.log_artifact(run, str(folder / "README.md"))

    done = cli("models", "import", f"runs:/{run}", "--name", "mine", "--from", uri, "--home", home)

    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("imported as mine:1\n")
    assert list((home / "downloads").iterdir()) == []
    assert Registry(home).get("mine").digest == Registry(home).get("small:1").digest
