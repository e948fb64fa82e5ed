"""Breakers: what opens them, what doesn't, and that every way leads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.health import MOVES, SIGNALS, Circuit, Signal, State, outliers
from modelyard.core.records import AttemptOutcome
from modelyard.core.routes import Breaking

POLICY = Breaking(failures=3, open_s=2.0, max_open_s=8.0)
OUTCOMES: list[AttemptOutcome] = [
    "completed", "refused", "unreachable", "error_status", "busy", "timeout", "cut", "cancelled",
]  # fmt: skip


def ask(circuit: Circuit, outcome: AttemptOutcome, now: float) -> None:
    circuit.begin(now)
    circuit.end(outcome, POLICY, now)


def test_the_table_names_only_states_and_signals_that_there_are() -> None:
    assert set(MOVES.values()) == {state for state, _ in MOVES} == set(State)
    assert set(SIGNALS.values()) == {Signal.SUCCEEDED, Signal.FAILED, Signal.REFUSED}


@pytest.mark.parametrize("outcome", ["unreachable", "error_status", "timeout", "cut"])
def test_failures_in_a_row_open_it_for_a_time_that_grows(outcome: AttemptOutcome) -> None:
    circuit = Circuit()
    for _ in range(3):
        assert circuit.takes(10.0)
        ask(circuit, outcome, 10.0)
    assert circuit.state is State.OPEN
    assert not circuit.takes(11.9)
    assert circuit.back_in_s(11.0) == pytest.approx(1.0)

    assert circuit.takes(12.0)
    ask(circuit, outcome, 12.0)  # the trial fails
    assert not circuit.takes(15.9)
    assert circuit.takes(16.0)
    for now in (16.0, 24.0, 32.0):
        ask(circuit, outcome, now)
        assert circuit.back_in_s(now) <= 8.0  # never longer than the policy says


def test_one_trial_at_a_time_finds_out_whether_it_is_back() -> None:
    circuit = Circuit()
    for _ in range(3):
        ask(circuit, "cut", 0.0)
    circuit.begin(2.0)
    assert not circuit.takes(2.0)
    circuit.end("cancelled", POLICY, 2.5)  # its client left: nothing was found out
    assert circuit.takes(2.5)
    ask(circuit, "completed", 3.0)
    assert circuit.state is State.CLOSED


@given(st.lists(st.sampled_from(["refused", "cancelled", "busy"]), max_size=40))
def test_what_is_not_its_fault_neither_opens_nor_closes(outcomes: list[AttemptOutcome]) -> None:
    """Promise G7: 4xx, a client's leaving and 429 say nothing of its health."""
    closed, opened = Circuit(), Circuit()
    for _ in range(3):
        ask(opened, "error_status", 0.0)
    for outcome in outcomes:
        ask(closed, outcome, 1.0)
        ask(opened, outcome, 1.0)
    assert closed.state is State.CLOSED
    assert opened.state is State.OPEN
    trial = Circuit()
    for _ in range(3):
        ask(trial, "cut", 0.0)
    for outcome in outcomes:
        ask(trial, outcome, 3.0)
        assert trial.state is State.TRIAL
        assert trial.takes(3.0)


def test_a_429_puts_it_aside_for_as_long_as_it_says() -> None:
    circuit = Circuit()
    circuit.put_aside(7.0, 100.0)
    assert not circuit.takes(106.9)
    assert circuit.back_in_s(104.0) == pytest.approx(3.0)
    assert circuit.takes(107.0)


@given(st.lists(st.tuples(st.sampled_from(OUTCOMES), st.floats(0, 5)), max_size=80))
def test_whatever_happens_it_can_be_asked_again_in_time(
    steps: list[tuple[AttemptOutcome, float]],
) -> None:
    circuit, now = Circuit(), 0.0
    for outcome, wait in steps:
        now += wait
        if circuit.takes(now):
            ask(circuit, outcome, now)
    assert circuit.takes(now + POLICY.max_open_s)
    assert circuit.back_in_s(now) <= POLICY.max_open_s + 1e-9  # floats: (now + 8) - now


def test_probes_open_and_bring_back() -> None:
    circuit = Circuit()
    for _ in range(3):
        circuit.probed(False, POLICY, 0.0)
    assert circuit.state is State.OPEN
    circuit.probed(True, POLICY, 0.5)
    assert circuit.state is State.TRIAL
    assert circuit.takes(0.5)


def test_an_outlier_is_taken_out_and_never_more_than_half() -> None:
    policy = Breaking(outlier_ratio=0.5, outlier_requests=10)
    assert outliers([(20, 12), (20, 0), (20, 1)], policy) == [0]
    assert outliers([(9, 9), (20, 0)], policy) == []  # too few to tell
    assert outliers([(20, 20)], policy) == []  # nobody is better
    assert outliers([(20, 20), (20, 19), (20, 18), (20, 17)], policy) == [0, 1]


def test_failures_of_long_ago_are_not_compared() -> None:
    circuit = Circuit()
    ask(circuit, "cut", 0.0)
    ask(circuit, "completed", 29.0)
    assert circuit.recent(29.0) == (2, 1)
    assert circuit.recent(40.0) == (1, 0)
    assert circuit.recent(90.0) == (0, 0)
