"""`modelyard conformance`: what it refuses, what it lists, and the engines that it starts."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from modelyard.conformance.checks.catalogue import CHECKS

Cli = Callable[..., Any]
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def started() -> Iterator[Any]:
    """Starts `modelyard conformance engines`; ended with the test."""
    running: list[subprocess.Popen[str]] = []

    def start(*flags: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.cli.main", "conformance", "engines", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.terminate()
        process.communicate(timeout=30)


def facts_of(process: "subprocess.Popen[str]") -> list[dict[str, Any]]:
    """The JSON that it prints once they run."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        text += line
    engines: list[dict[str, Any]] = json.loads(text)["engines"]
    return engines


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_engines_run_until_they_are_told_to_end(started: Any, how: signal.Signals) -> None:
    process = started("--port", "0", "--json")
    engines = facts_of(process)

    assert [engine["name"] for engine in engines] == ["A", "B", "C"]
    assert all(psutil.pid_exists(engine["pid"]) for engine in engines)

    process.send_signal(how)

    assert process.wait(30) == (0 if how is signal.SIGINT else 128 + how)
    assert not any(psutil.pid_exists(engine["pid"]) for engine in engines)


def test_engines_say_what_comes_next(started: Any) -> None:
    process = started("--port", "0")
    lines: list[str] = []
    while not lines or "Ctrl-C" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert lines[-1], process.stderr.read()

    told = "".join(lines)
    for word in ("SINGLE", "CACHED", "FALLBACK", "FORBIDDEN", "A and B"):
        assert word in told
    assert "next: modelyard conformance run http://HOST:PORT --model M --engine http://" in told
    assert all(len(line) <= 81 for line in lines if not line.startswith("next:"))


def test_an_engine_that_is_gone_ends_the_command(started: Any) -> None:
    process = started("--port", "0", "--json")
    psutil.Process(facts_of(process)[1]["pid"]).kill()

    assert process.wait(30) == 1
    assert "engine B ended by itself" in process.stderr.read()


def test_a_gateway_that_is_not_there_is_said(cli: Cli, started: Any) -> None:
    urls = [engine["url"] for engine in facts_of(started("--port", "0", "--json"))]
    engines = [word for url in urls for word in ("--engine", url)]

    done = cli("conformance", "run", NOWHERE, "--model", "m", *engines)

    assert done.code == 1
    assert f"error: there is no gateway at {NOWHERE}" in done.err
    assert "next: start it, or give another URL" in done.err


def test_an_engine_that_is_not_there_is_said(cli: Cli) -> None:
    done = cli("conformance", "run", NOWHERE, "--model", "m", "--engine", NOWHERE,
               "--engine", NOWHERE, "--json")  # fmt: skip

    assert done.code == 1
    assert json.loads(done.out)["error"]["message"].startswith(
        f"there is no fake engine A at {NOWHERE}"
    )
    assert "next: start engines with: modelyard conformance engines" in done.err


def test_checks_are_listed(cli: Cli) -> None:
    done = cli("conformance", "run", "--list")

    assert done.code == 0
    lines = done.out.splitlines()
    assert {check.name for check in CHECKS} <= set(lines)
    assert max(map(len, lines)) <= 80
    assert lines[-1] == f"{len(CHECKS)} checks"

    found = json.loads(cli("conformance", "run", "--list", "--only", "drain/*", "--json").out)
    assert [check["name"] for check in found["checks"]] == ["drain/health", "drain/sigterm"]
    assert found["checks"][1]["needs"] == ["pid"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ((), "give the gateway's URL and --model", 2),
        (("nowhere", "--model", "m"), "'nowhere' is not a URL", 2),
        ((NOWHERE, "--model", "m", "--only", "leav/*"), "no check is called 'leav/*'", 1),
        ((NOWHERE, "--model", "m", "--without", "kindness"), "no check is called 'kindness'", 1),
        ((NOWHERE, "--model", "m", "--engine", NOWHERE), "1 engines were given", 1),
        ((NOWHERE, "--model", "m", "--limited-key", "k"), "1 limited keys have 0 limits", 1),
        (
            (NOWHERE, "--model", "m", "--limited-key", "k", "--limits", "requests=3"),
            "'requests=3' is no limit",
            1,
        ),
        ((NOWHERE, "--model", "m", "--headers", "x"), "no headers of 'x' are known", 1),
    ],
)
def test_what_makes_no_sense_is_refused(
    cli: Cli, arguments: tuple[str, ...], said: str, code: int
) -> None:
    done = cli("conformance", "run", *arguments)

    assert done.code == code
    assert said in " ".join(done.err.split())
