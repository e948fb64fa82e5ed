"""Requests summed up by steps, and the steps that cover a time."""

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.core.pinning import PINNED_BY
from modelyard.core.plausible import LATEST_S, LONGEST_S, plausible
from modelyard.core.records import RequestRecord
from modelyard.core.rollups import KEPT_S, Series, Step, Sums, coarser, spans, summed_up

NOON = 1_790_000_000.0


def record(number: int = 1, **fields: Any) -> RequestRecord:
    made: dict[str, Any] = {
        "request_id": f"q{number}", "gateway": "g", "received_at": NOON, "operation": "chat",
        "stream": False, "outcome": "completed", "status": 200, "e2e_s": 0.5, "model": "chat",
        "version": 3, "digest": "sha256:3", "slot": "blue",
    }  # fmt: skip
    return RequestRecord(**(made | fields))


def sums_of(*records: RequestRecord) -> Sums:
    minutes, _ = summed_up(records)
    [sums] = minutes.values()
    return sums


def test_outcomes_tokens_and_times_are_counted() -> None:
    sums = sums_of(
        record(1, ttft_s=0.1, prompt_tokens=10, completion_tokens=5, cost=0.25, stream=True,
               itl_mean_s=0.02, queue_s=0.05, replica_s=0.4),
        record(2, outcome="failed", status=502, e2e_s=9.0),
        record(3, outcome="cancelled", status=499, completion_tokens=2, cost=0.5),
        record(4, outcome="rejected", status=429),
        record(5, cache="hit", prompt_tokens=10, completion_tokens=5, cost=0.0),
    )  # fmt: skip
    assert (sums.requests, sums.completed, sums.failed, sums.cancelled, sums.rejected) == (
        5, 2, 1, 1, 1,
    )  # fmt: skip
    assert (sums.limited, sums.cached, sums.streamed) == (1, 1, 1)
    assert (sums.prompt_tokens, sums.completion_tokens) == (10, 7)  # nobody made the cached ones
    assert sums.cost_nanos == 750_000_000
    assert (sums.e2e_ms, sums.ttft_ms) == (1000, 100)
    assert (sums.e2e.count, sums.ttft.count, sums.itl.count) == (2, 1, 1)


def test_copies_and_smoke_tests_are_nobodys_requests() -> None:
    minutes, hours = summed_up([record(1, shadow_of="q0"), record(2, key_id=PINNED_BY)])
    assert (minutes, hours) == ({}, {})


def test_what_got_to_no_model_has_a_series_of_its_own() -> None:
    nothing = {"model": None, "version": None, "digest": None, "slot": None}
    minutes, hours = summed_up([record(1, outcome="rejected", status=404, **nothing)])
    assert [series for _, series in minutes] == [Series("", 0, "", "")]
    assert [(place.tenant, place.model) for place in hours] == [("", "")]


@given(moments=st.lists(st.floats(min_value=0, max_value=200_000), min_size=1, max_size=30))
def test_longer_steps_hold_the_same(moments: list[float]) -> None:
    minutes, _ = summed_up(record(n, received_at=at) for n, at in enumerate(moments))
    for step in Step:
        rows = coarser(minutes, step)
        assert sum(sums.requests for sums in rows.values()) == len(moments)
        assert {at for at, _ in rows} == {step.begin(at) for at in moments}


@given(
    now=st.floats(min_value=0, max_value=3e9),
    age_s=st.floats(min_value=1, max_value=90 * 86_400),
    length_s=st.floats(min_value=1, max_value=90 * 86_400),
)
@example(now=2_333_700.0, age_s=6_406_889.0, length_s=3_899_489.0)  # ends where quarters begin
@settings(max_examples=500)
def test_a_time_is_covered_once_by_steps_that_are_kept(
    now: float, age_s: float, length_s: float
) -> None:
    since = now - age_s
    until = min(since + length_s, now)
    found = spans(since, until, now)
    assert found[0].since <= since
    assert found[-1].until >= until
    assert all(a.until == b.since for a, b in itertools.pairwise(found))
    for span in found:
        assert span.since < span.until
        assert span.since % span.step == span.until % span.step == 0
        kept_s = KEPT_S[span.step]
        assert kept_s is None or span.since >= span.step.begin(now - kept_s)
    # No further out than the steps that are left allow.
    assert since - found[0].since < (60 if age_s < 47 * 3600 else 86_400)
    rows = sum((span.until - span.since) // span.step for span in found)
    assert rows <= 90 + 2 * (95 + 14) + 15


def test_a_day_takes_minutes_only_at_its_edges() -> None:
    now = 20_000 * 86_400 + 13 * 3600 + 7 * 60 + 30.0
    steps = [(span.step, (span.until - span.since) // span.step) for span in
             spans(now - 86_400, now, now)]  # fmt: skip
    assert steps == [(Step.MINUTE, 8), (Step.QUARTER, 95), (Step.MINUTE, 8)]
    month = spans(now - 30 * 86_400, now, now)
    assert [span.step for span in month][-3:] == [Step.DAY, Step.QUARTER, Step.MINUTE]
    assert spans(now, now - 60, now) == ()


def test_what_is_plausible_is_left_as_it_is() -> None:
    usual = record(1, ttft_s=0.1, cost=0.1, prompt_tokens=7)
    assert plausible(usual) is usual


@pytest.mark.parametrize(
    ("field", "told", "taken"),
    [
        ("received_at", -5.0, 0.0),
        ("received_at", 1e300, LATEST_S),
        ("e2e_s", 1e300, LONGEST_S),
        ("ttft_s", -1.0, 0.0),
        ("prompt_tokens", 10**30, 10**9),
        ("completion_tokens", -4, 0),
        ("version", 2**70, 2**31 - 1),
        ("cost", 1e300, 1e6),
        ("model", "m" * 500, "m" * 128),
        ("tenant", "a\0b", "a\ufffdb"),
    ],
)
def test_what_no_table_takes_is_bounded(field: str, told: object, taken: object) -> None:
    assert getattr(plausible(record(**{field: told})), field) == taken
