"""Which replica takes a request now, and what happens while none does."""

import random
import time
from collections.abc import Sequence

from modelyard.core.affinity import PrefixIndex, prefix_keys
from modelyard.core.errors import ModelyardError, NoReplica
from modelyard.core.health import State, outliers
from modelyard.core.routes import ModelRoute, Policy, Queueing, SlotRoute
from modelyard.core.routing import Load, choose
from modelyard.gateway.calls import Call
from modelyard.gateway.routes import LiveReplica, RouteTable
from modelyard.gateway.waiting import WaitingRoom

_MOMENT_S = 0.02
HELD_AT_MOST = 1000
"""Requests that are kept in line while one version makes room for another."""
_SHOWN = 16
"""Replicas that `explain` is told of at most."""
Place = tuple[LiveReplica, str]
"""A replica, and why it was chosen, in a word."""


class Moved(Exception):
    """The slot is gone: another version has taken its place while the request waited."""


class Placer:
    """Chooses replicas by policy, load and health; keeps those in line that none takes."""

    def __init__(self, routes: RouteTable, draws: random.Random) -> None:
        self._routes = routes
        self._draws = draws
        self._prefixes = PrefixIndex()
        self.room = WaitingRoom()
        routes.on_change.append(self.room.poke_all)
        routes.on_free = self.room.poke

    async def place(self, call: Call, route: ModelRoute, slot: SlotRoute, tried: set[str]) -> Place:
        """A replica of the slot that was not tried yet; waits for one where the policy says so.

        Raises NoReplica (503 with Retry-After), Moved.
        """
        keys = self._prefix_keys(call, route, slot)
        queueing = route.policy.queueing
        # Without a queue, whoever is in line waits for a slot and not for this place; and the
        # controller asks a slot of its own.
        passes = queueing.max_waiting == 0 or bool(call.pinned)
        passes = passes or self.room.passes(route.name, call.priority)
        found = self._look(call, route, slot, tried, keys) if passes else None
        if found is None and queueing.max_waiting > 0 and not tried:
            begun = time.monotonic()
            try:
                found = await self.room.wait(
                    route.name,
                    call.priority,
                    queueing,
                    lambda: self._look_again(call, route, slot, keys),
                    back_in_s=lambda: self._back_in_s(slot),
                    full=lambda why: self._none(route, slot, why),
                )
            finally:
                call.queue_s += time.monotonic() - begun
        if found is None:
            raise self._none(route, slot, "")
        if keys:
            self._prefixes.note(keys, found[0].route.id)
        call.mark("choose", replica=found[0].route.id, slot=slot.slot, reason=found[1])
        return found

    async def until_served(self, call: Call, route: ModelRoute) -> None:
        """Wait until some slot of the model has a replica, or the model is gone.

        Raises NoReplica where requests are not kept in line, or none came in time.
        """
        queueing = route.policy.queueing
        if route.holds:
            room = max(queueing.max_waiting, HELD_AT_MOST)
            total_s = route.policy.timeouts.total_s
            queueing = Queueing(max_waiting=room, deadline_s=total_s)
        if queueing.max_waiting == 0:
            raise no_replica(route)
        begun = time.monotonic()
        try:
            await self.room.wait(
                route.name,
                call.priority,
                queueing,
                lambda: self._is_served(route.name) or None,
                back_in_s=lambda: 0.0,
                full=lambda why: no_replica(route, why),
            )
        finally:
            call.queue_s += time.monotonic() - begun

    def _is_served(self, model: str) -> bool:
        route = self._routes.model(model)
        return route is None or any(slot.weight > 0 and slot.replicas for slot in route.slots)

    def take_out_outliers(self, slot: SlotRoute, policy: Policy) -> None:
        """Open the breakers of replicas that fail far more often than the others of the slot."""
        now = time.monotonic()
        asked = [live for live in self._routes.live(slot) if live.circuit.state is State.CLOSED]
        recent = [live.circuit.recent(now) for live in asked]
        for index in outliers(recent, policy.breaking):
            asked[index].circuit.trip(policy.breaking, now)

    def _look_again(
        self, call: Call, route: ModelRoute, slot: SlotRoute, keys: list[bytes]
    ) -> Place | None:
        """Look for a place after having waited; the routes may be others by now."""
        current = self._routes.model(route.name)
        if current is not route:
            same = (
                []
                if current is None
                else [s for s in current.slots if s.digest == slot.digest and s.slot == slot.slot]
            )
            if not same or (same[0].weight <= 0 and not call.pinned):
                raise Moved
            slot = same[0]
        return self._look(call, route, slot, set(), keys)

    def _look(
        self, call: Call, route: ModelRoute, slot: SlotRoute, tried: set[str], keys: list[bytes]
    ) -> Place | None:
        now = time.monotonic()
        replicas = [live for live in self._routes.live(slot) if live.route.id not in tried]
        loads = [
            Load(
                live.in_flight,
                live.route.weight,
                live.route.max_concurrency,
                live.route.id,
                live.circuit.takes(now),
            )
            for live in replicas
        ]
        if call.priority == "low" and _reserved(loads, route.policy):
            return None
        # A retry takes no turn: else the one that failed would get the next request's first try.
        turn = self._routes.next_turn(route.name) if not tried else len(tried)
        index, reason = choose(
            loads,
            route.policy.balancing,
            draw=self._draws.random(),
            turn=turn,
            sticky=call.sticky or call.session,
            favourite=self._favourite(keys, replicas),
        )
        call.trail.append(("choose", (slot.slot, index, reason, loads[:_SHOWN], len(loads))))
        if index is None:
            return None
        return replicas[index], f"retry:{reason}" if tried else reason

    def _prefix_keys(self, call: Call, route: ModelRoute, slot: SlotRoute) -> list[bytes]:
        if route.policy.balancing != "prefix_affinity" or call.view is None:
            return []
        return prefix_keys(call.tenant, slot.digest, call.view.prompt_parts)

    def _favourite(self, keys: list[bytes], replicas: Sequence[LiveReplica]) -> int | None:
        if not keys:
            return None
        places = {live.route.id: index for index, live in enumerate(replicas)}
        found, _ = self._prefixes.find(keys, places)
        return None if found is None else places[found]

    def _back_in_s(self, slot: SlotRoute) -> float:
        """Seconds until a breaker of the slot lets requests through again; 0: nobody knows."""
        # One that does so since the look a moment ago must not be missed: look again at once.
        now = time.monotonic() - _MOMENT_S
        waits = [live.circuit.back_in_s(now) for live in self._routes.live(slot)]
        return min((wait for wait in waits if wait > 0), default=0.0)

    def _none(self, route: ModelRoute, slot: SlotRoute, why: str) -> ModelyardError:
        replicas = self._routes.live(slot)
        if not replicas:
            return no_replica(route)
        now = time.monotonic()
        resting = sum(not live.circuit.takes(now) for live in replicas)
        back_s = min(live.circuit.back_in_s(now) for live in replicas)
        told = f"{resting} of {len(replicas)} rest after failures" if resting else "all are busy"
        return NoReplica(
            f"no replica of {route.name!r} takes the request: {told}{'; ' if why else ''}{why}",
            next_step="try again",
            retry_after_s=max(1.0, back_s if resting == len(replicas) else 0.0),
        )


def no_replica(route: ModelRoute, why: str = "") -> NoReplica:
    """The error for a model that nothing serves at the moment."""
    return NoReplica(
        f"no replica of {route.name!r} is ready{f': {why}' if why else ''}",
        next_step="try again; `modelyard status` shows what is starting",
        retry_after_s=1.0,
    )


def _reserved(loads: Sequence[Load], policy: Policy) -> bool:
    """Whether what is free is kept for requests of a higher priority."""
    if policy.queueing.reserve <= 0:
        return False
    bounds = [load.max_concurrency for load in loads if load.healthy]
    total = sum(bound for bound in bounds if bound is not None)
    if None in bounds or total == 0:
        return False
    free = total - sum(load.in_flight for load in loads if load.healthy)
    return free <= policy.queueing.reserve * total
