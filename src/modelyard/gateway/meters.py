"""What the gateway measures, as Prometheus reads it.

Labels come from routes and from short lists, never from what a client wrote, and there are at most
`PLACES` combinations of model, version and slot: what comes beyond them is counted as `other`, and
those that are no longer routed go when nothing ended there for an hour.
"""

import time
from collections.abc import Callable, Iterator

import modelyard
from modelyard.core.errors import LimitExceeded
from modelyard.core.metrics import gateway as metrics
from modelyard.core.metrics.declaration import Metric
from modelyard.core.records import CacheResult, RequestRecord
from modelyard.gateway.cache import AnswerCache
from modelyard.gateway.places import NONE, UNKNOWN, Place, Places, version_label
from modelyard.gateway.routes import LiveReplica, RouteTable
from modelyard.gateway.spool import RecordSink
from modelyard.gateway.waiting import WaitingRoom
from modelyard.observe.prometheus import (
    Counter,
    Counters,
    Exposition,
    Histogram,
    Histograms,
    Labels,
    Reading,
    Source,
    one,
)

SHARED: frozenset[CacheResult] = frozenset({"hit", "joined"})
"""Answers that no replica made for this request."""
MAX_WAYS = 10_000
"""Kinds of ends whose cells are at hand; they are looked up again when there are more."""
STATUSES = frozenset(
    (200, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 499, 500, 501, 502, 503, 504)
)
"""Told as they are. An upstream may answer with any other."""
_BEGUN = (("completed", "200"), ("failed", "502"), ("failed", "503"), ("failed", "504"))
"""Ends whose counters begin at zero with the routes; what no version got is not completed."""
_CONVENTION = {
    "chat": "chat",
    "responses": "chat",
    "messages": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""Our operations under the names of `gen_ai.operation.name`."""


class _Way:
    """All that is counted of requests that were alike and ended alike."""

    __slots__ = ("cached", "place", "requests", "times")

    def __init__(self, place: Place, requests: Counter, cached: Counter | None) -> None:
        self.place = place
        self.requests = requests
        self.cached = cached
        self.times: tuple[Histogram, Histogram, Histogram] | None = None
        """Duration, time to first token, time per token; None where they say nothing."""


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
        self._routes = routes
        self._begun: object = None
        """The routes whose counters are there."""
        self._ways: dict[tuple[object, ...], _Way] = {}
        self._requests = Counters(metrics.REQUESTS)
        self._duration = Histograms(metrics.REQUEST_DURATION)
        self._first = Histograms(metrics.TIME_TO_FIRST_TOKEN)
        self._per_token = Histograms(metrics.TIME_PER_OUTPUT_TOKEN)
        self._attempts = Counters(metrics.ATTEMPTS)
        self._cached = Counters(metrics.CACHE_RESULTS)
        self._limited = Counters(metrics.LIMITED)
        self._shadowed = Counters(metrics.SHADOWED)
        self._shadow_dropped = Counters(metrics.SHADOW_DROPPED)
        self._agreement = Histograms(metrics.SHADOW_AGREEMENT)
        self._by_model = (
            self._attempts, self._cached, self._limited, self._shadowed, self._shadow_dropped,
            self._agreement,
        )  # fmt: skip
        self._places = Places(routes)
        self._all = Exposition()
        self._all.add(
            Reading(metrics.BUILD_INFO, lambda: ((("gateway", modelyard.__version__), 1),)),
            one(metrics.CONNECTIONS, lambda: self.connections),
            one(metrics.REQUESTS_IN_FLIGHT, lambda: self.open),
            one(metrics.WAITING, lambda: room.waiting),
            self._requests,
            self._duration,
            self._first,
            self._per_token,
            *self._places.sources,
            self._attempts,
            self._limited,
            self._cached,
            one(metrics.CACHE_BYTES, lambda: cache.size_bytes),
            self._replicas(metrics.REPLICA_IN_FLIGHT, _in_flight),
            self._replicas(metrics.REPLICA_AVAILABLE, _available),
            one(metrics.SHADOW_IN_FLIGHT, lambda: self.copies),
            self._shadowed,
            self._shadow_dropped,
            self._agreement,
            one(metrics.ROUTES_VERSION, lambda: routes.applied.version),
            one(metrics.RECORDS_WAITING, lambda: books.waiting),
            one(metrics.RECORDS_DROPPED, lambda: books.dropped),
        )

    def add(self, *sources: Source) -> None:
        """Tell of these too."""
        self._all.add(*sources)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text form."""
        self._sweep()
        if self._begun != self._routes.applied:
            self._begin()
        return self._all.text()

    def ended(self, record: RequestRecord, registered: str | None = None) -> None:
        """Count a request by its record; `registered` is the name of the weights that answered."""
        key = (
            record.model, registered, record.version, record.slot, record.operation,
            record.outcome, record.status, record.cache,
        )  # fmt: skip
        way = self._ways.get(key) or self._way(key, record, registered)
        way.requests.value += 1
        place = way.place
        place.used = True
        if way.cached is not None:
            way.cached.value += 1
        for attempt in record.attempts:
            self._attempts.child(place.model, attempt.outcome).value += 1
        if record.attempts or record.queue_s:
            place.queue.observe(record.queue_s)
        if record.cache not in SHARED:
            place.used_up(record)
        if way.times is None:
            self._count_refusal(record, place)
            return
        duration, first, per_token = way.times
        duration.observe(record.e2e_s)
        if record.ttft_s is not None:
            first.observe(record.ttft_s)
        if record.itl_mean_s is not None:
            per_token.observe(record.itl_mean_s)

    def copied(self, record: RequestRecord) -> None:
        """Count a copy of a live request by its record."""
        model = self._places.model(record.model or UNKNOWN)
        self._shadowed.child(model, record.outcome).value += 1
        if record.agreement is not None:
            self._agreement.child(model).observe(record.agreement)

    def copy_dropped(self, model: str | None, reason: str) -> None:
        """Count a copy that was not made, or ended without saying anything."""
        self._shadow_dropped.child(self._places.model(model or UNKNOWN), reason).value += 1

    def _way(self, key: tuple[object, ...], record: RequestRecord, registered: str | None) -> _Way:
        """The cells of a request's kind, looked up once."""
        if len(self._ways) >= MAX_WAYS:
            self._ways.clear()
        place = self._places.of(record, registered)
        operation = record.operation or UNKNOWN
        ended = (operation, record.outcome, _status(record.status))
        way = _Way(
            place,
            self._requests.child(*place.labels, *ended),
            None if record.cache == "off" else self._cached.child(place.model, record.cache),
        )
        if record.outcome == "completed":
            labels = (*place.labels, _CONVENTION.get(operation, operation))
            way.times = (
                self._duration.child(*labels),
                self._first.child(*labels),
                self._per_token.child(*labels),
            )
        self._ways[key] = way
        return way

    def _count_refusal(self, record: RequestRecord, place: Place) -> None:
        if record.error_code == LimitExceeded.code and record.status == LimitExceeded.status:
            self._limited.child(place.model).value += 1

    def _sweep(self) -> None:
        """Let go of what is no longer routed and long since unused."""
        gone, models = self._places.sweep(time.monotonic())
        if not gone:
            return
        self._ways.clear()
        for place in gone:
            for family in (self._requests, self._duration, self._first, self._per_token):
                family.forget(*place.labels)
        for model in models:
            for counted in self._by_model:
                counted.forget(model)

    def _begin(self) -> None:
        """Let what is routed have its counters of failures before it has any.

        A counter that is not there before it counts is seen to grow by nothing: an outage that
        begins between two scrapes would be none.
        """
        self._begun = self._routes.applied
        for labels, operations in self._places.routed():
            place = self._places.at(labels)
            for operation in operations:
                for outcome, status in _BEGUN[place.version == NONE :]:
                    self._requests.child(*place.labels, operation, outcome, status)

    def _replicas(self, metric: Metric, read: Callable[[LiveReplica, float], float]) -> Reading:
        """A gauge of every replica that there is: they come and go."""

        def rows() -> Iterator[tuple[Labels, float]]:
            now = time.monotonic()
            for live in self._routes.replicas:
                version = version_label(live.slot)
                yield (live.model, version, live.slot.slot, live.route.id), read(live, now)

        return Reading(metric, rows)


def _in_flight(replica: LiveReplica, _now: float) -> float:
    return replica.in_flight


def _available(replica: LiveReplica, now: float) -> float:
    return int(replica.circuit.takes(now))


def _status(status: int) -> str:
    return str(status) if status in STATUSES else f"{status // 100}xx"
