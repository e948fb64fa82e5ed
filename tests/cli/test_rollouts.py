"""`deploy` by file and plan, `rollouts`, and what steers them, against a real `modelyard up`."""

import itertools
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
from tests.cli.stacks import running_stack

from modelyard.core.home import Home
from modelyard.registry.registry import Registry

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home on which `modelyard up` runs, with `small:1` and `small:2` registered."""
    root = tmp_path_factory.mktemp("stack")
    with running_stack(root, "small"):
        second = tmp_path_factory.mktemp("second") / "weights"
        with as_file(files("modelyard.demo") / "yardling" / "1") as weights:
            shutil.copytree(weights, second)
        (second / "NOTES.md").write_text("the same, and yet another version\n")
        Registry(Home(root)).register("small", second)
        yield root


_NAMES = (f"shop{number}" for number in itertools.count())


@pytest.fixture
def two(cli: Cli, stack: Path) -> Iterator[str]:
    """A deployment that serves version 2, with version 1 standing by; taken away afterwards."""
    name = next(_NAMES)
    for version in (1, 2):
        done = cli("deploy", f"small:{version}", "--as", name, "--engine", "fake", "--bake-s",
                   "600", "--home", stack)  # fmt: skip
        assert done.code == 0, done.err
    assert "bakes   " in done.out
    assert f"modelyard rollback {name}" in done.out
    try:
        yield name
    finally:
        _take_away(cli, stack, name)


def _take_away(cli: Cli, stack: Path, name: str) -> None:
    assert cli("undeploy", name, "--home", stack).code == 0
    while json.loads(cli("status", "--json", "--home", stack).out)["deployments"]:
        pass


def test_a_dry_run_says_what_would_happen_and_starts_nothing(cli: Cli, stack: Path) -> None:
    done = cli("deploy", "small:1", "--engine", "fake", "--strategy", "canary", "--steps",
               "5%,0.5", "--step-s", "30", "--dry-run", "--home", stack)  # fmt: skip

    assert done.code == 0, done.err
    assert "small: small:1 on fake; nothing was started" in done.out
    assert "accelerators  0 at once" in done.out
    assert "- every byte hashes to what was registered" in done.out
    assert max(map(len, done.out.splitlines())) <= 100
    assert json.loads(cli("status", "--json", "--home", stack).out)["deployments"] == []


def test_from_a_file_with_flags_before_it(cli: Cli, stack: Path, tmp_path: Path) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(
        "ref: small:1\nas_name: filed\nengine: fake\nreplicas: 2\n"
        "plan: {strategy: shadow, steps: [{share: 0.5, min_s: 5}]}\n"
    )
    done = cli("deploy", "small:2", "-f", file, "--dry-run", "--json", "--home", stack)
    told = json.loads(done.out)

    assert (told["deployment"], told["version"], told["replicas"]) == ("filed", "small:2", 2)
    assert told["plan"]["steps"] == [{"share": 0.5, "min_s": 5}]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ref: [", "is not YAML"),
        ("- small:1", "holds no deployment"),
        ("ref: small:1\nreplcas: 2", "replcas"),
        ("ref: small:1\nplan: canary", "plan"),
        ("ref: small:1\nplan: {strategy: canary, steps: [{share: 2}]}", "steps[0].share"),
        ("ref: small:9", "small:9"),
    ],
)
def test_a_file_that_can_not_be_used_is_refused(
    cli: Cli, stack: Path, tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(content)
    done = cli("deploy", "-f", file, "--home", stack)

    assert done.code in (1, 2)
    assert words in done.err
    assert "next: " in done.err


@pytest.mark.parametrize("steps", ["[0.1]", "3", "{share: 0.1}"])
def test_steps_that_are_none_are_refused_with_flags_too(
    cli: Cli, stack: Path, tmp_path: Path, steps: str
) -> None:
    file = tmp_path / "deploy.yaml"
    file.write_text(f"ref: small:1\nplan: {{strategy: canary, steps: {steps}}}")
    done = cli("deploy", "-f", file, "--step-s", "4", "--dry-run", "--home", stack)

    assert done.code == 1
    assert "$.steps" in done.err


def test_smoke_tests_that_are_not_json_are_refused(cli: Cli, stack: Path, tmp_path: Path) -> None:
    file = tmp_path / "smoke.json"
    file.write_text("prompt: Hello")
    done = cli("deploy", "small:1", "--smoke", file, "--home", stack)

    assert done.code == 2
    assert "are not JSON" in done.err
    assert '"prompt"' in done.err


def test_a_rollout_is_listed_shown_and_taken_back(cli: Cli, stack: Path, two: str) -> None:
    listed = cli("rollouts", "list", two, "--home", stack)
    shown = cli("rollouts", "show", f"{two}-2", "--home", stack)
    back = cli("rollback", two, "--home", stack)
    watched = cli("rollouts", "watch", f"{two}-2", "--home", stack)
    status = json.loads(cli("status", "--json", "--home", stack).out)

    assert f"{two}-2" in listed.out
    assert max(len(line) for line in listed.out.splitlines()) <= 80
    assert f"{two}-2: small:2 in place of small:1, blue-green" in shown.out
    assert "passed  it answers: as expected" in shown.out
    assert "undoing: rolled back by admin" in back.out
    assert watched.code == 1
    assert "went back" in watched.err
    assert [one["version"] for one in status["deployments"] if one["name"] == two] == [1]


def test_reports_outlive_the_deployment_and_are_not_written_over(
    cli: Cli, stack: Path, two: str
) -> None:
    _take_away(cli, stack, two)
    again = cli("deploy", "small:1", "--as", two, "--engine", "fake", "--home", stack)
    listed = json.loads(cli("rollouts", "list", two, "--json", "--home", stack).out)

    assert again.code == 0, again.err
    assert [one["id"] for one in listed] == [f"{two}-3", f"{two}-2", f"{two}-1"]


def test_what_is_there_already_is_said(cli: Cli, stack: Path, two: str) -> None:
    done = cli("deploy", "small:2", "--as", two, "--engine", "fake", "--home", stack)

    assert done.code == 0
    assert "small:2 is there already; nothing changed" in done.err


def test_an_interrupted_deploy_says_what_becomes_of_it(
    cli: Cli, stack: Path, two: str, tmp_path: Path
) -> None:
    cli("promote", two, "--home", stack)
    cli("rollouts", "watch", f"{two}-2", "--home", stack)
    file = tmp_path / "slow.yaml"
    file.write_text(
        f"ref: small:1\nas_name: {two}\nengine: fake\nextra_args: [--slow-start-s, '600']\n"
    )
    asking = subprocess.Popen(
        [sys.executable, "-m", "modelyard.cli.main", "deploy", "-f", file, "--home", stack],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert asking.stderr
    first = asking.stderr.readline()
    asking.send_signal(signal.SIGINT)
    told = asking.communicate(timeout=30)[1]

    assert "launching" in first
    assert asking.returncode == 130
    assert f"{two} goes on without you" in told
    assert f"modelyard abort {two} --home {stack}" in " ".join(told.split())
    assert cli("abort", two, "--home", stack).code == 0
    cli("rollouts", "watch", f"{two}-3", "--home", stack)


def test_what_there_is_nothing_to_do_about_is_said(cli: Cli, stack: Path, two: str) -> None:
    assert cli("pause", two, "--home", stack).code == 0
    assert "paused" in cli("rollouts", "list", two, "--home", stack).out
    assert cli("promote", two, "--home", stack).code == 0
    cli("rollouts", "watch", f"{two}-2", "--home", stack)
    refused = cli("promote", two, "--home", stack)

    assert refused.code == 1
    assert "there is nothing to promote" in refused.err
    assert cli("rollouts", "show", "nothing-1", "--home", stack).code == 1


def test_the_last_lines_of_workers_are_shown(cli: Cli, stack: Path, two: str) -> None:
    done = cli("logs", two, "--home", stack)

    assert done.code == 0
    assert f"== {two}-green-" in done.out
    assert "version 2, ready" in done.out
