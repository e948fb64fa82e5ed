"""A collector for tests: takes OTLP over HTTP, and answers as it is told."""

import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"")


def busy(status: int = 503, **headers: str) -> Answer:
    """A refusal; `retry_after="1"` is its Retry-After."""
    return status, {name.replace("_", "-"): value for name, value in headers.items()}, b""


def partly(rejected: int, why: str) -> Answer:
    """Taken, but for some spans."""
    told = ExportTraceServiceResponse()
    told.partial_success.rejected_spans = rejected
    told.partial_success.error_message = why
    return 200, {}, told.SerializeToString()


class Collector:
    """What it was sent; `answers` are given in turn, then 200."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """With `tls` it speaks https."""
        self.answers: list[Answer] = []
        self.hanging = threading.Event()
        """Set: it reads and never answers."""
        self.let_go = threading.Event()
        self.requests: list[ExportTraceServiceRequest] = []
        """Those that were answered with 200."""
        self.posts: list[tuple[float, dict[str, str], str]] = []
        """All: monotonic seconds, headers in lower case, path."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                collector._take(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = (
            f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}/v1/traces"
        )

    def close(self) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def spans(self) -> list[Span]:
        """All that came, in order."""
        return [
            span
            for request in list(self.requests)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def resource(self) -> dict[str, Any]:
        """Attributes of who sent last."""
        return attributes(self.requests[-1].resource_spans[0].resource)

    def until(self, holds: Callable[[], Any], within_s: float = 20) -> None:
        """Wait, in a thread without an event loop; fail when the time is over."""
        deadline = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < deadline, f"{len(self.spans)} spans, {len(self.posts)} posts"
            time.sleep(0.01)

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.posts.append((time.monotonic(), headers, handler.path))
        if self.hanging.is_set():
            self.let_go.wait(60)
            handler.close_connection = True
            return
        status, more, told = self.answers.pop(0) if self.answers else OK
        if status == 200:
            self.requests.append(ExportTraceServiceRequest.FromString(body))
        handler.send_response(status)
        for name, value in more.items():
            handler.send_header(name, value)
        handler.send_header("content-type", "application/x-protobuf")
        handler.send_header("content-length", str(len(told)))
        handler.end_headers()
        handler.wfile.write(told)


def attributes(holder: Any) -> dict[str, Any]:
    """Attributes of a span, an event or a resource."""
    return {each.key: _value(each.value) for each in holder.attributes}


def events(span: Span) -> list[tuple[str, dict[str, Any]]]:
    """Names and attributes of a span's events."""
    return [(event.name, attributes(event)) for event in span.events]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, str(kind))
