"""The supervisor with children that do as they are told."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.control.runfiles import RunRecord, process_of, write_record
from modelyard.control.supervisor import ChildSpec, Supervisor, end_leftovers, sole_supervisor
from modelyard.core.errors import Conflict, LaunchFailed, StorageError
from modelyard.core.home import Home
from modelyard.core.restarts import RestartRule

from .conftest import runs

CHILD = """
import json, os, pathlib, signal, sys, time
name, run = sys.argv[1], pathlib.Path(sys.argv[2])
if name == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
draft = run / f"{name}.draft"
draft.write_text(json.dumps({"pid": os.getpid(), "started_at": time.time()}))
draft.replace(run / f"{name}.json")
signal.pause() if name != "stubborn" else [signal.pause() for _ in range(9)]
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    one = Home(tmp_path / "home")
    one.run.mkdir(parents=True)
    one.logs.mkdir()
    return one


def child(home: Home, name: str, *, grace_s: float = 5.0, code: str = CHILD) -> ChildSpec:
    argv = (sys.executable, "-c", code, name, str(home.run))
    return ChildSpec(name=name, argv=argv, stop_grace_s=grace_s)


async def pid_of(home: Home, name: str, other_than: int = 0) -> int:
    """Process id from the child's record, once it is another than `other_than`."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        path = home.run / f"{name}.json"
        if path.exists():
            pid = int(path.read_text().split('"pid":')[1].split(",")[0])
            if pid != other_than:
                return pid
        await asyncio.sleep(0.01)
    raise AssertionError(f"{name} did not come up")


class Ended:
    """Counts the calls that end the workers."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1


async def test_what_dies_is_started_again_and_all_of_it_ends(home: Home) -> None:
    ended = Ended()
    supervisor = Supervisor(home, [child(home, "one"), child(home, "two")], ended)
    running = asyncio.create_task(supervisor.run())
    one, two = await pid_of(home, "one"), await pid_of(home, "two")
    assert os.getsid(one) == one
    os.kill(one, signal.SIGKILL)
    again = await pid_of(home, "one", other_than=one)
    supervisor.stop()
    await asyncio.wait_for(running, 10)
    assert not any(runs(pid) for pid in (one, again, two))
    assert ended.times == 1
    assert list(home.run.iterdir()) == []


async def test_a_child_that_ignores_sigterm_is_killed_in_time(home: Home) -> None:
    supervisor = Supervisor(home, [child(home, "stubborn", grace_s=0.2)], Ended())
    running = asyncio.create_task(supervisor.run())
    pid = await pid_of(home, "stubborn")
    supervisor.stop()
    await asyncio.wait_for(running, 5)
    assert not runs(pid)


async def test_a_second_signal_does_not_wait(home: Home) -> None:
    supervisor = Supervisor(home, [child(home, "stubborn", grace_s=60)], Ended())
    running = asyncio.create_task(supervisor.run())
    await pid_of(home, "stubborn")
    supervisor.stop()
    supervisor.stop()
    await asyncio.wait_for(running, 5)


async def test_a_child_that_never_comes_up_ends_everything_with_its_last_words(home: Home) -> None:
    ended = Ended()
    broken = child(home, "broken", code="import sys; sys.exit('no such library')")
    rule = RestartRule(base_s=0.01)
    supervisor = Supervisor(home, [child(home, "one"), broken], ended, rule=rule)
    with pytest.raises(LaunchFailed, match="no such library"):
        await asyncio.wait_for(supervisor.run(), 10)
    assert ended.times == 1
    assert not (home.run / "one.json").exists()


def test_a_record_that_can_not_be_written_leaves_no_draft(tmp_path: Path) -> None:
    taken = tmp_path / "gateway.json"
    (taken / "in the way").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"gateway\.json"):
        write_record(taken, RunRecord(pid=1, started_at=0.0))
    assert list(tmp_path.iterdir()) == [taken]


def test_a_second_supervisor_is_refused_and_told_of_the_first(home: Home) -> None:
    with (
        sole_supervisor(home, "http://127.0.0.1:8000"),
        pytest.raises(Conflict, match=f"pid {os.getpid()}, gateway http://127.0.0.1:8000"),
        sole_supervisor(home, "http://127.0.0.1:9000"),
    ):
        pass
    with sole_supervisor(home, ""):
        pass
    assert not (home.run / "supervisor.json").exists()


def test_only_ones_own_leftovers_are_ended(home: Home) -> None:
    argv = [*(sys.executable, "-c", "import signal; signal.pause()"), "my.module", str(home.root)]
    mine, other = subprocess.Popen(argv), subprocess.Popen([*argv[:-1], "/another/home"])
    try:
        for name, process in (("controller", mine), ("gateway", other)):
            record = RunRecord(pid=process.pid, started_at=time.time())
            write_record(home.run / f"{name}.json", record)
        assert end_leftovers(home, {"controller": "my.module", "gateway": "my.module"}) == [
            "controller"
        ]
        assert not runs(mine.pid)
        assert runs(other.pid)
        recycled = RunRecord(pid=mine.pid, started_at=time.time())
        assert process_of(recycled, "my.module", home.root) is None
        older = RunRecord(pid=other.pid, started_at=time.time() - 3600)
        assert process_of(older, "my.module", Path("/another/home")) is None
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
