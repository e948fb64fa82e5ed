"""The exporter before a real receiver: what arrives, and what a bad collector costs."""

import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tests.collector import Collector as Receiver
from tests.collector import attributes, busy, events, partly
from tests.gateway.certificates import make_certificate

from modelyard.core.records import RequestRecord
from modelyard.core.spans import Asked, Traced
from modelyard.observe.collectors import Collector
from modelyard.observe.otlp import ExportBounds, Pending, SpanExporter

QUICK = ExportBounds(every_s=0.02, backoff_s=0.02, max_backoff_s=5.0, timeout_s=5.0)
AWAY = "http://127.0.0.1:9/v1/traces"
Make = Callable[..., SpanExporter]


def pending(number: int, **more: object) -> Pending:
    fields = {
        "request_id": f"req-{number}", "gateway": "g", "received_at": 1_700_000_000.5,
        "operation": "chat", "stream": False, "outcome": "completed", "status": 200,
        "model": "m", "e2e_s": 0.25, "finish_reason": "stop", "cost": 0.5, "version": 3,
    } | more  # fmt: skip
    traced = Traced(trace_id=f"{number + 1:032x}", span_id=f"{number + 1:016x}")
    return RequestRecord(**fields), traced, Asked(server=("127.0.0.1", 8000))  # type: ignore[arg-type]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def exporter(receiver: Receiver) -> Iterator[Make]:
    made: list[SpanExporter] = []

    def make(url: str | None = None, bounds: ExportBounds = QUICK, **more: object) -> SpanExporter:
        collector = Collector(url=url or receiver.url, sample=1.0, **more)  # type: ignore[arg-type]
        exporter = SpanExporter(collector, "gateway-1", bounds)
        exporter.start()
        made.append(exporter)
        return exporter

    yield make
    receiver.let_go.set()
    for each in made:
        each.close(10)


def test_a_span_arrives_whole(receiver: Receiver, exporter: Make) -> None:
    secret = (("x-team-key", "s3cret"),)
    sender = exporter(headers=secret, resource=(("service.name", "edge"), ("zone", "a")))
    record, traced, asked = pending(1, outcome="failed", status=502, error_code="upstream_error")
    traced.parent_id, traced.state = "b" * 16, "a=1"
    traced.moments.append(("choose", 0.1, {"replica": "r1", "limits": ("a", "b")}))

    sender.put((record, traced, asked))

    receiver.until(lambda: receiver.spans)
    (span,) = receiver.spans
    assert span.trace_id.hex() == traced.trace_id
    assert span.span_id.hex() == traced.span_id
    assert span.parent_span_id.hex() == "b" * 16
    assert (span.trace_state, span.flags) == ("a=1", 0x301)
    assert (span.name, span.kind) == ("chat m", Span.SPAN_KIND_SERVER)
    assert span.start_time_unix_nano == 1_700_000_000_500_000_000
    assert span.end_time_unix_nano == 1_700_000_000_750_000_000
    assert span.status.code == Status.STATUS_CODE_ERROR
    told = attributes(span)
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert told["error.type"] == "upstream_error"
    assert (told["modelyard.cost"], told["modelyard.version"]) == (0.5, 3)
    assert events(span)[0] == (
        "choose", {"modelyard.replica": "r1", "modelyard.limits": ["a", "b"]},
    )  # fmt: skip
    who = receiver.resource()
    assert (who["service.name"], who["zone"]) == ("edge", "a")
    assert who["service.instance.id"] == "gateway-1"
    assert who["service.version"]
    _, headers, path = receiver.posts[0]
    assert path == "/v1/traces"
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["x-team-key"] == "s3cret"


def test_a_root_has_no_parent_and_success_no_status(receiver: Receiver, exporter: Make) -> None:
    exporter().put(pending(1))
    receiver.until(lambda: receiver.spans)
    (span,) = receiver.spans
    assert span.parent_span_id == b""
    assert span.flags == 0x101
    assert span.status.code == Status.STATUS_CODE_UNSET


def test_all_come_in_batches_on_one_connection(receiver: Receiver, exporter: Make) -> None:
    sender = exporter(bounds=ExportBounds(every_s=0.02, batch=50))
    for number in range(420):
        sender.put(pending(number))
    receiver.until(lambda: len(receiver.spans) == 420)

    assert [attributes(span)["modelyard.request_id"] for span in receiver.spans] == [
        f"req-{number}" for number in range(420)
    ]
    assert max(len(r.resource_spans[0].scope_spans[0].spans) for r in receiver.requests) <= 50
    receiver.until(lambda: sender.sent == 420)
    assert sender.dropped == 0


def test_the_rest_is_sent_at_the_end(receiver: Receiver, exporter: Make) -> None:
    sender = exporter(bounds=ExportBounds(every_s=60, batch=10))
    for number in range(25):
        sender.put(pending(number))
    sender.close(20)
    assert len(receiver.spans) == sender.sent == 25
    assert sender.dropped == 0


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_collector_is_asked_again(
    receiver: Receiver, exporter: Make, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver.answers = [busy(status), busy(status)]
    sender = exporter()
    sender.put(pending(1))
    receiver.until(lambda: sender.sent == 1)
    assert len(receiver.posts) == 3
    assert len(receiver.spans) == 1
    assert sender.dropped == 0
    receiver.until(lambda: "takes spans again" in caplog.text)
    assert caplog.text.count(f"it answers {status}") == 1


def test_retry_after_is_waited_for(receiver: Receiver, exporter: Make) -> None:
    receiver.answers = [busy(503, retry_after="1")]
    sender = exporter()
    sender.put(pending(1))
    receiver.until(lambda: sender.sent == 1)
    first, second = (at for at, _, _ in receiver.posts)
    assert second - first >= 0.99


@pytest.mark.parametrize("status", [400, 404, 413, 500])
def test_a_refusal_is_final(receiver: Receiver, exporter: Make, status: int) -> None:
    receiver.answers = [busy(status)]
    sender = exporter()
    sender.put(pending(1))
    receiver.until(lambda: sender.dropped == 1)
    sender.put(pending(2))
    receiver.until(lambda: sender.sent == 1)
    assert len(receiver.posts) == 2


def test_single_spans_that_are_rejected_count_as_dropped(
    receiver: Receiver, exporter: Make, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers = [partly(2, "too old")]
    sender = exporter(bounds=ExportBounds(every_s=0.3))
    for number in range(3):
        sender.put(pending(number))
    receiver.until(lambda: sender.sent == 1)
    assert sender.dropped == 2
    assert "too old" in caplog.text


def test_a_collector_that_is_away_costs_a_count_and_one_line(
    exporter: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bounds = ExportBounds(every_s=0.01, backoff_s=0.001, max_backoff_s=0.002, max_tries=3)
    sender = exporter(AWAY, bounds)
    for number in range(30):
        sender.put(pending(number))
        time.sleep(0.002)
    receiver.until(lambda: sender.dropped == 30)
    assert sender.sent == 0
    assert caplog.text.count("do not reach") == 1
    assert "ConnectionRefusedError" in caplog.text


def test_a_collector_that_hangs_holds_up_nobody(exporter: Make, receiver: Receiver) -> None:
    """It has the thread; the queue fills to its bound, and what is over is dropped at once."""
    receiver.hanging.set()
    sender = exporter(bounds=ExportBounds(every_s=0.01, batch=20, max_waiting=100, timeout_s=60))
    sender.put(pending(0))
    receiver.until(lambda: receiver.posts)

    begun = time.monotonic()
    for number in range(1, 5001):
        sender.put(pending(number))
    took_s = time.monotonic() - begun

    assert len(receiver.posts) == 1
    assert sender.dropped == 5000 - 99  # one is under way
    assert took_s < 10
    begun = time.monotonic()
    sender.close(0.2)
    assert time.monotonic() - begun < 10
    assert sender.dropped == 5001
    assert sender.sent == 0


def test_silence_is_an_end_too(exporter: Make, receiver: Receiver) -> None:
    receiver.hanging.set()
    bounds = ExportBounds(every_s=0.01, timeout_s=0.1, backoff_s=0.01, max_tries=2)
    sender = exporter(bounds=bounds)
    sender.put(pending(1))
    receiver.until(lambda: sender.dropped == 1)
    assert len(receiver.posts) == 2
    receiver.hanging.clear()
    sender.put(pending(2))
    receiver.until(lambda: sender.sent == 1)


def test_a_collector_that_comes_later_gets_what_waits(exporter: Make, receiver: Receiver) -> None:
    """A kept connection that was closed meanwhile is no reason to wait."""
    sender = exporter()
    sender.put(pending(1))
    receiver.until(lambda: sender.sent == 1)
    connection = sender._post._connection
    assert connection is not None
    assert connection.sock is not None
    connection.sock.shutdown(2)  # as a collector does that restarts
    sender.put(pending(2))
    receiver.until(lambda: sender.sent == 2)
    assert sender.dropped == 0


def test_a_collector_with_a_certificate_is_checked_against_it(
    tmp_path: Path, exporter: Make, caplog: pytest.LogCaptureFixture
) -> None:
    certificate = make_certificate(tmp_path, "server", serial=1)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_suffix(".key"))
    secured = Receiver(tls)
    try:
        strict = ExportBounds(every_s=0.01, max_tries=1)
        stranger = exporter(secured.url, strict)
        stranger.put(pending(1))
        secured.until(lambda: stranger.dropped == 1)
        known = exporter(secured.url, strict, ca_file=str(certificate))
        known.put(pending(2))
        secured.until(lambda: known.sent == 1)
        assert [attributes(span)["modelyard.request_id"] for span in secured.spans] == ["req-2"]
    finally:
        secured.close()
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


def test_a_span_that_can_not_be_told_costs_no_other(
    exporter: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    sender = exporter(bounds=ExportBounds(every_s=0.2))
    sender.put(pending(1))
    sender.put(pending(2, model="\ud800"))
    sender.put(pending(3))
    receiver.until(lambda: len(receiver.spans) == 2)
    receiver.until(lambda: (sender.sent, sender.dropped) == (2, 1))
    assert "req-2" in caplog.text


def test_what_the_thread_does_ends_with_it(exporter: Make) -> None:
    sender = exporter()
    assert any(thread.name == "spans" for thread in threading.enumerate())
    sender.close(10)
    assert not sender._thread.is_alive()
