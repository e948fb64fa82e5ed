"""A test whose service is absent skips on a developer's machine and fails under CI=true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEST = "tests/registry/test_catalogue_contract.py"


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_an_absent_service_skips_here_and_fails_in_ci(ci: str, outcome: str) -> None:
    name = f"{TEST}::test_everything_is_readable_in_mlflows_own_surface[server]"
    environment = {**os.environ, "CI": ci, "MODELYARD_MLFLOW_SERVER": "/nonexistent"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", name]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert outcome in result.stdout
    assert "/nonexistent is not there" in result.stdout
