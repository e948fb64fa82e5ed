"""From an admitted call to its answer: the model and its fallbacks, cache, replicas."""

import asyncio
import random
import time
from typing import Any, Protocol

import msgspec

from modelyard.core.cacheable import cache_key, cacheable
from modelyard.core.errors import (
    LimitExceeded,
    ModelyardError,
    NoReplica,
    Unavailable,
    Unsupported,
    UpstreamError,
)
from modelyard.core.routes import ModelRoute, SlotRoute
from modelyard.core.routing import choose_slot
from modelyard.gateway.admission import Admission
from modelyard.gateway.cache import AnswerCache, Entry
from modelyard.gateway.calls import Answer, Call
from modelyard.gateway.context import ContextFitter
from modelyard.gateway.flights import Flight, Flights, Seat
from modelyard.gateway.outlet import Outlet
from modelyard.gateway.placing import Moved, no_replica
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.standby import Standby
from modelyard.wire import replay, sse
from modelyard.wire.assembly import ASSEMBLIES
from modelyard.wire.openai import read_answer

_FIELDS = msgspec.json.Decoder(dict[str, Any])
_SSE = (b"content-type", b"text/event-stream")
_NO_CACHE = (b"cache-control", b"no-cache")


class Asking(Protocol):
    """Asks the replicas of one slot: `Attempts`, and what stands before them."""

    async def run(
        self, call: Call, route: ModelRoute, slot: SlotRoute, client: Outlet
    ) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client."""

    async def until_served(self, call: Call, route: ModelRoute) -> None:
        """Wait, where the policy says so, until a slot has a replica; raises NoReplica."""


class Dispatcher:
    """Brings a call to an answer, or raises what the client is told."""

    def __init__(
        self,
        routes: RouteTable,
        admission: Admission,
        attempts: Asking,
        fitter: ContextFitter,
        cache: AnswerCache,
        draws: random.Random,
    ) -> None:
        self._routes = routes
        self._admission = admission
        self._attempts = attempts
        self._fitter = fitter
        self._cache = cache
        self._flights = Flights()
        self._draws = draws

    async def run(self, call: Call, client: Outlet) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client.

        Fallback models are tried in the policy's order, while nothing has reached the client
        (promise G26).
        """
        route = call.route
        if route is None:
            raise ValueError("the call was not admitted")
        first: ModelyardError | None = None
        for name in (route.name, *(() if call.pinned else route.policy.fallbacks)):
            if first is not None and not self._admission.enter_fallback(call, name):
                continue
            try:
                return await self._of_model(call, name, client)
            except (UpstreamError, Unavailable, LimitExceeded) as error:
                if client.head_sent or (first is None and isinstance(error, LimitExceeded)):
                    raise
                call.trail.append(("model", (name, error.code)))
                first = first or error
        raise first or NoReplica(f"no replica of {route.name!r} is ready")

    async def _of_model(self, call: Call, name: str, client: Outlet) -> Answer | None:
        self._admission.reserve(call)
        call.mark("admission", model=name, limits=call.limits)
        standby = Standby(self._routes)
        while True:
            route = self._routes.model(name)
            if route is None:
                raise NoReplica(f"the model {name!r} was taken away", retry_after_s=1.0)
            call.route = route
            slot = self._slot(call, route)
            try:
                if slot is None:
                    await self._attempts.until_served(call, route)
                    continue
                await self._fitter.fit(call, route, slot)
                return await self._of_slot(call, route, slot, client)
            except Moved:
                continue
            except (UpstreamError, NoReplica) as error:
                if client.head_sent or not await standby.has_taken_over(call, route, error):
                    raise

    def _slot(self, call: Call, route: ModelRoute) -> SlotRoute | None:
        """The slot that takes the call; None when none has a replica, and one may be waited for."""
        if call.pinned:
            slot = next((s for s in route.slots if s.slot == call.pinned and s.replicas), None)
            if slot is None:
                raise no_replica(route)
        else:
            slot = choose_slot(route, draw=self._draws.random(), sticky=call.caller)
        if slot is None:
            return None
        if call.operation not in slot.operations:
            raise Unsupported(
                f"{call.operation} is not done by the engine behind {route.name!r}",
                next_step=f"it does: {', '.join(slot.operations)}",
            )
        call.slot = slot
        return slot

    # --- the cache -------------------------------------------------------------------------------

    async def _of_slot(
        self, call: Call, route: ModelRoute, slot: SlotRoute, client: Outlet
    ) -> Answer | None:
        key = self._cache_key(call, route, slot)
        if key is None:
            if call.cache != "off":
                call.mark("cache", result=call.cache)
            return await self._attempts.run(call, route, slot, client)
        entry = None
        if b"no-cache" not in call.cache_control:
            entry = self._cache.get(key, route.policy.caching.ttl_s, time.monotonic())
        if entry is not None:
            return self._hit(call, entry, client)
        flight = self._flights.find(key) if route.policy.caching.single_flight else None
        if flight is not None:
            seat = flight.join(pays=False)
            call.cache = "joined"
            call.shares = True
        else:
            flight = Flight(call.branch(), self._cache.bounds.max_entry_bytes)
            seat = flight.join(pays=True)
            call.cache = "miss"
            self._take_off(flight, key, route, slot)
        call.mark("cache", result=call.cache)
        try:
            return await self._ride(call, flight, seat, client)
        except _Ask:
            call.cache, call.shares = "miss", False
            return await self._attempts.run(call, route, slot, client)

    def _cache_key(self, call: Call, route: ModelRoute, slot: SlotRoute) -> bytes | None:
        """The request's key; None when it may not be answered from the cache, nor kept."""
        caching, operation = route.policy.caching, call.operation
        if caching.mode == "off" or operation is None or call.pinned:
            call.cache = "off"
            return None
        call.cache = "bypass"
        if b"no-store" in call.cache_control:
            return None
        try:
            fields = _FIELDS.decode(call.body)
        except msgspec.MsgspecError:  # what we can't read in full is the engine's to judge
            return None
        if not cacheable(caching, operation, fields, opted_in=call.opted_in):
            return None
        # What was hashed is what is asked: a name that stands twice in an object is read in one way
        # by us and maybe in another by the engine.
        call.body = msgspec.json.encode(fields)
        return cache_key(call.tenant, slot.digest, operation, fields)

    def _hit(self, call: Call, entry: Entry, client: Outlet) -> Answer | None:
        call.cache = "hit"
        call.shares = True
        call.age_s = entry.age_s(time.monotonic())
        call.usage = entry.usage
        call.finish_reason = entry.finish_reason
        call.mark("cache", result="hit", age_s=call.age_s)
        if not call.stream:
            return Answer(200, entry.body, entry.content_type)
        self._replay(call, entry.body, client)
        return None

    def _replay(self, call: Call, body: bytes, client: Outlet) -> None:
        """Tell a whole answer as the stream that the client asked for."""
        try:
            parts = b"".join(replay.events(body, with_usage=not call.hides_usage))
        except ValueError as error:
            raise UpstreamError(str(error)) from None
        client.begin(200, [_SSE, _NO_CACHE, *call.headers()])
        client.write(parts)
        call.sent(len(parts), time.monotonic())
        client.end()

    # --- one request for several -----------------------------------------------------------------

    def _take_off(self, flight: Flight, key: bytes, route: ModelRoute, slot: SlotRoute) -> None:
        if route.policy.caching.single_flight:
            self._flights.add(key, flight)

        async def ask(call: Call, outlet: Flight) -> Answer | None:
            return await self._attempts.run(call, route, slot, outlet)

        def ended(flight: Flight) -> None:
            self._flights.remove(key, flight)
            if flight.error is None and (flight.seats or flight.call.end_seen):
                self._keep(flight, key)

        flight.start(ask, ended)

    def _keep(self, flight: Flight, key: bytes) -> None:
        """Put the answer into the cache, if it is a whole one that fits (promise G16)."""
        answer, made = flight.answer, flight.call
        if answer is None:
            answer = _assembled(flight)
        if answer is None or answer.status != 200 or not answer.content_type.startswith(b"app"):
            return
        self._cache.put(
            key,
            Entry(answer.body, answer.content_type, made.usage, made.finish_reason,
                  time.monotonic()),
        )  # fmt: skip

    async def _ride(self, call: Call, flight: Flight, seat: Seat, client: Outlet) -> Answer | None:
        """Take the answer from the flight; raises _Ask when it has none for this client."""
        try:
            if call.stream:
                await flight.until(lambda: flight.head_sent)
                if flight.head_sent:
                    await self._follow(call, flight, seat, client)
                    return None
            else:
                await flight.until(lambda: not flight.whole)
            return self._landed(call, flight, seat, client)
        finally:
            await flight.leave(seat)
            if seat.pays:
                call.adopt(flight.call)
                call.shares = False
            else:
                call.slot, call.replica = flight.call.slot, flight.call.replica

    def _landed(self, call: Call, flight: Flight, seat: Seat, client: Outlet) -> Answer | None:
        """The flight is over, and nothing of it was sent on."""
        if flight.error is not None and seat.pays:
            raise flight.error
        answer = flight.answer or _assembled(flight)
        # An error is nobody else's answer, nor is a refusal.
        if answer is None or (answer.status != 200 and not seat.pays):
            raise _Ask
        call.usage, call.finish_reason = flight.call.usage, flight.call.finish_reason
        if not call.stream or answer.status != 200:
            return answer
        self._replay(call, answer.body, client)
        return None

    async def _follow(self, call: Call, flight: Flight, seat: Seat, client: Outlet) -> None:
        """Send the stream on while it comes, at this client's pace."""
        room = asyncio.Event()
        room.set()

        def on_writable(writable: bool) -> None:
            if writable:
                room.set()
            else:
                room.clear()

        client.on_writable = on_writable
        call.slot, call.replica = flight.call.slot, flight.call.replica
        client.begin(200, [_SSE, _NO_CACHE, *call.headers(len(flight.call.attempts) + 1)])
        splitter = sse.EventSplitter()
        while True:
            ended = flight.done
            for part in flight.take(seat):
                shown = _shown(call, splitter, part)
                if shown:
                    client.write(shown)
                    call.sent(len(shown), time.monotonic())
            if not client.writable:
                room.clear()
                await room.wait()
            elif ended:
                break
            else:
                try:
                    await flight.until(lambda: flight.behind(seat.taken))
                except asyncio.CancelledError:  # who closes at the end mark has the whole answer
                    if not flight.call.end_seen or flight.behind(seat.taken):
                        raise
                    break
        client.on_writable = None
        if flight.error is not None:
            raise flight.error
        call.usage, call.finish_reason = flight.call.usage, flight.call.finish_reason
        client.end()


class _Ask(Exception):
    """The flight has no answer for this client: it asks for itself."""


def _shown(call: Call, splitter: sse.EventSplitter, part: bytes) -> bytes:
    """What of a part is this client's: not the usage, where it did not ask for it."""
    if not call.hides_usage:
        return part
    shown = []
    for event in splitter.feed(part):
        payload = sse.data_of(event) if b'"usage"' in event else None
        view = None if payload is None else read_answer(payload)
        if view is None or view.usage is None or view.choices or view.failed:
            shown.append(event)
    return b"".join(shown)


def _assembled(flight: Flight) -> Answer | None:
    """The streamed answer as a whole one; None when it is too large or of another form."""
    made_by = None if flight.call.operation is None else ASSEMBLIES.get(flight.call.operation)
    if flight.error is not None or not flight.whole or made_by is None:
        return None
    assembly = made_by()
    try:
        for event in sse.EventSplitter().feed(flight.stream()):
            payload = sse.data_of(event)
            if payload is not None and payload.strip() != sse.DONE:
                assembly.feed(payload)
        return Answer(200, assembly.whole())
    except ValueError:
        return None
