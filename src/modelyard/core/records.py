"""The request record: what one request was, got and cost, joined by one id (promise O4)."""

from typing import Literal

import msgspec

from modelyard.core.routes import Operation, Slot

Outcome = Literal["completed", "failed", "cancelled", "rejected"]
"""Every accepted request ends in exactly one of them.

completed: the client got a whole answer. failed: Modelyard or a replica is at fault.
cancelled: the client left (499). rejected: the request is at fault or a limit refused it.
"""
CacheResult = Literal["off", "bypass", "miss", "hit", "joined"]
AttemptOutcome = Literal[
    "completed", "refused", "unreachable", "error_status", "busy", "timeout", "cut", "cancelled"
]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One sending of the request to one replica."""

    replica: str
    slot: Slot
    digest: str
    outcome: AttemptOutcome
    started_s: float
    """Seconds after the request was accepted."""
    duration_s: float
    status: int | None = None
    """HTTP status that the replica answered with; None when none came."""
    reason: str = ""
    """Why this replica was chosen, in a word: the policy, `only_one`, `retry`, `fallback`."""


class GuardVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a check said of the request or its answer."""

    check: str
    verdict: Literal["allow", "flag", "block"]
    reason: str = ""


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One finished request. No prompt, no answer: content is stored only where a policy opts in.

    It can be in no cycle, so the collector need not look at it (`gc=False`: 3 µs of each request).
    """

    request_id: str
    gateway: str
    """Identity of the gateway process."""
    received_at: float
    """Unix seconds."""
    operation: Operation | None
    stream: bool
    outcome: Outcome
    status: int
    """HTTP status of the answer; 499 when the client left before one was sent."""
    error_code: str | None = None
    # who
    tenant: str | None = None
    key_id: str | None = None
    # what
    model: str | None = None
    """Public name that was asked for; None when the request did not get that far."""
    deployment: str | None = None
    slot: Slot | None = None
    version: int | None = None
    digest: str | None = None
    replica: str | None = None
    attempts: tuple[Attempt, ...] = ()
    cache: CacheResult = "off"
    # how long, in seconds
    queue_s: float = 0.0
    ttft_s: float | None = None
    """Time from acceptance to the first byte of the answer sent to the client."""
    itl_mean_s: float | None = None
    itl_max_s: float | None = None
    e2e_s: float
    # how much
    request_bytes: int = 0
    response_bytes: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_estimated: bool = False
    """The counts were not stated by the engine (promise G2)."""
    cached_tokens: int | None = None
    finish_reason: str | None = None
    replica_s: float | None = None
    """Seconds of replicas that it had for itself: while n requests were with one, 1/n of the time
    was each one's. None when it was sent to none."""
    cost: float | None = None
    """In the reporting currency."""
    # what was decided about it
    limits: tuple[str, ...] = ()
    """Limits that were looked at, as `kind:scope`."""
    guard: tuple[GuardVerdict, ...] = ()
    shadow_of: str | None = None
    """Request id of the live request that this one is a copy of: nobody asked for it, nobody pays
    for it."""
    caller: str | None = None
    """Hash of who stays with one version while two share the requests (promise D6); None where
    nobody does."""
    agreement: float | None = None
    """Of a copy: how much of its answer is that of the live one (`core/agreement.py`); None where
    one of them was not whole, or too long to be compared."""
    trace_id: str | None = None


def is_priced(record: RequestRecord) -> bool:
    """Whether it is known what a request cost: one that got to no replica cost nothing."""
    return record.cost is not None or not record.attempts
