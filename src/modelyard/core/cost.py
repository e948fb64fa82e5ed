"""What a request costs: the time of replicas that it had, or its tokens by a price table (O6).

Money is in the reporting currency. Sums are kept in whole billionths of it, so that they are exact
in whatever order they are added up.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

NANOS = 1_000_000_000
"""Billionths in one unit of the reporting currency."""
HOUR_S = 3600.0
_MILLION = 1_000_000
Amount = Annotated[float, Meta(ge=0, le=1e9)]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot's replicas cost, in the reporting currency."""

    replica_hour: Amount = 0.0
    """Of one replica with all its accelerators, whether it is asked or not."""
    input_per_million: Amount = 0.0
    """Of tokens of prompts; for remote upstreams."""
    cached_per_million: Amount | None = None
    """Of tokens of prompts that the upstream had cached; None: as the others."""
    output_per_million: Amount = 0.0
    """Of tokens of answers."""


def cost_of(
    price: Price, replica_s: float, prompt_tokens: int, completion_tokens: int, cached_tokens: int
) -> float:
    """Cost of one request that had `replica_s` seconds of a replica for itself.

    `cached_tokens` are some of the `prompt_tokens`; more of them than there are count as all.
    """
    cached = min(cached_tokens, prompt_tokens)
    cached_price = price.cached_per_million
    if cached_price is None:
        cached_price = price.input_per_million
    return (
        price.replica_hour * replica_s / HOUR_S
        + (
            price.input_per_million * (prompt_tokens - cached)
            + cached_price * cached
            + price.output_per_million * completion_tokens
        )
        / _MILLION
    )


def nanos(cost: float | None) -> int:
    """A cost in whole billionths; 0 for one that nobody knows."""
    return 0 if cost is None else round(cost * NANOS)
