"""Where a streamed answer goes: a client's connection, what several clients share, or nowhere."""

from collections.abc import Callable, Iterable
from typing import Protocol

from modelyard.wire.http import Header


class Outlet(Protocol):
    """Takes an answer part by part."""

    on_writable: Callable[[bool], None] | None
    """Told when it can take no more for now (False) and when it can again (True)."""

    @property
    def head_sent(self) -> bool:
        """Whether the answer has begun, and can't become another one any more."""

    @property
    def writable(self) -> bool:
        """Whether it can take more now."""

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The answer begins."""

    def write(self, payload: bytes) -> None:
        """The next part of it; not empty."""

    def end(self) -> None:
        """It is whole."""


class Overheard:
    """Passes everything on to `client`; `listen` gets each part after it."""

    def __init__(self, client: Outlet, listen: Callable[[bytes], None]) -> None:
        self._client = client
        self._listen = listen

    @property
    def head_sent(self) -> bool:
        """Of the client."""
        return self._client.head_sent

    @property
    def writable(self) -> bool:
        """Of the client."""
        return self._client.writable

    @property
    def on_writable(self) -> Callable[[bool], None] | None:
        """Of the client."""
        return self._client.on_writable

    @on_writable.setter
    def on_writable(self, told: Callable[[bool], None] | None) -> None:
        self._client.on_writable = told

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The answer begins."""
        self._client.begin(status, headers)

    def write(self, payload: bytes) -> None:
        """The next part of it."""
        self._client.write(payload)
        self._listen(payload)

    def end(self) -> None:
        """It is whole."""
        self._client.end()


class Nobody:
    """Always takes more and keeps nothing; `listen` gets each part."""

    writable = True

    def __init__(self, listen: Callable[[bytes], None]) -> None:
        self._listen = listen
        self.head_sent = False
        self.on_writable: Callable[[bool], None] | None = None

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The answer begins."""
        self.head_sent = True

    def write(self, payload: bytes) -> None:
        """The next part of it."""
        self._listen(payload)

    def end(self) -> None:
        """It is whole."""
