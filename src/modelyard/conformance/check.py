"""A check as data: its name, what it needs, and the function that looks."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, NoReturn

import msgspec

from modelyard.conformance.target import Need

if TYPE_CHECKING:
    from modelyard.conformance.bench import Bench

Result = Literal["passed", "failed", "not_applicable"]
Look = Callable[["Bench"], Awaitable[str]]
"""Drives the gateway; returns what was seen, raises Broken or Inapplicable."""
Retrying = Literal["", "relies", "spends"]
"""Whether a check relies on the gateway's being free to retry, or uses up what it may retry."""


class Broken(Exception):
    """The gateway does otherwise; the text says what was expected and what came."""


class Inapplicable(Exception):
    """What the check looks at could not be brought about; the text says why."""


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One named check."""

    name: str
    """`theme/what`."""
    meaning: str
    """What holds when it passes, in one line."""
    look: Look
    needs: tuple[Need, ...] = ()
    both: bool = False
    """Both engines must be asked by the gateway when it begins."""
    models: tuple[Need, ...] = ()
    """Models beside M that must answer when it begins."""
    retrying: Retrying = ""
    deadline_s: float = 10.0
    waits_for: Need | None = None
    """A timeout of the gateway's that the deadline must leave room for, twice."""
    last: bool = False
    """It ends the gateway."""

    @property
    def theme(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]


class Finding(msgspec.Struct, frozen=True):
    """How a check ended."""

    name: str
    result: Result
    seen: str


def expect(holds: bool, otherwise: str) -> None:
    """Raise Broken with `otherwise` unless it holds."""
    if not holds:
        raise Broken(otherwise)


def fail(seen: str) -> NoReturn:
    """Raise Broken."""
    raise Broken(seen)
