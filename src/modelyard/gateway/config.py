"""The stand-alone gateway's configuration file: what it may hold.

docs/gateway.reference.yaml lists every setting with its default; a test holds it to these types.
Secrets are never in the file: it names an environment variable or a file that holds one.
"""

import re
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from modelyard.core.cost import Price
from modelyard.core.keys import LimitKind, Priority
from modelyard.core.overflow import Overflow
from modelyard.core.routes import (
    Balancing,
    Breaking,
    Caching,
    Count,
    Operation,
    Probing,
    Queueing,
    Retries,
    StickyBy,
    Timeouts,
    Tokenizer,
)
from modelyard.core.telemetry import RequestLogOptions, TraceOptions
from modelyard.gateway.cache import CacheBounds

Limits = dict[LimitKind, Annotated[float, Meta(gt=0)]]
LONGEST_NAME = 128
_NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME, pattern=_NO_CONTROLS)]
"""Goes out in a header of every answer: a line of its own in it would be one there too."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An unknown setting is an error: a misspelt one must not be ignored."""


class TimeoutSettings(Timeouts, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class RetrySettings(Retries, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class QueueSettings(Queueing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CachingSettings(Caching, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class BreakingSettings(Breaking, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProbingSettings(Probing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CacheSettings(CacheBounds, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class PriceSettings(Price, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class UpstreamSettings(_Strict, frozen=True):
    """One place that a model is served at: any OpenAI-compatible server."""

    url: str
    """`http(s)://HOST[:PORT][/PREFIX]`, without `/v1`."""
    model: str | None = None
    """Its name there, where that is another."""
    weight: Annotated[float, Meta(ge=0)] = 1.0
    max_concurrency: Count | None = None
    api_key_env: str | None = None
    api_key_file: str | None = None
    price: PriceSettings | None = None
    """What it costs, where that is not what the others of the model cost."""


class ModelSettings(_Strict, frozen=True):
    """One public model name."""

    name: Name
    upstreams: Annotated[tuple[UpstreamSettings, ...], Meta(min_length=1)]
    default: bool = False
    revision: str = ""
    """Says which weights are behind it: changed, the cache begins anew."""
    operations: tuple[Operation, ...] = (
        "chat", "completions", "embeddings", "responses", "messages",
    )  # fmt: skip
    context_length: Count | None = None
    tokenizer: Tokenizer = "none"
    chat_template: bool = True
    cancels_streams_only: bool = False
    balancing: Balancing = "least_in_flight"
    sticky_by: StickyBy = "none"
    timeouts: TimeoutSettings = TimeoutSettings()
    retries: RetrySettings = RetrySettings()
    queueing: QueueSettings = QueueSettings()
    caching: CachingSettings = CachingSettings()
    breaking: BreakingSettings = BreakingSettings()
    probing: ProbingSettings = ProbingSettings()
    fallbacks: tuple[str, ...] = ()
    context_overflow: Overflow = "reject"
    max_completion_tokens: Count | None = None
    max_body_bytes: Count = 8 * 1024 * 1024
    limits: Limits = {}
    price: PriceSettings | None = None
    """What its answers cost; unknown when nobody says."""


class TenantSettings(_Strict, frozen=True):
    """Whoever has keys together."""

    name: Name
    limits: Limits = {}
    limits_by_model: dict[str, Limits] = {}


class KeySettings(_Strict, frozen=True):
    """One API key; its secret is known by hash, or lies in a variable or file."""

    id: Name
    tenant: Name = "default"
    sha256: str | None = None
    secret_env: str | None = None
    secret_file: str | None = None
    models: tuple[str, ...] | None = None
    limits: Limits = {}
    limits_by_model: dict[str, Limits] = {}
    priority: Priority = "normal"
    expires: datetime | None = None


class TlsSettings(_Strict, frozen=True):
    """What the gateway shows to its clients."""

    cert_file: str
    key_file: str


class RecordSettings(RequestLogOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    file: str | None = "requests.jsonl"
    """Below `state_dir`; null: none is kept."""


class TraceSettings(TraceOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class TelemetrySettings(_Strict, frozen=True):
    """What is sent to others about requests."""

    traces: TraceSettings = TraceSettings()


class GatewayFile(_Strict, frozen=True):
    """The whole file."""

    models: Annotated[tuple[ModelSettings, ...], Meta(min_length=1)]
    listen: str = "127.0.0.1:8000"
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "EUR"
    """Of all prices and limits of money, as ISO 4217 calls it."""
    tls: TlsSettings | None = None
    upstream_ca_file: str | None = None
    tenants: tuple[TenantSettings, ...] = ()
    keys: tuple[KeySettings, ...] = ()
    cache: CacheSettings = CacheSettings()
    records: RecordSettings = RecordSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    state_dir: str | None = None
    max_body_bytes: Count = 8 * 1024 * 1024
    drain_s: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    explain_last: Annotated[int, Meta(ge=0, le=1_000_000)] = 2000


def is_name(text: str) -> bool:
    """Whether a model can have this name."""
    return 0 < len(text) <= LONGEST_NAME and re.fullmatch(_NO_CONTROLS, text) is not None
