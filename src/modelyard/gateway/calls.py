"""A call: one accepted request on its way, and what it gathers for its record."""

import time
from collections.abc import Callable

import msgspec

from modelyard.core.cost import HOUR_S, Price
from modelyard.core.keys import KeyPut, Priority
from modelyard.core.records import Attempt, AttemptOutcome, CacheResult
from modelyard.core.routes import ModelRoute, Operation, Slot, SlotRoute
from modelyard.core.spans import Traced, Value
from modelyard.gateway.limits import Reservation
from modelyard.gateway.routes import LiveReplica
from modelyard.wire.http import Header
from modelyard.wire.openai import RequestView, Usage
from modelyard.wire.transcripts import Transcript

PATHS: dict[str, Operation] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
}
TARGETS: dict[Operation, bytes] = {operation: path.encode() for path, operation in PATHS.items()}


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"


class Call:
    """One request. Times are monotonic seconds, `received_at` Unix seconds."""

    __slots__ = (
        "age_s",
        "attempts",
        "body",
        "cache",
        "cache_control",
        "end_seen",
        "events",
        "finish_reason",
        "first_byte",
        "gap_max_s",
        "hides_usage",
        "key",
        "last_byte",
        "limits",
        "model",
        "on_dispatch",
        "operation",
        "opted_in",
        "overflow",
        "pinned",
        "price",
        "queue_s",
        "received",
        "received_at",
        "replica",
        "replica_cost",
        "replica_s",
        "request_bytes",
        "request_id",
        "reservation",
        "response_bytes",
        "route",
        "said",
        "session",
        "shares",
        "slot",
        "stream",
        "trace_parent",
        "trace_state",
        "traced",
        "trail",
        "usage",
        "view",
    )

    def __init__(self, request_id: str, received_at: float) -> None:
        self.request_id = request_id
        self.received_at = received_at
        self.received = time.monotonic()
        self.operation: Operation | None = None
        self.route: ModelRoute | None = None
        self.model: str | None = None
        """Public name asked for, when it is a known one."""
        self.body = b""
        """What is sent to the replica."""
        self.stream = False
        self.hides_usage = False
        """The gateway asked for usage in a last chunk that the client did not ask for."""
        self.trace_parent = b""
        """What the replica is told of the trace: `traceparent`, and with it `tracestate`."""
        self.trace_state = b""
        self.traced: Traced | None = None
        """What its span is known by, and what happened on the way; None: it gets none."""
        self.view: RequestView | None = None
        """What was read of the request."""
        self.key: KeyPut | None = None
        """Who asks; None where no key is needed."""
        self.session = ""
        """What the client says that the request belongs to."""
        self.pinned: Slot | None = None
        """The slot that the controller asks, whatever the shares are."""
        self.cache_control = b""
        self.opted_in = False
        """The client lets its answer be kept and reused."""
        self.reservation: Reservation | None = None
        self.limits: tuple[str, ...] = ()
        """Limits that were looked at, as `kind:scope`."""
        self.trail: list[tuple[str, object]] = []
        """What was decided on the way, for `explain`: a word, and what it was decided on."""
        self.on_dispatch: Callable[[], None] | None = None
        """Told once, when it is about to be sent to a replica for the first time."""
        self.overflow = ""
        """What was done about a request that did not fit into the context."""
        self.said: Transcript | None = None
        """What it was answered; None where that is not kept (promise O7)."""
        self.shares = False
        """The answer was made for several requests, and another one pays for it."""
        self.age_s: int | None = None
        """Of an answer from the cache."""
        self.queue_s = 0.0
        self.replica_s = 0.0
        """Seconds of replicas that it had for itself, by `LiveReplica.share_s`."""
        self.replica_cost: float | None = 0.0
        """What they cost; None when one of them has no price."""
        self.price: Price | None = None
        """Of the replica that was asked last, as it was then."""
        self.slot: SlotRoute | None = None
        self.replica: LiveReplica | None = None
        self.attempts: list[Attempt] = []
        self.cache: CacheResult = "off"
        self.first_byte: float | None = None
        self.last_byte: float | None = None
        self.gap_max_s = 0.0
        self.events = 0
        """Events with data that were relayed: about one for each token."""
        self.end_seen = False
        """The end mark of its stream was relayed: whoever reads it has the whole answer."""
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.request_bytes = 0
        self.response_bytes = 0

    @property
    def tenant(self) -> str:
        """Whose answers it may get from the cache; empty where no key is needed."""
        return self.key.tenant if self.key is not None else ""

    @property
    def priority(self) -> Priority:
        """Of its key."""
        return self.key.priority if self.key is not None else "normal"

    @property
    def sticky(self) -> str:
        """What its slot and replica are held to, empty for nothing."""
        by = self.route.policy.sticky_by if self.route is not None else "none"
        if by == "key":
            return self.key.key_id if self.key is not None else ""
        if by == "user":
            return (self.view.user if self.view is not None else None) or ""
        return self.session if by == "session" else ""

    @property
    def caller(self) -> str:
        """Who stays with one version while shares change (promise D6), empty for nobody.

        What the policy says (`sticky_by`); where it says nothing, the user or the session that the
        request names. Not the key by itself: it is one program's, and a share of a few programs is
        all of their requests or none.
        """
        if self.route is not None and self.route.policy.sticky_by != "none":
            return self.sticky
        key = self.key.key_id if self.key is not None else ""
        user = (self.view.user if self.view is not None else None) or ""
        named = f"user {user}" if user else f"session {self.session}" if self.session else ""
        return f"{key}\0{named}" if named else ""

    def branch(self) -> "Call":
        """A call for the same request that gathers what is asked for several of them."""
        other = Call(self.request_id, self.received_at)
        for name in ("received", "operation", "route", "model", "body", "stream", "trace_parent",
                     "trace_state", "traced", "view", "key", "session", "slot", "trail",
                     "pinned"):  # fmt: skip
            setattr(other, name, getattr(self, name))
        return other

    def adopt(self, other: "Call") -> None:
        """Take over what a branch gathered: this call answers for it."""
        for name in ("slot", "replica", "usage", "finish_reason", "events", "queue_s", "replica_s",
                     "replica_cost", "price"):  # fmt: skip
            setattr(self, name, getattr(other, name))
        self.attempts = list(other.attempts)

    def spend(self, price: Price | None, seconds: float) -> None:
        """Note that it had a replica of this price for itself for so long."""
        self.replica_s += seconds
        self.price = price
        if price is None or self.replica_cost is None:
            self.replica_cost = None
        else:
            self.replica_cost += price.replica_hour * seconds / HOUR_S

    def begin_attempt(self) -> None:
        """Forget what an earlier attempt answered: none of it has reached the client."""
        told, self.on_dispatch = self.on_dispatch, None
        if told is not None:
            told()
        self.events = 0
        self.end_seen = False
        self.usage = None
        self.finish_reason = None

    def mark(self, name: str, **facts: Value) -> None:
        """Note that something happened now, where the call gets a span."""
        if self.traced is not None:
            self.traced.moments.append((name, time.monotonic() - self.received, facts))

    def sent(self, size_bytes: int, now: float) -> None:
        """Note that bytes of the answer went to the client."""
        if self.first_byte is None:
            self.first_byte = now
        elif self.last_byte is not None:
            self.gap_max_s = max(self.gap_max_s, now - self.last_byte)
        self.last_byte = now
        self.response_bytes += size_bytes

    def attempted(
        self,
        replica: LiveReplica,
        begun: float,
        outcome: AttemptOutcome,
        note: tuple[str, int | None],
    ) -> None:
        """Note how a sending to a replica ended; `note` is why it was chosen, and its status."""
        reason, status = note
        now = time.monotonic()
        slot = self.slot or replica.slot  # that of the request: routes may have changed meanwhile
        self.attempts.append(
            Attempt(
                replica=replica.route.id,
                slot=slot.slot,
                digest=slot.digest,
                outcome=outcome,
                started_s=begun - self.received,
                duration_s=now - begun,
                status=status,
                reason=reason,
            )
        )

    def headers(self, attempts: int | None = None) -> list[Header]:
        """What every answer says of itself: who made it, and in how many attempts."""
        made = len(self.attempts) if attempts is None else attempts
        headers: list[Header] = [(b"x-request-id", self.request_id.encode())]
        if self.slot is not None and self.route is not None:
            if self.slot.version is not None:
                name = self.slot.model or self.route.name
                headers.append((b"x-modelyard-version", f"{name}:{self.slot.version}".encode()))
            headers.append((b"x-modelyard-digest", self.slot.digest.encode()))
            headers.append((b"x-modelyard-model", self.route.name.encode()))
        headers.append((b"x-modelyard-cache", self.cache.encode()))
        headers.append((b"x-modelyard-attempts", b"%d" % made))
        if self.age_s is not None:
            headers.append((b"age", b"%d" % self.age_s))
        if self.overflow:
            headers.append((b"x-modelyard-context", self.overflow.encode()))
        return headers
