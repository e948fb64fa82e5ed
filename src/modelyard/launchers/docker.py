"""Workers as containers of this machine's Docker daemon.

A container is found again by its labels, which are there from the moment it is created; Docker
keeps it running whatever becomes of the controller. When one has ended, its exit code and last
lines are read, and it is removed: none is left lying about.

The daemon may be away for a while. Then nothing can be started, and what runs is taken to go on
running; what could not be looked after is ended when the daemon is back.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from modelyard.core.errors import InvalidRequest, LaunchFailed, ModelyardError, NotFound
from modelyard.core.home import Home
from modelyard.launchers.accelerators import Accelerators
from modelyard.launchers.containers import (
    ACCELERATORS_LABEL,
    HOME_LABEL,
    Owner,
    Setting,
    container_config,
    container_name,
    exit_from,
    held_accelerators,
    launched_from,
    user_for,
)
from modelyard.launchers.docker_daemon import ContainerGone, Daemon
from modelyard.launchers.launcher import (
    Exit,
    Image,
    Launched,
    LaunchSpec,
    Placement,
    Resources,
)
from modelyard.launchers.logs import ReplicaLogs, last_lines
from modelyard.launchers.ports import FreePorts

log = logging.getLogger(__name__)
_KILL_WAIT_S = 10.0
_POLL_S = 0.05
_KEPT_LINES = 1000
_RUNS = frozenset({"running", "paused", "restarting"})
_GONE = Exit(code=None, reason="its container was removed by somebody else")


class DockerLauncher:
    """Starts, finds and stops the containers of one home."""

    name = "docker"

    def __init__(self, home: Home, owner: str, accelerators: Accelerators | None = None) -> None:
        """`owner` is the identity that the labels of every launch must name; `accelerators` are
        shared with the other launchers."""
        self._home = home
        self._owner = owner
        self._identity = home.run / "docker.id"
        self._logs = ReplicaLogs(home.logs / "replicas")
        self._daemon = Daemon()
        self._exits: dict[str, Exit] = {}
        self._mine: dict[str, str] = {}
        """Container by replica: those that were launched or found here and have not ended."""
        self._unseen = False
        """Containers may run that nobody looks after: the daemon was away."""
        self._ports = FreePorts()
        self._accelerators = accelerators or Accelerators()
        self._accelerators.held_by(self._held)
        self._known_held: frozenset[str] | None = None
        """Accelerators that containers held when the daemon last said so."""
        self._creating = threading.Lock()
        self._clearing = threading.Lock()

    def check(self, image: Image | None, resources: Resources) -> None:
        """Raise InvalidRequest, NotFound, Unavailable or Unsupported; see `Launcher.check`."""
        if image is None:
            raise InvalidRequest(
                "the launcher docker needs an image",
                next_step="name one: --image NAME, or image: NAME in the deployment's file",
                param="image",
            )
        there = range(self._daemon.processors())
        missing = sorted(set(resources.cpus or ()) - set(there))
        if missing:
            raise InvalidRequest(
                f"cpus: there is no processor {', '.join(map(str, missing))} here",
                next_step=f"choose among 0 to {len(there) - 1}",
                param="cpus",
            )
        if image.pull == "never":
            self._user(image)

    async def place(self, replica: str, model_path: Path) -> Placement:
        """Choose a free loopback port; the worker listens on the same port inside, and finds its
        model at the same path."""
        port = self._ports.take()
        return Placement(
            replica=replica,
            bind_host="0.0.0.0",  # of the container, which is published on 127.0.0.1 alone
            bind_port=port,
            model_path=str(model_path),
            url=f"http://127.0.0.1:{port}",
        )

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start a container; raises LaunchFailed, NotFound, Unavailable."""
        if spec.labels.home != self._owner:
            raise LaunchFailed(f"{spec.labels.replica} belongs to another home")
        if self._unseen:
            await self._end_unseen()
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(self._launch, spec, given_up)
        finally:
            given_up.set()  # a fetch that takes minutes ends with whoever wanted it

    async def running(self) -> Sequence[Launched]:
        """All workers of this home that still run; none while the daemon is away."""
        try:
            return await asyncio.to_thread(self._running)
        except ModelyardError as error:
            self._unseen = True
            log.warning("%s", error)
            return []

    async def exited(self, launched: Launched) -> Exit | None:
        """How it ended; None while it runs, and while the daemon is away."""
        try:
            return await asyncio.to_thread(self._exited, launched)
        except ModelyardError:
            return None

    async def stop(self, launched: Launched, grace_s: float) -> Exit:
        """SIGTERM, wait at most `grace_s`, SIGKILL; then its container is removed."""
        try:
            return await self._stop(launched, grace_s)
        except ModelyardError as error:
            self._unseen = True
            self._mine.pop(launched.labels.replica, None)
            return Exit(code=None, reason=error.message)

    async def stop_all(self, grace_s: float) -> int:
        """Stop every worker of this home at once; how many there were."""
        running = await self.running()
        await asyncio.gather(*(self.stop(launched, grace_s) for launched in running))
        return len(running)

    async def logs(self, replica: str, lines: int) -> list[str]:
        """The last lines that a worker wrote, after its end too; none when nothing is known."""
        return await asyncio.to_thread(self._lines, replica, lines)

    def _launch(self, spec: LaunchSpec, given_up: threading.Event) -> Launched:
        image = spec.image
        if image is None:
            raise LaunchFailed(f"{spec.labels.replica}: no image is named")
        if image.pull == "always" or (
            image.pull == "missing" and self._daemon.image_user(image.name) is None
        ):
            self._daemon.pull(image.name, given_up.is_set)
        user = user_for(self._user(image), os.geteuid(), os.getegid())
        owner = self._own()
        wanted = spec.resources.accelerators
        with self._creating, self._accelerators.taken(wanted) as accelerators:
            if given_up.is_set():
                raise LaunchFailed(f"{spec.labels.replica} is not wanted any more")
            setting = Setting(
                owner=owner,
                user=user,
                accelerators=accelerators,
                started_at=time.time(),
            )
            config = container_config(spec, setting)
            container = self._daemon.start(config, container_name(owner, spec.labels.replica))
        launched = launched_from(config["Labels"], container)
        if launched is None:  # pragma: no cover - it was written two lines above
            raise LaunchFailed(f"{spec.labels.replica}: its labels can't be read")
        self._mine[spec.labels.replica] = container
        return launched

    def _user(self, image: Image) -> str:
        user = self._daemon.image_user(image.name)
        if user is None:
            raise NotFound(
                f"image {image.name} is not on this machine",
                next_step=f"fetch it: docker pull {image.name}; or deploy with pull: missing",
                param="image",
            )
        return user

    def _held(self) -> frozenset[str]:
        """Accelerators of all containers that carry our label, whichever home they are of."""
        try:
            found = self._daemon.containers(ACCELERATORS_LABEL)
        except ModelyardError:
            if self._known_held is None and self._identity.exists():
                raise  # what runs there may hold any
            return self._known_held or frozenset()
        labels = [each["Labels"] for each in found if each["State"] in _RUNS]
        self._known_held = held_accelerators(labels)
        return self._known_held

    def _running(self) -> list[Launched]:
        """Those that run; what ended, or was never started, is cleared away."""
        if not self._identity.exists():
            return []  # nothing was ever launched: the daemon need not be there
        running = []
        for found in self._daemon.containers(f"{HOME_LABEL}={self._own()}"):
            launched = launched_from(found["Labels"], found["Id"])
            if launched is None:
                continue
            if found["State"] in _RUNS:
                running.append(launched)
                self._mine[launched.labels.replica] = launched.handle
            elif found["State"] == "created":
                with self._creating:  # not one that is about to be started here
                    if not self._was_started(found["Id"]):
                        self._daemon.remove(found["Id"])
            else:
                self._exited(launched)
        return running

    def _was_started(self, container: str) -> bool:
        try:
            return self._daemon.state(container).get("Status") != "created"
        except ContainerGone:
            return True

    def _exited(self, launched: Launched) -> Exit | None:
        container = launched.handle
        known = self._exits.get(container)
        if known is not None:
            return known
        try:
            exit_ = exit_from(self._daemon.state(container))
        except ContainerGone:
            exit_ = _GONE
        if exit_ is None:
            return None
        with self._clearing:  # whoever waits and whoever stops it see its end at once
            if container not in self._exits:
                with contextlib.suppress(ContainerGone):
                    self._keep_log(launched)
                    self._daemon.remove(container)
                self._exits[container] = exit_
                self._mine.pop(launched.labels.replica, None)
            return self._exits[container]

    def _keep_log(self, launched: Launched) -> None:
        with contextlib.suppress(LaunchFailed):  # the disk refuses: its end counts more
            text = self._daemon.logs(launched.handle, _KEPT_LINES)
            self._logs.append(launched.labels.replica, text)

    async def _stop(self, launched: Launched, grace_s: float) -> Exit:
        for name, wait_s in (("SIGTERM", grace_s), ("SIGKILL", _KILL_WAIT_S)):
            exit_ = await asyncio.to_thread(self._exited, launched)
            if exit_ is not None:
                return exit_
            with contextlib.suppress(ContainerGone):
                await asyncio.to_thread(self._daemon.signal, launched.handle, name)
            exit_ = await self._ended_within(launched, wait_s)
            if exit_ is not None:
                return exit_
        return Exit(code=None, reason=f"still there {_KILL_WAIT_S:.0f} s after SIGKILL")

    async def _ended_within(self, launched: Launched, wait_s: float) -> Exit | None:
        end = time.monotonic() + wait_s
        while True:
            exit_ = await asyncio.to_thread(self._exited, launched)
            if exit_ is not None or time.monotonic() >= end:
                return exit_
            await asyncio.sleep(_POLL_S)

    async def _end_unseen(self) -> None:
        """End the containers of this home that nobody here launched or adopted."""
        known = set(self._mine.values())
        found = await asyncio.to_thread(self._running)
        lost = [launched for launched in found if launched.handle not in known]
        self._unseen = False
        await asyncio.gather(*(self.stop(launched, 0.0) for launched in lost))

    def _lines(self, replica: str, lines: int) -> list[str]:
        container = self._mine.get(replica)
        if container is not None:
            with contextlib.suppress(ContainerGone, ModelyardError):
                return last_lines(self._daemon.logs(container, lines), lines)
        return self._logs.tail(replica, lines)

    def _own(self) -> Owner:
        """Which home this is, among all that share the daemon; drawn when it is first asked."""
        if not self._identity.exists():
            self._identity.parent.mkdir(parents=True, exist_ok=True)
            half = self._identity.with_suffix(f".{os.getpid()}.half")
            half.write_text(secrets.token_hex(8))
            with contextlib.suppress(FileExistsError):  # another process was faster
                os.link(half, self._identity)
            half.unlink()
        return Owner(id=self._identity.read_text(), path=str(self._home.root.resolve()))
