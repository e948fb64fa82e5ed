"""The process launcher: the contract, and what only processes of this machine have."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.launchers.contract import OWNER, LauncherContract, ask, until

from modelyard.core.errors import LaunchFailed
from modelyard.core.home import Home
from modelyard.launchers.accelerators import ORDER, VISIBLE, Accelerators
from modelyard.launchers.launcher import Launched, Launcher, Resources
from modelyard.launchers.logs import LOG_CAP_BYTES
from modelyard.launchers.process import ProcessLauncher
from modelyard.launchers.processes import Identity

RECORDS = "replicas/r-1.json"


def pid_of(launched: Launched) -> int:
    """Its process id, which a process always has."""
    assert launched.pid is not None
    return launched.pid


class TestProcessLauncher(LauncherContract):
    """The contract over processes."""

    def another(self, home: Home) -> Launcher:
        return ProcessLauncher(home, OWNER)

    async def test_each_has_accelerators_of_its_own(self, launcher: Launcher, home: Home) -> None:
        """Whoever asks: this controller, the next one, one of another home."""
        ids = [f"{home.root}/{n}" for n in range(3)]  # of no other test that runs at once

        def seen_anew() -> Launcher:
            return ProcessLauncher(home, OWNER, Accelerators(lambda: ids))

        async def sees(launched: Launched) -> str:
            await self.listening(launched)
            return ask(launched, VISIBLE)

        two, one = Resources(accelerators=2), Resources(accelerators=1)
        first = await self.start(seen_anew(), resources=two)
        later = seen_anew()
        second = await self.start(later, replica="r-2", resources=one)
        assert await sees(first) == ",".join(ids[:2])
        assert await sees(second) == ids[2]
        assert ask(second, ORDER) == "PCI_BUS_ID"
        with pytest.raises(LaunchFailed, match=r"no free accelerator.*0 of 3 are free"):
            await self.start(later, replica="r-3", resources=one)
        assert {found.labels.replica for found in await launcher.running()} == {"r-1", "r-2"}
        await later.stop(first, 0.0)
        third = await self.start(later, replica="r-3", resources=one)
        assert await sees(third) == ids[0]

    async def test_launches_at_once_do_not_share_an_accelerator(
        self, launcher: Launcher, home: Home
    ) -> None:
        ids = [f"{home.root}/{n}" for n in range(4)]
        other = ProcessLauncher(home, OWNER, Accelerators(lambda: ids))
        one = Resources(accelerators=1)
        launched = await asyncio.gather(
            *(self.start(other, replica=f"r-{n}", resources=one) for n in range(4))
        )
        for each in launched:
            await self.listening(each)
        assert sorted(ask(each, VISIBLE) for each in launched) == ids

    async def test_who_asked_for_no_accelerator_sees_none(
        self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VISIBLE, "0")
        launched = await self.start(launcher, env={VISIBLE: "1"})
        await self.listening(launched)
        assert ask(launched, VISIBLE) == ""

    async def test_it_has_a_session_of_its_own(self, launcher: Launcher) -> None:
        launched = await self.start(launcher)
        assert os.getsid(pid_of(launched)) == launched.pid != os.getsid(0)

    async def test_no_zombie_is_left(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, "--deaf")
        await self.listening(launched)
        await launcher.stop(launched, 0.0)
        assert not psutil.pid_exists(pid_of(launched))

    async def test_what_a_worker_started_ends_with_it(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, "--child")
        await self.listening(launched)
        child = Identity.of(int((await launcher.logs(launched.labels.replica, 9))[0].split()[1]))
        assert child is not None
        assert child.is_alive()
        await launcher.stop(launched, 20.0)
        assert not child.is_alive()

    async def test_what_a_crashed_worker_left_behind_is_ended_too(self, launcher: Launcher) -> None:
        launched = await self.start(launcher, "--child")
        await self.listening(launched)
        child = Identity.of(int((await launcher.logs(launched.labels.replica, 9))[0].split()[1]))
        os.kill(pid_of(launched), signal.SIGKILL)
        await until(lambda: launcher.exited(launched))
        assert child is not None
        assert child.is_alive()
        await launcher.stop(launched, 0.0)
        assert not child.is_alive()

    async def test_a_worker_whose_record_was_never_written_is_found(
        self, launcher: Launcher, home: Home
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        (home.run / RECORDS).unlink()
        assert await self.another(home).running() == [launched]
        assert (home.run / RECORDS).exists()

    async def test_a_damaged_record_hides_nothing(self, launcher: Launcher, home: Home) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        (home.run / RECORDS).write_bytes(b'{"labels":')
        assert await self.another(home).running() == [launched]

    async def test_a_recycled_id_is_neither_adopted_nor_signalled(
        self, launcher: Launcher, home: Home
    ) -> None:
        launched = await self.start(launcher)
        await self.listening(launched)
        stranger = await asyncio.create_subprocess_exec("cat", stdin=subprocess.PIPE)
        try:
            _, ticks, boot = launched.handle.split("@")
            record = (home.run / RECORDS).read_bytes()
            taken = f"{stranger.pid}@{ticks}0@{boot}"
            (home.run / RECORDS).write_bytes(
                record.replace(launched.handle.encode(), taken.encode())
            )
            later = self.another(home)
            assert [found.handle for found in await later.running()] == [launched.handle]
            lost = Launched(
                labels=launched.labels,
                placement=launched.placement,
                handle=taken,
                pid=stranger.pid,
                started_at=0.0,
            )
            assert (await later.stop(lost, 0.0)).code is None
            assert stranger.returncode is None
        finally:
            await stranger.communicate(b"")

    async def test_a_record_of_a_dead_worker_is_removed(
        self, launcher: Launcher, home: Home
    ) -> None:
        launched = await self.start(launcher)
        os.kill(pid_of(launched), signal.SIGKILL)
        await until(lambda: launcher.exited(launched))
        assert not (home.run / RECORDS).exists()

    async def test_stop_all_ends_every_worker(self, home: Home) -> None:
        launcher = ProcessLauncher(home, OWNER)
        for number in range(3):
            await self.start(launcher, replica=f"r-{number}")
        assert await ProcessLauncher(home, "").stop_all(20.0) == 3
        assert await launcher.running() == []

    async def test_a_log_over_the_cap_is_put_aside_at_the_start(
        self, launcher: Launcher, home: Home
    ) -> None:
        log = home.logs / "replicas" / "r-1.log"
        log.parent.mkdir(parents=True)
        log.write_bytes(b"x" * (LOG_CAP_BYTES + 1))
        launched = await self.start(launcher, "--exit", "1")
        await until(lambda: launcher.exited(launched))
        assert await launcher.logs(launched.labels.replica, 9) == ["first line", "last line"]
        assert log.with_suffix(".log.1").stat().st_size == LOG_CAP_BYTES + 1

    async def test_a_folder_that_can_not_be_written_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "logs").write_text("a file is in the way")
        launcher = ProcessLauncher(Home(tmp_path), OWNER)
        with pytest.raises(LaunchFailed, match="logs/replicas"):
            await self.start(launcher)
