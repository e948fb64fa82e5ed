"""Trace context in and out, and spans of requests that ended (W3C Trace Context; promise O4).

With traces on, a sampled request hands its own span to the replica as the parent, and whoever
listens to the end of requests hands record and context to the exporter. The rest is passed on as it
came, which is all that happens with traces off.
"""

from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit

from modelyard.core.metrics.gateway import TRACE_SPANS
from modelyard.core.records import RequestRecord
from modelyard.core.spans import Asked, Sampler, Traced, trace_parent, trace_state
from modelyard.gateway.calls import Call
from modelyard.gateway.standing import Standing
from modelyard.observe.prometheus import Reading


class Tracing(Protocol):
    """What admission does about the trace that a request belongs to."""

    def begin(self, call: Call, headers: Mapping[bytes, bytes]) -> None:
        """Fill what the call's replica is told of the trace."""


class Relayed:
    """Traces are off: what the caller says of its trace is passed on unchanged."""

    def begin(self, call: Call, headers: Mapping[bytes, bytes]) -> None:
        """Fill what the call's replica is told of the trace."""
        parent = headers.get(b"traceparent")
        if parent is not None:
            call.trace_parent = trace_parent(parent)
            if call.trace_parent:
                call.trace_state = trace_state(headers.get(b"tracestate", b""))


class Spans(Protocol):
    """Takes spans to be sent."""

    sent: int
    dropped: int

    def put(self, pending: tuple[RequestRecord, Traced, Asked]) -> None:
        """Take a span; never waits."""


class Tracer:
    """Traces are on."""

    def __init__(self, sampler: Sampler, spans: Spans, standing: Standing) -> None:
        self._sampler = sampler
        self._spans = spans
        self._standing = standing
        self._relayed = Relayed()
        self._server: tuple[str, int] | None = None

    def begin(self, call: Call, headers: Mapping[bytes, bytes]) -> None:
        """Decide whether the request gets a span; fill what its replica is told of the trace."""
        self._relayed.begin(call, headers)
        traced = self._sampler.decide(call.request_id, call.trace_parent, call.trace_state)
        if traced is not None:
            call.traced = traced
            call.trace_parent = traced.parent_header

    def ended(self, record: RequestRecord, call: Call) -> None:
        """A request ended: hand its span over, where it has one."""
        traced = call.traced
        if traced is None:
            return
        view = call.view
        self._spans.put(
            (
                record,
                traced,
                Asked(
                    answered_by=_answered_by(call) if record.outcome == "completed" else None,
                    max_tokens=view.wanted_tokens if view is not None else None,
                    answers=view.answers if view is not None else 1,
                    server=self._address(),
                ),
            )
        )

    def reading(self) -> Reading:
        """What became of the spans so far, for `/metrics`."""
        spans = self._spans
        return Reading(
            TRACE_SPANS, lambda: ((("sent",), spans.sent), (("dropped",), spans.dropped))
        )

    def _address(self) -> tuple[str, int] | None:
        if self._server is None and self._standing.url:
            parts = urlsplit(self._standing.url)
            self._server = (parts.hostname or "", parts.port or 0)
        return self._server


def _answered_by(call: Call) -> str | None:
    """The model that made the answer: registered name and version, else its public name."""
    slot, route = call.slot, call.route
    if slot is None or route is None:
        return None
    name = slot.model or route.name
    return name if slot.version is None else f"{name}:{slot.version}"
