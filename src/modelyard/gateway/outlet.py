"""Where a streamed answer goes: a client's connection, or what several clients share."""

from collections.abc import Callable, Iterable
from typing import Protocol

from modelyard.wire.http import Header


class Outlet(Protocol):
    """Takes an answer part by part."""

    head_sent: bool
    on_writable: Callable[[bool], None] | None
    """Told when it can take no more for now (False) and when it can again (True)."""

    @property
    def writable(self) -> bool:
        """Whether it can take more now."""

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The answer begins."""

    def write(self, payload: bytes) -> None:
        """The next part of it; not empty."""

    def end(self) -> None:
        """It is whole."""
