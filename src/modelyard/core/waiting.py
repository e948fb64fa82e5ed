"""Who is served next when a place comes free: by priority, then in the order of coming."""

from collections import deque
from typing import Generic, TypeVar

from modelyard.core.keys import Priority

ORDER: tuple[Priority, ...] = ("high", "normal", "low")
Ticket = TypeVar("Ticket")


class Line(Generic[Ticket]):
    """A bounded queue with three priorities. Tickets are told apart by identity."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, deque[Ticket]] = {priority: deque() for priority in ORDER}

    def __len__(self) -> int:
        return sum(len(tickets) for tickets in self._waiting.values())

    def join(self, ticket: Ticket, priority: Priority, max_waiting: int) -> Ticket | None:
        """Take a place; return who has to go when there was none: the last to come of the lowest
        priority, which may be this ticket."""
        self._waiting[priority].append(ticket)
        if len(self) <= max_waiting:
            return None
        for lowest in reversed(ORDER):
            if self._waiting[lowest]:
                return self._waiting[lowest].pop()
        return None

    def leave(self, ticket: Ticket, priority: Priority) -> None:
        """Give a place up; one that is not in line is let go."""
        for place, waiting in enumerate(self._waiting[priority]):
            if waiting is ticket:
                del self._waiting[priority][place]
                return

    def ahead_of(self, priority: Priority) -> bool:
        """Whether somebody waits who is served before a newcomer of this priority."""
        reached = ORDER[: ORDER.index(priority) + 1]
        return any(self._waiting[each] for each in reached)

    def tickets(self) -> list[tuple[Priority, Ticket]]:
        """All that wait, in the order in which they are served."""
        return [(each, ticket) for each in ORDER for ticket in self._waiting[each]]
