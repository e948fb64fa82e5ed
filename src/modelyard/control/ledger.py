"""The controller's replicas: at hand in memory, written to the state in the order of the changes.

Everything here runs on the event loop; the database is touched in one writer thread, so the loop
never waits for a disk and two changes of a replica are never stored in the wrong order. Changes
of replicas have happened, whatever the database says: while it is away they wait.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec

from modelyard.control.backlog import Backlog
from modelyard.core.deployments import Event, Replica
from modelyard.core.replicas import ReplicaState, can_move
from modelyard.state.store import Store

log = logging.getLogger(__name__)
Clock = Callable[[], float]
_ACTOR = "reconciler"
_P = ParamSpec("_P")
_T = TypeVar("_T")


def _nobody(_took_s: float) -> None:
    """Nobody asks."""


class Ledger:
    """Replicas by id, and the journal."""

    def __init__(self, store: Store, clock: Clock, on_change: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="state-writer")
        self._backlog = Backlog()
        """Used in the writer's thread alone."""
        self._replicas: dict[str, Replica] = {}
        self.listeners: list[Callable[[Replica], None]] = []
        """Told of every replica that moved to another state; each returns at once."""
        self.on_tell: list[Callable[[str, str], None]] = []
        """Told kind and subject of every line of the journal; each returns at once."""
        self.on_write: Callable[[float], None] = _nobody
        """Told in the writer's thread how many seconds a call on the state took."""

    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    async def write(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run a call on the state after all writes before it, and wait for its result."""

        def in_turn() -> _T:
            self._backlog.flush()
            return self._timed(function, *args, **kwargs)

        return await asyncio.wrap_future(self._writer.submit(in_turn))

    async def load(self) -> None:
        """Read the replicas that the state knows."""
        stored = await self.write(self._store.replicas.all)
        self._replicas = {replica.id: replica for replica in stored}

    def all(self) -> tuple[Replica, ...]:
        """Every replica, those that stopped lately too."""
        return tuple(self._replicas.values())

    def get(self, replica_id: str) -> Replica | None:
        """The replica of that id."""
        return self._replicas.get(replica_id)

    async def add(self, replica: Replica) -> None:
        """A new one; it is in the state when this returns, so that it can't become an orphan."""
        await self.write(self._store.replicas.put, replica)
        self._replicas[replica.id] = replica

    def note(self, replica_id: str, **changes: Any) -> None:
        """Change facts of a replica other than its state."""
        replica = self._replicas.get(replica_id)
        if replica is not None:
            self._store_later(msgspec.structs.replace(replica, **changes))

    def move(self, replica_id: str, state: ReplicaState, **changes: Any) -> bool:
        """Move a replica to `state`; False when the table of moves does not allow that now."""
        replica = self._replicas.get(replica_id)
        if replica is None or replica.state is state or not can_move(replica.state, state):
            return False
        now = self._clock()
        moved = msgspec.structs.replace(replica, state=state, changed_at=now, **changes)
        self._store_later(moved)
        for told in self.listeners:
            told(moved)
        self.tell(f"replica.{state}", replica_id, message=str(changes.get("error", "")))
        self._on_change()
        return True

    def forget(self, replica_ids: tuple[str, ...]) -> None:
        """Drop stopped replicas."""
        for replica_id in replica_ids:
            self._replicas.pop(replica_id, None)
        self._later(self._store.replicas.forget, list(replica_ids))

    def tell(self, kind: str, subject: str, message: str = "", actor: str = _ACTOR) -> None:
        """Add a line to the journal."""
        log.info("%s %s%s", kind, subject, f": {message}" if message else "")
        event = Event(at=self._clock(), kind=kind, subject=subject, actor=actor, message=message)
        self._later(self._store.events.append, event)
        for told in self.on_tell:
            told(kind, subject)

    def poke(self) -> None:
        """Something happened that the loop should look at."""
        self._on_change()

    def close(self) -> None:
        """Wait for the writes that are queued."""
        self._writer.submit(self._backlog.close)
        self._writer.shutdown(wait=True)

    def _store_later(self, replica: Replica) -> None:
        self._replicas[replica.id] = replica
        self._later(self._store.replicas.put, replica)

    def _later(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        self._writer.submit(self._backlog.write, partial(self._timed, function, *args, **kwargs))

    def _timed(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call it, in the writer's thread, and tell how long that took."""
        began = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            self.on_write(time.monotonic() - began)
