"""One slot asked: choose a replica, send, and try another while nothing has reached the client."""

import asyncio
import random
import time

import msgspec

from modelyard.core.errors import (
    ModelyardError,
    Unavailable,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelyard.core.health import SIGNALS, Signal
from modelyard.core.records import AttemptOutcome
from modelyard.core.retries import Failure, RetryBudget, decide
from modelyard.core.routes import ModelRoute, SlotRoute
from modelyard.gateway.admission import STREAMED_USAGE
from modelyard.gateway.calls import TARGETS, Answer, Call
from modelyard.gateway.outlet import Outlet
from modelyard.gateway.placing import Place, Placer
from modelyard.gateway.relay import AnswerGatherer, StreamRelay, brief, note_answer
from modelyard.gateway.routes import LiveReplica, RouteTable
from modelyard.gateway.upstream import AnswerTooLarge, Exchange
from modelyard.wire import http
from modelyard.wire.assembly import ASSEMBLIES
from modelyard.wire.openai import read_answer, with_fields

MAX_ANSWER_BYTES = 64 * 1024 * 1024
DAY_S = 86400.0
BUSY = frozenset({429, 503})
OUR_FAULT = frozenset({401, 403})
_ASIDE_S = 1.0
"""For a 429 that does not say for how long."""


class BadStatus(UpstreamError):
    """The replica answered with a status that is its own fault, or that it is busy."""

    def __init__(self, status: int, body: bytes, retry_after: bytes) -> None:
        super().__init__(f"the replica answered {status}: {brief(body)}")
        self.answered = status
        self.retry_after_s = min(float(retry_after), DAY_S) if retry_after.isdigit() else None


class Attempts:
    """Brings a call to an answer of one slot, or raises what the client is told."""

    def __init__(
        self,
        routes: RouteTable,
        placer: Placer,
        draws: random.Random,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        """`max_answer_bytes`: of an answer that is not streamed."""
        self._max_answer_bytes = max_answer_bytes
        self._routes = routes
        self._placer = placer
        self._draws = draws
        self._budget = RetryBudget()

    async def run(
        self, call: Call, route: ModelRoute, slot: SlotRoute, client: Outlet
    ) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client.

        The retry loop ends with the first byte sent to the client (promise G5).
        """
        self._budget.request(call.received)
        tried: set[str] = set()
        while True:
            place = await self._placer.place(call, route, slot, tried)
            call.slot = slot
            call.replica = place[0]
            tried.add(place[0].route.id)
            try:
                return await self._attempt(call, route, place, client)
            except UpstreamError as error:
                # A failure in mid-stream must not use up what the budget has for others.
                delay = None if client.head_sent else self._retry_delay(call, route, error, tried)
                if delay is None:
                    raise _told(error) from None
            await asyncio.sleep(delay)

    async def until_served(self, call: Call, route: ModelRoute) -> None:
        """Wait, where the policy says so, until a slot has a replica; raises NoReplica."""
        await self._placer.until_served(call, route)

    def _retry_delay(
        self, call: Call, route: ModelRoute, error: UpstreamError, tried: set[str]
    ) -> float | None:
        now = time.monotonic()
        policy = route.policy.retries
        replicas = () if call.slot is None else self._routes.live(call.slot)
        failure = Failure(
            outcome=outcome_of(error),
            attempt=len(tried),
            untried=sum(
                live.route.id not in tried and live.circuit.takes(now) for live in replicas
            ),
            left_s=call.received + route.policy.timeouts.total_s - now,
        )
        delay = decide(
            failure,
            policy,
            budget_allows=self._budget.allows(policy, now),
            draw=self._draws.random(),
        )
        call.trail.append(("retry", (failure, delay)))
        if delay is not None:
            self._budget.retry(now)
        return delay

    async def _attempt(
        self, call: Call, route: ModelRoute, place: Place, client: Outlet
    ) -> Answer | None:
        replica, reason = place
        begun = time.monotonic()
        call.begin_attempt()
        outcome: AttemptOutcome = "cancelled"
        exchange: Exchange | None = None
        excused = False
        price = replica.price  # another one is for the requests after it
        replica.circuit.begin(begun)
        try:
            with replica:
                share_s = replica.share_s()
                try:
                    exchange = await self._send(call, route, replica)
                    answer = await self._receive(call, exchange, client)
                finally:
                    if exchange is not None:
                        exchange.abandon()
                    call.spend(price, replica.share_s() - share_s)
            outcome = "completed" if answer is None or answer.status < 400 else "refused"
            return answer
        except UpstreamError as error:
            outcome = outcome_of(error)
            # What was asked for is to blame for a long answer that ran out of the request's time,
            # and for one that is too large: any replica would have failed at it.
            excused = isinstance(error, AnswerTooLarge)
            excused = excused or (exchange is not None and exchange.overran)
            if error.retry_after_s is not None or outcome == "busy":
                replica.circuit.put_aside(error.retry_after_s or _ASIDE_S, time.monotonic())
            raise
        finally:
            status = exchange.status if exchange is not None and exchange.head_seen else None
            call.attempted(replica, begun, outcome, (reason, status))
            judged = "cancelled" if excused else outcome
            replica.circuit.end(judged, route.policy.breaking, time.monotonic())
            if SIGNALS.get(judged) is Signal.FAILED:
                self._placer.take_out_outliers(replica.slot, route.policy)

    async def _send(self, call: Call, route: ModelRoute, replica: LiveReplica) -> Exchange:
        """Send the request and wait for the head; a kept connection gone stale is replaced once."""
        timeouts = route.policy.timeouts
        as_stream = call.stream or _asked_as_stream(call, replica)
        if not as_stream:  # its first byte is its last: there is no first token to wait for
            timeouts = msgspec.structs.replace(timeouts, first_token_s=timeouts.total_s)
        payload = _payload(call, replica, self._routes.authorization(replica))
        for fresh in (False, True):
            connection = await replica.pool.acquire(timeouts.connect_s, fresh=fresh)
            total_s = call.received + timeouts.total_s - time.monotonic()
            exchange = connection.send(payload, timeouts, total_s)
            try:
                await exchange.head()
            except UpstreamCut:
                exchange.abandon()
                if connection.used and not fresh:
                    continue
                raise
            except BaseException:
                exchange.abandon()
                raise
            return exchange
        raise UpstreamCut("the replica closed every connection")

    async def _receive(self, call: Call, exchange: Exchange, client: Outlet) -> Answer | None:
        content_type = exchange.headers.get(b"content-type", b"application/json")
        status = exchange.status
        if status < 400 and content_type.lower().startswith(b"text/event-stream"):
            if call.stream:
                await self._stream(call, exchange, client, content_type)
                return None
            return await self._gather(call, exchange)
        body = await exchange.body(self._max_answer_bytes)
        if status >= 500 or status in BUSY:
            raise BadStatus(status, body, exchange.headers.get(b"retry-after", b""))
        if status in OUR_FAULT and call.replica is not None and call.replica.route.credential:
            # Not the client's key was refused but ours, which it neither knows nor can mend.
            raise BadStatus(status, body, b"")
        if status < 400:
            self._note_whole(call, body)
        return Answer(status, body, content_type)

    def _note_whole(self, call: Call, body: bytes) -> None:
        view = read_answer(body)
        if view is None:
            raise UpstreamError(f"the replica's answer is not valid: {brief(body)!r}")
        if view.failed:
            raise UpstreamError(f"the replica answered with an error: {brief(bytes(view.error))}")
        note_answer(call, view)

    async def _gather(self, call: Call, exchange: Exchange) -> Answer:
        gatherer = AnswerGatherer(call, exchange, self._max_answer_bytes)
        exchange.relay(gatherer.feed)
        await exchange.until(lambda: False)
        return Answer(exchange.status, gatherer.whole())

    async def _stream(
        self, call: Call, exchange: Exchange, client: Outlet, content_type: bytes
    ) -> None:
        relay = StreamRelay(call, exchange, client)
        exchange.relay(relay.feed)
        await exchange.until(lambda: relay.first is not None)
        relay.check_first()
        client.begin(
            200,
            [
                (b"content-type", content_type),
                (b"cache-control", b"no-cache"),
                *call.headers(attempts=len(call.attempts) + 1),
            ],
        )
        relay.open()
        try:
            await exchange.until(lambda: False)
        except asyncio.CancelledError:
            # Some clients close at the end mark: the openai package's blocking one does so.
            if not (call.end_seen and client.writable):
                raise
        relay.finish()
        client.end()


def _asked_as_stream(call: Call, replica: LiveReplica) -> bool:
    """Whether a whole answer is asked for as a stream, so that the engine sees a client leave."""
    return replica.slot.ask_as_stream and not call.stream and call.operation in ASSEMBLIES


def _payload(call: Call, replica: LiveReplica, authorization: bytes | None) -> bytes:
    if call.operation is None:
        raise ValueError("the call was not admitted")
    body = call.body
    if replica.route.upstream_model is not None:
        body = with_fields(body, {"model": replica.route.upstream_model})
    if _asked_as_stream(call, replica):
        body = with_fields(body, {"stream": True})
        if call.operation in STREAMED_USAGE:
            body = with_fields(body, {"stream_options": {"include_usage": True}})
    headers: list[http.Header] = [
        (b"host", replica.pool.authority),
        (b"content-type", b"application/json"),
        (b"accept", b"text/event-stream, application/json"),
        (b"x-request-id", call.request_id.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    if call.trace_parent:
        headers.append((b"traceparent", call.trace_parent))
        if call.trace_state:
            headers.append((b"tracestate", call.trace_state))
    target = replica.pool.prefix + TARGETS[call.operation]
    return http.request_head(b"POST", target, headers) + body


def outcome_of(error: UpstreamError) -> AttemptOutcome:
    """What an attempt that failed is called in the record."""
    if isinstance(error, BadStatus):
        return "busy" if error.answered == 429 else "error_status"
    if isinstance(error, UpstreamUnreachable):
        return "unreachable"
    if isinstance(error, UpstreamTimeout):
        return "timeout"
    return "cut"


def _told(error: UpstreamError) -> ModelyardError:
    """What the client is told when no attempt is left."""
    if isinstance(error, BadStatus) and error.answered in BUSY:
        return Unavailable(
            error.message,
            next_step="every replica is busy; try again",
            retry_after_s=error.retry_after_s or 1.0,
        )
    return error
