"""The end of every request: one outcome, one record, the metrics."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from modelyard.core import metrics
from modelyard.core.records import Outcome, RequestRecord
from modelyard.gateway.calls import Call
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.spool import RecordSpool
from modelyard.observe.prometheus import counter, gauge, histogram

UNKNOWN = "unknown"
"""Label of requests whose model is not one of ours: what clients invent must not become labels."""


class Accounting:
    """Counts requests from acceptance to their one outcome."""

    def __init__(self, gateway: str, routes: RouteTable, spool: RecordSpool) -> None:
        self._gateway = gateway
        self._spool = spool
        self._count = 0
        self.open: set[Call] = set()
        """Calls that have not ended (promise G3: empty when nothing is under way)."""
        self.connections = 0
        self._registry = CollectorRegistry(auto_describe=False)
        make = self._registry
        self._requests = counter(metrics.REQUESTS, make)
        self._attempts = counter(metrics.ATTEMPTS, make)
        self._duration = histogram(metrics.REQUEST_DURATION, make)
        self._first = histogram(metrics.TIME_TO_FIRST_TOKEN, make)
        self._per_token = histogram(metrics.TIME_PER_OUTPUT_TOKEN, make)
        self._tokens = counter(metrics.TOKENS, make)
        gauge(metrics.REQUESTS_IN_FLIGHT, make).set_function(lambda: len(self.open))
        gauge(metrics.CONNECTIONS, make).set_function(lambda: self.connections)
        gauge(metrics.ROUTES_VERSION, make).set_function(lambda: routes.applied.version)
        gauge(metrics.RECORDS_WAITING, make).set_function(lambda: spool.waiting)
        gauge(metrics.RECORDS_DROPPED, make).set_function(lambda: spool.dropped)
        make.register(_ReplicaCollector(routes))

    def begin(self) -> Call:
        """Accept a request. Its id is ours and unique: records are told apart by it."""
        self._count += 1
        call = Call(f"req-{self._gateway}-{self._count:x}", time.time())
        self.open.add(call)
        return call

    def finish(self, call: Call, outcome: Outcome, status: int, error_code: str | None) -> None:
        """End a request: called once for every `begin`."""
        self.open.remove(call)
        record = self._record(call, outcome, status, error_code)
        self._spool.put(record)
        self._measure(record)

    @property
    def ended(self) -> int:
        """Calls that have ended."""
        return self._count - len(self.open)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text form."""
        return generate_latest(self._registry)

    def _record(
        self, call: Call, outcome: Outcome, status: int, error_code: str | None
    ) -> RequestRecord:
        e2e_s = time.monotonic() - call.received
        usage = call.usage
        counted = usage is None and call.events > 0
        completion = usage.completion_tokens if usage is not None else None
        return RequestRecord(
            request_id=call.request_id,
            gateway=self._gateway,
            received_at=call.received_at,
            operation=call.operation,
            stream=call.stream,
            outcome=outcome,
            status=status,
            error_code=error_code,
            model=call.model,
            deployment=call.route.deployment if call.route else None,
            slot=call.slot.slot if call.slot else None,
            version=call.slot.version if call.slot else None,
            digest=call.slot.digest if call.slot else None,
            replica=call.replica.route.id if call.replica else None,
            attempts=tuple(call.attempts),
            cache=call.cache,
            ttft_s=None if call.first_byte is None else call.first_byte - call.received,
            itl_mean_s=_mean_gap_s(call),
            itl_max_s=call.gap_max_s if call.events > 1 else None,
            e2e_s=e2e_s,
            request_bytes=call.request_bytes,
            response_bytes=call.response_bytes,
            prompt_tokens=usage.prompt_tokens if usage is not None else None,
            completion_tokens=call.events if counted else completion,
            tokens_estimated=counted,
            cached_tokens=usage.cached_tokens if usage is not None else None,
            finish_reason=call.finish_reason,
            trace_id=call.trace_parent[3:35].decode() or None,
        )

    def _measure(self, record: RequestRecord) -> None:
        model = record.model or UNKNOWN
        operation = record.operation or UNKNOWN
        self._requests.labels(model, operation, record.outcome, str(record.status)).inc()
        for attempt in record.attempts:
            self._attempts.labels(model, attempt.outcome).inc()
        if record.prompt_tokens:
            self._tokens.labels(model, "input").inc(record.prompt_tokens)
        if record.completion_tokens:
            self._tokens.labels(model, "output").inc(record.completion_tokens)
        if record.outcome != "completed":
            return
        self._duration.labels(model, operation).observe(record.e2e_s)
        if record.ttft_s is not None:
            self._first.labels(model, operation).observe(record.ttft_s)
        if record.itl_mean_s is not None:
            self._per_token.labels(model, operation).observe(record.itl_mean_s)


def _mean_gap_s(call: Call) -> float | None:
    if call.first_byte is None or call.last_byte is None or call.events < 2:
        return None
    return (call.last_byte - call.first_byte) / (call.events - 1)


class _ReplicaCollector:
    """In-flight counts by replica, read when asked: replicas come and go."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes

    def collect(self) -> Iterable[GaugeMetricFamily]:
        metric = metrics.REPLICA_IN_FLIGHT
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for replica in self._routes.replicas:
            family.add_metric(
                [replica.model, replica.slot.slot, replica.route.id], replica.in_flight
            )
        yield family
