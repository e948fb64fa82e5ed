"""Runs the commands of a document. How a block is marked says what is done with it:

    ```sh               run, in order, as one bash script in a folder that holds only `src`
    ```sh background    started in the order it stands in, ended with SIGTERM at the end; the next
                        block runs once it answers: `modelyard up` to `modelyard status`, anything
                        else on the port that it names, else on 8000
    ```sh norun         not run; a `scripts/…` that it names must be there

Blocks in other languages (`console`, `python`, `yaml`) are for reading.

Every block runs with MODELYARD_HOME in a temporary folder and with ports of its own: those of
`PORTS` are replaced, and `modelyard up` gets --gateway-port and --port.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```sh ?(?P<mark>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = (8000, 8001, 9400, 9401, 9402)
PORT = re.compile(rf"(?<=[: ])({'|'.join(map(str, PORTS))})\b")
STARTED_WITHIN_S = 60.0
ENDED_WITHIN_S = 30.0


class Block(NamedTuple):
    """One fenced block of shell commands."""

    mark: str
    body: str


def blocks(text: str) -> list[Block]:
    """The shell blocks of a Markdown text, in order."""
    return [Block(found["mark"], found["body"]) for found in FENCE.finditer(text)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Terminal:
    """Runs blocks; ends what it started in the background."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "src").symlink_to(ROOT / "src")
        self._ports = {port: _free_port() for port in PORTS}
        self._log = folder / "background.log"
        self._background: list[subprocess.Popen[bytes]] = []
        bin_folder = Path(sys.executable).parent
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MODELYARD_")},
            "HOME": str(folder),
            "MODELYARD_HOME": str(folder / "home"),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "COLUMNS": "80",
        }

    def run(self, body: str) -> str:
        """What the block printed; fails the test when one of its commands fails."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._with_own_ports(body)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}\n{self._said()}"
        return done.stdout

    def start(self, body: str) -> None:
        """Start the block and wait until what it starts answers."""
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", f"exec {self._with_own_ports(body).strip()}"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._background.append(process)
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not self._answers(body):
            assert process.poll() is None, f"{body} ended at once:\n{self._said()}"
            assert time.monotonic() < deadline, f"{body} did not start:\n{self._said()}"
            time.sleep(0.1)

    def close(self) -> None:
        """SIGTERM to what runs; fails when it does not end."""
        for process in self._background:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(ENDED_WITHIN_S)
            finally:
                process.kill()
                process.wait()

    def _answers(self, body: str) -> bool:
        if "modelyard up" not in body:
            named = PORT.search(body)
            return _listens(self._ports[int(named[1]) if named else 8000])
        asked = subprocess.run(
            ["modelyard", "status"], env=self._environment, capture_output=True, check=False
        )
        return asked.returncode == 0

    def _with_own_ports(self, body: str) -> str:
        ports = f"--gateway-port {self._ports[8000]} --port {self._ports[8001]}"
        body = PORT.sub(lambda found: str(self._ports[int(found[1])]), body)
        return re.sub(r"\bmodelyard up\b", f"modelyard up {ports}", body)

    def _said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


MARKS = {"", "background", "norun"}


@contextmanager
def terminal(folder: Path, config: str = "") -> Iterator[Terminal]:
    """A terminal in `folder`; `config` is the home's config.yaml, if any."""
    if config:
        (folder / "home").mkdir()
        (folder / "home" / "config.yaml").write_text(config)
    opened = Terminal(folder)
    try:
        yield opened
    finally:
        opened.close()


def run_document(document: Path, opened: Terminal) -> str:
    """Run every block in order; return what those in the foreground printed."""
    printed = []
    for block in blocks(document.read_text()):
        if block.mark == "background":
            opened.start(block.body)
        elif block.mark == "":
            printed.append(opened.run(block.body))
    return "".join(printed)
