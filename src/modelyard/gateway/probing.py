"""Asks replicas whether they are there, where a policy names a path for that."""

import asyncio
import time

from modelyard.core.errors import UpstreamError
from modelyard.core.routes import Policy
from modelyard.gateway.asking import ask
from modelyard.gateway.routes import LiveReplica, RouteTable

_TICK_S = 0.25


class Prober:
    """Probes each replica once in its interval; what it finds counts for the breaker."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._due: dict[str, float] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                self._begin_due(time.monotonic())
                await asyncio.sleep(_TICK_S)
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    def _begin_due(self, now: float) -> None:
        wanted = {
            live.route.id: (live, route.policy)
            for route in self._routes.models
            if route.policy.probing.path is not None
            for slot in route.slots
            for live in self._routes.live(slot)
        }
        due = {replica: self._due.get(replica, now) for replica in wanted}
        for replica, (live, policy) in wanted.items():
            if due[replica] <= now:
                due[replica] = now + policy.probing.interval_s
                task = asyncio.get_running_loop().create_task(self._probe(live, policy))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
        self._due = due

    async def _probe(self, live: LiveReplica, policy: Policy) -> None:
        try:
            await ask(
                live.pool,
                b"GET",
                policy.probing.path or "/",
                timeout_s=policy.probing.timeout_s,
                authorization=self._routes.authorization(live),
            )
            answered = True
        except UpstreamError:
            answered = False
        live.circuit.probed(answered, policy.breaking, time.monotonic())
        if answered:
            live.on_free(live.model)
