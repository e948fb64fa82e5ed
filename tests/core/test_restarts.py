"""When a worker that died is started again."""

import msgspec
import pytest

from modelyard.core.deployments import Replica
from modelyard.core.replicas import ReplicaState
from modelyard.core.restarts import Failures, RestartRule, failures_in_a_row, wait_s

RULE = RestartRule()


def failed(
    number: int, *, created_at: float, ended_at: float, ready_at: float | None = None
) -> Replica:
    return Replica(
        id=f"r{number}",
        deployment="yardling",
        slot="blue",
        version=1,
        digest="sha256:1",
        engine="fake",
        launcher="process",
        state=ReplicaState.STOPPED,
        created_at=created_at,
        changed_at=ended_at,
        ready_at=ready_at,
        error=f"error {number}",
    )


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (6, 16), (7, 30), (900, 30)]
)
def test_first_restart_is_at_once_then_waits_double(failures: int, seconds: float) -> None:
    assert wait_s(failures, RULE) == seconds


def test_failures_count_in_a_row_and_the_last_says_why() -> None:
    row = [failed(n, created_at=10.0 * n, ended_at=10.0 * n + 1) for n in range(3)]
    assert failures_in_a_row(row, RULE) == Failures(in_a_row=3, last_at=21.0, last_error="error 2")


def test_workers_launched_together_fail_as_one_try() -> None:
    together = [failed(n, created_at=0.0, ended_at=1.0 + n) for n in range(4)]
    assert failures_in_a_row(together, RULE).in_a_row == 1


def test_a_stable_time_ends_the_row() -> None:
    quick = [failed(n, created_at=n * 2.0, ended_at=n * 2.0 + 1) for n in range(5)]
    stable = failed(9, created_at=20.0, ended_at=100.0, ready_at=100.0 - RULE.stable_s)
    assert failures_in_a_row([*quick, stable], RULE).in_a_row == 1


def test_an_asked_stop_is_no_failure() -> None:
    asked = msgspec.structs.replace(failed(1, created_at=0.0, ended_at=1.0), error="")
    assert failures_in_a_row([asked], RULE) == Failures()
