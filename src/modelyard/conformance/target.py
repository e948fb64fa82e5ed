"""What is tested, and what its user says about it. Durations are in seconds, sizes in bytes."""

from collections.abc import Mapping
from typing import Literal

import msgspec

LimitKind = Literal["requests_per_min", "tokens_per_min", "concurrent_requests"]
LIMIT_KINDS: tuple[LimitKind, ...] = ("requests_per_min", "tokens_per_min", "concurrent_requests")

Need = Literal[
    "key",
    "single_model",
    "cached_model",
    "fallback_model",
    "forbidden_model",
    "other_tenant_key",
    "pid",
    "first_token_s",
    "gap_s",
    "total_s",
    "max_body_bytes",
    "headers",
    "requests_per_min",
    "tokens_per_min",
    "concurrent_requests",
]
"""What a check may need beyond the model M and the engines A and B."""

GIVEN_BY: Mapping[Need, str] = {
    "key": "--key, a key that M may be asked with",
    "single_model": "--single-model, a model that engine C alone serves",
    "cached_model": "--cached-model, a model with an exact cache",
    "fallback_model": "--fallback-model, a model of engine C that falls back on M",
    "forbidden_model": "--forbidden-model, a model that the key may not ask",
    "other_tenant_key": "--other-tenant-key, another tenant's key",
    "pid": "--pid, the gateway's process on this machine",
    "first_token_s": "--first-token-s, the timeout of a stream's first event",
    "gap_s": "--gap-s, the timeout of a silence in mid-stream",
    "total_s": "--total-s, the timeout of a whole request",
    "max_body_bytes": "--max-body-bytes, the bound on a request's body",
    "headers": "--headers, whose own response headers to look at",
    "requests_per_min": "--limited-key with --limits requests_per_min=N",
    "tokens_per_min": "--limited-key with --limits tokens_per_min=N",
    "concurrent_requests": "--limited-key with --limits concurrent_requests=N",
}
"""How each is given on the command line."""


class LimitedKey(msgspec.Struct, frozen=True):
    """A key whose limits are known."""

    key: str
    limits: Mapping[LimitKind, int]


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway under test."""

    url: str
    """`http(s)://HOST[:PORT][/PREFIX]`, with or without `/v1`."""
    model: str
    """Served by engines A and B."""
    engines: tuple[str, ...]
    """URLs of the fake engines A, B and, where there is one, C."""
    key: str | None = None
    single_model: str | None = None
    cached_model: str | None = None
    fallback_model: str | None = None
    forbidden_model: str | None = None
    other_tenant_key: str | None = None
    limited_keys: tuple[LimitedKey, ...] = ()
    pid: int | None = None
    first_token_s: float | None = None
    """This and the next two are the timeouts of `single_model`, where one is given, else of M."""
    gap_s: float | None = None
    total_s: float | None = None
    max_body_bytes: int | None = None
    headers: Literal["modelyard"] | None = None
    settle_s: float = 15.0
    """How long the gateway may take to ask every engine again after a check's faults."""

    def has(self, need: Need) -> bool:
        """Whether it was given."""
        if need in LIMIT_KINDS:
            return any(need in limited.limits for limited in self.limited_keys)
        return getattr(self, need) is not None

    def lacks(self, needs: tuple[Need, ...]) -> tuple[Need, ...]:
        """Those of `needs` that were not given."""
        return tuple(need for need in needs if not self.has(need))
