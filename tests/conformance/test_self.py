"""Modelyard's own gateway passes its own suite: all of it, once, as users run it."""

import json
import subprocess
import sys
from collections.abc import Sequence

import pytest

from modelyard.conformance.checks.catalogue import CHECKS


def conformance(*arguments: str, limit_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "modelyard.cli.main", "conformance", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=limit_s,
    )


def not_passed(checks: Sequence[dict[str, str]]) -> dict[str, str]:
    return {check["name"]: check["seen"] for check in checks if check["result"] != "passed"}


@pytest.mark.timeout(600)
def test_every_check_passes() -> None:
    done = conformance("self", "--json", limit_s=580)

    found = json.loads(done.stdout)
    assert not_passed(found["checks"]) == {}
    assert done.returncode == 0
    assert found["passed"] == len(found["checks"]) == len(CHECKS)
    assert (found["failed"], found["not_applicable"]) == (0, 0)
    assert {check["name"] for check in found["checks"]} == {check.name for check in CHECKS}
    assert found["checks"][-1]["name"] == "drain/sigterm"
    assert all(set(check) == {"name", "result", "seen"} for check in found["checks"])


@pytest.mark.timeout(120)
def test_chosen_checks_are_told_in_80_columns() -> None:
    done = conformance(
        "self", "--only", "truncation/*", "--without", "truncation/bad-*", limit_s=100
    )

    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert lines[0] == "truncation"
    assert max(map(len, lines)) <= 80
    assert "  n/a     bad-chunk" in done.stdout
    assert "not claimed (--without truncation/bad-*)" in done.stdout
    assert "0 failed, 2 not applicable in" in lines[-1]
