"""What a request costs: the time of replicas that it had, or its tokens by a price table (O6).

Money is in the reporting currency. Sums are kept in whole billionths of it, so that they are exact
in whatever order they are added up.
"""

from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

NANOS = 1_000_000_000
"""Billionths in one unit of the reporting currency."""
HOUR_S = 3600.0
_MILLION = 1_000_000
Amount = Annotated[float, Meta(ge=0, le=1e9)]


_HOUR_MS = 3_600_000


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one slot's replicas cost, in the reporting currency: their time, tokens, or both."""

    replica_hour: Amount = 0.0
    """Of one replica with all its accelerators, whether it is asked or not."""
    input_per_million: Amount = 0.0
    """Of tokens of prompts; for remote upstreams."""
    cached_per_million: Amount | None = None
    """Of tokens of prompts that the upstream had cached; None: as the others."""
    output_per_million: Amount = 0.0
    """Of tokens of answers."""


def cost_of_tokens(
    price: Price, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0
) -> float:
    """What tokens cost by their table.

    `cached_tokens` are some of the `prompt_tokens`; more of them than there are count as all.
    """
    cached = min(cached_tokens, prompt_tokens)
    cached_price = price.cached_per_million
    if cached_price is None:
        cached_price = price.input_per_million
    return (
        price.input_per_million * (prompt_tokens - cached)
        + cached_price * cached
        + price.output_per_million * completion_tokens
    ) / _MILLION


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """What running replicas costs, by launcher; where nobody said it, it is unknown, never 0."""

    currency: str = "EUR"
    replica_hour: Mapping[str, float] = {}
    """Of one replica, whatever it runs on."""
    accelerator_hour: Mapping[str, float] = {}
    """Of one accelerator, beside that."""

    def of(self, launcher: str, accelerators: int) -> Price | None:
        """The price of a replica with so many accelerators; None when its setting is missing."""
        if self.missing(launcher, accelerators):
            return None
        hour = self.replica_hour.get(launcher, 0.0)
        if accelerators:
            hour += accelerators * self.accelerator_hour[launcher]
        return Price(replica_hour=hour)

    def missing(self, launcher: str, accelerators: int) -> str:
        """The setting without which such a replica has no price; empty when it has one."""
        table = "accelerator_hour" if accelerators else "replica_hour"
        return "" if launcher in getattr(self, table) else f"cost.{table}.{launcher}"

    @property
    def empty(self) -> bool:
        """Whether nothing has a price."""
        return not self.replica_hour and not self.accelerator_hour


class SharedTime:
    """The clock of processor sharing: how long each of several users has had a thing for itself.

    While n of them use it, it grows by 1/n each second. What one had is the growth between its
    start and its end, and what all had sums to the time in which there was any, whatever the order
    in which they come and go. Times are seconds of a clock that never goes back.
    """

    __slots__ = ("_at", "_share_s")

    def __init__(self) -> None:
        self._share_s = 0.0
        self._at = 0.0

    def share_s(self, now: float, users: int) -> float:
        """Its reading; `users` are those since the last reading, so it is read at each change."""
        if users:
            self._share_s += (now - self._at) / users
        self._at = now
        return self._share_s


def capacity_nanos(price: Price, replica_ms: int) -> int:
    """What so many milliseconds of a replica cost, asked or not, in whole billionths."""
    return round(price.replica_hour * replica_ms * (NANOS / _HOUR_MS))


def nanos(cost: float | None) -> int:
    """A cost in whole billionths; 0 for one that nobody knows."""
    return 0 if cost is None else round(cost * NANOS)


def plain(amount_nanos: int) -> str:
    """Billionths as an exact decimal number, without the zeros that say nothing: `0.25`."""
    whole, rest = divmod(abs(amount_nanos), NANOS)
    digits = f"{rest:09d}".rstrip("0")
    sign = "-" if amount_nanos < 0 else ""
    return f"{sign}{whole}.{digits}" if digits else f"{sign}{whole}"
