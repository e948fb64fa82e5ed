"""Keeps the controller and the gateway running on one machine, and ends all of it in order.

The children have sessions of their own: a terminal's Ctrl-C reaches the supervisor alone, and a
supervisor that is killed leaves a gateway that serves on. The next one ends what it left.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from modelyard.control.runfiles import (
    RunRecord,
    own_start,
    process_of,
    read_record,
    remove_own_record,
    write_record,
)
from modelyard.core.errors import Conflict, LaunchFailed, StorageError
from modelyard.core.home import Home
from modelyard.core.restarts import RestartRule, wait_s

log = logging.getLogger(__name__)
_LEFTOVER_GRACE_S = 3.0
_LAST_LINES = 5
_LOCK_LOOKS = 20
_LOCK_PAUSE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """One process to keep running."""

    name: str
    """It writes its run record to HOME/run/NAME.json and its output goes to HOME/logs/NAME.log."""
    argv: tuple[str, ...]
    stop_grace_s: float
    """Seconds from SIGTERM to SIGKILL."""


class Supervisor:
    """Starts the children in their order, restarts what dies, stops them in reverse order."""

    def __init__(
        self,
        home: Home,
        children: Sequence[ChildSpec],
        end_workers: Callable[[], Awaitable[None]],
        *,
        rule: RestartRule | None = None,
    ) -> None:
        self._home = home
        self._children = [_Child(home, spec, rule or RestartRule()) for spec in children]
        self._end_workers = end_workers
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    def stop(self) -> None:
        """End everything; a second call does not wait for what drains."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self) -> None:
        """Supervise until `stop`; LaunchFailed when a child can't be brought up at all.

        Either way nothing runs afterwards.
        """
        watches = []
        try:
            for child in self._children:
                await child.start()
                watches.append(asyncio.create_task(child.watch()))
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait({stopping, *watches}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            for watch in watches:
                if watch.done():
                    watch.result()
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            for child in reversed(self._children):
                await child.stop(self._hurry)
            await self._end_workers()


class _Child:
    """One child process through its restarts."""

    def __init__(self, home: Home, spec: ChildSpec, rule: RestartRule) -> None:
        self._home = home
        self._spec = spec
        self._rule = rule
        self._log = home.logs / f"{spec.name}.log"
        self._record = home.run / f"{spec.name}.json"
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._was_up = False

    async def start(self) -> None:
        """Start it in a session of its own, its output appended to its log."""
        self._started_at = time.monotonic()
        with self._log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # A supervisor that dies before the child has written its own record is found out by this.
        # A full disk is no reason to end what serves.
        with contextlib.suppress(StorageError):
            write_record(
                self._home.run / f"{self._spec.name}.started.json",
                RunRecord(pid=self._process.pid, started_at=time.time()),
            )

    async def watch(self) -> None:
        """Restart it whenever it ends; raise LaunchFailed when it never came up."""
        failures = 0
        while self._process is not None:
            code = await self._process.wait()
            lived_s = time.monotonic() - self._started_at
            record = read_record(self._record)
            self._was_up |= record is not None and record.pid == self._process.pid
            failures = 1 if lived_s >= self._rule.stable_s else failures + 1
            if not self._was_up and failures >= self._rule.bring_up_failures:
                raise LaunchFailed(
                    f"the {self._spec.name} ended with {code} {failures} times: "
                    f"{last_lines(self._log)}",
                    next_step=f"see {self._log}",
                )
            log.warning("the %s ended with %s; it is started again", self._spec.name, code)
            await asyncio.sleep(wait_s(failures, self._rule))
            await self.start()

    async def stop(self, hurry: asyncio.Event) -> None:
        """SIGTERM, wait as long as it may take, SIGKILL."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            ended = asyncio.create_task(process.wait())
            hurried = asyncio.create_task(hurry.wait())
            await asyncio.wait(
                {ended, hurried},
                timeout=self._spec.stop_grace_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            hurried.cancel()
            if not ended.done():
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await ended
        (self._home.run / f"{self._spec.name}.started.json").unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


@contextlib.contextmanager
def sole_supervisor(home: Home, url: str) -> Iterator[None]:
    """Hold the home; Conflict names the one that holds it, and its gateway's URL."""
    record = home.run / "supervisor.json"
    with (home.run / "supervisor.lock").open("a") as lock:
        if not _locked(lock.fileno()):
            raise _held(home, read_record(record))
        write_record(record, RunRecord(pid=os.getpid(), url=url, started_at=own_start()))
        try:
            yield
        finally:
            remove_own_record(record)


def end_leftovers(home: Home, modules: dict[str, str]) -> list[str]:
    """End the children, by name and module, that a killed supervisor left; return their names.

    Their workers are left running: the new controller adopts them.
    """
    found: list[tuple[str, psutil.Process]] = []
    for name, module in modules.items():
        for path in (home.run / f"{name}.json", home.run / f"{name}.started.json"):
            record = read_record(path)
            process = None if record is None else process_of(record, module, home.root)
            if process is not None and process not in [known for _, known in found]:
                found.append((name, process))
            path.unlink(missing_ok=True)
    processes = [process for _, process in found]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_LEFTOVER_GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_LEFTOVER_GRACE_S)
    return [name for name, _ in found]


def last_lines(path: Path, lines: int = _LAST_LINES) -> str:
    """The last lines of a log, in one."""
    try:
        written = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        written = []
    return " | ".join(written[-lines:]) or "it wrote nothing"


def _locked(descriptor: int) -> bool:
    # A supervisor that was killed a moment ago may still be on its way out.
    for look in range(_LOCK_LOOKS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if look + 1 < _LOCK_LOOKS:
                time.sleep(_LOCK_PAUSE_S)
        else:
            return True
    return False


def _held(home: Home, record: RunRecord | None) -> Conflict:
    who = "another process" if record is None else f"pid {record.pid}"
    where = f", gateway {record.url}" if record is not None and record.url else ""
    stop = "" if record is None else f": kill {record.pid}"
    return Conflict(
        f"Modelyard runs on the home {home.root} already ({who}{where})",
        next_step=f"use that one, choose another --home, or stop it first{stop}",
    )
