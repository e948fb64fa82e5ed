"""The MLflow mirror, on a real SQLite database and read back with MLflow's own client."""

import os
import socket
import subprocess
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.errors import Unavailable
from modelyard.core.home import Home
from modelyard.registry.catalogue import Catalogue, source_of
from modelyard.registry.registry import Registry

from .conftest import MakeModel


def mlflow_client(home: Home) -> Any:
    catalogue = Catalogue(f"sqlite:///{home.catalogue}")
    catalogue.newest("nothing")
    return catalogue._client()


def mlflow_versions(home: Home, name: str) -> dict[int, dict[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = mlflow_client(home).search_model_versions(f"name='{name}'")
    return {int(version.version): dict(version.tags) for version in found}


def test_a_registration_shows_in_mlflow_under_the_same_number(
    registry: Registry, make_model: MakeModel
) -> None:
    first = registry.register("yard", make_model("one", seed=b"1"))
    registry.register("yard", make_model("two", seed=b"2"))
    registry.register("yard", make_model("three", seed=b"2"))
    registry.set_alias("yard:2", "production")

    assert first.warnings == ()
    found = mlflow_versions(registry.home, "yard")
    assert sorted(found) == [1, 2]
    assert found[1]["modelyard.digest"] == first.version.digest
    assert found[1]["modelyard.architecture"] == "Qwen3ForCausalLM"
    assert found[1]["modelyard.parameters"] == "2048"
    client = mlflow_client(registry.home)
    assert client.get_model_version("yard", "1").source == source_of(first.version.digest)
    assert str(client.get_model_version_by_alias("yard", "production").version) == "2"


def test_a_catalogue_that_is_away_costs_a_warning_and_is_caught_up_with(
    prepared_home: Home, make_model: MakeModel, free_port: int
) -> None:
    away = Registry(prepared_home, tracking_uri=f"http://127.0.0.1:{free_port}")

    registration = away.register("yard", make_model("one", seed=b"1"))

    assert registration.created
    assert any("MLflow catalogue was not updated" in text for text in registration.warnings)
    assert away.get("yard").version == 1
    back = Registry(prepared_home)
    assert back.register("other", make_model("two", seed=b"2")).warnings == ()
    assert sorted(mlflow_versions(prepared_home, "yard")) == [1]
    assert sorted(mlflow_versions(prepared_home, "other")) == [1]


def test_numbers_that_others_took_in_mlflow_are_not_taken_again(
    registry: Registry, make_model: MakeModel
) -> None:
    client = mlflow_client(registry.home)
    client.create_registered_model("yard")
    for _ in range(2):
        client.create_model_version("yard", "s3://somewhere/else")

    registration = registry.register("yard", make_model())

    assert registration.version.version == 3
    assert registration.warnings == ()
    assert registry.get("yard").version == 3
    assert mlflow_versions(registry.home, "yard")[3]["modelyard.version"] == "3"


def test_numbers_taken_while_mlflow_was_away_are_told(
    prepared_home: Home, make_model: MakeModel, free_port: int
) -> None:
    away = Registry(prepared_home, tracking_uri=f"http://127.0.0.1:{free_port}")
    away.register("yard", make_model("one"))
    client = mlflow_client(prepared_home)
    client.create_registered_model("yard")
    client.create_model_version("yard", "s3://somewhere/else")

    (warning,) = Registry(prepared_home).register("other", make_model("two", seed=b"2")).warnings

    assert warning == "yard:1 is version 2 in MLflow, where its number was taken"


def test_a_server_that_hangs_is_told_in_one_line(
    prepared_home: Home, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://me:secret@127.0.0.1:{silent.getsockname()[1]}"
        registry = Registry(prepared_home, tracking_uri=uri)
        (warning,) = registry.register("yard", make_model()).warnings
        assert "no answer in time" in warning
        with pytest.raises(Unavailable, match="no answer in time") as refused:
            registry.sync_catalogue()
    assert "secret" not in f"{warning}{refused.value}"
    assert registry.load("yard:1").is_dir()


@pytest.mark.parametrize(
    ("status", "expected"), [(401, "it refuses us"), (500, "500"), (404, "404"), (200, "")]
)
def test_a_server_that_is_no_mlflow_or_refuses_is_told_in_one_line(
    prepared_home: Home, make_model: MakeModel, status: int, expected: str
) -> None:
    class Odd(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>\nhello</html>")

        do_POST = do_GET  # noqa: N815 - the name that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        registry = Registry(prepared_home, tracking_uri=f"http://127.0.0.1:{server.server_port}")
        registration = registry.register("yard", make_model())
        with pytest.raises(Unavailable) as refused:
            registry.rebuild_catalogue()
        server.shutdown()
    assert registration.created
    assert len(registration.warnings) == 1
    assert expected in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.next_step


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


def test_a_first_registration_prints_nothing_and_leaves_telemetry_off(
    tmp_path: Path, make_model: MakeModel
) -> None:
    code = (
        "import sys; from modelyard import Registry\n"
        "Registry(sys.argv[1]).register('x', sys.argv[2])\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(is_telemetry_disabled())"
    )
    result = run(code, tmp_path / "home", make_model())
    assert (result.stdout.strip(), result.stderr) == ("True", "")
    assert sorted(mlflow_versions(Home(tmp_path / "home"), "x")) == [1]


def test_looking_up_and_loading_import_no_mlflow(registry: Registry, make_model: MakeModel) -> None:
    registry.register("x", make_model())
    code = (
        "import sys; from modelyard import Registry\n"
        "registry = Registry(sys.argv[1]); registry.get('x:1'); registry.load('x')\n"
        "print([name for name in ('mlflow', 'sqlalchemy', 'yaml') if name in sys.modules])"
    )
    assert run(code, registry.home.root).stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["Registry", "Client"])
def test_the_package_offers_its_classes_lazily(name: str) -> None:
    code = (
        "import sys, modelyard\n"
        "print(len([name for name in sys.modules if name.startswith('modelyard')]))\n"
        f"from modelyard import {name}"
    )
    assert run(code).stdout.strip() == "1"
