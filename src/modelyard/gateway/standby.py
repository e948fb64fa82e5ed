"""A live version that crashes while another stands by: wait for the routes that put that back.

A controller flips back within a fraction of a second of such a crash (promise D2). Requests whose
answer had not begun wait for it, instead of being told of a crash that is over in a moment.
"""

import asyncio
import time

from modelyard.core.errors import ModelyardError, NoReplica, UpstreamError
from modelyard.core.routes import ModelRoute
from modelyard.gateway.attempts import outcome_of
from modelyard.gateway.calls import Call
from modelyard.gateway.routes import RouteTable

_WAIT_S = 3.0
"""Of one request, for all its waits: a controller that is away flips nothing back."""
_DEAD = frozenset({"unreachable", "cut"})


class Standby:
    """The waiting of one request."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._until: float | None = None

    async def has_taken_over(self, call: Call, route: ModelRoute, error: ModelyardError) -> bool:
        """Whether to ask again after this error; returns when other routes are there."""
        stands_by = any(slot.weight <= 0 and slot.replicas for slot in route.slots)
        if call.pinned or not stands_by or not _is_dead(error):
            return False
        now = time.monotonic()
        if self._until is None:
            self._until = min(now + _WAIT_S, call.received + route.policy.timeouts.total_s)
        changed = asyncio.Event()
        self._routes.on_change.append(changed.set)
        try:
            async with asyncio.timeout(self._until - now):
                while _same_weights(self._routes.model(route.name), route):
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return False
        finally:
            self._routes.on_change.remove(changed.set)
        call.trail.append(("standby", (time.monotonic() - now,)))
        return True


def _is_dead(error: ModelyardError) -> bool:
    """Whether it tells of processes that are gone, and not of answers that are bad or late."""
    if isinstance(error, UpstreamError):
        return outcome_of(error) in _DEAD
    return isinstance(error, NoReplica)


def _same_weights(found: ModelRoute | None, route: ModelRoute) -> bool:
    """Whether requests still go where they went."""
    if found is None:
        return False
    return [(s.digest, s.weight > 0) for s in found.slots] == [
        (s.digest, s.weight > 0) for s in route.slots
    ]
