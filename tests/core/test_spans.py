"""Spans: who gets one, whose child it is, and what it says in the conventions' names."""

import re

import msgspec
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    server_attributes,
)

from modelyard.core.records import Attempt, GuardVerdict, RequestRecord
from modelyard.core.spans import (
    MAX_MOMENTS,
    OPERATIONS,
    Asked,
    Sampler,
    Traced,
    span_of,
    trace_parent,
    trace_state,
)

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01".encode()
NOT_SAMPLED = PARENT[:-2] + b"00"
RECORD = RequestRecord(
    request_id="req-g-1", gateway="g", received_at=1_700_000_000.25, operation="chat", stream=True,
    outcome="completed", status=200, tenant="blue", key_id="k", model="assistant",
    deployment="assistant", slot="green", version=3, digest="sha256:ab", replica="r1",
    attempts=(
        Attempt(replica="r0", slot="green", digest="sha256:ab", outcome="timeout", started_s=0.1,
                duration_s=0.5, reason="only_one"),
        Attempt(replica="r1", slot="green", digest="sha256:ab", outcome="completed", started_s=0.7,
                duration_s=2.0, status=200, reason="retry:only_one"),
    ),
    cache="miss", queue_s=0.05, ttft_s=0.9, e2e_s=2.75, prompt_tokens=12, completion_tokens=40,
    cached_tokens=4, finish_reason="stop", cost=0.0125,
    guard=(GuardVerdict(check="pii", verdict="allow"),),
)  # fmt: skip
TRACED = Traced(trace_id=TRACE, span_id="a" * 16, parent_id=CALLER)


# --- who gets one --------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 1.0])
def test_so_many_get_a_span_and_always_the_same(ratio: float) -> None:
    sampler = Sampler(ratio)
    ids = [f"req-a1b2c3-{number:x}" for number in range(5000)]

    first = [sampler.decide(each, b"", b"") for each in ids]

    share = sum(each is not None for each in first) / len(ids)
    # Five standard deviations of a binomial share: nothing is drawn, but ids are as good as drawn.
    assert abs(share - ratio) <= 5 * (ratio * (1 - ratio) / len(ids)) ** 0.5
    assert first == [Sampler(ratio).decide(each, b"", b"") for each in ids]


def test_who_gets_one_at_a_small_share_gets_one_at_a_larger() -> None:
    ids = [f"req-a1b2c3-{number:x}" for number in range(3000)]
    few = {each for each in ids if Sampler(0.05).decide(each, b"", b"")}
    more = {each for each in ids if Sampler(0.2).decide(each, b"", b"")}
    assert few
    assert few < more


def test_a_new_trace_has_ids_of_its_own_and_no_parent() -> None:
    found = [Sampler(1).decide(f"req-{number}", b"", b"ot=th:8") for number in range(200)]
    traced = [each for each in found if each is not None]
    assert len({each.trace_id for each in traced}) == len({each.span_id for each in traced}) == 200
    for each in traced:
        assert re.fullmatch("[0-9a-f]{32}", each.trace_id)
        assert re.fullmatch("[0-9a-f]{16}", each.span_id)
        assert (each.parent_id, each.state) == ("", "")
        assert trace_parent(each.parent_header) == each.parent_header


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_callers_decision_stands_whatever_the_share(ratio: float) -> None:
    sampler = Sampler(ratio)

    traced = sampler.decide("req-1", PARENT, b"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")

    assert traced is not None
    assert (traced.trace_id, traced.parent_id) == (TRACE, CALLER)
    assert traced.state == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    assert traced.span_id not in ("", CALLER)
    assert traced.parent_header == f"00-{TRACE}-{traced.span_id}-01".encode()
    assert sampler.decide("req-1", NOT_SAMPLED, b"") is None


def test_calls_of_one_caller_are_told_apart() -> None:
    one, two = (Sampler(0).decide(name, PARENT, b"") for name in ("req-1", "req-2"))
    assert one is not None
    assert two is not None
    assert one.span_id != two.span_id


@pytest.mark.parametrize(
    "header",
    [
        b"", b"x", PARENT[:-1], PARENT + b"0", PARENT.upper(), b"ff" + PARENT[2:],
        PARENT.replace(TRACE.encode(), b"0" * 32), PARENT.replace(CALLER.encode(), b"0" * 16),
        PARENT + b"," + PARENT, PARENT.replace(b"-", b"_"), PARENT + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_trace_context_is_none(header: bytes) -> None:
    assert trace_parent(header) == b""
    assert Sampler(0).decide("req-1", header, b"") is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    later = b"01" + PARENT[2:] + b"-what-comes-then"
    assert trace_parent(later) == later
    traced = Sampler(0).decide("req-1", later, b"")
    assert traced is not None
    assert (traced.trace_id, traced.parent_id) == (TRACE, CALLER)
    assert trace_parent(b"01" + PARENT[2:] + b"x") == b""
    assert trace_parent(PARENT + b"-more") == b""


def test_a_state_that_a_parser_could_stumble_over_is_not_passed_on() -> None:
    assert trace_state(b"a=1,b=2") == b"a=1,b=2"
    for state in (b"", b"a" * 513, b"a=\xff", b"a=\x00"):
        assert trace_state(state) == b""


# --- what it says --------------------------------------------------------------------------------


def test_a_span_says_what_the_record_says_in_the_conventions_names() -> None:
    asked = Asked(answered_by="weights:3", max_tokens=64, answers=2, server=("127.0.0.1", 8000))
    span = span_of(RECORD, TRACED, asked)

    assert span.name == "chat assistant"
    assert (span.trace_id, span.span_id, span.parent_id) == (TRACE, "a" * 16, CALLER)
    assert span.start_ns == 1_700_000_000_250_000_000
    assert span.end_ns - span.start_ns == 2_750_000_000
    assert not span.failed
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "modelyard",
        "gen_ai.request.model": "assistant",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 64,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": "weights:3",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.9,
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 40,
        "gen_ai.usage.cache_read.input_tokens": 4,
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": 8000,
        "modelyard.request_id": "req-g-1",
        "modelyard.operation": "chat",
        "modelyard.outcome": "completed",
        "modelyard.tenant": "blue",
        "modelyard.deployment": "assistant",
        "modelyard.version": 3,
        "modelyard.digest": "sha256:ab",
        "modelyard.slot": "green",
        "modelyard.replica": "r1",
        "modelyard.cache": "miss",
        "modelyard.attempts": 2,
        "modelyard.cost": 0.0125,
        "modelyard.queue_s": 0.05,
        "modelyard.ttft_s": 0.9,
        "modelyard.guard": ("pii:allow",),
    }


def _known_names() -> set[str]:
    """Of the conventions, as OpenTelemetry's own package has them."""
    kits = (gen_ai_attributes, error_attributes, http_attributes, server_attributes)
    return {
        value for kit in kits for name, value in vars(kit).items()
        if name.isupper() and isinstance(value, str)
    }  # fmt: skip


def test_every_name_is_one_of_the_conventions_or_our_own() -> None:
    failed = msgspec.structs.replace(RECORD, outcome="failed", status=502, error_code="upstream")
    asked = Asked(answered_by="w:3", max_tokens=1, answers=2, server=("h", 1))
    span = span_of(failed, TRACED, asked)
    names = {*span.attributes, *(name for event in span.events for name in event.attributes)}

    foreign = {name for name in names if not name.startswith("modelyard.")}

    assert foreign <= _known_names()
    assert {"error.type", "gen_ai.provider.name", "server.port"} <= foreign
    known = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert set(OPERATIONS.values()) <= known


def test_the_way_is_told_in_the_order_in_which_it_went() -> None:
    traced = Traced(trace_id=TRACE, span_id="a" * 16)
    traced.moments += [
        ("admission", 0.01, {"limits": ("requests_per_min:key",)}),
        ("cache", 0.02, {"result": "miss"}),
        ("choose", 0.09, {"replica": "r0", "reason": "only_one"}),
        ("choose", 0.65, {"replica": "r1", "reason": "retry:only_one"}),
    ]
    span = span_of(RECORD, traced, Asked())

    assert [event.name for event in span.events] == [
        "admission", "cache", "choose", "attempt", "choose", "attempt", "first_token", "end",
    ]  # fmt: skip
    admission, _, _, first, _, second, token, end = span.events
    assert admission.attributes == {"modelyard.limits": ("requests_per_min:key",)}
    assert first.at_ns == span.start_ns + 100_000_000
    assert first.attributes == {
        "modelyard.replica": "r0", "modelyard.slot": "green", "modelyard.reason": "only_one",
        "modelyard.outcome": "timeout", "modelyard.duration_s": 0.5,
    }  # fmt: skip
    assert second.attributes["http.response.status_code"] == 200
    assert token.at_ns == span.start_ns + 900_000_000
    assert end.at_ns == span.end_ns


@pytest.mark.parametrize(
    ("outcome", "status", "failed"),
    [("failed", 502, True), ("rejected", 429, False), ("cancelled", 499, False)],
)
def test_only_a_failure_of_ours_is_an_error_of_the_server(
    outcome: str, status: int, failed: bool
) -> None:
    record = msgspec.structs.replace(RECORD, outcome=outcome, status=status, error_code="why")
    span = span_of(record, TRACED, Asked())
    assert span.failed is failed
    assert span.attributes["error.type"] == "why"
    assert span.attributes["http.response.status_code"] == status


def test_what_was_never_known_is_left_out() -> None:
    bare = RequestRecord(
        request_id="r", gateway="g", received_at=1.0, operation=None, stream=False,
        outcome="rejected", status=404, error_code="not_found", e2e_s=0.001,
    )  # fmt: skip
    span = span_of(bare, TRACED, Asked())
    assert span.name == "request"
    assert set(span.attributes) == {
        "gen_ai.provider.name", "error.type", "http.response.status_code", "modelyard.request_id",
        "modelyard.outcome", "modelyard.cache", "modelyard.attempts", "modelyard.queue_s",
    }  # fmt: skip
    assert [event.name for event in span.events] == ["end"]


def test_a_request_with_endless_moments_has_a_bounded_span() -> None:
    moments = [("choose", number / 1000, {}) for number in range(500)]
    span = span_of(RECORD, Traced(trace_id=TRACE, span_id="a" * 16, moments=moments), Asked())
    assert len(span.events) == MAX_MOMENTS + 4
    assert span.dropped_events == 500 - MAX_MOMENTS
