"""Background loops of trends: look at the machine, and drop what has been kept long enough."""

import asyncio
import logging
import time
from collections.abc import Callable

import msgspec

from modelyard.core.machines import Worker
from modelyard.core.replicas import ALIVE
from modelyard.observe.machine import MachineProbe
from modelyard.state.store import Store

log = logging.getLogger(__name__)
LOOK_EVERY_S = 10.0
FORGET_EVERY_S = 60.0
_PAUSE_S = 0.05
"""Between two transactions that drop rows: others want to write, too."""
_JUMP_S = 3600.0
_DAY_S = 86_400.0
_SENT_AGAIN_S = 900.0
"""A batch of records may come again as long after: its records must still be known."""


class RecordsKept(msgspec.Struct, frozen=True, kw_only=True):
    """How long request records are kept; sums are kept anyway."""

    days: float = 7.0
    rows: int = 150_000
    """More than that go earlier, the oldest first."""


class MachineWatch:
    """Writes down what this machine and its workers use."""

    def __init__(self, store: Store, probe: MachineProbe, host: str) -> None:
        self._store = store
        self._probe = probe
        self._host = host

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Once. Blocks."""
        workers = [
            Worker(
                pid=replica.pid, model=replica.deployment, version=replica.version,
                slot=replica.slot,
            )
            for replica in self._store.replicas.all()
            if replica.pid is not None and replica.state in ALIVE
        ]  # fmt: skip
        self._store.machines.add(self._host, time.time(), self._probe.look(workers))


class Forgetting:
    """Drops records and steps in small transactions.

    What a wrong clock would make old is not dropped: when the time of day and the time that has
    passed since the start differ by over an hour, nothing is, until they agree or it starts again.
    """

    def __init__(
        self,
        store: Store,
        kept: RecordsKept,
        *,
        clock: Callable[[], float] = time.time,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._kept = kept
        self._clock = clock
        self._elapsed = elapsed
        self._offset = clock() - elapsed()
        self._told = False

    async def run(self) -> None:
        """Drop until cancelled."""
        while True:
            # Not at once: what a gateway sends again after a restart is still known.
            await asyncio.sleep(FORGET_EVERY_S)
            dropped = await asyncio.to_thread(self.forget_some)
            while dropped:
                await asyncio.sleep(_PAUSE_S)
                dropped = await asyncio.to_thread(self.forget_some)

    def forget_some(self) -> int:
        """Drop what can go in one transaction; how many rows. Blocks for some milliseconds."""
        now = self._clock()
        if self._jumped(now):
            return 0
        return (
            self._forget_records(now)
            or self._store.trends.forget(now)
            or self._store.capacity.forget(now)
        )

    def _jumped(self, now: float) -> bool:
        ahead_s = now - self._elapsed() - self._offset
        jumped = abs(ahead_s) > _JUMP_S
        if jumped and not self._told:
            log.warning(
                "the clock jumped by %.0f s: nothing is dropped for its age until it jumps back or "
                "the controller starts again",
                ahead_s,
            )
        self._told = jumped
        return jumped

    def _forget_records(self, now: float) -> int:
        before = now - self._kept.days * _DAY_S
        crowded = self._store.records.oldest_of(self._kept.rows, now)
        if crowded is not None:
            before = max(before, min(crowded, now - _SENT_AGAIN_S))
        under_way = {
            deployment.name: deployment.rollout.started_at
            for deployment in self._store.deployments.all()
            if deployment.rollout is not None and not deployment.rollout.over
        }
        return self._store.records.forget(before, under_way)
