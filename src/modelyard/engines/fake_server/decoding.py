"""The one clock of the fake engine: it wakes when the scheduler has something to give."""

import asyncio
import time

from modelyard.engines.fake_server.generations import Job, WholeGeneration
from modelyard.engines.fake_server.scheduler import Scheduler

_TIMER_GRAIN_S = 0.0005
"""uvloop's timers count whole milliseconds: what is due within half of one is due now.
Steps are planned without drift, so the rate stays exact."""


class Decoding:
    """Jobs in the scheduler, stepped as time passes."""

    def __init__(self, scheduler: Scheduler[Job], loop: asyncio.AbstractEventLoop) -> None:
        self.scheduler = scheduler
        self._loop = loop
        self._handle: asyncio.Handle | None = None
        self._armed_at = 0.0

    def submit(self, job: Job) -> bool:
        """Run or queue a job; False: the queue is full."""
        scheduler = self.scheduler
        now = time.monotonic()
        placed = scheduler.submit(job, now)
        if placed == "full":
            return False
        if (
            placed == "running"
            and scheduler.timing.instant
            and not job.delay_s
            and isinstance(job, WholeGeneration)
            and job.scripted is None
        ):
            job.finish_at_once()
            scheduler.leave(job, now)
        self._arm(now)
        return True

    def leave(self, job: Job) -> None:
        """A client left, or a job was cut: its slot is free at once."""
        now = time.monotonic()
        self.scheduler.leave(job, now)
        self._arm(now)

    def stop(self) -> None:
        """Wake no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, now: float) -> None:
        at = self.scheduler.next_at()
        if self._handle is not None:
            if at is not None and self._armed_at <= at:
                return  # it wakes soon enough, and arms again
            self._handle.cancel()
            self._handle = None
        if at is None:
            return
        self._armed_at = at
        if at - now <= _TIMER_GRAIN_S:
            self._handle = self._loop.call_soon(self._tick)
        else:
            self._handle = self._loop.call_later(at - now, self._tick)

    def _tick(self) -> None:
        self._handle = None
        now = time.monotonic()
        try:
            for job in self.scheduler.advance(now + _TIMER_GRAIN_S):
                if job.step():
                    self.scheduler.leave(job, now)
        finally:
            self._arm(now)
