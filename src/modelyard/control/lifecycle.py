"""The life of one replica: launched or adopted, loaded, warmed, watched, ended."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from modelyard.control.ledger import Ledger
from modelyard.control.probing import Prober
from modelyard.control.weights import Weights
from modelyard.core.deployments import NEXT_STEP_MARK, Replica, SlotSpec
from modelyard.core.errors import (
    CallerError,
    IntegrityError,
    LaunchFailed,
    ModelyardError,
    Unsupported,
)
from modelyard.core.replicas import ReplicaState
from modelyard.engines.engine import Engine, EngineLaunch
from modelyard.launchers.launcher import (
    Exit,
    Image,
    Labels,
    Launched,
    Launcher,
    LaunchSpec,
    Resources,
)

_EXIT_POLL_S = 0.2
_PROBE_EVERY_S = 1.0
_PROBE_FAILURES = 3
_STOP_GRACE_S = 5.0
_LOG_LINES = 12
_T = TypeVar("_T")
S = ReplicaState


@dataclass(frozen=True, kw_only=True)
class LifeParts:
    """What every replica's life stands on."""

    owner: str
    """The state's epoch, written on each worker."""
    ledger: Ledger
    weights: Weights
    engines: Mapping[str, Engine]
    launchers: Mapping[str, Launcher]
    prober: Prober
    preparing: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Bounds how many models are hashed and converted at once."""


def image_of(spec: SlotSpec) -> Image | None:
    """What a slot's containers are made of."""
    return None if spec.image is None else Image(name=spec.image, pull=spec.pull)


def resources_of(spec: SlotSpec) -> Resources:
    """Bounds on each of a slot's workers."""
    return Resources(
        cpus=spec.cpus,
        memory_bytes=spec.memory_bytes,
        accelerators=spec.accelerators_per_replica,
    )


class Life:
    """One replica. `run` ends when its worker is gone and the ledger says so.

    Cancelling `run` leaves the worker as it is: the next controller adopts it.
    """

    def __init__(
        self, parts: LifeParts, replica: Replica, spec: SlotSpec, launched: Launched | None = None
    ) -> None:
        self._parts = parts
        self._id = replica.id
        self._replica = replica
        self._spec = spec
        self._launched = launched
        self._engine = parts.engines[spec.engine]
        self._launcher = parts.launchers[spec.launcher]
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Stop the worker: SIGTERM, a few seconds, SIGKILL."""
        self._ending.set()

    async def run(self) -> None:
        """Live it."""
        try:
            if self._launched is None:
                self._launched = await self._launch()
            if self._launched is not None:
                await self._until_over(self._launched)
            self._stopped("", fatal=False)
        except ModelyardError as error:
            await self._failed(error)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, this replica failed
            await self._failed(LaunchFailed(f"{type(error).__name__}: {error}"))

    async def _launch(self) -> Launched | None:
        """Start the worker on verified bytes; None when it was to end before."""
        async with self._parts.preparing:
            if self._ending.is_set():
                return None
            path = await self._unless_ending(
                asyncio.to_thread(self._parts.weights.prepare, self._spec)
            )
        if path is None:
            return None
        placement = await self._launcher.place(self._id, path)
        command = self._engine.command(
            EngineLaunch(
                model_path=placement.model_path,
                served_name=self._replica.deployment,
                host=placement.bind_host,
                port=placement.bind_port,
                context_length=self._spec.context_length,
                parallel=self._spec.parallel,
                threads=self._spec.threads,
                drain_s=_STOP_GRACE_S,
                extra_args=self._spec.extra_args,
            )
        )
        labels = Labels(
            home=self._parts.owner,
            replica=self._id,
            deployment=self._replica.deployment,
            slot=self._replica.slot,
            version=self._replica.version,
            digest=self._replica.digest,
        )
        launched = await self._launcher.launch(
            LaunchSpec(
                placement=placement,
                command=command,
                labels=labels,
                resources=resources_of(self._spec),
                image=image_of(self._spec),
            )
        )
        self._parts.ledger.note(
            self._id, url=placement.url, pid=launched.pid, handle=launched.handle
        )
        return launched

    async def _until_over(self, launched: Launched) -> None:
        """Serve until the worker ends or is to end; LaunchFailed when it ended by itself."""
        serving = asyncio.create_task(self._serve(launched))
        exiting = asyncio.create_task(self._exit_of(launched))
        ending = asyncio.create_task(self._ending.wait())
        tasks = (serving, exiting, ending)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                await self._launcher.stop(launched, _STOP_GRACE_S)
            elif exiting.done():
                raise LaunchFailed(f"its worker ended: {exiting.result().reason}")
            else:
                serving.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, launched: Launched) -> None:
        """Bring it to ready, then watch over its answers for ever."""
        ledger, prober = self._parts.ledger, self._parts.prober
        url, readiness = launched.placement.url, self._engine.readiness
        if self._state() in (S.STARTING, S.WARMING):
            await prober.loaded(url, readiness)
            ledger.move(self._id, S.WARMING)
            facts = await asyncio.to_thread(self._parts.weights.facts, self._spec)
            await prober.generates(url, self._replica.deployment, chat=facts.chat_template)
            ledger.move(self._id, S.READY, ready_at=ledger.now())
        silent = 0
        while True:
            await asyncio.sleep(_PROBE_EVERY_S)
            if await prober.answers(url, readiness):
                silent = 0
                if self._state() is S.UNHEALTHY:
                    ledger.move(self._id, S.READY)
            else:
                silent += 1
                if silent >= _PROBE_FAILURES:
                    ledger.move(self._id, S.UNHEALTHY)

    async def _exit_of(self, launched: Launched) -> Exit:
        while True:
            exit_ = await self._launcher.exited(launched)
            if exit_ is not None:
                return exit_
            await asyncio.sleep(_EXIT_POLL_S)

    async def _failed(self, error: ModelyardError) -> None:
        """The worker is ended if it still runs, and the ledger told why."""
        reason = error.message
        if self._launched is not None:
            await self._launcher.stop(self._launched, _STOP_GRACE_S)
            lines = await self._launcher.logs(self._id, _LOG_LINES)
            if lines:
                reason += "; its last lines:\n" + "\n".join(f"  {line}" for line in lines)
        if error.next_step:
            reason += f"\n{NEXT_STEP_MARK}{error.next_step}"
        self._stopped(reason, fatal=isinstance(error, IntegrityError | Unsupported | CallerError))

    def _stopped(self, error: str, *, fatal: bool) -> None:
        known = self._parts.ledger.get(self._id)
        # An unhealthy one that was drained keeps the reason for which that was done; one that
        # dies while it is draining was to go anyway.
        draining = known is not None and known.state is S.DRAINING
        kept = known.error if known is not None and draining else error
        self._parts.ledger.move(self._id, S.STOPPED, error=kept, fatal=fatal)

    def _state(self) -> ReplicaState:
        known = self._parts.ledger.get(self._id)
        return S.STOPPED if known is None else known.state

    async def _unless_ending(self, work: Awaitable[_T]) -> _T | None:
        """The result of `work`, or None as soon as the replica is to end."""
        task = asyncio.ensure_future(work)
        ending = asyncio.create_task(self._ending.wait())
        try:
            await asyncio.wait((task, ending), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            ending.cancel()
            await asyncio.gather(task, ending, return_exceptions=True)
