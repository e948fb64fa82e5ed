"""`deploy`, `status` and `chat` against a real `modelyard up`, with the fake engine behind it."""

import json
import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.stacks import running_stack

Cli = Callable[..., Any]
STATUS_KEYS = ["gateway", "controller", "deployments", "replicas"]
REPLICA_KEYS = {"id", "deployment", "version", "digest", "slot", "state", "pid", "url"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home on which `modelyard up` runs, with `small:1` registered and nothing deployed."""
    root = tmp_path_factory.mktemp("stack")
    with running_stack(root, "small"):
        yield root


@pytest.fixture
def deployed(stack: Path, cli: Cli) -> Path:
    """The same, with `small` deployed."""
    assert cli("deploy", "small:1", "--engine", "fake", "--home", stack).code == 0
    return stack


def test_deploy_without_anything_running_says_how_to_start(cli: Cli, tmp_path: Path) -> None:
    done = cli("deploy", "small:1", "--home", tmp_path)

    assert done.code == 1
    assert "nothing runs" in done.err
    assert f"next: start it with: modelyard up --home {tmp_path}" in done.err


@pytest.mark.parametrize("command", [("status",), ("chat", "Hello")])
def test_nothing_to_ask_says_how_to_start(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    done = cli(*command, "--home", tmp_path)

    assert done.code == 1
    assert "modelyard up" in done.err


def test_a_version_that_is_not_there_is_refused(cli: Cli, stack: Path) -> None:
    done = cli("deploy", "small:7", "--home", stack)

    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "small:1" in done.err or "1" in done.err


def test_deploy_ends_when_it_is_live(cli: Cli, stack: Path) -> None:
    done = cli("deploy", "small:1", "--as", "other", "--engine", "fake", "--home", stack, "--json")

    assert done.code == 0, done.err
    view = json.loads(done.out)
    assert (view["name"], view["model"], view["version"]) == ("other", "small", 1)
    assert (view["state"], view["replicas_ready"]) == ("live", 1)


def test_deploy_shows_how_far_it_is(cli: Cli, stack: Path) -> None:
    done = cli("deploy", "small:1", "--as", "shown", "--engine", "fake", "--home", stack)

    assert done.code == 0, done.err
    assert "live    shown serves small:1 on fake\ndigest  sha256:" in done.out
    assert "small:1 launching" in done.err
    assert max(len(line) for line in done.out.splitlines() if str(stack) not in line) <= 80


def test_status_holds_what_was_promised(cli: Cli, deployed: Path) -> None:
    now = json.loads(cli("status", "--home", deployed, "--json").out)

    assert list(now) == STATUS_KEYS
    assert {"url", "pid"} <= set(now["gateway"])
    (replica,) = [one for one in now["replicas"] if one["deployment"] == "small"]
    assert set(replica) >= REPLICA_KEYS
    assert replica["state"] == "ready"
    os.kill(replica["pid"], 0)


def test_status_fits_the_terminal(cli: Cli, deployed: Path) -> None:
    done = cli("status", "--home", deployed)

    assert done.code == 0
    assert "small:1" in done.out
    assert max(len(line) for line in done.out.splitlines() if str(deployed) not in line) <= 80


def test_chat_answers_once(cli: Cli, deployed: Path) -> None:
    done = cli("chat", "Hello", "--model", "small", "--home", deployed)

    assert done.code == 0, done.err
    assert done.out.strip()
    assert "tokens" in done.err
    assert "small:1" in done.err


def test_chat_tells_facts_as_json(cli: Cli, deployed: Path) -> None:
    facts = json.loads(cli("chat", "Hello", "--model", "small", "--home", deployed, "--json").out)

    assert facts["version"] == "small:1"
    assert facts["digest"].startswith("sha256:")
    assert facts["answer"]
    assert facts["completion_tokens"] > 0
    assert 0 < facts["ttft_s"] <= facts["e2e_s"]


def test_chat_with_an_unknown_model_names_those_there_are(cli: Cli, deployed: Path) -> None:
    done = cli("chat", "Hello", "--model", "smal", "--home", deployed)

    assert done.code == 1
    assert "small" in done.err


def test_chat_ignores_a_proxy_of_the_environment(
    cli: Cli, deployed: Path, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")

    assert cli("chat", "Hello", "--model", "small", "--home", deployed).code == 0


class _Terminal:
    """`modelyard chat` on a terminal of its own."""

    def __init__(self, home: Path) -> None:
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.environ["TERM"] = "dumb"
            arguments = ["chat", "--model", "small", "--home", str(home)]
            command = [sys.executable, "-m", "modelyard.cli.main", *arguments]
            os.execv(sys.executable, command)  # noqa: S606
        self._said = ""

    def expect(self, text: str) -> str:
        """Everything up to and with `text`; fails when it does not come."""
        deadline = time.monotonic() + 30
        while text not in self._said:
            readable, _, _ = select.select([self._master], [], [], deadline - time.monotonic())
            assert readable, f"waited for {text!r} in {self._said!r}"
            self._said += os.read(self._master, 4096).decode(errors="replace")
        before, _, self._said = self._said.partition(text)
        return before + text

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def close(self) -> int:
        """Its exit code; it is ended when it did not end."""
        deadline = time.monotonic() + 10
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                os.kill(self._pid, signal.SIGKILL)
            time.sleep(0.02)
        os.close(self._master)
        return os.waitstatus_to_exitcode(status)


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(deployed: Path) -> None:
    terminal = _Terminal(deployed)
    try:
        terminal.expect("> ")
        terminal.type("[[fake: tokens=50 stall_after=5]]\n")
        terminal.expect("]]\r\n")
        terminal.expect("t4:")
        terminal.type("\x03")
        terminal.expect("stopped")
        terminal.expect("> ")
        terminal.type("Hello\n")
        terminal.expect("tokens")
        terminal.expect("> ")
        terminal.type("/exit\n")
    finally:
        code = terminal.close()

    assert code == 0
