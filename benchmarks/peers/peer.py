"""What a benchmark needs to know of a product: to install it, to start it, what it claims."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from modelyard.conformance.target import Target
from modelyard.conformance.yard import EngineProcess


@dataclass(frozen=True)
class Running:
    """A gateway that listens on a loopback address."""

    target: Target
    exit_code: Callable[[], int | None]
    """How its process ended; None while it runs."""


_OWN = "looks at Modelyard's own headers and metrics"
NOT_MODELYARD = dict.fromkeys(
    ("leaving/own-counts", "usage/own-headers", "usage/request-id", "caching/age"), _OWN
)
"""Why a few checks are for one product only."""


@dataclass(frozen=True)
class Peer:
    """One product."""

    name: str
    configs: tuple[str, ...]
    """Files of this repository that say how it is configured."""
    install: Callable[[Path], str]
    """Install into a folder of its own below a cache, unless it is there; returns the version."""
    start: Callable[[Path, Path, Sequence[EngineProcess]], AbstractContextManager[Running]]
    """Start from that cache, with a folder for its files, before engines A, B and C; end it."""
    not_claimed: Mapping[str, str]
    """Theme, or glob of checks: why the product does not claim to pass them."""
