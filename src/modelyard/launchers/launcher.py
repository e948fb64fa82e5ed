"""The seam between Modelyard and what starts and stops workers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from modelyard.core.deployments import PullPolicy
from modelyard.engines.engine import Command


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is, written where it runs, so that it can be adopted after a restart."""

    home: str
    """Identity of the Modelyard home (the state's epoch) that owns it."""
    replica: str
    deployment: str
    slot: str
    version: int
    digest: str


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on a worker; None: no bound."""

    cpus: tuple[int, ...] | None = None
    """Processor numbers that it may run on."""
    memory_bytes: int | None = None
    accelerators: int = 0


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What a container is made of."""

    name: str
    """As Docker knows it: `name:tag` or `name@sha256:…`."""
    pull: PullPolicy = "missing"


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a worker will listen and find its model, as seen from inside and from outside."""

    replica: str
    bind_host: str
    bind_port: int
    model_path: str
    """Path of the model as the worker sees it."""
    url: str
    """How the gateway reaches it."""


class LaunchSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One worker to start."""

    placement: Placement
    command: Command
    labels: Labels
    resources: Resources = Resources()
    image: Image | None = None
    """None for what runs in none."""


class Launched(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that was started, by this process or an earlier one."""

    labels: Labels
    placement: Placement
    handle: str
    """What the launcher finds it by: a process id and start time, or a container id."""
    pid: int | None
    started_at: float
    """Unix seconds."""


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker ended; `code` is None when nobody saw it (an adopted process)."""

    code: int | None
    reason: str


class Launcher(Protocol):
    """One kind of place. A worker outlives the process that launched it."""

    name: str

    def check(self, image: Image | None, resources: Resources) -> None:
        """Raise when it is known beforehand that no such worker can be started. May block; may be
        called from any thread."""

    async def place(self, replica: str, model_path: Path) -> Placement:
        """Choose where a worker will listen; the port was free a moment ago."""

    async def launch(self, spec: LaunchSpec) -> Launched:
        """Start a worker; raise LaunchFailed when it can't even be started."""

    async def running(self) -> Sequence[Launched]:
        """All workers of this home that still run."""

    async def exited(self, launched: Launched) -> Exit | None:
        """How it ended, or None while it runs."""

    async def stop(self, launched: Launched, grace_s: float) -> Exit:
        """SIGTERM, wait at most `grace_s`, SIGKILL, wait until it is gone."""

    async def logs(self, replica: str, lines: int) -> list[str]:
        """The last lines that a worker wrote, after its end too; none when nothing is known."""
