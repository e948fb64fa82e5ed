"""A real controller process on a home with two registered versions."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources import as_file, files
from pathlib import Path

import httpx
import msgspec
import pytest

from modelyard.client import Client
from modelyard.control.runfiles import read_record
from modelyard.core.errors import Unavailable
from modelyard.core.home import Home
from modelyard.core.routes import RouteSnapshot
from modelyard.launchers.process import ProcessLauncher
from modelyard.registry.registry import Registry
from modelyard.wire.feed import FeedUpdate, GatewayReport

DEADLINE_S = 20.0


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Return when `condition` holds; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s} s"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a home that holds yardling:1 and yardling:2."""
    root = tmp_path_factory.mktemp("registered")
    registry = Registry(Home(root / "home"))
    with as_file(files("modelyard.demo") / "yardling" / "1") as source:
        registry.register("yardling", source)
        second = root / "second"
        shutil.copytree(source, second)
    (second / "NOTES.md").write_text("the same weights, another version\n")
    registry.register("yardling", second)
    return root / "home"


@pytest.fixture
def home(registered: Path, tmp_path: Path) -> Iterator[Home]:
    """A copy of it, whose workers are ended afterwards."""
    root = tmp_path / "home"
    shutil.copytree(registered, root)
    yield Home(root)
    asyncio.run(ProcessLauncher(Home(root), "test").stop_all(0.0))


class Controller:
    """One controller process after the other on a home."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Client:
        """Start it on a free port and return a client when it answers."""
        self.home.logs.mkdir(parents=True, exist_ok=True)
        with (self.home.logs / "controller.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "modelyard.control.main"),
                    *("--home", str(self.home.root), "--port", "0"),
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        record = self.home.run / "controller.json"
        pid = self.process.pid
        until(lambda: (found := read_record(record)) and found.pid == pid, "controller.json")
        client = Client.from_home(self.home)

        def answers() -> bool:
            try:
                client.status()
            except Unavailable:
                return False
            return True

        until(answers, "the controller answers")
        return client

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process
        self.process.terminate()
        return self.process.wait(DEADLINE_S)


class Follower:
    """As much of a gateway as holds a drain up: it applies every snapshot and says so."""

    def __init__(self, home: Home, url: str) -> None:
        token = home.gateway_token.read_text().strip()
        self.in_flight: dict[str, int] = {}
        self.applied: list[RouteSnapshot] = []
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self._http.close()

    def _follow(self) -> None:
        epoch, version = "", 0
        while not self._ending.is_set():
            query = {"gateway": "g", "epoch": epoch, "routes": version, "wait_s": 0.2}
            try:
                answer = self._http.get("/feed", params=query)
                update = msgspec.json.decode(answer.content, type=FeedUpdate)
                epoch = update.epoch
                if update.routes is not None:
                    version = update.routes.version
                    self.applied.append(update.routes)
                report = GatewayReport(
                    gateway="g",
                    pid=os.getpid(),
                    url="http://127.0.0.1:1",
                    epoch=epoch,
                    routes_version=version,
                    keys_seq=0,
                    in_flight=dict(self.in_flight),
                )
                self._http.post("/feed/report", content=msgspec.json.encode(report))
            except httpx.TransportError:
                return


@pytest.fixture
def follow(home: Home) -> Iterator[Callable[[Client], Follower]]:
    """Start a follower of the controller that the client speaks to."""
    followers: list[Follower] = []

    def start(client: Client) -> Follower:
        followers.append(Follower(home, client.url))
        return followers[-1]

    yield start
    for follower in followers:
        follower.close()


@pytest.fixture
def controller(home: Home) -> Iterator[Controller]:
    one = Controller(home)
    yield one
    if one.process is not None:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()
