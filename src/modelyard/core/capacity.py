"""The time of replicas, asked or not, cut into steps and paid for (promise O6)."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from modelyard.core.cost import Price, capacity_nanos
from modelyard.core.rollups import KEPT_S, Step

_MS = 1000
LONGEST_MS = 7 * 86_400 * _MS
"""The most that is counted at once: of a replica that ran on while no controller did. Longer than
that, it is more likely that the clock was wrong."""


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """One replica ran for so long."""

    model: str
    """Public name."""
    version: int
    slot: str
    until_ms: int
    """Unix milliseconds."""
    length_ms: int
    accelerators: int
    price: Price | None


class Place(NamedTuple):
    """What capacity is told apart by."""

    step: Step
    at: int
    """Unix seconds at which the step began."""
    model: str
    version: int
    slot: str


class Capacity(NamedTuple):
    """What ran, and what it cost."""

    replica_ms: int = 0
    accelerator_ms: int = 0
    priced_ms: int = 0
    """Of the replicas' time, that which has a price."""
    cost_nanos: int = 0

    def plus(self, other: "Capacity") -> "Capacity":
        """Both together."""
        return Capacity(*(one + more for one, more in zip(self, other, strict=True)))


def elapsed_ms(since_ms: int, now_ms: int, longest_ms: int = LONGEST_MS) -> tuple[int, int]:
    """How much of a time is counted, and how much of it is not, for it is too long to be true.

    A clock that went back counts nothing.
    """
    length = max(0, now_ms - since_ms)
    counted = min(length, longest_ms)
    return counted, length - counted


def spread(stretches: Iterable[Stretch], now_s: float) -> Mapping[Place, Capacity]:
    """The stretches by step; each length of steps adds up to the same, but for those so old that
    they are not kept."""
    found: dict[Place, Capacity] = {}
    for stretch in stretches:
        for at_s, ms in _minutes(stretch):
            piece = _paid(stretch, ms)
            for step in Step:
                place = Place(step, step.begin(at_s), stretch.model, stretch.version, stretch.slot)
                kept_s = KEPT_S[step]
                if kept_s is None or place.at >= step.begin(now_s - kept_s):
                    found[place] = found.get(place, Capacity()).plus(piece)
    return found


def _minutes(stretch: Stretch) -> Iterator[tuple[int, int]]:
    """Begin (Unix seconds) and length (milliseconds) of its part of each minute."""
    minute_ms = Step.MINUTE * _MS
    at = stretch.until_ms - stretch.length_ms
    while at < stretch.until_ms:
        border = min(stretch.until_ms, (at // minute_ms + 1) * minute_ms)
        yield at // _MS, border - at
        at = border


def _paid(stretch: Stretch, ms: int) -> Capacity:
    price = stretch.price
    return Capacity(
        replica_ms=ms,
        accelerator_ms=ms * stretch.accelerators,
        priced_ms=0 if price is None else ms,
        cost_nanos=0 if price is None else capacity_nanos(price, ms),
    )
