"""One span per sampled request: whether there is one, and what it says.

Names are those of OpenTelemetry's conventions for generative AI (status: development; read in
November 2026 in open-telemetry/semantic-conventions-genai at 002c8a6, which builds on the general
conventions 1.41.1); what they have no name for begins with `modelyard.`. The conventions describe
the calling side, with spans of kind CLIENT. This is the other side: the span is what a caller's
CLIENT span has as its child, and service maps and error rates are drawn from spans of kind SERVER.

What happened on the way are events of the one span, not spans of their own: a request costs a
collector one span, and its path is read in one place. Nothing here holds a prompt or an answer.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence

import msgspec

from modelyard.core.records import RequestRecord
from modelyard.core.routes import Operation

PROVIDER = "modelyard"
"""`gen_ai.provider.name`: whose form of telemetry this is; the conventions allow names of one's
own, and none of theirs is what serves here."""
OPERATIONS: Mapping[Operation, str] = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "responses": "chat",
    "messages": "chat",
}
"""The conventions' names for ours; the paths are told apart by `modelyard.operation`."""
MAX_MOMENTS = 64
"""Of one request; later ones are left out and counted."""

Value = str | bool | int | float | tuple[str, ...]
Moment = tuple[str, float, dict[str, Value]]
"""What happened, how many seconds after acceptance, and what is to be said of it (without the
`modelyard.` before each name)."""

_RANDOM = 1 << 56
_PARENT = re.compile(
    rb"(?:00(?=-.{52}\Z)|(?!00|ff)[0-9a-f]{2})-"  # a later version may have more behind it
    rb"((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
_STATE = re.compile(rb"[\x20-\x7e\t]{1,512}")


class Traced(msgspec.Struct, kw_only=True):
    """A request that gets a span."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16."""
    parent_id: str = ""
    """Of the caller's span; empty at the root of a trace."""
    state: str = ""
    """The caller's `tracestate`."""
    moments: list[Moment] = []

    @property
    def parent_header(self) -> bytes:
        """`traceparent` for whoever is asked next: this request's span is theirs to hang from."""
        return f"00-{self.trace_id}-{self.span_id}-01".encode()


def trace_parent(header: bytes) -> bytes:
    """The header where it is one (W3C Trace Context, 3.2), else nothing."""
    return header if _PARENT.fullmatch(header) else b""


def trace_state(header: bytes) -> bytes:
    """The header where it can be passed on (W3C Trace Context, 3.3: 512 characters), else nothing.

    Only what the parser of a list must not stumble over is looked at: its members belong to others.
    """
    return header if _STATE.fullmatch(header) else b""


class Sampler:
    """Decides by the caller where it has decided, else by a hash of the request's id.

    The last 7 bytes of a trace id that is made here are what is compared, so that others who sample
    by trace id (OpenTelemetry, consistent probability sampling) keep the same traces.
    """

    def __init__(self, ratio: float) -> None:
        """`ratio`: share of the requests without a caller's decision, 0 to 1."""
        self._reject_below = _RANDOM - round(ratio * _RANDOM)

    def decide(self, request_id: str, parent: bytes, state: bytes) -> Traced | None:
        """What a request's span is known by, or None where it gets none."""
        known = _PARENT.fullmatch(parent) if parent else None
        if known is not None and not int(known[3], 16) & 1:
            return None
        made = hashlib.blake2b(request_id.encode(), digest_size=24).digest()
        span_id = made[16:].hex()
        if known is not None:
            return Traced(
                trace_id=known[1].decode(),
                span_id=span_id,
                parent_id=known[2].decode(),
                state=trace_state(state).decode(),
            )
        if int.from_bytes(made[9:16]) < self._reject_below:
            return None
        return Traced(trace_id=made[:16].hex(), span_id=span_id)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a record does not hold and a span tells."""

    answered_by: str | None = None
    """The model that made the answer, with its version."""
    max_tokens: int | None = None
    answers: int = 1
    server: tuple[str, int] | None = None
    """Address and port of the gateway."""


class SpanEvent(msgspec.Struct, frozen=True):
    """Something that happened within a span, at Unix nanoseconds."""

    name: str
    at_ns: int
    attributes: dict[str, Value]


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a span of kind SERVER. Times are Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    state: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]
    events: tuple[SpanEvent, ...]
    dropped_events: int
    failed: bool
    """Status ERROR. A refusal or a client's leaving is no failure of the server: their status stays
    unset, as the conventions for HTTP have it for 4xx on the server's side."""


def span_of(record: RequestRecord, traced: Traced, asked: Asked) -> Span:
    """The span of a request that ended."""
    start_ns = round(record.received_at * 1e6) * 1000  # a float knows no nanoseconds of our time
    kept = traced.moments[:MAX_MOMENTS]
    told: list[tuple[str, float, Mapping[str, Value | None]]] = [
        (name, after_s, {f"modelyard.{key}": value for key, value in facts.items()})
        for name, after_s, facts in kept
    ]
    told += _moments(record)
    return Span(
        trace_id=traced.trace_id,
        span_id=traced.span_id,
        parent_id=traced.parent_id,
        state=traced.state,
        name=_name(record),
        start_ns=start_ns,
        end_ns=start_ns + round(record.e2e_s * 1e9),
        attributes=_present(_conventional(record, asked) | _own(record)),
        events=tuple(
            SpanEvent(name, start_ns + round(after_s * 1e9), _present(facts))
            for name, after_s, facts in sorted(told, key=lambda moment: moment[1])
        ),
        dropped_events=len(traced.moments) - len(kept),
        failed=record.outcome == "failed",
    )


def _name(record: RequestRecord) -> str:
    """Of few values: a model's name that is not one of ours is not in the record."""
    operation = OPERATIONS[record.operation] if record.operation is not None else "request"
    return f"{operation} {record.model}" if record.model else operation


def _conventional(record: RequestRecord, asked: Asked) -> dict[str, Value | None]:
    host, port = asked.server or (None, None)
    return {
        "gen_ai.operation.name": OPERATIONS[record.operation] if record.operation else None,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.request.stream": True if record.stream else None,
        "gen_ai.request.max_tokens": asked.max_tokens,
        "gen_ai.request.choice.count": asked.answers if asked.answers != 1 else None,
        "gen_ai.response.model": asked.answered_by,
        "gen_ai.response.finish_reasons": (record.finish_reason,) if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": record.ttft_s if record.stream else None,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "error.type": record.error_code,
        "http.response.status_code": record.status,
        "server.address": host,
        "server.port": port,
    }


def _own(record: RequestRecord) -> dict[str, Value | None]:
    return {
        "modelyard.request_id": record.request_id,
        "modelyard.operation": record.operation,
        "modelyard.outcome": record.outcome,
        "modelyard.tenant": record.tenant,
        "modelyard.deployment": record.deployment,
        "modelyard.version": record.version,
        "modelyard.digest": record.digest,
        "modelyard.slot": record.slot,
        "modelyard.replica": record.replica,
        "modelyard.cache": record.cache,
        "modelyard.attempts": len(record.attempts),
        "modelyard.cost": record.cost,
        "modelyard.queue_s": record.queue_s,
        "modelyard.ttft_s": record.ttft_s,
        "modelyard.itl_mean_s": record.itl_mean_s,
        "modelyard.tokens_estimated": True if record.tokens_estimated else None,
        "modelyard.guard": tuple(f"{each.check}:{each.verdict}" for each in record.guard) or None,
    }


def _moments(record: RequestRecord) -> Sequence[tuple[str, float, dict[str, Value | None]]]:
    """What the record itself knows the time of."""
    found: list[tuple[str, float, dict[str, Value | None]]] = [
        (
            "attempt",
            attempt.started_s,
            {
                "modelyard.replica": attempt.replica,
                "modelyard.slot": attempt.slot,
                "modelyard.reason": attempt.reason,
                "modelyard.outcome": attempt.outcome,
                "modelyard.duration_s": attempt.duration_s,
                "http.response.status_code": attempt.status,
            },
        )
        for attempt in record.attempts
    ]
    if record.ttft_s is not None:
        found.append(("first_token", record.ttft_s, {}))
    found.append(("end", record.e2e_s, {"modelyard.outcome": record.outcome}))
    return found


def _present(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in attributes.items() if value is not None}
