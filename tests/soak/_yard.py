"""A controller and gateways for long proofs: on fixed ports, killed and started again at will."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import msgspec

from modelyard.api.messages import DeployRequest, ReplicaView, RolloutView
from modelyard.client import Client
from modelyard.core.errors import ModelyardError
from modelyard.core.home import Home
from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import OVER
from modelyard.launchers.process import MARK
from modelyard.registry.registry import Registry

NAME = "yardling"
FINGERPRINTS = {f"{NAME}:{number}": f"fp_{number}" for number in (1, 2)}
SMOKE = {"prompt": "Count [[fake: tokens=3]]", "regex": "^t0:.*!3$"}
STARTS_WITHIN_S = 60.0
_POLL_S = 0.02


class Process:
    """One of our processes, started again with the same command."""

    def __init__(self, argv: list[str], log: Path) -> None:
        self._argv = argv
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running one."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._argv, stdout=log, stderr=log)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def end(self, number: int, within_s: float = STARTS_WITHIN_S) -> None:
        """Send a signal and wait until it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(number)
        self._process.wait(within_s)


class Yard:
    """A home with two versions, one controller and some gateways."""

    def __init__(self, root: Path, gateways: int = 2) -> None:
        self.home = Home(root / "home")
        _register(self.home, root / "second")
        self._url = f"http://127.0.0.1:{free_port()}"
        self.controller = Process(
            [
                *_module("control"),
                "--home",
                str(self.home.root),
                "--port",
                self._url.rpartition(":")[2],
            ],
            root / "controller.log",
        )
        self.controller.start()
        self.client = self._until_it_answers()
        self.gateway_urls: list[str] = []
        self.gateways: list[Process] = []
        for number in range(gateways):
            self._add_gateway(root / f"gateway-{number}")

    def _add_gateway(self, folder: Path) -> None:
        token = Home(folder).gateway_token
        token.parent.mkdir(parents=True)
        shutil.copy(self.home.gateway_token, token)
        place = f"127.0.0.1:{free_port()}"
        arguments = ["--home", str(folder), "--controller", self._url, "--listen", place,
                     "--drain-s", "20"]  # fmt: skip
        gateway = Process([*_module("gateway"), *arguments], folder / "gateway.log")
        gateway.start()
        self.gateways.append(gateway)
        self.gateway_urls.append(f"http://{place}")

    def restart_controller(self) -> None:
        """Start it after a kill; returns when it answers."""
        self.controller.start()
        self.client = self._until_it_answers()

    def gateways_follow(self) -> None:
        """Wait until all gateways are known to the controller."""
        until(
            lambda: (
                len(self.client.status().gateway.processes) == len(self.gateways)
                and all(_listens(url) for url in self.gateway_urls)
            ),
            "the gateways report",
        )

    def _until_it_answers(self) -> Client:
        clients: list[Client] = []

        def answers() -> bool:
            with contextlib.suppress(ModelyardError, OSError):
                client = Client.from_home(self.home)
                if client.status().controller.pid == self.controller.pid:
                    clients.append(client)
            return bool(clients)

        until(answers, "the controller answers")
        return clients[0]

    def deploy(self, version: int, extra: tuple[str, ...] = (), **plan: Any) -> str:
        """Ask for a version; the rollout's id."""
        view = self.client.deploy(
            DeployRequest(
                ref=f"{NAME}:{version}",
                engine="fake",
                parallel=64,
                plan={"smoke": [SMOKE], "bake_s": 0.2, **plan},
                extra_args=("--step-base-s", "0.01", "--fingerprint", f"fp_{version}", *extra),
            )
        )
        return f"{NAME}-{view.generation}"

    def until_over(self, rollout: str, within_s: float = STARTS_WITHIN_S) -> RolloutView:
        """Wait until a rollout is done or undone."""
        until(lambda: self.client.rollout(rollout).phase in OVER, f"{rollout} is over", within_s)
        return self.client.rollout(rollout)

    def replicas(self, *states: ReplicaState) -> list[ReplicaView]:
        """Those in one of the states; without states, all that have not stopped."""
        return [
            each
            for each in self.client.status().replicas
            if (each.state in states if states else each.state is not ReplicaState.STOPPED)
        ]

    def workers(self) -> set[int]:
        """Process ids of all engines that run for this home, whatever the controller says."""
        home = str(self.home.root)
        return {pid for pid, mark in _marks() if home in json.dumps(mark)}

    def close(self) -> None:
        """End everything, the workers too."""
        for process in (*self.gateways, self.controller):
            process.end(signal.SIGKILL)
        for pid in self.workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _register(home: Home, second: Path) -> None:
    registry = Registry(home)
    with as_file(files("modelyard.demo") / "yardling" / "1") as source:
        registry.register(NAME, source)
        shutil.copytree(source, second)
    (second / "NOTES.md").write_text("the same weights, another version\n")
    registry.register(NAME, second)


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"modelyard.{name}.main"]


def _marks() -> Iterator[tuple[int, Any]]:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        with contextlib.suppress(OSError, msgspec.DecodeError):
            for entry in (folder / "environ").read_bytes().split(b"\0"):
                if entry.startswith(f"{MARK}=".encode()):
                    yield int(folder.name), msgspec.json.decode(entry.partition(b"=")[2])


def _listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], object], what: str, within_s: float = STARTS_WITHIN_S) -> None:
    """Return when `condition` holds; TimeoutError after the time."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(_POLL_S)
