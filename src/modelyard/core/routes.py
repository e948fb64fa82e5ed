"""The route snapshot: all that a gateway needs in order to serve, in one immutable message.

The controller publishes a new one, with the next `version`, whenever a model, slot, replica, weight
or policy changes. A gateway applies a snapshot whole or not at all, and keeps the last one on disk.
Keys and limits are not in it: they come as a log of changes (`core/keys.py`).
Durations are in seconds, sizes in bytes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from modelyard.core.cost import Price

SNAPSHOT_FORMAT = 1
"""Raised when a reader of the older form would misunderstand the newer one."""

REMOTE = "remote:"
"""Begins the identity of weights that can't be hashed from here: it is declared, not verified."""

Slot = Literal["blue", "green"]
Operation = Literal["chat", "completions", "embeddings", "responses", "messages"]
Balancing = Literal["round_robin", "least_in_flight", "power_of_two", "prefix_affinity", "session"]
StickyBy = Literal["key", "user", "session", "none"]
Tokenizer = Literal["none", "content", "messages"]
"""How a replica counts tokens: not at all; text by `POST /tokenize` after `/apply-template`
(llama.cpp); messages and text by `POST /tokenize` (vLLM)."""


Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]


class ReplicaRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One place that a request can be sent to."""

    id: str
    url: str
    """`http://host:port` or `https://…`, with an optional path prefix, without `/v1`."""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    """Relative share of new requests within its slot; 0 keeps it out."""
    max_concurrency: Count | None = None
    """Requests that it takes at once; None: no bound known."""
    upstream_model: str | None = None
    """The `model` to write into the forwarded body; None: the public name goes unchanged."""
    credential: str | None = None
    """Name of the secret that authenticates to it (never the secret itself)."""
    price: Price | None = None
    """What it costs, where that is not what its slot's cost."""


class SlotRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of a deployment: the replicas of one version."""

    slot: Slot
    model: str | None = None
    """Registered model name, which a public name need not equal; None for a remote upstream."""
    version: int | None
    """Version number; None for a remote upstream, which has none."""
    digest: str
    """`sha256:…` of the version's manifest, or `remote:…` (declared identity)."""
    weight: float
    """Share of the model's requests, 0 to 1; the weights of a model's slots sum to 1 or to 0."""
    operations: tuple[Operation, ...]
    """What the engine behind it can do; anything else is answered with 501."""
    context_length: Count | None = None
    """Tokens."""
    chat_template: bool = True
    """Whether prompts of the simple API go as a user message."""
    ask_as_stream: bool = False
    """Ask for a stream where the client did not: only of one does the engine see that it left."""
    tokenizer: Tokenizer = "none"
    price: Price | None = None
    """What it costs; None: nobody said."""
    replicas: tuple[ReplicaRoute, ...] = ()


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """The four timeouts of a request (promise G6), in seconds."""

    connect_s: Seconds = 2.0
    first_token_s: Seconds = 120.0
    """From sending the request to the first byte of a stream; a whole answer has `total_s`."""
    gap_s: Seconds = 60.0
    """The longest silence within an answer that has begun."""
    total_s: Seconds = 600.0


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """Retry discipline (promise G8)."""

    max_attempts: Count = 3
    budget_ratio: Share = 0.2
    """Retries per request over the last 10 s."""
    budget_floor_per_s: Annotated[float, Meta(ge=0)] = 3.0
    backoff_base_s: Seconds = 0.025
    backoff_max_s: Seconds = 0.5


class Queueing(msgspec.Struct, frozen=True, kw_only=True):
    """What happens when no replica can take a request: by default it is refused at once (G9).

    Those of a higher priority are served first; when the queue is full, one of a lower priority
    that waits gives up its place to them.
    """

    max_waiting: Annotated[int, Meta(ge=0)] = 0
    deadline_s: Annotated[float, Meta(ge=0, le=86_400)] = 10.0
    """The longest wait in the queue."""
    reserve: Share = 0.0
    """Share of the replicas' `max_concurrency` that requests of low priority leave free, 0 to 1."""


class Caching(msgspec.Struct, frozen=True, kw_only=True):
    """The exact cache (promises G15 to G18); off by default.

    `deterministic`: requests with temperature 0 or a seed, embeddings, and those that opt in by
    the header `x-modelyard-cache: allow`; `all`: every request.
    """

    mode: Literal["off", "deterministic", "all"] = "off"
    ttl_s: Annotated[float, Meta(gt=0)] = 3600.0
    single_flight: bool = False
    """Equal cacheable requests in flight become one request to a replica (promise G17)."""


class Breaking(msgspec.Struct, frozen=True, kw_only=True):
    """When a replica is left alone for a while (promise G7)."""

    failures: Count = 5
    """So many in a row open its breaker."""
    open_s: Seconds = 5.0
    """For so long; doubled with each opening in a row."""
    max_open_s: Seconds = 60.0
    outlier_ratio: Share = 0.5
    """One that fails so often, 0 to 1, over the last 30 s is taken out while others are better."""
    outlier_requests: Count = 20
    """Fewer requests than these in 30 s say nothing."""


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """Asking replicas whether they are there, beside the requests; off without a path."""

    path: str | None = None
    """Answered with 2xx by a healthy replica, such as `/health`."""
    interval_s: Seconds = 5.0
    timeout_s: Seconds = 2.0


class ShadowRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A slot that gets copies of requests and whose answers are not returned (promise D7)."""

    slot: Slot
    sample: Share
    """Probability that a request is copied, 0 to 1."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """How the requests of one model are treated."""

    balancing: Balancing = "least_in_flight"
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    queueing: Queueing = Queueing()
    caching: Caching = Caching()
    breaking: Breaking = Breaking()
    probing: Probing = Probing()
    fallbacks: tuple[str, ...] = ()
    """Public model names tried in order, before the first byte only (promise G26)."""
    context_overflow: Literal["reject", "clamp", "truncate_oldest"] = "reject"
    """Prompt and answer together over the context: 400 with the numbers; a smaller `max_tokens`;
    or the oldest turns left out (promise G26)."""
    max_completion_tokens: Count | None = None
    """The most that one answer may have: asked for where a request names no bound, or a larger."""
    max_body_bytes: Count = 8 * 1024 * 1024
    sticky_by: StickyBy = "none"
    """What a slot, and with balancing `session` a replica, is held to while shares change
    (promise D6): the API key; the request's `user`; its header `x-session-id`. `none` holds a
    slot to the user that a request names, else to its session."""


class ModelRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One public model name."""

    name: str
    deployment: str
    created_at: int
    """Unix seconds; `created` in `/v1/models`."""
    slots: tuple[SlotRoute, ...]
    policy: Policy = Policy()
    shadow: ShadowRoute | None = None
    draining_budget_s: float | None = None
    """Time that a leaving replica's streams get; None: the policy's total timeout."""
    holds: bool = False
    """Requests that no replica takes are kept in line, whatever the policy says: one version makes
    room for another."""


class RouteSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All routes at one moment."""

    format: int = SNAPSHOT_FORMAT
    epoch: str
    """Identity of the state store that counts `version`; versions of two epochs don't compare."""
    version: int
    published_at: float
    """Unix seconds."""
    models: tuple[ModelRoute, ...] = ()
    default_model: str | None = None
    """Serves the simple API's `model_name` left out or `default`."""


def prices_of(slot: SlotRoute) -> tuple[Price | None, ...]:
    """What a request of the slot may have to pay by; None: nobody said."""
    found = tuple(replica.price or slot.price for replica in slot.replicas)
    return found or (slot.price,)


def is_priced(slot: SlotRoute) -> bool:
    """Whether the cost of its requests is known, whichever replica they get."""
    return None not in prices_of(slot)


def empty_snapshot(epoch: str) -> RouteSnapshot:
    """What a controller that has published nothing yet stands for."""
    return RouteSnapshot(epoch=epoch, version=0, published_at=0.0)
