"""What requests and their copies show of a version on trial."""

from typing import Any

import pytest

from modelyard.core.pinning import PINNED_BY
from modelyard.core.records import Attempt, AttemptOutcome, RequestRecord
from modelyard.core.trials import Side, arm_of, evidence_of
from modelyard.core.usage import summed

LIVE = Side("blue", "sha256:one")
TRIAL = Side("green", "sha256:two")


def record(side: Side = LIVE, **facts: Any) -> RequestRecord:
    said = {"outcome": "completed", "status": 200, "finish_reason": "stop", "request_id": "r",
            "stream": True, "e2e_s": 1.0}  # fmt: skip
    return RequestRecord(
        gateway="g", received_at=0.0, operation="chat",
        slot=side.slot, digest=side.digest, **{**said, **facts},
    )  # fmt: skip


def attempt(outcome: AttemptOutcome) -> tuple[Attempt, ...]:
    return (Attempt(replica="a", slot="green", digest="sha256:two", outcome=outcome,
                    started_s=0.0, duration_s=0.1),)  # fmt: skip


def test_copies_are_the_candidates_evidence_and_live_requests_the_baselines() -> None:
    assert arm_of(record(TRIAL, shadow_of="r"), LIVE, TRIAL) == "candidate"
    assert arm_of(record(LIVE), LIVE, TRIAL) == "baseline"
    assert arm_of(record(TRIAL), LIVE, TRIAL) == "candidate"  # a canary's
    assert arm_of(record(LIVE), None, TRIAL) is None


def test_one_version_with_other_settings_is_told_apart_by_its_slot() -> None:
    same = Side("green", LIVE.digest)

    assert arm_of(record(LIVE), LIVE, same) == "baseline"
    assert arm_of(record(same, shadow_of="r"), LIVE, same) == "candidate"


def test_what_an_earlier_version_answered_in_the_slot_is_not_the_candidates() -> None:
    assert arm_of(record(Side("green", "sha256:zero")), LIVE, TRIAL) is None


@pytest.mark.parametrize(
    "facts",
    [
        {"key_id": PINNED_BY},
        {"cache": "hit"},
        {"cache": "joined"},
        {"outcome": "rejected", "status": 400, "attempts": attempt("refused")},
        {"outcome": "cancelled", "status": 499, "attempts": attempt("cancelled"), "ttft_s": 0.1},
        {"outcome": "cancelled", "status": 499, "attempts": attempt("cancelled"), "stream": False},
        {"outcome": "cancelled", "status": 499, "shadow_of": "r"},
    ],
)
def test_no_evidence(facts: dict[str, Any]) -> None:
    assert arm_of(record(TRIAL, **facts), LIVE, TRIAL) is None


def test_a_replica_that_was_at_fault_before_the_client_left_is_evidence() -> None:
    left = record(TRIAL, outcome="cancelled", status=499, attempts=attempt("timeout"))

    assert arm_of(left, LIVE, TRIAL) == "candidate"
    assert evidence_of(left).failed


def test_a_client_that_left_without_a_first_token_says_how_long_there_was_none() -> None:
    left = record(TRIAL, outcome="cancelled", status=499, attempts=attempt("cancelled"), e2e_s=30.0)

    assert arm_of(left, LIVE, TRIAL) == "candidate"
    shown = evidence_of(left)
    assert (shown.failed, shown.ttft_s, shown.tokens) == (False, 30.0, None)


def test_a_copy_that_found_every_replica_resting_is_a_failure() -> None:
    resting = record(TRIAL, shadow_of="r", outcome="failed", status=503, error_code="no_replica")

    assert arm_of(resting, LIVE, TRIAL) == "candidate"
    assert evidence_of(resting).failed


def test_nobody_pays_for_a_copy() -> None:
    live = record(LIVE, tenant="t", key_id="k", model="m", prompt_tokens=10, completion_tokens=5)
    copy = record(TRIAL, model="m", prompt_tokens=10, completion_tokens=5, shadow_of="r")
    named = record(TRIAL, tenant="t", key_id="k", model="m", prompt_tokens=10, shadow_of="r")

    assert summed([live, copy, named]) == summed([live])
    [row] = summed([live, copy])
    assert (row.requests, row.prompt_tokens, row.completion_tokens) == (1, 10, 5)
    assert summed([copy]) == []
