"""The Docker launcher on a real daemon: the contract, and what only containers have."""

import asyncio
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.launchers.contract import OWNER, LauncherContract, ask, until
from tests.launchers.image_registry import image_registry

from modelyard.core.errors import InvalidRequest, LaunchFailed, NotFound, Unavailable, Unsupported
from modelyard.core.home import Home
from modelyard.launchers.docker import DockerLauncher
from modelyard.launchers.launcher import Image, Launched, Launcher, LaunchSpec, Resources

MEMORY = 256 * 1024**2


@pytest.mark.service("docker")
@pytest.mark.usefixtures("containers")
class TestDockerLauncher(LauncherContract):
    """The contract over containers."""

    @pytest.fixture(autouse=True)
    def of_image(self, worker_image: str) -> None:
        self.image = Image(name=worker_image, pull="never")

    def another(self, home: Home) -> Launcher:
        return DockerLauncher(home, OWNER)

    def config(self, api: Any, launched: Launched) -> dict[str, Any]:
        """What the daemon made of it."""
        found: dict[str, Any] = api.inspect_container(launched.handle)
        return found

    async def test_it_is_reached_on_the_loopback_address_alone(
        self, launcher: Launcher, docker_api: Any
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        ports = self.config(docker_api, launched)["NetworkSettings"]["Ports"]
        assert [each["HostIp"] for bound in ports.values() for each in bound] == ["127.0.0.1"]
        assert launched.placement.url.startswith("http://127.0.0.1:")

    async def test_it_is_no_root_without_privileges_on_files_it_can_not_change(
        self, launcher: Launcher, docker_api: Any
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        assert ask(launched, "uid") not in ("", "0")
        assert ask(launched, "capabilities") == "0000000000000000"
        assert ask(launched, "no_new_privs") == "1"
        assert ask(launched, "writes:/") == "Read-only file system"
        assert ask(launched, f"writes:{launched.placement.model_path}") in (
            "Read-only file system",
            "Permission denied",
        )
        assert ask(launched, "writes:/tmp/a") == "written"
        host = self.config(docker_api, launched)["HostConfig"]
        assert (host["Privileged"], host["RestartPolicy"]["Name"]) == (False, "no")

    async def test_its_memory_is_bounded(self, launcher: Launcher, docker_api: Any) -> None:
        launched = await self.start(launcher, resources=Resources(memory_bytes=MEMORY))
        host = self.config(docker_api, launched)["HostConfig"]
        assert (host["Memory"], host["MemorySwap"]) == (MEMORY, MEMORY)

    async def test_it_tells_who_it_is_to_people(self, launcher: Launcher, docker_api: Any) -> None:
        launched = await self.start(launcher, replica="r-7")
        found = self.config(docker_api, launched)
        labels = {
            name.removeprefix("modelyard."): v for name, v in found["Config"]["Labels"].items()
        }
        assert labels.items() >= {
            "replica": "r-7", "deployment": "d", "slot": "blue", "version": "1",
            "digest": "sha256:00",
        }.items()  # fmt: skip
        assert found["Name"].endswith("-r-7")

    async def test_nothing_is_left_of_one_that_ended_but_its_lines(
        self, launcher: Launcher, docker_api: Any, home: Home
    ) -> None:
        launched = await self.start(launcher, "--exit", "1")
        await until(lambda: launcher.exited(launched))
        assert not docker_api.containers(all=True, filters={"id": launched.handle})
        assert await self.another(home).logs("r-1", 9) == ["first line", "last line"]

    async def test_one_that_ended_while_no_controller_was_there_is_cleared_away(
        self, launcher: Launcher, docker_api: Any, home: Home
    ) -> None:
        launched = await self.start(launcher, "--exit", "1")
        docker_api.wait(launched.handle, timeout=20)
        later = self.another(home)
        assert await later.running() == []
        assert not docker_api.containers(all=True, filters={"id": launched.handle})
        exit_ = await later.exited(launched)
        assert exit_ is not None
        assert exit_.code == 1

    async def test_one_that_was_made_and_never_started_is_cleared_away(
        self, launcher: Launcher, docker_api: Any, home: Home
    ) -> None:
        launched = await self.start(launcher)
        found = self.config(docker_api, launched)
        made = docker_api.create_container_from_config(
            {
                "Image": found["Config"]["Image"],
                "Cmd": ["python3"],
                "Labels": found["Config"]["Labels"],
            }
        )["Id"]
        assert await self.another(home).running() == [launched]
        assert not docker_api.containers(all=True, filters={"id": made})

    async def test_one_that_somebody_removed_has_ended(
        self, launcher: Launcher, docker_api: Any
    ) -> None:
        launched = await self.start(launcher)
        docker_api.remove_container(launched.handle, force=True)
        exit_ = await launcher.stop(launched, 1.0)
        assert exit_.code is None
        assert "removed" in exit_.reason

    async def test_a_port_that_was_taken_meanwhile_leaves_nothing(
        self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            monkeypatch.setattr("modelyard.launchers.ports.FreePorts.take", lambda _: port)
            with pytest.raises(LaunchFailed, match=r"already (in use|allocated)"):
                await self.start(launcher)
        assert await launcher.running() == []

    async def test_an_image_that_is_not_there_is_refused_before(
        self, launcher: Launcher, home: Home
    ) -> None:
        absent = Image(name="modelyard-test-absent", pull="never")
        with pytest.raises(NotFound, match="modelyard-test-absent") as refused:
            await asyncio.to_thread(launcher.check, absent, Resources())
        assert "docker pull" in refused.value.next_step
        self.image = absent
        with pytest.raises(NotFound, match="modelyard-test-absent"):
            await self.start(launcher)
        assert not (home.run / "docker.id").exists()

    async def test_an_image_that_can_not_be_fetched_is_named(self, launcher: Launcher) -> None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))  # and does not listen
            port = nobody.getsockname()[1]
            self.image = Image(name=f"127.0.0.1:{port}/absent:1")
            with pytest.raises(Unavailable, match="absent:1") as refused:
                await self.start(launcher)
        assert "docker pull" in refused.value.next_step

    async def test_an_image_is_fetched_when_it_is_missing_and_always_if_that_is_said(
        self, launcher: Launcher, docker_api: Any
    ) -> None:
        with image_registry() as registry:
            name = registry.name("there:1")
            try:
                for pull, asked in (("missing", True), ("missing", False), ("always", True)):
                    registry.asked.clear()
                    self.image = Image(name=name, pull=pull)  # type: ignore[arg-type]
                    with pytest.raises(LaunchFailed, match="python"):  # it holds no program
                        await self.start(launcher)
                    assert bool(registry.asked) == asked, pull
            finally:
                docker_api.remove_image(name, force=True)

    async def test_an_image_that_its_registry_does_not_have_is_not_found(
        self, launcher: Launcher
    ) -> None:
        with image_registry() as registry:
            self.image = Image(name=registry.name("absent:1"))
            with pytest.raises(NotFound, match="absent:1"):
                await self.start(launcher)

    async def test_a_fetch_that_nobody_waits_for_any_more_starts_nothing(
        self, launcher: Launcher, docker_api: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        over = threading.Event()
        launch = DockerLauncher._launch

        def watched(self: DockerLauncher, spec: LaunchSpec, given_up: threading.Event) -> Launched:
            try:
                return launch(self, spec, given_up)
            finally:
                over.set()

        monkeypatch.setattr(DockerLauncher, "_launch", watched)
        with image_registry() as registry:
            registry.held.clear()
            self.image = Image(name=registry.name("there:1"))
            starting = asyncio.create_task(self.start(launcher))
            await until(lambda: asyncio.sleep(0, registry.asked))
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            registry.held.set()
            await until(lambda: asyncio.sleep(0, over.is_set()))
            assert await launcher.running() == []
            if docker_api.images(self.image.name):
                docker_api.remove_image(self.image.name, force=True)

    async def test_processors_that_are_not_there_are_refused_before(
        self, launcher: Launcher
    ) -> None:
        with pytest.raises(InvalidRequest, match="4095"):
            await asyncio.to_thread(launcher.check, self.image, Resources(cpus=(0, 4095)))

    async def test_an_image_is_needed(self, launcher: Launcher) -> None:
        with pytest.raises(InvalidRequest, match="needs an image"):
            await asyncio.to_thread(launcher.check, None, Resources())

    async def test_while_the_daemon_is_away_what_runs_is_taken_to_run(
        self, launcher: Launcher, home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        later = self.another(home)
        with monkeypatch.context() as patch:
            patch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
            assert await later.exited(launched) is None
            assert await later.running() == []
            assert "does not answer" in (await later.stop(launched, 1.0)).reason
            assert await later.logs("r-1", 9) == []
            with pytest.raises(Unavailable, match="No such file"):
                await self.start(later, replica="r-2")
            with pytest.raises(Unavailable, match=r"absent\.sock") as refused:
                await asyncio.to_thread(later.check, self.image, Resources())
            assert "docker info" in refused.value.next_step
        await self.start(later, replica="r-2")
        assert [one.labels.replica for one in await later.running()] == ["r-2"]


async def test_a_home_without_containers_needs_no_daemon(
    home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/absent.sock")
    launcher = DockerLauncher(home, OWNER)
    assert await launcher.running() == []
    assert await launcher.stop_all(0.0) == 0


async def test_a_daemon_on_another_machine_is_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    with pytest.raises(Unsupported, match="loopback"):
        await asyncio.to_thread(DockerLauncher(home, OWNER).check, Image(name="i"), Resources())
