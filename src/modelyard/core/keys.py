"""Keys and limits as an ordered log of changes.

A gateway applies the entries in the order of `seq`, without gaps; one that sees a gap asks again
from the start. A revocation is one small entry, so it takes effect within a second (promise S8)
however many keys there are. Compaction: the controller may answer a start from zero with the
entries that still matter; their `seq` keep their order.
"""

from typing import Literal

import msgspec

LimitKind = Literal[
    "requests_per_min",
    "tokens_per_min",
    "concurrent_requests",
    "tokens_per_day",
    "tokens_per_month",
    "cost_per_day",
    "cost_per_month",
]
Priority = Literal["high", "normal", "low"]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A bound on what one key or tenant may use, over all models or of one."""

    kind: LimitKind
    amount: float
    """Requests, tokens, or money in the reporting currency."""
    model: str | None = None


class KeyPut(msgspec.Struct, frozen=True, kw_only=True, tag="key_put"):
    """A key is made or changed; the whole of it is stated."""

    seq: int
    at: float
    key_id: str
    """Public identifier, shown in lists and records."""
    secret_sha256: str
    """Hexadecimal SHA-256 of the secret; secrets are 32 random bytes, so no salt is needed."""
    tenant: str
    name: str = ""
    models: tuple[str, ...] | None = None
    """Public model names that it may ask; None: all."""
    limits: tuple[Limit, ...] = ()
    priority: Priority = "normal"
    expires_at: float | None = None
    former_sha256: str | None = None
    """The secret before the last rotation, which is still taken until `former_until`."""
    former_until: float | None = None


class KeyRevoked(msgspec.Struct, frozen=True, kw_only=True, tag="key_revoked"):
    """A key ends; requests in flight finish, new ones get 401."""

    seq: int
    at: float
    key_id: str


class TenantPut(msgspec.Struct, frozen=True, kw_only=True, tag="tenant_put"):
    """A tenant is made or its limits change."""

    seq: int
    at: float
    tenant: str
    limits: tuple[Limit, ...] = ()
    when_store_lost: Literal["refuse", "count_locally"] = "refuse"
    """What happens while the shared counters can't be reached (promise G13)."""


class TenantDropped(msgspec.Struct, frozen=True, kw_only=True, tag="tenant_dropped"):
    """A tenant ends, with all its keys."""

    seq: int
    at: float
    tenant: str


class ModelLimitsPut(msgspec.Struct, frozen=True, kw_only=True, tag="model_limits_put"):
    """Bounds on what all callers of a model may use together."""

    seq: int
    at: float
    model: str
    limits: tuple[Limit, ...]


KeyLogEntry = KeyPut | KeyRevoked | TenantPut | TenantDropped | ModelLimitsPut
