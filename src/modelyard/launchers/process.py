"""Workers as processes of this machine.

Each runs in its own session, so that neither Ctrl-C nor the controller's end reaches it. It is
found again in two ways: by its run record, HOME/run/replicas/ID.json, and by a variable in its
environment, which is there from its first instant. A controller that is killed between the start
and the record therefore leaves no worker that nobody knows.
"""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from modelyard.core.errors import InvalidRequest, LaunchFailed
from modelyard.core.home import Home
from modelyard.launchers.accelerators import ORDER, VISIBLE, Accelerators
from modelyard.launchers.launcher import (
    Exit,
    Image,
    Labels,
    Launched,
    LaunchSpec,
    Placement,
    Resources,
)
from modelyard.launchers.logs import ReplicaLogs
from modelyard.launchers.ports import FreePorts
from modelyard.launchers.processes import (
    Identity,
    Watch,
    all_pids,
    read_environment,
    read_stat,
    session_members,
)

MARK = "MODELYARD_WORKER"
"""Environment variable that holds the worker's `_Mark` as JSON."""
PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
)
"""All that a worker sees of the controller's environment; its secrets are not among them."""
_KILL_WAIT_S = 10.0
_MARKED_WITHIN_S = 5.0
_LOOK_S = 0.001


class _Mark(msgspec.Struct, frozen=True):
    home: str
    labels: Labels
    placement: Placement
    started_at: float
    accelerators: tuple[str, ...] = ()
    """Numbers of those that are its own."""


class ProcessLauncher:
    """Starts, finds and stops the workers of one home. Needs Linux (pidfd, /proc)."""

    name = "process"

    def __init__(self, home: Home, owner: str, accelerators: Accelerators | None = None) -> None:
        """`owner` is the identity that the labels of every launch must name; `accelerators` are
        shared with the other launchers."""
        self._home = str(home.root.resolve())
        self._owner = owner
        self._records = home.run / "replicas"
        self._logs = ReplicaLogs(home.logs / "replicas")
        self._exits: dict[str, Exit] = {}
        self._ports = FreePorts()
        self._accelerators = accelerators or Accelerators()
        self._accelerators.held_by(held_by_processes)

    def check(self, image: Image | None, resources: Resources) -> None:
        """Raise InvalidRequest for an image, and for processors that this machine lacks."""
        if image is not None:
            raise InvalidRequest(
                f"image {image.name}: a process has no image",
                next_step="name the launcher too: --launcher docker, or leave the image out",
                param="image",
            )
        allowed = os.sched_getaffinity(0)
        missing = set(resources.cpus or ()) - allowed
        if missing:
            raise InvalidRequest(
                f"cpus: no processor {_listed(missing)} is there for this controller",
                next_step=f"choose among {_listed(allowed)}",
                param="cpus",
            )

    async def place(self, replica: str, model_path: Path) -> Placement:
        """Choose a free loopback port."""
        host = "127.0.0.1"
        port = self._ports.take()
        return Placement(
            replica=replica,
            bind_host=host,
            bind_port=port,
            model_path=str(model_path),
            url=f"http://{host}:{port}",
        )

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start a worker; raise LaunchFailed when it can't even be started."""
        if spec.labels.home != self._owner:
            raise LaunchFailed(f"{spec.labels.replica} belongs to another home")
        return await asyncio.to_thread(self._launch, spec)

    async def running(self) -> Sequence[Launched]:
        """All workers of this home that still run."""
        return await asyncio.to_thread(self._running)

    async def exited(self, launched: Launched) -> Exit | None:
        """How it ended, or None while it runs."""
        identity = Identity.parse(launched.handle)
        if identity is None:
            return Exit(code=None, reason=f"{launched.handle!r} is no process of this launcher")
        if launched.handle not in self._exits:
            exit_ = identity.reap()
            if exit_ is None:
                return None
            self._exits[launched.handle] = exit_
            self._record(launched.labels.replica).unlink(missing_ok=True)
        return self._exits[launched.handle]

    async def stop(self, launched: Launched, grace_s: float) -> Exit:
        """SIGTERM, wait at most `grace_s`, SIGKILL; then whatever it started itself."""
        identity = Identity.parse(launched.handle)
        watch = Watch.open(identity) if identity is not None else None
        if identity is not None and watch is not None:
            with watch:
                watch.send(signal.SIGTERM)
                if not await watch.ended(grace_s):
                    watch.send(signal.SIGKILL)
                    await watch.ended(_KILL_WAIT_S)
        if identity is not None:
            await self._end_session(identity, launched, certain=watch is not None)
        exit_ = await self.exited(launched)
        return exit_ or Exit(code=None, reason=f"still there {_KILL_WAIT_S:.0f} s after SIGKILL")

    async def _end_session(self, leader: Identity, launched: Launched, *, certain: bool) -> None:
        """Kill what an ended worker left behind in its session.

        The kernel gives a session's number to no new process while the session has members. That
        makes it `certain` whose they are when the leader ended just now; when it is long gone
        they must also carry its mark.
        """
        for pid in await asyncio.to_thread(lambda: list(session_members(leader.pid))):
            member = Identity.of(pid)
            watch = Watch.open(member) if member is not None and pid != leader.pid else None
            if watch is not None:
                with watch:
                    if certain or self._marked(pid, launched.labels.replica):
                        watch.send(signal.SIGKILL)
                        await watch.ended(_KILL_WAIT_S)

    async def stop_all(self, grace_s: float) -> int:
        """Stop every worker of this home at once; how many there were."""
        running = await self.running()
        await asyncio.gather(*(self.stop(launched, grace_s) for launched in running))
        return len(running)

    async def logs(self, replica: str, lines: int) -> list[str]:
        """The last lines that a worker wrote, after its end too; none when nothing is known."""
        return await asyncio.to_thread(self._logs.tail, replica, lines)

    def _launch(self, spec: LaunchSpec) -> Launched:
        with self._accelerators.taken(spec.resources.accelerators) as accelerators:
            mark = _Mark(self._home, spec.labels, spec.placement, time.time(), accelerators)
            pid = self._spawn(spec, mark)
            if accelerators:
                _until_marked(pid)
        _bound(pid, spec.resources)
        identity = Identity.of(pid)
        if identity is None:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            raise LaunchFailed(f"{spec.command.argv[0]} ended at once with exit code {code}")
        launched = _launched(mark, identity)
        self._write_record(launched)
        return launched

    def _spawn(self, spec: LaunchSpec, mark: _Mark) -> int:
        argv = spec.command.argv
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # A module of the working directory must not come before the worker's own.
        environment |= {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        environment |= spec.command.env
        # Numbered as nvidia-smi does; who asked for none sees none, as in a container.
        environment |= {ORDER: "PCI_BUS_ID", VISIBLE: ",".join(mark.accelerators)}
        environment[MARK] = msgspec.json.encode(mark).decode()
        log = self._logs.open(spec.labels.replica)
        try:
            return os.posix_spawnp(
                argv[0],
                argv,
                environment,
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGPIPE, signal.SIGTERM),
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, log, 1),
                    (os.POSIX_SPAWN_DUP2, log, 2),
                ),
            )
        except OSError as error:
            raise LaunchFailed(f"can't start {argv[0]}: {error.strerror}") from error
        finally:
            os.close(log)

    def _running(self) -> list[Launched]:
        found: dict[str, Launched] = {}
        for path in self._records.glob("*.json"):
            try:
                launched = msgspec.json.decode(path.read_bytes(), type=Launched)
            except (msgspec.DecodeError, FileNotFoundError):
                continue
            identity = Identity.parse(launched.handle)
            if identity is not None and identity.is_alive():
                found[launched.handle] = launched
            else:
                path.unlink(missing_ok=True)
        for launched in self._scan():
            if launched.handle not in found:
                found[launched.handle] = launched
                self._write_record(launched)
        return list(found.values())

    def _scan(self) -> list[Launched]:
        """Workers by their mark: leaders of their session, so not what they started themselves."""
        found = []
        for pid in all_pids():
            stat = read_stat(pid)
            if stat is None or stat.session != pid:
                continue
            mark, identity = self._mark(pid), Identity.of(pid)
            if mark is not None and identity is not None:
                found.append(_launched(mark, identity))
        return found

    def _mark(self, pid: int) -> _Mark | None:
        """What a process of this home was started as, or by; None for any other process."""
        mark = _mark_of(pid)
        return mark if mark is not None and mark.home == self._home else None

    def _marked(self, pid: int, replica: str) -> bool:
        mark = self._mark(pid)
        return mark is not None and mark.labels.replica == replica

    def _write_record(self, launched: Launched) -> None:
        """The mark in its environment stands for it when the disk refuses."""
        path = self._record(launched.labels.replica)
        half = path.with_suffix(f".{os.getpid()}.half")
        with contextlib.suppress(OSError):
            self._records.mkdir(parents=True, exist_ok=True)
            half.write_bytes(msgspec.json.encode(launched))
            half.replace(path)

    def _record(self, replica: str) -> Path:
        return self._records / f"{replica}.json"


def held_by_processes() -> frozenset[str]:
    """Accelerators of the workers of every home of this user, and of what these started: it may
    outlive them, and goes on using what they were given."""
    marks = (_mark_of(pid) for pid in all_pids())
    return frozenset(device for mark in marks if mark is not None for device in mark.accelerators)


def _until_marked(pid: int) -> None:
    """Wait until a worker that was started can be seen to hold what it was given.

    It runs a moment before its environment can be read: whoever looked in between would give the
    same accelerator away again.
    """
    deadline = time.monotonic() + _MARKED_WITHIN_S
    while _mark_of(pid) is None and Identity.of(pid) is not None:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)  # nobody could find it again, or what it holds
            os.waitpid(pid, 0)
            raise LaunchFailed(f"/proc/{pid}/environ can't be read: workers are known by it")
        time.sleep(_LOOK_S)


def _mark_of(pid: int) -> _Mark | None:
    """What a process, or whatever started it, was started as; None for what is no worker's."""
    raw = read_environment(pid, MARK)
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=_Mark)
    except msgspec.DecodeError:
        return None


def _launched(mark: _Mark, identity: Identity) -> Launched:
    return Launched(
        labels=mark.labels,
        placement=mark.placement,
        handle=str(identity),
        pid=identity.pid,
        started_at=mark.started_at,
    )


def _listed(numbers: Collection[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _bound(pid: int, resources: Resources) -> None:
    """Set before the worker has done more than begin; its threads inherit it."""
    with contextlib.suppress(ProcessLookupError):
        if resources.cpus is not None:
            os.sched_setaffinity(pid, resources.cpus)
        if resources.memory_bytes is not None:
            # Private memory: weights that are mapped from a file are shared and don't count.
            limit = resources.memory_bytes
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
