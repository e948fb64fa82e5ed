"""Choose a replica, send, and try another while nothing has reached the client."""

import asyncio
import random
import time

import msgspec

from modelyard.core.errors import (
    ModelyardError,
    NoReplica,
    Unavailable,
    Unsupported,
    UpstreamCut,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from modelyard.core.records import AttemptOutcome
from modelyard.core.retries import Failure, RetryBudget, decide
from modelyard.core.routes import ModelRoute, ReplicaRoute, SlotRoute
from modelyard.core.routing import Load, choose, choose_slot
from modelyard.gateway.calls import TARGETS, Answer, Call
from modelyard.gateway.connection import Connection
from modelyard.gateway.relay import MARKED_END, AnswerGatherer, StreamRelay, brief, note_answer
from modelyard.gateway.routes import LiveReplica, RouteTable
from modelyard.gateway.upstream import Exchange
from modelyard.wire import http
from modelyard.wire.openai import read_answer, with_fields

MAX_ANSWER_BYTES = 64 * 1024 * 1024
DAY_S = 86400.0
BUSY = frozenset({429, 503})


class BadStatus(UpstreamError):
    """The replica answered with a status that is its own fault, or that it is busy."""

    def __init__(self, status: int, body: bytes, retry_after: bytes) -> None:
        super().__init__(f"the replica answered {status}: {brief(body)}")
        self.answered = status
        self.retry_after_s = min(float(retry_after), DAY_S) if retry_after.isdigit() else None


class Dispatcher:
    """Brings a call to an answer, or raises what the client is told."""

    def __init__(self, routes: RouteTable, draws: random.Random) -> None:
        self._routes = routes
        self._draws = draws
        self._budget = RetryBudget()

    async def run(self, call: Call, client: Connection) -> Answer | None:
        """Return the whole answer, or None when it was streamed to the client.

        The retry loop ends with the first byte sent to the client (promise G5).
        """
        route = call.route
        if route is None:
            raise ValueError("the call was not admitted")
        self._budget.request(call.received)
        tried: set[str] = set()
        while True:
            choice = self._choose(call, route, tried)
            tried.add(choice[0].route.id)
            try:
                return await self._attempt(call, route, choice, client)
            except UpstreamError as error:
                # A failure in mid-stream must not use up what the budget has for others.
                delay = None if client.head_sent else self._retry_delay(call, route, error, tried)
                if delay is None:
                    raise _told(error) from None
            await asyncio.sleep(delay)

    def _choose(self, call: Call, route: ModelRoute, tried: set[str]) -> tuple[LiveReplica, str]:
        # A retry may leave its slot only if the slot has nobody else: the version stays the same.
        slot = call.slot if tried else choose_slot(route, draw=self._draws.random())
        if slot is None:
            raise NoReplica(
                f"no replica of {route.name!r} is ready",
                next_step="try again; `modelyard status` shows what is starting",
                retry_after_s=1.0,
            )
        if call.operation not in slot.operations:
            raise Unsupported(
                f"{call.operation} is not done by the engine behind {route.name!r}",
                next_step=f"it does: {', '.join(slot.operations)}",
            )
        replicas = [live for live in self._routes.live(slot) if live.route.id not in tried]
        loads = [
            Load(live.in_flight, live.route.weight, live.route.max_concurrency) for live in replicas
        ]
        balancing = route.policy.balancing
        # A retry takes no turn: else the one that failed would get the next request's first try.
        turn = self._routes.next_turn(route.name) if not tried else len(tried)
        index, reason = choose(loads, balancing, draw=self._draws.random(), turn=turn)
        if index is None:
            raise NoReplica(
                f"every replica of {route.name!r} is busy or out",
                next_step="try again",
                retry_after_s=1.0,
            )
        call.slot = slot
        call.replica = replicas[index]
        return replicas[index], f"retry:{reason}" if tried else reason

    def _retry_delay(
        self, call: Call, route: ModelRoute, error: UpstreamError, tried: set[str]
    ) -> float | None:
        now = time.monotonic()
        policy = route.policy.retries
        failure = Failure(
            outcome=outcome_of(error),
            attempt=len(tried),
            untried=sum(replica.id not in tried for replica in _replicas(call.slot)),
            left_s=call.received + route.policy.timeouts.total_s - now,
        )
        delay = decide(
            failure,
            policy,
            budget_allows=self._budget.allows(policy, now),
            draw=self._draws.random(),
        )
        if delay is not None:
            self._budget.retry(now)
        return delay

    async def _attempt(
        self, call: Call, route: ModelRoute, choice: tuple[LiveReplica, str], client: Connection
    ) -> Answer | None:
        replica, reason = choice
        begun = time.monotonic()
        call.begin_attempt()
        outcome: AttemptOutcome = "cancelled"
        exchange: Exchange | None = None
        try:
            with replica:
                try:
                    exchange = await self._send(call, route, replica)
                    answer = await self._receive(call, exchange, client)
                finally:
                    if exchange is not None:
                        exchange.abandon()
            outcome = "completed" if answer is None or answer.status < 400 else "refused"
            return answer
        except UpstreamError as error:
            outcome = outcome_of(error)
            raise
        finally:
            status = exchange.status if exchange is not None and exchange.head_seen else None
            call.attempted(replica, begun, outcome, (reason, status))

    async def _send(self, call: Call, route: ModelRoute, replica: LiveReplica) -> Exchange:
        """Send the request and wait for the head; a kept connection gone stale is replaced once."""
        timeouts = route.policy.timeouts
        as_stream = call.stream or _asked_as_stream(call, replica)
        if not as_stream:  # its first byte is its last: there is no first token to wait for
            timeouts = msgspec.structs.replace(timeouts, first_token_s=timeouts.total_s)
        payload = _payload(call, replica)
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

    async def _receive(self, call: Call, exchange: Exchange, client: Connection) -> Answer | None:
        content_type = exchange.headers.get(b"content-type", b"application/json")
        status = exchange.status
        if status < 400 and content_type.lower().startswith(b"text/event-stream"):
            if call.stream:
                await self._stream(call, exchange, client, content_type)
                return None
            return await self._gather(call, exchange)
        body = await exchange.body(MAX_ANSWER_BYTES)
        if status >= 500 or status in BUSY:
            raise BadStatus(status, body, exchange.headers.get(b"retry-after", b""))
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
        gatherer = AnswerGatherer(call, exchange, MAX_ANSWER_BYTES)
        exchange.relay(gatherer.feed)
        await exchange.until(lambda: False)
        return Answer(exchange.status, gatherer.whole())

    async def _stream(
        self, call: Call, exchange: Exchange, client: Connection, content_type: bytes
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
        await exchange.until(lambda: False)
        relay.finish()
        client.end()


def _replicas(slot: SlotRoute | None) -> tuple[ReplicaRoute, ...]:
    return slot.replicas if slot is not None else ()


def _asked_as_stream(call: Call, replica: LiveReplica) -> bool:
    """Whether a whole answer is asked for as a stream, so that the engine sees a client leave."""
    return replica.slot.ask_as_stream and not call.stream and call.operation in MARKED_END


def _payload(call: Call, replica: LiveReplica) -> bytes:
    if call.operation is None:
        raise ValueError("the call was not admitted")
    body = call.body
    if replica.route.upstream_model is not None:
        body = with_fields(body, {"model": replica.route.upstream_model})
    if _asked_as_stream(call, replica):
        body = with_fields(body, {"stream": True, "stream_options": {"include_usage": True}})
    headers: list[http.Header] = [
        (b"host", replica.pool.authority),
        (b"content-type", b"application/json"),
        (b"accept", b"text/event-stream, application/json"),
        (b"x-request-id", call.request_id.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    if call.trace_parent:
        headers.append((b"traceparent", call.trace_parent))
    target = replica.pool.prefix + TARGETS[call.operation]
    return http.request_head(b"POST", target, headers) + body


def outcome_of(error: UpstreamError) -> AttemptOutcome:
    """What an attempt that failed is called in the record."""
    if isinstance(error, BadStatus):
        return "busy" if error.answered in BUSY else "error_status"
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
