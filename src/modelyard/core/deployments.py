"""A deployment: a public model name, the versions in its two slots, how they are kept running."""

from enum import StrEnum
from typing import Literal

import msgspec

from modelyard.core.replicas import ReplicaState
from modelyard.core.rollout import BEFORE_SWITCH, Arrangement, Rollout, arrange
from modelyard.core.routes import Policy, Slot

NEXT_STEP_MARK = "next: "
"""Begins the last line of a replica's error when that line says what to do about it."""


PullPolicy = Literal["missing", "never", "always"]
"""Whether an image is fetched before a launch."""


class DeploymentState(StrEnum):
    STARTING = "starting"
    """No slot is live yet; the first one is being brought up."""
    LIVE = "live"
    """The live slot serves with all its replicas, and nothing is under way."""
    MOVING = "moving"
    """The live slot serves; another version is being brought up beside it."""
    DEGRADED = "degraded"
    """It serves with fewer replicas than it should, or none: they crash or don't answer."""
    FAILED = "failed"
    """It never became live; the message says why."""
    STOPPING = "stopping"
    """It was taken away; its replicas finish what they have."""


class SlotSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What should run in one slot."""

    model: str
    """Registered model name."""
    version: int
    digest: str
    engine: str
    launcher: str = "process"
    image: str | None = None
    """What its containers are made of; None for what runs in none."""
    pull: PullPolicy = "missing"
    cpus: tuple[int, ...] | None = None
    """Processor numbers that a replica may run on; None: any."""
    memory_bytes: int | None = None
    """Bound on a replica's memory; None: none."""
    replicas: int = 1
    accelerators_per_replica: int = 0
    parallel: int = 4
    context_length: int | None = None
    threads: int | None = None
    extra_args: tuple[str, ...] = ()
    generation: int = 0
    """The deployment's generation that put it into its slot: replicas of another are not its."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What should be, as the user asked for it and the reconcile loop moves it along."""

    name: str
    """Public model name."""
    blue: SlotSpec | None = None
    green: SlotSpec | None = None
    live: Slot | None = None
    """The slot that serves."""
    rollout: Rollout | None = None
    """The move that is under way, or was the last."""
    removed: bool = False
    policy: Policy = Policy()
    created_at: float
    """Unix seconds."""
    generation: int = 1
    """Counts what users asked for; a rollout names the generation that it brings about."""
    message: str = ""
    """What went wrong last, for people; empty when nothing did."""

    def slot(self, slot: Slot) -> SlotSpec | None:
        """What should run in `slot`."""
        return self.blue if slot == "blue" else self.green

    @property
    def incoming(self) -> Slot | None:
        """The slot that is on its way to be live."""
        rollout = self.rollout
        return rollout.candidate if rollout is not None and rollout.phase in BEFORE_SWITCH else None

    @property
    def arranged(self) -> Arrangement:
        """What should run, and who gets which requests."""
        if self.removed:
            return Arrangement(live=None, runs=())
        if self.rollout is not None:
            return arrange(self.rollout)
        return Arrangement(live=self.live, runs=() if self.live is None else (self.live,))

    def with_drained(self, generation: int, finished: int, cut: int) -> "Deployment":
        """The same, a replica of this generation having stopped."""
        rollout = self.rollout
        mine = [spec.generation for spec in (self.blue, self.green) if spec is not None]
        if rollout is None or generation not in mine or not finished + cut:
            return self
        told = msgspec.structs.replace(
            rollout, finished=rollout.finished + finished, cut=rollout.cut + cut
        )
        return msgspec.structs.replace(self, rollout=told)

    def with_rollout(self, rollout: Rollout) -> "Deployment":
        """The same with its move so far."""
        message = rollout.reason if rollout.reason else self.message
        return msgspec.structs.replace(
            self, rollout=rollout, live=arrange(rollout).live, message=message
        )


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, as the controller knows it; stored, so that it outlives the controller."""

    id: str
    deployment: str
    slot: Slot
    version: int
    digest: str
    engine: str
    launcher: str
    state: ReplicaState
    url: str = ""
    pid: int | None = None
    handle: str = ""
    created_at: float
    """Unix seconds; when its launch was decided."""
    changed_at: float
    """Unix seconds; when `state` was entered."""
    ready_at: float | None = None
    error: str = ""
    """How it ended, with the last lines it wrote; empty while it runs and after an asked stop."""
    fatal: bool = False
    """Another try can't end better: the bytes are damaged, or the engine refuses the model."""
    generation: int = 0
    """Generation of the slot's spec that it was launched for."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the journal: what happened, to what, by whose hand."""

    seq: int = 0
    at: float
    """Unix seconds."""
    kind: str
    """`noun.verb`, such as `deployment.created`, `replica.ready`, `controller.started`."""
    subject: str
    """Name or id of what it happened to."""
    actor: str
    """`user:NAME`, or the loop that did it: `reconciler`, `supervisor`."""
    message: str = ""
    details: dict[str, str | int | float | bool | None] = {}
