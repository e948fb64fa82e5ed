"""What every launcher keeps to; each launcher's test module derives from `LauncherContract`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from modelyard.core.errors import LaunchFailed
from modelyard.core.home import Home
from modelyard.engines.engine import Command
from modelyard.launchers.launcher import Image, Labels, Launched, Launcher, LaunchSpec, Resources

T = TypeVar("T")
OWNER = "epoch-1"
WORKER = Path(__file__).with_name("worker.py")


async def until(look: Callable[[], Awaitable[T]], deadline_s: float = 20.0) -> T:
    """The first true answer of `look`."""
    async with asyncio.timeout(deadline_s):  # the condition lies in another process
        while not (answer := await look()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return answer


def ask(launched: Launched, name: str) -> str:
    """What the worker says; empty while it doesn't listen."""
    try:
        return httpx.get(f"{launched.placement.url}/{name}", timeout=5).text
    except httpx.TransportError:
        return ""


class LauncherContract:
    """Derive, and give the fixture `launcher` and `another` (the same place, seen anew)."""

    python = sys.executable
    worker = str(WORKER)
    image: Image | None = None

    @pytest.fixture
    async def launcher(self, home: Home) -> AsyncIterator[Launcher]:
        """A launcher whose workers are all ended after the test."""
        launcher = self.another(home)
        yield launcher
        for launched in await launcher.running():
            await launcher.stop(launched, 0.0)

    def another(self, home: Home) -> Launcher:
        """A launcher as a controller that starts anew would make it."""
        raise NotImplementedError

    async def start(
        self,
        launcher: Launcher,
        *arguments: str,
        replica: str = "r-1",
        resources: Resources | None = None,
        env: dict[str, str] | None = None,
    ) -> Launched:
        """Launch the test worker."""
        placement = await launcher.place(replica, WORKER)
        argv = (
            self.python,
            self.worker,
            *("--host", placement.bind_host, "--port", str(placement.bind_port)),
            *arguments,
        )
        labels = Labels(
            home=OWNER,
            replica=replica,
            deployment="d",
            slot="blue",
            version=1,
            digest="sha256:00",
        )
        spec = LaunchSpec(
            placement=placement,
            command=Command(argv=argv, env=env or {}),
            labels=labels,
            resources=resources or Resources(),
            image=self.image,
        )
        return await launcher.launch(spec)

    async def listening(self, launched: Launched) -> None:
        """Wait until the worker answers."""
        await until(lambda: asyncio.to_thread(ask, launched, "HOME"))

    async def test_a_worker_is_reached_where_it_was_placed(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, env={"TOLD": "by the engine"})
        await self.listening(launched)
        assert ask(launched, "TOLD") == "by the engine"
        assert await launcher.exited(launched) is None
        assert await launcher.running() == [launched]

    async def test_two_placements_before_a_launch_differ(self, launcher: Launcher) -> None:
        placements = [await launcher.place(f"r-{n}", WORKER) for n in range(20)]
        assert len({placement.bind_port for placement in placements}) == 20

    async def test_secrets_of_the_controller_stay_with_it(
        self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ADMIN_SECRET", "hunter2")
        launched = await self.start(launcher)
        await self.listening(launched)
        assert ask(launched, "ADMIN_SECRET") == "unset"

    async def test_stop_lets_a_worker_end_by_itself(self, launcher: Launcher) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        assert (await launcher.stop(launched, 20.0)).code == 0
        assert await launcher.running() == []
        assert ask(launched, "HOME") == ""

    async def test_stop_kills_what_does_not_listen_after_the_grace(
        self, launcher: Launcher
    ) -> None:
        launched = await self.start(launcher, "--deaf")
        await self.listening(launched)
        exit_ = await launcher.stop(launched, 0.05)
        assert "SIGKILL" in exit_.reason
        assert await launcher.running() == []

    async def test_stopping_twice_tells_the_same(self, launcher: Launcher) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        first = await launcher.stop(launched, 20.0)
        assert await launcher.stop(launched, 20.0) == first

    async def test_how_it_ended_and_what_it_said_is_known(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, "--exit", "1")
        exit_ = await until(lambda: launcher.exited(launched))
        assert exit_.code == 1
        assert await launcher.logs(launched.labels.replica, 1) == ["last line"]
        assert await launcher.logs(launched.labels.replica, 9) == ["first line", "last line"]
        assert await launcher.running() == []

    async def test_a_new_controller_finds_and_stops_it(
        self, launcher: Launcher, home: Home
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        later = self.another(home)
        assert await later.running() == [launched]
        await later.stop(launched, 20.0)
        assert await later.running() == []

    async def test_another_home_does_not_see_it(self, launcher: Launcher, home: Home) -> None:
        launched = await self.start(launcher)
        assert await self.another(Home(home.root / "other")).running() == []
        assert await launcher.running() == [launched]

    async def test_it_runs_on_the_processors_it_was_given(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, resources=Resources(cpus=(0,)))
        await self.listening(launched)
        assert ask(launched, "cpus") == "0"

    async def test_what_can_not_be_started_fails_at_once(self, launcher: Launcher) -> None:
        placement = await launcher.place("r-1", WORKER)
        labels = Labels(
            home=OWNER, replica="r-1", deployment="d", slot="blue", version=1, digest="sha256:00"
        )
        command = Command(argv=("/no/such/program",))
        with pytest.raises(LaunchFailed, match="/no/such/program"):
            await launcher.launch(
                LaunchSpec(placement=placement, command=command, labels=labels, image=self.image)
            )
        assert await launcher.running() == []
