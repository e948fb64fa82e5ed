"""docs/registry.md takes a newcomer to a signed, aliased, verified version, on either catalogue."""

import json
import socket
from pathlib import Path

import pytest
from tests.documents import ROOT, blocks, run_document, terminal
from tests.registry.mlflow_server import running_server

GUIDE = ROOT / "docs" / "registry.md"


def test_five_commands_are_enough() -> None:
    first = blocks(GUIDE.read_text())[0]

    assert first.mark == ""
    assert len([line for line in first.body.splitlines() if line.startswith("modelyard")]) == 5


@pytest.mark.timeout(300)
def test_the_guide_works_on_the_homes_own_catalogue(tmp_path: Path) -> None:
    with terminal(tmp_path) as opened:
        printed = run_document(GUIDE, opened)
        facts = json.loads(opened.run("modelyard models show small@production --json"))

    assert "whole; " in printed
    assert (facts["version"], facts["metrics"]) == (2, {"accuracy": 0.967})
    assert facts["parent"] is not None


@pytest.mark.service("mlflow")
@pytest.mark.timeout(300)
def test_the_guide_works_on_a_teams_mlflow_server(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    for name in ("server", "user"):
        (tmp_path / name).mkdir()
    with (
        running_server(tmp_path / "server", _free_port()) as server,
        terminal(tmp_path / "user", f"registry:\n  tracking_uri: {server.uri}\n") as opened,
    ):
        run_document(GUIDE, opened)
        shown = MlflowClient(server.uri).get_model_version_by_alias("small", "production")

    assert int(shown.version) == 2
    assert not (tmp_path / "user" / "home" / "catalogue.db").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
