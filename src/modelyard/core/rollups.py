"""Trends: requests summed up by model, version and slot, in steps of time (promise O3).

Each record is added to its minute, its quarter of an hour and its day at once, in the transaction
that stores it: sums are exact however late or often a record arrives. What the steps are kept for
is `KEPT_S`. Copies for a version on trial and smoke tests are nobody's requests and left out.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from modelyard.core.cost import nanos
from modelyard.core.pinning import PINNED_BY
from modelyard.core.records import RequestRecord, is_priced
from modelyard.core.sketch import Sketch


class Step(IntEnum):
    """Length of one step, in seconds."""

    MINUTE = 60
    QUARTER = 900
    DAY = 86_400

    def begin(self, at: float) -> int:
        """Unix seconds at which the step that holds this moment began."""
        return int(at // self) * self


KEPT_S: dict[Step, float | None] = {
    Step.MINUTE: 48 * 3600.0,
    Step.QUARTER: 30 * 86_400.0,
    Step.DAY: None,
}
"""How long steps are kept; None: for ever."""
TENANT_HOURS_KEPT_S = 90 * 86_400.0
"""What tenants asked by the hour; by the day it is kept for ever (`core/usage.py`)."""
HOUR_S = 3600


class Series(NamedTuple):
    """What is told apart."""

    model: str
    """Public name that was asked for; empty for requests that got to none of ours."""
    version: int
    """0: remote, or none got to answer."""
    digest: str
    slot: str


class Sums:
    """What the requests of one series in one step add up to; `add` and `merge` change it."""

    COUNTS = (
        "requests", "failed", "cancelled", "rejected", "limited", "cached", "streamed",
        "prompt_tokens", "completion_tokens", "cost_nanos", "priced", "e2e_ms", "ttft_ms",
    )  # fmt: skip
    """Whole numbers. `priced`: requests whose cost is known (it is nothing where none got to a
    replica); `e2e_ms`, `ttft_ms`: summed over the completed ones, in milliseconds."""
    SKETCHES = ("e2e", "ttft", "itl")
    """Of completed requests, in seconds: until the last byte, until the first, mean between two
    events of a stream."""

    __slots__ = (*COUNTS, *SKETCHES)
    requests: int
    failed: int
    cancelled: int
    rejected: int
    limited: int
    cached: int
    streamed: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    priced: int
    e2e_ms: int
    ttft_ms: int
    e2e: Sketch
    ttft: Sketch
    itl: Sketch

    def __init__(self) -> None:
        for name in self.COUNTS:
            setattr(self, name, 0)
        for name in self.SKETCHES:
            setattr(self, name, Sketch())

    @property
    def completed(self) -> int:
        """Requests that got a whole answer."""
        return self.requests - self.failed - self.cancelled - self.rejected

    def add(self, record: RequestRecord) -> None:
        """Count one request."""
        cached = record.cache in ("hit", "joined")
        self.requests += 1
        self.failed += record.outcome == "failed"
        self.cancelled += record.outcome == "cancelled"
        self.rejected += record.outcome == "rejected"
        self.limited += record.status == 429
        self.cached += cached
        self.streamed += record.stream
        if not cached:
            self.prompt_tokens += record.prompt_tokens or 0
            self.completion_tokens += record.completion_tokens or 0
        self.cost_nanos += nanos(record.cost)
        self.priced += is_priced(record)
        if record.outcome != "completed":
            return
        self.e2e_ms += round(record.e2e_s * 1000)
        self.e2e.add(max(record.e2e_s, 0.0))
        if record.ttft_s is not None:
            self.ttft_ms += round(record.ttft_s * 1000)
            self.ttft.add(max(record.ttft_s, 0.0))
        if record.itl_mean_s is not None:
            self.itl.add(max(record.itl_mean_s, 0.0))

    def merge(self, other: "Sums") -> None:
        """Count all that another one has counted."""
        for name in self.COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in self.SKETCHES:
            getattr(self, name).merge(getattr(other, name))


class TenantHour(NamedTuple):
    """Whose requests of one model in one hour."""

    hour: int
    """Unix seconds at which it began."""
    tenant: str
    """Empty where no key was needed."""
    model: str


class TenantSums:
    """What they add up to."""

    COUNTS = ("requests", "unsuccessful", "prompt_tokens", "completion_tokens", "cost_nanos")
    __slots__ = COUNTS
    requests: int
    unsuccessful: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int

    def __init__(self) -> None:
        for name in self.COUNTS:
            setattr(self, name, 0)

    def add(self, record: RequestRecord) -> None:
        """Count one request."""
        cached = record.cache in ("hit", "joined")
        self.requests += 1
        self.unsuccessful += record.outcome != "completed"
        self.prompt_tokens += 0 if cached else record.prompt_tokens or 0
        self.completion_tokens += 0 if cached else record.completion_tokens or 0
        self.cost_nanos += nanos(record.cost)


def counts(record: RequestRecord) -> bool:
    """Whether somebody asked for it: no copy for a version on trial, no smoke test."""
    return record.shadow_of is None and record.key_id != PINNED_BY


class Span(NamedTuple):
    """Steps of one length, one after the other."""

    step: Step
    since: int
    """Unix seconds at which the first began."""
    until: int
    """And at which the last is over."""


def spans(since: float, until: float, now: float) -> tuple[Span, ...]:
    """The fewest steps that cover a time (Unix seconds), as far as they are still kept at `now`.

    Minutes at its edges, then quarters, and days for the whole days; where the finer ones are
    dropped already, it begins or ends a little further out. Nothing is in two of them.
    """
    begin = _finest_kept(since, now).begin(since)
    end = -_last_step(begin, until, now).begin(-until)
    if begin >= end:
        return ()
    found: list[Span] = []
    _cover(begin, end, Step.DAY, found)
    return tuple(found)


def _last_step(begin: int, until: float, now: float) -> Step:
    """The finest that is kept from where steps of it would follow on longer ones."""
    for step, longer in ((Step.MINUTE, Step.QUARTER), (Step.QUARTER, Step.DAY)):
        if _finest_kept(max(begin, longer.begin(until)), now) <= step:
            return step
    return Step.DAY


def _finest_kept(at: float, now: float) -> Step:
    for step, kept_s in KEPT_S.items():
        if kept_s is None or at >= step.begin(now - kept_s):
            return step
    raise AssertionError("days are kept for ever")


def _cover(begin: int, end: int, step: Step, found: list[Span]) -> None:
    """With whole steps in the middle and finer ones on both sides."""
    if begin >= end:
        return
    if step is Step.MINUTE:
        found.append(Span(step, begin, end))
        return
    finer = Step.QUARTER if step is Step.DAY else Step.MINUTE
    since, until = -step.begin(-begin), step.begin(end)
    if since >= until:
        _cover(begin, end, finer, found)
        return
    _cover(begin, since, finer, found)
    found.append(Span(step, since, until))
    _cover(until, end, finer, found)


def series_of(record: RequestRecord) -> Series:
    """The series that a record belongs to."""
    return Series(record.model or "", record.version or 0, record.digest or "", record.slot or "")


def summed_up(
    records: Iterable[RequestRecord],
) -> tuple[dict[tuple[int, Series], Sums], dict[TenantHour, TenantSums]]:
    """The records by minute and series, and by hour, tenant and model."""
    minutes: dict[tuple[int, Series], Sums] = {}
    hours: dict[TenantHour, TenantSums] = {}
    for record in filter(counts, records):
        minute = (Step.MINUTE.begin(record.received_at), series_of(record))
        if (sums := minutes.get(minute)) is None:
            sums = minutes[minute] = Sums()
        sums.add(record)
        hour = int(record.received_at // HOUR_S) * HOUR_S
        place = TenantHour(hour, record.tenant or "", record.model or "")
        if (tenant := hours.get(place)) is None:
            tenant = hours[place] = TenantSums()
        tenant.add(record)
    return minutes, hours


def coarser(minutes: dict[tuple[int, Series], Sums], step: Step) -> dict[tuple[int, Series], Sums]:
    """The same sums by a longer step."""
    found: dict[tuple[int, Series], Sums] = {}
    for (at, series), sums in minutes.items():
        place = (step.begin(at), series)
        if place not in found:
            found[place] = Sums()
        found[place].merge(sums)
    return found
