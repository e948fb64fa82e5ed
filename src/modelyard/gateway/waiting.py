"""Requests that wait for a replica to take them, a line for each model (promise G9)."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from modelyard.core.errors import ModelyardError
from modelyard.core.keys import Priority
from modelyard.core.routes import Queueing
from modelyard.core.waiting import Line

Place = TypeVar("Place")


class _Waiter:
    """One request in line."""

    __slots__ = ("displaced", "future")

    def __init__(self) -> None:
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.displaced = False

    def call(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class WaitingRoom:
    """Lines by public model name; nobody overtakes but by priority."""

    def __init__(self) -> None:
        self._lines: dict[str, Line[_Waiter]] = {}

    @property
    def waiting(self) -> int:
        """How many wait, of all models."""
        return sum(len(line) for line in self._lines.values())

    def passes(self, model: str, priority: Priority) -> bool:
        """Whether a newcomer need not wait behind somebody."""
        line = self._lines.get(model)
        return line is None or not line.ahead_of(priority)

    def poke(self, model: str) -> None:
        """A place may have come free: let the first in line look."""
        line = self._lines.get(model)
        if line is not None:
            for _, waiter in line.tickets():
                waiter.call()
                return

    def poke_all(self) -> None:
        """Everything may have changed."""
        for model in list(self._lines):
            self.poke(model)

    async def wait(
        self,
        model: str,
        priority: Priority,
        queueing: Queueing,
        look: Callable[[], Place | None],
        *,
        back_in_s: Callable[[], float],
        full: Callable[[str], ModelyardError],
    ) -> Place:
        """Wait until `look` finds a place, at most the policy's deadline.

        `back_in_s`: when to look without having been called, as a breaker closes by itself.
        Raises `full(why)` when there is no room, no time, or another takes the room.
        """
        line = self._lines.setdefault(model, Line())
        waiter = _Waiter()
        displaced = line.join(waiter, priority, queueing.max_waiting)
        if displaced is waiter:
            raise full(f"{len(line)} requests wait for it already")
        if displaced is not None:
            displaced.displaced = True
            displaced.call()
        deadline = asyncio.get_running_loop().time() + queueing.deadline_s
        try:
            while True:
                left_s = deadline - asyncio.get_running_loop().time()
                if left_s <= 0:
                    raise full(f"none took it within {queueing.deadline_s:g} s")
                await asyncio.wait((waiter.future,), timeout=min(left_s, back_in_s() or left_s))
                if waiter.displaced:
                    raise full("its place in the queue went to a request of higher priority")
                if waiter.future.done():
                    waiter.future = asyncio.get_running_loop().create_future()
                place = look()
                if place is not None:
                    return place
        finally:
            line.leave(waiter, priority)
            if not len(line) and self._lines.get(model) is line:
                del self._lines[model]
            else:
                self.poke(model)  # there may be a place for the next one too
