"""Where requests are counted: combinations of model, version and slot, as many as are kept."""

from collections.abc import Iterator, Sequence

from modelyard.core.metrics import gateway as metrics
from modelyard.core.records import RequestRecord
from modelyard.core.routes import Operation, SlotRoute
from modelyard.gateway.routes import RouteTable
from modelyard.observe.prometheus import Counters, Histograms, Labels

PLACES = 500
"""The most that are kept."""
KEEP_S = 3600.0
"""Time without an end after which one that is not routed goes."""
SWEEP_S = 60.0
OTHER: Labels = ("other", "other", "other")
"""What comes when all places are taken."""
UNKNOWN = "unknown"
"""Model of requests that named none of ours: what clients invent must not become labels."""
NONE = "none"
"""Version and slot of a request that was sent to none."""
UNNAMED = "unnamed"
"""Weights of a route that does not say what they are called."""
REMOTE = "remote"
"""Version of an upstream without registered weights."""


def version_label(slot: SlotRoute) -> str:
    """What a slot's answers are made by, as `name:3`."""
    return name_version(slot.model, slot.version)


def name_version(registered: str | None, version: int | None) -> str:
    """A version as it is told."""
    return REMOTE if version is None else f"{registered or UNNAMED}:{version}"


class Place:
    """What is counted of the requests to one version in one slot."""

    __slots__ = (
        "cached_tokens", "completion_tokens", "cost", "idle_since", "labels", "model",
        "prompt_tokens", "queue", "replica_s", "used", "version",
    )  # fmt: skip

    def __init__(self, labels: Labels, counted: "Places") -> None:
        self.labels = labels
        self.model, self.version, _ = labels
        self.used = True
        """Whether a request ended here since the last look."""
        self.idle_since = 0.0
        self.queue = counted.queue.child(*labels)
        self.prompt_tokens = counted.tokens.child(*labels, "input")
        self.completion_tokens = counted.tokens.child(*labels, "output")
        self.cached_tokens = counted.cached_tokens.child(*labels)
        self.cost = counted.cost.child(*labels)
        self.replica_s = counted.replica_s.child(*labels)

    def used_up(self, record: RequestRecord) -> None:
        """Count what a request took: of an answer that several share, once."""
        if record.prompt_tokens:
            self.prompt_tokens.value += record.prompt_tokens
        if record.completion_tokens:
            self.completion_tokens.value += record.completion_tokens
        if record.cached_tokens:
            self.cached_tokens.value += record.cached_tokens
        if record.cost:
            self.cost.value += record.cost
        if record.replica_s:
            self.replica_s.value += record.replica_s


class Places:
    """All of them. A counter that goes is at an end; should its labels come back, it begins at
    zero, which Prometheus takes for the restart that it is."""

    def __init__(self, routes: RouteTable) -> None:
        self._routes = routes
        self._places: dict[Labels, Place] = {}
        self._swept_at = 0.0
        self.queue = Histograms(metrics.QUEUE_TIME)
        self.tokens = Counters(metrics.TOKENS)
        self.cached_tokens = Counters(metrics.CACHED_TOKENS)
        self.cost = Counters(metrics.COST)
        self.replica_s = Counters(metrics.REPLICA_SECONDS)

    @property
    def sources(self) -> "Sequence[Counters | Histograms]":
        """What they count."""
        return (self.queue, self.tokens, self.cached_tokens, self.cost, self.replica_s)

    def __len__(self) -> int:
        return len(self._places)

    def of(self, record: RequestRecord, registered: str | None) -> Place:
        """The place of a request."""
        model = record.model or UNKNOWN
        labels: Labels = (model, NONE, NONE)
        if record.slot is not None:
            labels = (model, name_version(registered, record.version), record.slot)
        return self.at(labels)

    def at(self, labels: Labels) -> Place:
        """The place of these labels, or the one for what is too much."""
        known = self._places.get(labels)
        if known is not None:
            return known
        if len(self._places) >= PLACES and labels[0] != UNKNOWN:
            labels = OTHER
            known = self._places.get(labels)
        if known is None:
            known = self._places[labels] = Place(labels, self)
        return known

    def model(self, name: str) -> str:
        """How a model is told where there is no version."""
        known = len(self._places) < PLACES or any(key[0] == name for key in self._places)
        return name if known else OTHER[0]

    def sweep(self, now: float) -> tuple[list[Place], set[str]]:
        """Drop the places that are no longer routed and long unused, and the models that are gone
        with them; `now` is monotonic seconds."""
        if now < self._swept_at + SWEEP_S:
            return [], set()
        self._swept_at = now
        for place in self._places.values():
            if place.used:
                place.used, place.idle_since = False, now
        routed = {OTHER, (UNKNOWN, NONE, NONE)} | {labels for labels, _ in self.routed()}
        gone = [
            place
            for place in self._places.values()
            if place.labels not in routed and now - place.idle_since > KEEP_S
        ]
        for place in gone:
            del self._places[place.labels]
            for family in self.sources:
                family.forget(*place.labels)
        left = {place.model for place in self._places.values()}
        return gone, {place.model for place in gone} - left

    def routed(self) -> Iterator[tuple[Labels, tuple[Operation, ...]]]:
        """Those that requests may come to, and what they may ask for there."""
        for model in self._routes.models:
            every = {operation for slot in model.slots for operation in slot.operations}
            yield (model.name, NONE, NONE), tuple(sorted(every))
            for slot in model.slots:
                yield (model.name, version_label(slot), slot.slot), slot.operations
