"""Counts the time of replicas, asked or not, and what it costs (promise O6).

Every few seconds all replicas that live, from starting on, are counted up to now. How long that is
says a clock that never jumps, and the wall clock says when it was. How far each replica is counted
is written in the same transaction: a controller that starts again goes on from there, and counts
the time in which the replicas ran on without one.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from modelyard.control.ledger import Ledger
from modelyard.core.capacity import Stretch, elapsed_ms, spread
from modelyard.core.cost import PriceList
from modelyard.core.deployments import Deployment, Replica
from modelyard.core.replicas import ReplicaState
from modelyard.state.capacity import Metered
from modelyard.state.store import Store

log = logging.getLogger(__name__)
EVERY_S = 5.0
_HOUR_MS = 3_600_000


class _Seen(NamedTuple):
    """How far a replica is counted, by the steady clock."""

    at_ms: int
    accelerators: int


class _Counted(NamedTuple):
    """What one look adds."""

    replica: Replica
    length_ms: int
    until_ms: int
    accelerators: int
    over: bool


class Meter:
    """Counts capacity into the state."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        prices: PriceList,
        adopted: asyncio.Event,
        *,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`adopted`: set when the ledger knows what runs. Clocks are in seconds."""
        self._store = store
        self._ledger = ledger
        self._prices = prices
        self._adopted = adopted
        self._wall = wall
        self._steady = steady
        self._began_ms = _ms(wall())
        self._seen: dict[str, _Seen] = {}
        """Those that lived at the last look."""
        self._ended: dict[str, Replica] = {}
        """Those that stopped since."""
        self._looked_ms: int | None = None
        ledger.listeners.append(self._hear)

    async def run(self) -> None:
        """Count until cancelled; what a state that is away refuses is counted later."""
        await self._adopted.wait()
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        """Count everything up to now. Raises StorageError; then the next look counts it."""
        now, tick = _ms(self._wall()), _ms(self._steady())
        ended = dict(self._ended)
        replicas = [each for each in self._ledger.all() if each.state is not ReplicaState.STOPPED]
        replicas += ended.values()
        marks: Mapping[str, Metered] = {}
        if self._looked_ms is None:
            marks = await asyncio.to_thread(self._store.capacity.marks)
            replicas += self._ended_before(marks)
        wanted: Mapping[tuple[str, int], int] = {}
        if any(each.id not in self._seen for each in replicas):
            deployments = await asyncio.to_thread(self._store.deployments.all)
            wanted = _accelerators(deployments)
        counted = [self._counted(each, marks.get(each.id), wanted, now, tick) for each in replicas]
        alive = {each.replica.id: each for each in counted if not each.over}
        gone = (self._seen.keys() | marks.keys() | ended.keys()) - alive.keys()
        if counted or gone:
            await asyncio.to_thread(
                self._store.capacity.add,
                spread(map(self._stretch, counted), now / 1000),
                [Metered(name, one.until_ms, one.accelerators) for name, one in alive.items()],
                gone,
            )
        self._seen = {name: _Seen(tick, one.accelerators) for name, one in alive.items()}
        for over in ended:
            del self._ended[over]
        self._looked_ms = tick

    def _hear(self, moved: Replica) -> None:
        # Before it is known what runs, one that stops has ended with its machine, nobody saw when.
        if moved.state is ReplicaState.STOPPED and self._adopted.is_set():
            self._ended[moved.id] = moved

    def _ended_before(self, marks: Mapping[str, Metered]) -> list[Replica]:
        """Replicas that an earlier controller saw stop, and had no time to count to their end."""
        return [
            each
            for each in self._ledger.all()
            if each.state is ReplicaState.STOPPED
            and each.id in marks
            and each.id not in self._ended
            and _ms(each.changed_at) < self._began_ms
        ]

    def _counted(
        self,
        replica: Replica,
        mark: Metered | None,
        wanted: Mapping[tuple[str, int], int],
        now: int,
        tick: int,
    ) -> _Counted:
        over = replica.state is ReplicaState.STOPPED
        until = min(now, _ms(replica.changed_at)) if over else now
        seen = self._seen.get(replica.id)
        if seen is not None:
            # It stopped after it was seen last, whatever the wall clock says.
            length = max(0, tick - seen.at_ms - (now - until))
            return _Counted(replica, length, until, seen.accelerators, over)
        accelerators = wanted.get((replica.deployment, replica.generation), 0)
        if mark is not None:
            accelerators = mark.accelerators
        return _Counted(replica, self._first_ms(replica, mark, until, tick), until,
                        accelerators, over)  # fmt: skip

    def _first_ms(self, replica: Replica, mark: Metered | None, until: int, tick: int) -> int:
        """How long a replica ran that this controller has not counted yet."""
        if self._looked_ms is not None:  # launched since: no longer than that ago
            length, _ = elapsed_ms(_ms(replica.created_at), until, tick - self._looked_ms)
            return length
        since = _ms(replica.created_at) if mark is None else mark.until_ms
        length, lost = elapsed_ms(since, until)
        if lost:
            message = f"{lost / _HOUR_MS:.1f} h without a controller are not counted as capacity"
            self._ledger.tell("capacity.uncounted", replica.id, message, actor="meter")
        return length

    def _stretch(self, counted: _Counted) -> Stretch:
        replica = counted.replica
        return Stretch(
            model=replica.deployment,
            version=replica.version,
            slot=replica.slot,
            until_ms=counted.until_ms,
            length_ms=counted.length_ms,
            accelerators=counted.accelerators,
            price=self._prices.of(replica.launcher, counted.accelerators),
        )


def _accelerators(deployments: Sequence[Deployment]) -> dict[tuple[str, int], int]:
    """Of a replica, by deployment and generation."""
    return {
        (deployment.name, spec.generation): spec.accelerators_per_replica
        for deployment in deployments
        for spec in (deployment.blue, deployment.green)
        if spec is not None
    }


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
