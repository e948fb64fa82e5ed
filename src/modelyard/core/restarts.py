"""When a worker that died is started again, and when that is given up (promise D12)."""

from collections.abc import Sequence

import msgspec

from modelyard.core.deployments import Replica
from modelyard.core.replicas import ReplicaState


class RestartRule(msgspec.Struct, frozen=True, kw_only=True):
    """The first restart is at once; each further failure in a row doubles the wait."""

    base_s: float = 1.0
    """Wait after the second failure in a row."""
    max_s: float = 30.0
    stable_s: float = 60.0
    """A worker that was ready for so long ends the row: its failure counts as the first."""
    bring_up_failures: int = 3
    """Failures in a row at which a slot that is not live yet is given up."""


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """The failures in a row of one slot."""

    in_a_row: int = 0
    last_at: float = 0.0
    """Unix seconds."""
    last_error: str = ""
    fatal: bool = False
    """Another try can't end better."""


def failures_in_a_row(replicas: Sequence[Replica], rule: RestartRule) -> Failures:
    """Count from the stopped replicas of one slot and generation.

    Workers that were launched together and failed together count once: the row is about tries.
    """
    failed = sorted(
        (r for r in replicas if r.state is ReplicaState.STOPPED and r.error),
        key=lambda replica: (replica.changed_at, replica.id),
    )
    in_a_row = 0
    counted_at = float("-inf")
    for replica in failed:
        if replica.ready_at is not None and replica.changed_at - replica.ready_at >= rule.stable_s:
            in_a_row, counted_at = 1, replica.changed_at
        elif replica.created_at >= counted_at:
            in_a_row, counted_at = in_a_row + 1, replica.changed_at
    if not failed:
        return Failures()
    return Failures(
        in_a_row=in_a_row,
        last_at=failed[-1].changed_at,
        last_error=failed[-1].error,
        fatal=failed[-1].fatal,
    )


def wait_s(failures_in_a_row: int, rule: RestartRule) -> float:
    """Seconds from the last failure to the next start."""
    if failures_in_a_row <= 1:
        return 0.0
    doublings = min(failures_in_a_row - 2, 32)
    return min(rule.base_s * 2.0**doublings, rule.max_s)
