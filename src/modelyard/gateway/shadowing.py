"""Copies of live requests for a version on trial, whose answers nobody gets (promise D7).

A copy begins when the live request is on its way to a replica, in a task of its own, on connections
of its own, and has nothing that the live one could wait for. It is not made at all where the
gateway or the replicas have something better to do. Its answer is read, compared with the live one
and forgotten. It ends with the client: what a client did not wait for is no evidence of either
version, and the longer answers would be missing on one side alone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec

from modelyard.core.agreement import agreement
from modelyard.core.errors import ClientLeft, ModelyardError, NoReplica, Unavailable, Unsupported
from modelyard.core.health import State
from modelyard.core.records import Outcome
from modelyard.core.routes import Caching, ModelRoute, Queueing, Retries, Slot, SlotRoute
from modelyard.core.routing import is_copied
from modelyard.gateway.accounting import Accounting, CopyEnd
from modelyard.gateway.attempts import Attempts
from modelyard.gateway.calls import Answer, Call
from modelyard.gateway.outlet import Nobody, Outlet, Overheard
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.upstream import AnswerTooLarge
from modelyard.gateway.waiting import WaitingRoom
from modelyard.wire.transcripts import MAX_WHOLE_BYTES, Transcript

log = logging.getLogger(__name__)

MAX_COPIES = 64
"""Under way at once in one gateway."""
MAX_HELD_BYTES = 32 * 1024 * 1024
"""Of their requests."""
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""Of an answer that is not streamed; of a stream, no more is kept than is compared."""
MAX_RECORDS_WAITING = 2000
"""Records that the controller has not taken: nobody judges, and the live ones need the room."""


class Shadowing:
    """Asks the replicas of one slot, as `Attempts` does, and those of another one on the side."""

    def __init__(
        self,
        live: Attempts,
        copies: Attempts,
        routes: RouteTable,
        room: WaitingRoom,
        accounting: Accounting,
        records_waiting: Callable[[], int],
    ) -> None:
        """`copies`: attempts with a retry budget of their own."""
        self._live = live
        self._attempts = copies
        self._routes = routes
        self._room = room
        self._accounting = accounting
        self._records_waiting = records_waiting
        self._under_way: set[_Copy] = set()
        self._closed = False
        routes.on_change.append(self._follow_routes)

    async def run(
        self, call: Call, route: ModelRoute, slot: SlotRoute, client: Outlet
    ) -> Answer | None:
        """Return the whole live answer, or None when it was streamed to the client."""
        shadow = route.shadow
        if shadow is None or call.pinned or not is_copied(shadow, call.request_id):
            return await self._live.run(call, route, slot, client)
        copy = _Copy(call, route, shadow.slot)
        call.on_dispatch = lambda: self._begin(copy)
        try:
            answer = await self._live.run(call, route, slot, Overheard(client, copy.live_text.feed))
        except asyncio.CancelledError:
            copy.end_with("client")
            raise
        except BaseException:
            copy.live_failed()
            raise
        finally:
            call.on_dispatch = None
        copy.live_answered(answer)
        return answer

    async def until_served(self, call: Call, route: ModelRoute) -> None:
        """Wait, where the policy says so, until a slot has a replica; raises NoReplica."""
        await self._live.until_served(call, route)

    async def close(self) -> None:
        """End all copies, and make no more."""
        self._closed = True
        for copy in list(self._under_way):
            copy.end_with("shut_down")
        tasks = [copy.task for copy in self._under_way if copy.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- whether one is made ---------------------------------------------------------------------

    def _begin(self, copy: "_Copy") -> None:
        """The live request is about to be sent. Whatever happens here is not its concern."""
        try:
            refusal = self._refusal(copy)
            if refusal:
                self._drop(copy, refusal)
                return
            copy.call = self._accounting.begin_copy(copy.live)
            self._under_way.add(copy)
            copy.task = asyncio.get_running_loop().create_task(self._serve(copy, copy.call))
            copy.task.add_done_callback(lambda _: self._over(copy))
        except Exception:  # a defect in what nobody asked for must not fail what somebody did
            log.exception("a copy of request %s failed", copy.live.request_id)

    def _refusal(self, copy: "_Copy") -> str:
        """Why no copy is made now, in a word; empty when one is."""
        held = sum(len(other.live.body) for other in self._under_way) + len(copy.live.body)
        slot = copy.slot
        if self._closed:
            return "draining"
        if slot is None or not self._routes.live(slot):
            return "none_ready"
        if copy.live.operation not in slot.operations:
            return "unsupported"
        if len(self._under_way) >= MAX_COPIES or held > MAX_HELD_BYTES:
            return "too_many"
        if not self._room.passes(copy.route.name, "low"):
            return "live_queues"
        return "records" if self._records_waiting() > MAX_RECORDS_WAITING else ""

    def _drop(self, copy: "_Copy", reason: str) -> None:
        self._accounting.drop_copy(copy.live.model, reason, copy.call)
        copy.live_text.stop()
        copy.tell(f"dropped: {reason}", None)

    def _follow_routes(self) -> None:
        """End the copies that nobody wants any more: their version may be leaving."""
        for copy in list(self._under_way):
            route = self._routes.model(copy.route.name)
            shadow = None if route is None else route.shadow
            wanted = route and shadow and _slot(route, shadow.slot)
            if not wanted or copy.slot is None or wanted.digest != copy.slot.digest:
                copy.end_with("shut_down")

    # --- one copy --------------------------------------------------------------------------------

    async def _serve(self, copy: "_Copy", call: Call) -> None:
        try:
            await self._ask(copy, call)
        except Exception:  # the edge of a copy: our own defect is no evidence against a version
            log.exception("the copy %s failed", call.request_id)
            self._drop(copy, "defect")

    def _over(self, copy: "_Copy") -> None:
        """Its task is over; one that was cancelled before its first step did nothing."""
        self._under_way.discard(copy)
        if copy.call is not None and copy.call in self._accounting.copies:
            self._cancelled(copy, copy.call)

    async def _ask(self, copy: "_Copy", call: Call) -> None:
        slot = copy.slot
        if slot is None:
            raise ValueError("the copy has no slot")
        call.slot = slot
        try:
            answer = await self._attempts.run(
                call, _alone(copy.route), slot, Nobody(copy.own_text.feed)
            )
        except asyncio.CancelledError:
            self._cancelled(copy, call)
            return
        except NoReplica as error:
            if self._rests(slot):  # a live request would have failed at it
                self._end(copy, call, "failed", error.status, error.code)
            else:
                self._drop(copy, "busy")
            return
        except AnswerTooLarge:
            self._drop(copy, "too_large")
            return
        except ModelyardError as error:
            if call.attempts and call.attempts[-1].outcome == "busy":
                self._drop(copy, "busy")
            else:
                outcome: Outcome = "rejected" if isinstance(error, Unsupported) else "failed"
                self._end(copy, call, outcome, error.status, error.code)
            return
        await self._answered(copy, call, answer)

    async def _answered(self, copy: "_Copy", call: Call, answer: Answer | None) -> None:
        ended = time.monotonic()
        if answer is not None and answer.status >= 400:
            self._end(copy, call, "rejected", answer.status, f"upstream_{answer.status}")
            return
        if answer is not None:
            call.sent(len(answer.body), ended)
            copy.own_text.read(answer.body)
        del answer
        with contextlib.suppress(asyncio.CancelledError):  # it has its answer already
            await copy.until_live_is_over()
        if copy.ends_with == "client":
            self._cancelled(copy, call)
            return
        took_s = ended - call.received
        self._end(copy, call, "completed", 200, None, took_s, copy.agreement())

    def _cancelled(self, copy: "_Copy", call: Call) -> None:
        by_client = copy.ends_with == "client"
        status = ClientLeft.status if by_client else Unavailable.status
        self._end(copy, call, "cancelled", status, ClientLeft.code if by_client else "shut_down")

    def _end(
        self,
        copy: "_Copy",
        call: Call,
        outcome: Outcome,
        status: int,
        error_code: str | None,
        took_s: float | None = None,
        agreed: float | None = None,
    ) -> None:
        end = CopyEnd(
            live_id=copy.live.request_id,
            outcome=outcome,
            status=status,
            error_code=error_code,
            took_s=time.monotonic() - call.received if took_s is None else took_s,
            agreement=agreed,
        )
        self._accounting.finish_copy(call, end)
        copy.live_text.stop()
        copy.tell(outcome, agreed)

    def _rests(self, slot: SlotRoute) -> bool:
        """Whether all of the slot's replicas are left alone for their failures."""
        replicas = self._routes.live(slot)
        return bool(replicas) and all(r.circuit.state is not State.CLOSED for r in replicas)


class _Copy:
    """A live request, and what another version makes of it."""

    def __init__(self, live: Call, route: ModelRoute, shadow: Slot) -> None:
        self.live = live
        self.route = route
        self.slot = _slot(route, shadow)
        self.call: Call | None = None
        self.task: asyncio.Task[None] | None = None
        self.live_text = Transcript(live.operation)
        self.own_text = Transcript(live.operation)
        self.ends_with = ""
        """What ended it before its time: `client`, `shut_down`."""
        self._live_over = asyncio.Event()
        self._live_body: bytes | None = None
        self._live_whole = False

    def live_answered(self, answer: Answer | None) -> None:
        """The live answer is whole."""
        self._live_whole = answer is None or answer.status < 400
        if answer is not None and len(answer.body) <= MAX_WHOLE_BYTES:
            self._live_body = answer.body
        elif answer is not None:
            self._live_whole = False
        self._live_over.set()

    def live_failed(self) -> None:
        """There is no live answer to compare with."""
        self._live_over.set()

    def end_with(self, reason: str) -> None:
        """Leave off: the client has left, or nobody wants to know any more."""
        self.ends_with = self.ends_with or reason
        self._live_over.set()
        if self.task is not None:
            self.task.cancel()

    async def until_live_is_over(self) -> None:
        """Wait for the live answer's end, however it ends."""
        await self._live_over.wait()

    def agreement(self) -> float | None:
        """How much of both answers is the same; None unless both are whole and not too long."""
        if not self._live_whole:
            return None
        if self._live_body is not None:
            self.live_text.read(self._live_body)
        live, own = self.live_text.text, self.own_text.text
        return None if live is None or own is None else agreement(live, own)

    def tell(self, outcome: str, agreed: float | None) -> None:
        """Note for `explain` of the live request what became of its copy."""
        version = None if self.slot is None else self.slot.version
        name = "" if self.call is None else self.call.request_id
        self.live.trail.append(("shadow", (name, version, outcome, agreed)))


def _slot(route: ModelRoute, name: Slot) -> SlotRoute | None:
    return next((slot for slot in route.slots if slot.slot == name), None)


def _alone(route: ModelRoute) -> ModelRoute:
    """The route as a copy goes along it: asked once, never in line, and with a name of its own, so
    that it does not take the live requests' turns."""
    policy = msgspec.structs.replace(
        route.policy,
        retries=Retries(max_attempts=1),
        queueing=Queueing(),
        caching=Caching(),
        fallbacks=(),
    )
    return msgspec.structs.replace(route, name=f"{route.name} (shadow)", policy=policy)
