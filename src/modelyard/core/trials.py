"""What a request's record shows of the version that answered it."""

from collections.abc import Sequence

import msgspec

from modelyard.core.callers import Arm
from modelyard.core.canary import Evidence
from modelyard.core.pinning import PINNED_BY
from modelyard.core.records import AttemptOutcome, RequestRecord
from modelyard.core.rollout import Entry, Phase
from modelyard.core.routes import Slot

AT_FAULT: frozenset[AttemptOutcome] = frozenset({"unreachable", "error_status", "timeout", "cut"})
"""Ends of an attempt that the replica is to blame for."""
_MAKES_TEXT = frozenset({"chat", "completions"})


class Side(msgspec.Struct, frozen=True):
    """One of the two versions that are compared. The same version may be tried with other settings,
    and a slot holds one version after the other: both have to be right."""

    slot: Slot
    digest: str

    def made(self, record: RequestRecord) -> bool:
        """Whether it is what was asked."""
        return record.slot == self.slot and record.digest == self.digest


def arm_of(record: RequestRecord, baseline: Side | None, candidate: Side) -> Arm | None:
    """Whose evidence it is; None when it says nothing of either.

    Copies of live requests are evidence like any other. No evidence: what was answered without a
    replica, what the caller is to blame for, what our own tests asked, and requests whose client
    left before anything went wrong. A client that left without a first token is evidence: it says
    how long there was none, and of a candidate that hangs it may be all that is seen.
    """
    if record.key_id == PINNED_BY or record.cache in ("hit", "joined"):
        return None
    at_fault = any(attempt.outcome in AT_FAULT for attempt in record.attempts)
    if record.outcome in ("rejected", "cancelled") and not (at_fault or _in_vain(record)):
        return None
    if candidate.made(record):
        return "candidate"
    return "baseline" if baseline is not None and baseline.made(record) else None


def within_step(record: RequestRecord, history: Sequence[Entry]) -> bool:
    """Whether it began and ended in one and the same step of a rollout, heard of when it may.

    Requests are seen when they end, the short ones first: of those that began before a step, when
    the live version got a larger share, only long ones are left to end in it, and most of them are
    the live version's. Compared with what the candidate has ended by then, they would make an equal
    candidate look quick and short of words.
    """
    ended = record.received_at + record.e2e_s
    before = [entry for entry in history if entry.at <= ended]
    if not before:
        return False
    last = max(before, key=lambda entry: entry.at)
    return last.phase is Phase.STEPPING and record.received_at >= last.at


def evidence_of(record: RequestRecord) -> Evidence:
    """The record as evidence. An attempt that failed counts, even where another one mended it."""
    failed = record.outcome == "failed"
    failed = failed or any(attempt.outcome in AT_FAULT for attempt in record.attempts)
    completed = record.outcome == "completed"
    unfinished = completed and record.finish_reason is None and record.operation in _MAKES_TEXT
    cut = any(attempt.outcome == "cut" for attempt in record.attempts)
    tokens = record.completion_tokens if completed else None
    ttft_s = record.ttft_s if record.stream and completed else None
    return Evidence(
        failed=failed,
        truncated=cut or unfinished,
        ttft_s=record.e2e_s if _in_vain(record) else ttft_s,
        itl_s=_per_token_s(record) if completed else None,
        tokens=tokens,
        caller=record.caller or "",
    )


def _in_vain(record: RequestRecord) -> bool:
    """Whether a client waited for a first token until it left; versions that are equal make it
    leave equally often, so what is known of the wait may be compared as if it were all of it."""
    left = record.outcome == "cancelled" and record.shadow_of is None
    return left and record.stream and record.ttft_s is None


def _per_token_s(record: RequestRecord) -> float | None:
    if record.stream:
        return record.itl_mean_s
    if not record.completion_tokens:
        return None
    return record.e2e_s / record.completion_tokens
