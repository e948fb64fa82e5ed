"""Sends spans to a collector: OTLP over HTTP, in batches, from a thread of its own.

Whoever hands over a span never waits: there is a queue with a bound, and what it has no room for is
counted. A collector that is away, hangs or refuses costs that count and one line in the log.
Source: OpenTelemetry Protocol specification 1.x, OTLP/HTTP: 429, 502, 503, 504 and lost connections
are tried again, after `Retry-After` or with growing, jittered pauses; anything else is not.

This module is imported where traces are on, and nowhere else.
"""

import contextlib
import http.client
import logging
import random
import ssl
import threading
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

import modelyard
from modelyard.core.records import RequestRecord
from modelyard.core.spans import Asked, Span, Traced, Value, span_of
from modelyard.observe.collectors import Collector

log = logging.getLogger(__name__)

SCOPE = "modelyard.gateway"
RETRIED = frozenset({429, 502, 503, 504})
_SAMPLED = 0x01
_REMOTE_KNOWN, _REMOTE = 0x100, 0x200
_TAIL_BYTES = 64 * 1024


class ExportBounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much is held and how long is waited. The defaults are those of OpenTelemetry's kits."""

    max_waiting: int = 2048
    """Spans that wait to be sent."""
    batch: int = 512
    every_s: float = 1.0
    """Between two batches that are not full."""
    timeout_s: float = 10.0
    """For the collector to take one."""
    max_tries: int = 5
    backoff_s: float = 1.0
    """After the first try that fails; doubled each time."""
    max_backoff_s: float = 30.0
    """Bounds `Retry-After` too."""


Pending = tuple[RequestRecord, Traced, Asked]
"""A span that is not built yet: that is the thread's work."""


class SpanExporter:
    """A bounded queue of spans, and the thread that empties it."""

    def __init__(
        self, collector: Collector, instance: str, bounds: ExportBounds | None = None
    ) -> None:
        """`instance`: tells this process from others of the service."""
        self._collector = collector
        self._bounds = bounds or ExportBounds()
        resource = {
            "service.version": modelyard.__version__,
            "service.instance.id": instance,
            **dict(collector.resource),
        }
        self._resource = Resource(attributes=_attributes(resource))
        self._post = _Poster(collector)
        self._waiting: deque[Pending] = deque()
        self._under_way = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self.sent = 0
        """Spans that the collector has taken."""
        self.dropped = 0
        """Spans that it has not: no room, or refused, or never answered."""

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, pending: Pending) -> None:
        """Take a span; never waits. Without room it is dropped and counted."""
        waiting = self._waiting
        if len(waiting) + self._under_way >= self._bounds.max_waiting:
            self._drop(1, "more come than the collector takes")
            return
        waiting.append(pending)
        if len(waiting) == self._bounds.batch:
            self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Send what is left, for so long at most; the rest is dropped and counted."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)
        left = len(self._waiting) + self._under_way
        if left:
            self._drop(left, "the gateway ends")

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._bounds.every_s)
            self._wake.clear()
            while self._waiting:
                self._send(self._take())
                if len(self._waiting) < self._bounds.batch and not self._closing.is_set():
                    break
        while self._waiting:
            self._send(self._take())
        self._post.close()

    def _take(self) -> list[Pending]:
        count = min(len(self._waiting), self._bounds.batch)
        self._under_way = count
        return [self._waiting.popleft() for _ in range(count)]

    def _send(self, batch: list[Pending]) -> None:
        try:
            scope = self._scope(batch)
            if scope.spans:
                spans = ResourceSpans(resource=self._resource, scope_spans=[scope])
                body = ExportTraceServiceRequest(resource_spans=[spans]).SerializeToString()
                self._deliver(bytes(body), len(scope.spans))
        except Exception:  # the edge of the thread: a defect here must not end it
            log.exception("%d spans could not be sent", len(batch))
            self.dropped += len(batch)
        finally:
            self._under_way = 0

    def _scope(self, batch: Sequence[Pending]) -> ScopeSpans:
        scope = ScopeSpans()
        scope.scope.name = SCOPE
        scope.scope.version = modelyard.__version__
        for pending in batch:
            try:
                scope.spans.append(wire_span(span_of(*pending)))
            except (ValueError, TypeError):  # what can't be told of one must not cost the others
                log.exception("the span of %s could not be built", pending[0].request_id)
                self.dropped += 1
            time.sleep(0)  # requests come first: the interpreter is theirs after each span
        return scope

    def _deliver(self, body: bytes, count: int) -> None:
        bounds = self._bounds
        pause_s = bounds.backoff_s
        for tried in range(1, bounds.max_tries + 1):
            result = self._post(body, bounds.timeout_s)
            if result.taken:
                self._note_taken(count, result.rejected, result.why)
                return
            if not result.again or tried == bounds.max_tries or self._closing.is_set():
                break
            self._complain(result.why)
            # Half of it for certain, half by chance: many gateways must not come back together.
            wait_s = result.retry_after_s or pause_s * random.uniform(0.5, 1.0)  # noqa: S311
            self._closing.wait(min(wait_s, bounds.max_backoff_s))
            pause_s = min(pause_s * 2, bounds.max_backoff_s)
        self._drop(count, result.why)

    def _note_taken(self, count: int, rejected: int, why: str) -> None:
        self.sent += count - rejected
        if rejected:
            self._drop(rejected, why or "it rejected them")
        elif self._failing:
            self._failing = False
            log.info("the collector takes spans again; %d were dropped so far", self.dropped)

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        self._complain(why)

    def _complain(self, why: str) -> None:
        if not self._failing:
            self._failing = True
            log.warning(
                "spans do not reach %s: %s; those that find no room are dropped and counted",
                self._collector.url,
                why,
            )


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch that was posted."""

    taken: bool = False
    again: bool = False
    """It may be taken when it is sent again."""
    retry_after_s: float | None = None
    rejected: int = 0
    """Spans of a batch that was taken otherwise."""
    why: str = ""


class _Poster:
    """Posts batches on one connection that is kept."""

    def __init__(self, collector: Collector) -> None:
        parts = urlsplit(collector.url)
        self._host = parts.hostname or ""
        self._port = parts.port
        self._target = parts.path
        self._tls = (
            ssl.create_default_context(cafile=collector.ca_file)
            if parts.scheme == "https"
            else None
        )
        self._headers = {
            "user-agent": f"modelyard/{modelyard.__version__}",
            **dict(collector.headers),
            "content-type": "application/x-protobuf",
        }
        self._connection: http.client.HTTPConnection | None = None

    def __call__(self, body: bytes, timeout_s: float) -> _Result:
        kept = self._connection is not None
        try:
            return self._posted(body, timeout_s)
        except TimeoutError:
            self.close()
            return _Result(again=True, why=f"no answer within {timeout_s:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            if kept:  # it was closed while nothing was sent: that says nothing of the collector
                return self(body, timeout_s)
            return _Result(again=True, why=f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Leave the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()

    def _posted(self, body: bytes, timeout_s: float) -> _Result:
        connection = self._connection
        if connection is None:
            connection = self._connection = (
                http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
                if self._tls is None
                else http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout_s, context=self._tls
                )
            )
        connection.request("POST", self._target, body, self._headers)
        response = connection.getresponse()
        answer = response.read(_TAIL_BYTES)
        if not response.isclosed() or response.will_close:
            self.close()
        if response.status in RETRIED:
            told = response.getheader("retry-after", "")
            return _Result(
                again=True,
                retry_after_s=float(told) if told.isascii() and told.isdigit() else None,
                why=f"it answers {response.status}",
            )
        if response.status != 200:
            return _Result(why=f"it answers {response.status}; is it OTLP over HTTP (port 4318)?")
        return _accepted(answer)


def _accepted(answer: bytes) -> _Result:
    """What a collector that said 200 has to say of single spans."""
    told = ExportTraceServiceResponse()
    try:
        told.ParseFromString(answer)
    except Exception:  # noqa: BLE001 - protobuf's error has no public base; the batch was taken
        return _Result(taken=True)
    partial = told.partial_success
    return _Result(taken=True, rejected=partial.rejected_spans, why=partial.error_message[:200])


def wire_span(span: Span) -> WireSpan:
    """The span in OTLP's form."""
    flags = _SAMPLED | _REMOTE_KNOWN | (_REMOTE if span.parent_id else 0)
    return WireSpan(
        trace_id=bytes.fromhex(span.trace_id),
        span_id=bytes.fromhex(span.span_id),
        parent_span_id=bytes.fromhex(span.parent_id),
        trace_state=span.state,
        flags=flags,
        name=span.name,
        kind=WireSpan.SPAN_KIND_SERVER,
        start_time_unix_nano=span.start_ns,
        end_time_unix_nano=span.end_ns,
        attributes=_attributes(span.attributes),
        events=[
            WireSpan.Event(
                name=event.name,
                time_unix_nano=event.at_ns,
                attributes=_attributes(event.attributes),
            )
            for event in span.events
        ],
        dropped_events_count=span.dropped_events,
        status=Status(code=Status.STATUS_CODE_ERROR) if span.failed else None,
    )


def _attributes(attributes: "dict[str, Value] | dict[str, str]") -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in attributes.items()]


def _value(value: Value) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, tuple):
        return AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=v) for v in value]))
    return AnyValue(string_value=value)
