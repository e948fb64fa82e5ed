"""Slots, queue and decode steps of the fake engine: continuous batching as pure policy.

A sequence waits (first in, first out) for one of `parallel` slots; in its slot its prompt is
prefilled, one prompt at a time, then every decode step gives each decoding sequence one token. A
step lasts `step_base_s + step_per_request_s x batch`. Who comes during a step joins the next one.
All times are the caller's clock in seconds.
"""

from heapq import heapify, heappop, heappush
from typing import Generic, Literal, TypeVar

import msgspec


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """How long things take; 0 everywhere: no time at all."""

    prefill_tokens_per_s: float = 0.0
    """0: prompts take no time."""
    step_base_s: float = 0.0
    step_per_request_s: float = 0.0

    @property
    def instant(self) -> bool:
        """Nothing takes time."""
        return not (self.prefill_tokens_per_s or self.step_base_s or self.step_per_request_s)

    def prefill_s(self, prompt_tokens: int) -> float:
        """Time to read a prompt."""
        rate = self.prefill_tokens_per_s
        return prompt_tokens / rate if rate else 0.0

    def step_s(self, batch: int) -> float:
        """Time of one decode step of so many sequences."""
        return self.step_base_s + self.step_per_request_s * batch


class Sequence:
    """One request as the scheduler sees it."""

    __slots__ = ("delay_s", "made", "prompt_tokens", "slot", "stops_at")

    def __init__(self, prompt_tokens: int = 0, *, stops_at: int = 1, delay_s: float = 0.0) -> None:
        """`stops_at`: tokens after which it decodes no more, but keeps its slot until it leaves.

        `delay_s`: extra time in its slot before the first token.
        """
        self.prompt_tokens = prompt_tokens
        self.stops_at = stops_at
        self.delay_s = delay_s
        self.made = 0
        self.slot: int | None = None


S = TypeVar("S", bound=Sequence)


class Scheduler(Generic[S]):
    """Who runs, who waits, and who gets a token when."""

    def __init__(self, *, parallel: int, max_waiting: int, timing: Timing) -> None:
        self.timing = timing
        self.slots: list[S | None] = [None] * parallel
        self._max_waiting = max_waiting
        self._free = list(range(parallel))
        heapify(self._free)
        self._waiting: dict[S, None] = {}  # dicts as ordered sets: a client may leave anywhere
        self._prefilling: dict[S, None] = {}
        self._prefill_ends_at = 0.0
        self._delayed: dict[S, float] = {}
        self._decoding: dict[S, None] = {}
        self._batch: list[S] = []
        self._step_ends_at: float | None = None

    @property
    def running(self) -> int:
        """Sequences in slots."""
        return len(self.slots) - len(self._free)

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    def submit(self, sequence: S, now: float) -> Literal["running", "waiting", "full"]:
        """Take a sequence in; `full` means that it was not taken."""
        if self._free:
            self._place(sequence, now)
            return "running"
        if len(self._waiting) >= self._max_waiting:
            return "full"
        self._waiting[sequence] = None
        return "waiting"

    def leave(self, sequence: S, now: float) -> None:
        """Forget a sequence, finished or given up; its slot goes to the first who waits."""
        if sequence.slot is None:
            self._waiting.pop(sequence, None)
            return
        self.slots[sequence.slot] = None
        heappush(self._free, sequence.slot)
        sequence.slot = None
        self._decoding.pop(sequence, None)
        self._delayed.pop(sequence, None)
        if sequence in self._prefilling:
            was_first = next(iter(self._prefilling)) is sequence
            del self._prefilling[sequence]
            if was_first:
                self._start_prefill(now)
        if not self._decoding:
            self._step_ends_at = None
        if self._waiting:
            first = next(iter(self._waiting))
            del self._waiting[first]
            self._place(first, now)

    def next_at(self) -> float | None:
        """When `advance` has something to do; None: not before somebody comes."""
        times = list(self._delayed.values())
        if self._prefilling:
            times.append(self._prefill_ends_at)
        if self._step_ends_at is not None:
            times.append(self._step_ends_at)
        return min(times) if times else None

    def advance(self, now: float) -> list[S]:
        """Let time pass up to `now`; returns the sequences that just got one token each."""
        while self._prefilling and self._prefill_ends_at <= now:
            sequence, ended_at = next(iter(self._prefilling)), self._prefill_ends_at
            del self._prefilling[sequence]
            self._start_prefill(ended_at)
            self._after_prefill(sequence, ended_at)
        for sequence, ready_at in list(self._delayed.items()):
            if ready_at <= now:
                del self._delayed[sequence]
                self._decode(sequence, ready_at)
        if self._step_ends_at is None or now < self._step_ends_at:
            return []
        return self._end_step(self._step_ends_at, now)

    def _place(self, sequence: S, now: float) -> None:
        sequence.slot = heappop(self._free)
        self.slots[sequence.slot] = sequence
        if not self.timing.prefill_tokens_per_s:
            self._after_prefill(sequence, now)
            return
        self._prefilling[sequence] = None
        if len(self._prefilling) == 1:
            self._start_prefill(now)

    def _start_prefill(self, now: float) -> None:
        for first in self._prefilling:
            self._prefill_ends_at = now + self.timing.prefill_s(first.prompt_tokens)
            return

    def _after_prefill(self, sequence: S, now: float) -> None:
        if sequence.delay_s:
            self._delayed[sequence] = now + sequence.delay_s
        else:
            self._decode(sequence, now)

    def _decode(self, sequence: S, now: float) -> None:
        if sequence.stops_at == 0:
            return
        self._decoding[sequence] = None
        if self._step_ends_at is None:
            self._start_step(now)

    def _start_step(self, now: float) -> None:
        self._batch = list(self._decoding)
        self._step_ends_at = now + self.timing.step_s(len(self._batch))

    def _end_step(self, ended_at: float, now: float) -> list[S]:
        decoding = self._decoding
        given = [sequence for sequence in self._batch if sequence in decoding]
        for sequence in given:
            sequence.made += 1
            if sequence.made == sequence.stops_at:
                del decoding[sequence]
        if not decoding:
            self._step_ends_at = None
            return given
        # Steps follow each other without drift, but a loop that fell behind does not rush after.
        behind = now - ended_at > self.timing.step_s(len(decoding))
        self._start_step(now if behind else ended_at)
        return given
