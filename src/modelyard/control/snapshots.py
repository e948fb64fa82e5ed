"""Publishes route snapshots: stored first, then told to whoever waits."""

import asyncio

import msgspec

from modelyard.control.ledger import Clock, Ledger
from modelyard.core.routes import ModelRoute, RouteSnapshot, empty_snapshot
from modelyard.state.store import Store


class Publisher:
    """The newest snapshot. Its version grows by one with every change of content, ever."""

    def __init__(self, store: Store, ledger: Ledger, epoch: str, clock: Clock) -> None:
        self._store = store
        self._ledger = ledger
        self._clock = clock
        self._current = empty_snapshot(epoch)
        self._changed = asyncio.Event()

    @property
    def current(self) -> RouteSnapshot:
        """What gateways should apply."""
        return self._current

    async def load(self) -> None:
        """Go on from the snapshot in the state."""
        stored = await self._ledger.write(self._store.snapshots.newest)
        if stored is not None:
            self._current = stored

    async def publish(self, models: tuple[ModelRoute, ...], default: str | None) -> bool:
        """Publish the next version if the content differs from the newest; say whether it did."""
        if models == self._current.models and default == self._current.default_model:
            return False
        snapshot = msgspec.structs.replace(
            self._current,
            version=self._current.version + 1,
            published_at=self._clock(),
            models=models,
            default_model=default,
        )
        await self._ledger.write(self._store.snapshots.put, snapshot)
        self._current = snapshot
        self.release()
        return True

    def release(self) -> None:
        """Let everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def next_change(self) -> asyncio.Event:
        """Set at the next release. Taken before looking, so that no change falls in between."""
        return self._changed
