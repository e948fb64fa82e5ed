"""One request to a replica for all that ask for the same at once (promise G17).

What comes back is gathered here while it comes, and each client takes it from here at its own
pace. Nobody's leaving ends it but the last one's; an error is nobody's answer: those who joined ask
for themselves. Memory is bounded: an answer that outgrows the bound is not kept, and its replica is
read no faster than the slowest client reads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from modelyard.core.errors import ModelyardError
from modelyard.gateway.calls import Answer, Call
from modelyard.wire.http import Header

Ask = Callable[[Call, "Flight"], Awaitable[Answer | None]]
"""Asks a replica: returns the whole answer, or None after it was streamed to the flight."""


class Seat:
    """One client's place in a flight."""

    __slots__ = ("pays", "taken")

    def __init__(self, pays: bool) -> None:
        self.pays = pays
        """Its request is the one that the answer is accounted to."""
        self.taken = 0
        """Parts of the stream that it has sent on."""


class Flight:
    """A request under way and its answer so far. An `Outlet` for what streams it."""

    def __init__(self, call: Call, limit_bytes: int) -> None:
        self.call = call
        """Gathers attempts, usage and the end of the answer."""
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._dropped = 0
        """Parts that everybody has taken and that are no longer here."""
        self._held_bytes = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.seats: set[Seat] = set()
        self.head_sent = False
        self.on_writable: Callable[[bool], None] | None = None
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.done = False
        self.whole = True
        """All parts are still here: whoever joins now gets the answer from its beginning."""

    # --- what is asked of a replica --------------------------------------------------------------

    def start(self, ask: Ask, ended: Callable[["Flight"], None]) -> None:
        """Ask, in a task of its own; `ended` is called when nothing more will come."""

        async def run() -> None:
            try:
                self.answer = await ask(self.call, self)
            except ModelyardError as error:
                self.error = error
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - told to those who wait, who report it
                self.error = error
            finally:
                self.done = True
                ended(self)
                self._changed.set()

        self._task = asyncio.get_running_loop().create_task(run())

    # --- Outlet ----------------------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        """Whether there is room for more."""
        return self._held_bytes < self._limit_bytes

    def begin(self, status: int, headers: Iterable[Header]) -> None:
        """The stream begins; each client gets a head of its own."""
        self.head_sent = True
        self._changed.set()

    def write(self, payload: bytes) -> None:
        """Keep a part for all."""
        self._parts.append(payload)
        self._held_bytes += len(payload)
        if not self.writable:
            self.whole = False
            self._trim()
            if not self.writable and self.on_writable is not None:
                self.on_writable(False)
        self._changed.set()

    def end(self) -> None:
        """The stream is whole; `done` says so when its task is over."""

    # --- what clients take -----------------------------------------------------------------------

    def join(self, pays: bool) -> Seat:
        """Take part; `leave` must follow."""
        seat = Seat(pays)
        self.seats.add(seat)
        return seat

    async def leave(self, seat: Seat) -> None:
        """No longer take part; the last one ends it, and waits until it has ended."""
        self.seats.discard(seat)
        if self.seats:
            if seat.pays and not self.done:
                next(iter(self.seats)).pays = True
                seat.pays = False
            self._trim()
        elif self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready`, or until nothing more will come."""
        while not self.done and not ready():
            self._changed.clear()
            await self._changed.wait()

    def take(self, seat: Seat) -> list[bytes]:
        """The parts that this client has not had yet."""
        parts = self._parts[seat.taken - self._dropped :]
        seat.taken += len(parts)
        self._trim()
        return parts

    def behind(self, taken: int) -> bool:
        """Whether there are parts after so many."""
        return self._dropped + len(self._parts) > taken

    def stream(self) -> bytes:
        """The stream as a whole; only while `whole`."""
        return b"".join(self._parts)

    def _trim(self) -> None:
        """Forget what everybody has had, once the answer is too large to be kept."""
        if self.whole or not self.seats:
            return
        had = min(seat.taken for seat in self.seats) - self._dropped
        if had > 0:
            self._held_bytes -= sum(map(len, self._parts[:had]))
            del self._parts[:had]
            self._dropped += had
            if self.writable and self.on_writable is not None:
                self.on_writable(True)


class Flights:
    """Those under way, by cache key."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def find(self, key: bytes) -> Flight | None:
        """One that can still be joined."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.whole and not flight.done else None

    def add(self, key: bytes, flight: Flight) -> None:
        """Let others find it."""
        self._flights[key] = flight

    def remove(self, key: bytes, flight: Flight) -> None:
        """It is over."""
        if self._flights.get(key) is flight:
            del self._flights[key]
