"""What holds of the MLflow catalogue, be it SQLite in the home or a team's tracking server (R14).

Each test speaks to MLflow with its own client too, as its UI does.
"""

import sqlite3
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import InvalidRequest, NotFound
from modelyard.core.home import Home
from modelyard.registry.catalogue import EXPERIMENT, Catalogue, source_of
from modelyard.registry.origin import Origin
from modelyard.registry.registry import Registry

from .conftest import MakeModel


@dataclass(frozen=True)
class Team:
    """A registry, its catalogue's address, and MLflow's own client on it."""

    registry: Registry
    uri: str
    database: Path
    client: Any

    def again(self) -> Registry:
        """Another process's registry on the same home."""
        return Registry(self.registry.home, tracking_uri=self.uri)

    def write(self, statement: str, *values: object) -> None:
        """Change MLflow's tables behind its back."""
        with sqlite3.connect(self.database) as connection:
            connection.execute(statement, values)
        connection.close()


@pytest.fixture(
    params=["sqlite", pytest.param("server", marks=pytest.mark.service("mlflow"))], name="team"
)
def make_team(request: pytest.FixtureRequest, home: Home) -> Iterator[Team]:
    """An empty catalogue of either kind."""
    if request.param == "server":
        server = request.getfixturevalue("mlflow_server")
        uri, database = server.uri, server.database
    else:
        request.getfixturevalue("prepared_home")
        uri, database = f"sqlite:///{home.catalogue}", home.catalogue
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Catalogue(uri).newest("nothing")
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri, uri)
        empty(client)
        yield Team(Registry(home, tracking_uri=uri), uri, database, client)


def empty(client: Any) -> None:
    """Lose everything that MLflow holds."""
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage == "active":
        for run in client.search_runs([experiment.experiment_id]):
            client.delete_run(run.info.run_id)
        client.delete_experiment(experiment.experiment_id)


def contents(client: Any) -> dict[str, Any]:
    """Everything that MLflow's UI shows, but for its own ids and times."""
    shown = {}
    for model in client.search_registered_models():
        versions = {}
        for version in client.search_model_versions(f"name='{model.name}'"):
            run = client.get_run(version.run_id)
            versions[version.version] = {
                "source": version.source,
                "tags": dict(version.tags),
                "description": version.description,
                "run": (run.info.run_name, run.info.start_time, run.info.end_time),
                "params": dict(run.data.params),
                "metrics": dict(run.data.metrics),
                "run tags": dict(run.data.tags),
            }
        found = client.get_registered_model(model.name)
        shown[model.name] = (found.description, dict(found.aliases), versions)
    return shown


def two_versions(team: Team, make_model: MakeModel) -> None:
    team.registry.register("yard", make_model("one", seed=b"1"))
    team.registry.register("yard", make_model("two", seed=b"2"))


def test_everything_is_readable_in_mlflows_own_surface(team: Team, make_model: MakeModel) -> None:
    parent = team.registry.register("yard", make_model("one", seed=b"1")).version
    origin = Origin(parent="yard:1", metrics={"sums right": 0.967, "loss": 1.25})
    done = team.registry.register("yard", make_model("two", seed=b"2"), origin=origin)
    assert done.warnings == ()
    assert team.registry.set_alias("yard:2", "production") == ()

    found = team.client.get_model_version_by_alias("yard", "production")
    assert (str(found.version), found.source) == ("2", source_of(done.version.digest))
    assert found.tags["modelyard.digest"] == done.version.digest
    assert found.tags["modelyard.architecture"] == "Qwen3ForCausalLM"
    assert "2,048 parameters" in found.description
    run = team.client.get_run(found.run_id)
    assert run.info.run_name == "yard:2"
    assert run.data.metrics == {"sums right": 0.967, "loss": 1.25}
    assert run.data.params["parent"] == parent.digest
    assert run.data.params["dtype"] == "BF16"
    assert run.info.status == "FINISHED"


def test_an_alias_moved_in_mlflow_is_taken_over_as_external(
    team: Team, make_model: MakeModel
) -> None:
    two_versions(team, make_model)
    team.registry.set_alias("yard:1", "production", reason="first")
    team.client.set_registered_model_alias("yard", "production", "2")
    team.client.set_registered_model_alias("yard", "canary", "1")

    synced = team.again().sync_catalogue()

    assert {(move.alias, move.version) for move in synced.moves} == {
        ("production", 2),
        ("canary", 1),
    }
    assert team.registry.get("yard@production").version == 2
    history = team.registry.history("yard")
    assert [(m.alias, m.version, m.origin) for m in history.moves] == [
        ("production", 1, "modelyard"),
        ("canary", 1, "external"),
        ("production", 2, "external"),
    ]
    assert team.again().sync_catalogue().moves == ()


def test_an_alias_removed_on_either_side_is_removed_on_both(
    team: Team, make_model: MakeModel
) -> None:
    two_versions(team, make_model)
    for alias in ("production", "canary"):
        team.registry.set_alias("yard:1", alias)
    team.client.delete_registered_model_alias("yard", "canary")
    assert team.registry.remove_alias("yard", "production", reason="withdrawn") != ("",)

    assert dict(team.client.get_registered_model("yard").aliases) == {}
    history = team.registry.history("yard")
    assert history.aliases == {}
    assert [(m.alias, m.version, m.origin) for m in history.moves[2:]] == [
        ("production", None, "modelyard"),
        ("canary", None, "external"),
    ]


def test_where_both_sides_moved_ours_stands_and_both_are_in_the_history(
    team: Team, make_model: MakeModel, free_port: int
) -> None:
    two_versions(team, make_model)
    team.registry.register("yard", make_model("three", seed=b"3"))
    team.registry.set_alias("yard:1", "production")
    away = Registry(team.registry.home, tracking_uri=f"http://127.0.0.1:{free_port}")
    (warning,) = away.set_alias("yard:2", "production")
    assert "not updated" in warning
    team.client.set_registered_model_alias("yard", "production", "3")

    team.registry.sync_catalogue()

    history = team.registry.history("yard")
    assert [(m.version, m.origin) for m in history.moves] == [
        (1, "modelyard"),
        (2, "modelyard"),
        (3, "external"),
        (2, "modelyard"),
    ]
    assert str(team.client.get_registered_model("yard").aliases["production"]) == "2"


def test_a_lost_catalogue_is_rebuilt_equal(team: Team, make_model: MakeModel) -> None:
    two_versions(team, make_model)
    team.registry.register("other", make_model("three", seed=b"3"), origin=Origin(metrics={"a": 1}))
    team.registry.set_alias("yard:1", "production")
    team.registry.set_alias("yard:2", "canary")
    before = contents(team.client)
    assert len(before["yard"][2]) == 2
    empty(team.client)
    assert contents(team.client) == {}

    rebuilt = team.again().rebuild_catalogue()

    assert (rebuilt.added, rebuilt.moves, rebuilt.tampering, rebuilt.warnings) == (3, (), (), ())
    assert contents(team.client) == before
    assert team.registry.history("yard").aliases == {"production": 1, "canary": 2}
    assert team.again().rebuild_catalogue().added == 0


def test_a_changed_digest_is_tampering_and_never_believed(
    team: Team, make_model: MakeModel
) -> None:
    two_versions(team, make_model)
    team.registry.set_alias("yard:1", "production")
    digest = team.registry.get("yard:1").digest
    forged = team.registry.get("yard:2").digest
    team.client.set_model_version_tag("yard", "1", "modelyard.digest", forged)
    team.write("UPDATE model_versions SET source='s3://elsewhere' WHERE version=2")

    found = team.again().sync_catalogue(thorough=True)

    assert len(found.tampering) == 2
    assert all("tampering in MLflow with yard:" in text for text in found.tampering)
    assert forged in found.tampering[0]
    assert "s3://elsewhere" in found.tampering[1]
    assert team.registry.get("yard@production").digest == digest
    assert team.registry.get("yard:2").digest == forged
    assert any("tampering" in text for text in team.registry.history("yard").warnings)
    assert len(team.registry.rebuild_catalogue().tampering) == 2
    assert team.client.get_model_version("yard", "1").tags["modelyard.digest"] == digest


def test_a_version_deleted_in_mlflow_is_told_and_put_back(
    team: Team, make_model: MakeModel
) -> None:
    two_versions(team, make_model)
    team.registry.set_alias("yard:2", "production")
    team.client.delete_model_version("yard", "2")

    found = team.again().sync_catalogue(thorough=True)
    assert found.moves == ()
    assert any("yard:2 was deleted in MLflow" in text for text in found.warnings)
    assert team.registry.get("yard@production").version == 2

    assert team.registry.rebuild_catalogue().added == 1
    back = team.client.get_model_version_by_alias("yard", "production")
    assert back.tags["modelyard.version"] == "2"
    assert team.again().sync_catalogue(thorough=True).warnings == ()


def test_an_alias_on_a_version_that_is_not_ours_is_not_followed(
    team: Team, make_model: MakeModel
) -> None:
    team.registry.register("yard", make_model("one"))
    team.registry.set_alias("yard:1", "production")
    foreign = team.client.create_model_version("yard", "s3://somewhere/else")
    team.client.set_registered_model_alias("yard", "production", foreign.version)
    team.client.set_registered_model_alias("yard", "_odd_", "1")

    for _ in range(2):
        found = team.again().sync_catalogue()
        assert found.moves == ()
        odd, other = found.warnings
        assert "not taken over: the alias '_odd_' is not allowed" in odd
        assert "which is not registered here" in other
    assert team.registry.get("yard@production").version == 1
    theirs = {a: str(n) for a, n in team.client.get_registered_model("yard").aliases.items()}
    assert theirs == {"production": str(foreign.version), "_odd_": "1"}
    assert team.registry.register("yard", make_model("two", seed=b"2")).version.version == 3


def test_gaps_in_the_numbers_are_kept(team: Team, make_model: MakeModel, free_port: int) -> None:
    two_versions(team, make_model)
    away = Registry(team.registry.home, tracking_uri=f"http://127.0.0.1:{free_port}")
    away.register("yard", make_model("three", seed=b"3"))
    away.register("yard", make_model("four", seed=b"4"))
    team.registry.remove("yard:3", reason="a mistake")
    empty(team.client)

    assert team.again().rebuild_catalogue().warnings == ()

    assert sorted(int(number) for number in contents(team.client)["yard"][2]) == [1, 2, 4]


def test_what_is_taken_out_here_goes_there(team: Team, make_model: MakeModel) -> None:
    two_versions(team, make_model)
    team.registry.remove("yard:2", reason="a mistake")
    assert sorted(int(number) for number in contents(team.client)["yard"][2]) == [1]
    assert team.registry.register("yard", make_model("three", seed=b"3")).version.version == 3


@pytest.mark.parametrize("with_alias", [False, True])
def test_a_model_that_mlflow_holds_is_imported(
    team: Team, make_model: MakeModel, tmp_path: Path, with_alias: bool
) -> None:
    model = make_model("theirs", size_bytes=8192)
    experiment = team.client.create_experiment(
        f"team-{tmp_path.name}-{with_alias}",
        **({} if "http" in team.uri else {"artifact_location": (tmp_path / "art").as_uri()}),
    )
    run = team.client.create_run(experiment).info.run_id
    team.client.log_metric(run, "accuracy", 0.5)
    team.client.log_artifacts(run, str(model), "model")
    team.client.create_registered_model("chat")
    team.client.create_model_version("chat", f"runs:/{run}/model", run)
    team.client.set_registered_model_alias("chat", "champion", "1")

    address = "models:/chat@champion" if with_alias else "models:/chat/1"
    done = team.registry.import_mlflow(address)

    assert (done.created, done.version.name, done.version.version) == (True, "chat", 2)
    assert done.version.metrics == {"accuracy": 0.5}
    direct = Registry(tmp_path / "direct").register("x", model).version
    assert done.version.digest == direct.digest
    again = team.registry.import_mlflow(f"runs:/{run}/model", name="chat")
    assert (again.created, again.version.version) == (False, 2)
    assert list(team.registry.home.downloads.iterdir()) == []
    with pytest.raises(InvalidRequest, match="MLflow holds no files of it"):
        team.registry.import_mlflow("models:/chat/2")
    with pytest.raises(NotFound, match="is not in the MLflow"):
        team.registry.import_mlflow("models:/chat/77")
