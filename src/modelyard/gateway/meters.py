"""What the gateway measures, as Prometheus reads it."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from modelyard.core import metrics
from modelyard.core.errors import LimitExceeded
from modelyard.core.records import CacheResult, RequestRecord
from modelyard.gateway.cache import AnswerCache
from modelyard.gateway.routes import RouteTable
from modelyard.gateway.spool import RecordSink
from modelyard.gateway.waiting import WaitingRoom
from modelyard.observe.prometheus import counter, gauge, histogram

SHARED: frozenset[CacheResult] = frozenset({"hit", "joined"})
"""Answers that no replica made for this request."""
UNKNOWN = "unknown"
"""Label of requests whose model is not one of ours: what clients invent must not become labels."""


class Meters:
    """Counters and histograms of what ended; what is under way is read when somebody asks."""

    def __init__(
        self, routes: RouteTable, books: RecordSink, cache: AnswerCache, room: WaitingRoom
    ) -> None:
        self.open = 0
        """Requests accepted and not ended."""
        self.copies = 0
        """Copies of live requests that have not ended."""
        self.connections = 0
        self._registry = CollectorRegistry(auto_describe=False)
        make = self._registry
        self._requests = counter(metrics.REQUESTS, make)
        self._attempts = counter(metrics.ATTEMPTS, make)
        self._duration = histogram(metrics.REQUEST_DURATION, make)
        self._first = histogram(metrics.TIME_TO_FIRST_TOKEN, make)
        self._per_token = histogram(metrics.TIME_PER_OUTPUT_TOKEN, make)
        self._tokens = counter(metrics.TOKENS, make)
        gauge(metrics.REQUESTS_IN_FLIGHT, make).set_function(lambda: self.open)
        gauge(metrics.CONNECTIONS, make).set_function(lambda: self.connections)
        gauge(metrics.ROUTES_VERSION, make).set_function(lambda: routes.applied.version)
        gauge(metrics.RECORDS_WAITING, make).set_function(lambda: books.waiting)
        gauge(metrics.RECORDS_DROPPED, make).set_function(lambda: books.dropped)
        gauge(metrics.WAITING, make).set_function(lambda: room.waiting)
        gauge(metrics.CACHE_BYTES, make).set_function(lambda: cache.size_bytes)
        self._cached = counter(metrics.CACHE_RESULTS, make)
        self._limited = counter(metrics.LIMITED, make)
        gauge(metrics.SHADOW_IN_FLIGHT, make).set_function(lambda: self.copies)
        self._shadowed = counter(metrics.SHADOWED, make)
        self._shadow_dropped = counter(metrics.SHADOW_DROPPED, make)
        self._agreement = histogram(metrics.SHADOW_AGREEMENT, make)
        make.register(_ReplicaCollector(routes))

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text form."""
        return generate_latest(self._registry)

    def ended(self, record: RequestRecord) -> None:
        """Count a request by its record."""
        model = record.model or UNKNOWN
        if record.cache != "off":
            self._cached.labels(model, record.cache).inc()
        if record.error_code == LimitExceeded.code and record.status == LimitExceeded.status:
            self._limited.labels(model).inc()
        operation = record.operation or UNKNOWN
        self._requests.labels(model, operation, record.outcome, str(record.status)).inc()
        for attempt in record.attempts:
            self._attempts.labels(model, attempt.outcome).inc()
        if record.cache in SHARED:
            pass  # made once, counted once
        elif record.prompt_tokens:
            self._tokens.labels(model, "input").inc(record.prompt_tokens)
        if record.completion_tokens and record.cache not in SHARED:
            self._tokens.labels(model, "output").inc(record.completion_tokens)
        if record.outcome != "completed":
            return
        self._duration.labels(model, operation).observe(record.e2e_s)
        if record.ttft_s is not None:
            self._first.labels(model, operation).observe(record.ttft_s)
        if record.itl_mean_s is not None:
            self._per_token.labels(model, operation).observe(record.itl_mean_s)

    def copied(self, record: RequestRecord) -> None:
        """Count a copy of a live request by its record."""
        model = record.model or UNKNOWN
        self._shadowed.labels(model, record.outcome).inc()
        if record.agreement is not None:
            self._agreement.labels(model).observe(record.agreement)

    def copy_dropped(self, model: str | None, reason: str) -> None:
        """Count a copy that was not made, or ended without saying anything."""
        self._shadow_dropped.labels(model or UNKNOWN, reason).inc()


class _ReplicaCollector:
    """In-flight counts by replica, read when asked: replicas come and go."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now = time.monotonic()
        for metric, read in (
            (metrics.REPLICA_IN_FLIGHT, lambda replica: replica.in_flight),
            (metrics.REPLICA_AVAILABLE, lambda replica: int(replica.circuit.takes(now))),
        ):
            family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
            for replica in self._routes.replicas:
                labels = [replica.model, replica.slot.slot, replica.route.id]
                family.add_metric(labels, read(replica))
            yield family
