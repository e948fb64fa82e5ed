"""What a canary's requests show: nothing passes unseen, what is worse is found, equals pass."""

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.callers import Arm
from modelyard.core.canary import BLOCK, CanaryRules, Comparison, Evidence, Tolerances

RULES = CanaryRules(min_requests=50)
ARMS: tuple[Arm, Arm] = ("baseline", "candidate")


def _evidence(draws: random.Random, **changes: float) -> Evidence:
    """A request of a service that fails one time in a hundred; `changes` scale what it does."""
    return Evidence(
        failed=draws.random() < 0.01 + changes.get("failing", 0),
        truncated=draws.random() < changes.get("cutting", 0),
        ttft_s=draws.lognormvariate(-1, 0.5) * changes.get("ttft", 1),
        itl_s=draws.lognormvariate(-4, 0.3) * changes.get("itl", 1),
        tokens=int(draws.lognormvariate(5, 0.7) * changes.get("length", 1)),
    )


def _compared(rules: CanaryRules, pairs: int, seed: int = 1, **changes: float) -> Comparison:
    draws = random.Random(seed)
    comparison = Comparison(rules)
    for _ in range(pairs):
        comparison.add("baseline", _evidence(draws))
        comparison.add("candidate", _evidence(draws, **changes))
    return comparison


def test_no_requests_hold_and_say_how_many_are_needed() -> None:
    finding = Comparison(RULES).finding()

    assert (finding.verdict, finding.more_needed) == ("hold", 50)
    assert "50 more requests of the candidate" in finding.reason


def test_what_was_never_compared_holds_however_few_are_asked_for() -> None:
    """Ten requests make a block, and fewer may be all that a plan asks for."""
    comparison = Comparison(CanaryRules(min_requests=1))
    for arm in ARMS:
        comparison.add(arm, Evidence(failed=False, ttft_s=0.1, tokens=5))
    assert comparison.finding().verdict == "hold"
    for _ in range(BLOCK):
        for arm in ARMS:
            comparison.add(arm, Evidence(failed=False, ttft_s=0.1, tokens=5))

    assert comparison.finding().verdict == "pass"


def test_a_candidate_alone_holds() -> None:
    comparison = Comparison(RULES)
    for _ in range(200):
        comparison.add("candidate", Evidence(failed=False))

    assert comparison.finding().verdict == "hold"
    assert "live version" in comparison.finding().reason


@pytest.mark.parametrize("seed", range(5))
def test_an_equal_candidate_passes(seed: int) -> None:
    assert _compared(RULES, 100, seed).finding().verdict == "pass"


@pytest.mark.parametrize(
    ("watched", "change"),
    [
        ("errors", {"failing": 0.15}),
        ("truncations", {"cutting": 0.15}),
        ("ttft", {"ttft": 2.0}),
        ("itl", {"itl": 1.5}),
        ("length", {"length": 3.0}),
        ("length", {"length": 0.3}),
    ],
)
def test_what_is_worse_is_found_and_named(watched: str, change: dict[str, float]) -> None:
    finding = _compared(RULES, 400, **change).finding()
    loud = {each.watched for each in finding.readings if each.evidence >= each.alarm_at}

    assert finding.verdict == "alarm"
    assert loud == {watched}
    assert "live version" in finding.reason


def test_a_slow_end_is_found_where_the_middle_is_equal() -> None:
    draws = random.Random(3)
    comparison = Comparison(RULES)
    for _ in range(600):
        comparison.add("baseline", Evidence(failed=False, ttft_s=draws.lognormvariate(0, 0.2)))
        stuck = 10.0 if draws.random() < 0.2 else 1.0
        comparison.add(
            "candidate", Evidence(failed=False, ttft_s=draws.lognormvariate(-0.05, 0.2) * stuck)
        )

    assert comparison.finding().verdict == "alarm"


JUDGED = CanaryRules(min_requests=50, watch=("errors", "quality"))


def _score(draws: random.Random, marks: int, worse: float = 0.0) -> float:
    """Around 0.75, as a judge with so many marks gives it."""
    return round(min(max(draws.gauss(0.75 - worse, 0.15), 0), 1) * (marks - 1)) / (marks - 1)


def _judged(pairs: int, *, seed: int = 1, marks: int = 101, worse: float = 0.0) -> Comparison:
    draws = random.Random(seed)
    comparison = Comparison(JUDGED)
    for _ in range(pairs):
        for arm in ARMS:
            comparison.add(arm, Evidence(failed=False))
            comparison.judged(arm, _score(draws, marks, worse * (arm == "candidate")), "")
    return comparison


def test_answers_that_nobody_judged_hold_and_say_how_many_scores_are_needed() -> None:
    unjudged = Comparison(JUDGED)
    for _ in range(60):
        for arm in ARMS:
            unjudged.add(arm, Evidence(failed=False))
    assert unjudged.finding().verdict == "hold"
    assert "scores of at least 50 more answers of the candidate" in unjudged.finding().reason

    for _ in range(200):
        unjudged.judged("candidate", 0.9, "")
    assert "50 more answers of the candidate" in unjudged.finding().reason  # none were compared
    for turn in range(180):
        unjudged.judged("candidate" if turn % 3 else "baseline", 0.9, "")
    assert unjudged.finding().verdict == "pass"


@pytest.mark.parametrize("marks", [2, 5, 101])
def test_answers_that_are_judged_worse_are_found(marks: int) -> None:
    """Whatever marks the judge knows: two, five or a hundred."""
    assert _judged(300, marks=marks).finding().verdict == "pass"
    found = _judged(300, marks=marks, worse=0.3).finding()
    assert found.verdict == "alarm"
    assert "judged worse" in found.reason


@pytest.mark.parametrize("marks", [2, 5, 101])
def test_equal_answers_are_judged_worse_no_more_often_than_stated(marks: int) -> None:
    """2 % stated, looked at after every block; 150 canaries of 300 pairs."""
    alarms = 0
    for seed in range(150):
        draws = random.Random(seed)
        comparison = Comparison(CanaryRules(alpha=0.02, watch=("quality",)))
        for _ in range(300):
            for arm in ARMS:
                comparison.judged(arm, _score(draws, marks), "")
            if comparison.alarmed:
                alarms += 1
                break

    assert alarms <= 9  # at 2 % more than 9 of 150 happen once in 1,000 times; seeded besides


def test_what_is_tolerated_raises_no_alarm() -> None:
    rules = CanaryRules(min_requests=50, tolerances=Tolerances(slower=1.5))

    assert _compared(rules, 400, ttft=2.0).finding().verdict == "pass"


@settings(max_examples=50)
@given(st.lists(st.sampled_from(("baseline", "candidate")), max_size=300), st.integers(0, 10**6))
def test_any_order_of_arrivals_is_understood(arms: list[str], seed: int) -> None:
    draws = random.Random(seed)
    comparison = Comparison(RULES)
    for arm in arms:
        comparison.add("baseline" if arm == "baseline" else "candidate", _evidence(draws))
    finding = comparison.finding()

    assert finding.baseline_requests == arms.count("baseline")
    assert finding.verdict != "pass" or min(map(arms.count, ("baseline", "candidate"))) >= 50


def test_equal_candidates_are_rejected_no_more_often_than_stated() -> None:
    """2 % stated, looked at after every tenth pair; 200 canaries of 300 pairs."""
    rules = CanaryRules(min_requests=50, alpha=0.02)
    alarms = 0
    for seed in range(200):
        draws = random.Random(seed)
        comparison = Comparison(rules)
        for pair in range(300):
            comparison.add("baseline", _evidence(draws))
            comparison.add("candidate", _evidence(draws))
            if pair % 10 == 0 and comparison.finding().verdict == "alarm":
                alarms += 1
                break

    assert alarms <= 10  # at 2 % more than 10 of 200 happen once in 1,000 times; seeded besides


def test_few_callers_who_differ_are_no_verdict_on_times_but_on_errors() -> None:
    """One caller of two has long prompts: that is seen in each of a hundred requests."""
    comparison, failing = Comparison(RULES), Comparison(RULES)
    for turn in range(200):
        comparison.add("baseline", Evidence(failed=False, ttft_s=0.1, caller="short prompts"))
        comparison.add("candidate", Evidence(failed=False, ttft_s=1.0, caller="long prompts"))
        failing.add("baseline", Evidence(failed=False, caller="short prompts"))
        failing.add("candidate", Evidence(failed=turn % 3 == 0, caller="long prompts"))
    finding = comparison.finding()

    assert finding.verdict == "hold"
    assert "or its callers differ: more of them are needed" in finding.reason
    assert not comparison.alarmed
    assert failing.finding().verdict == "alarm"


def test_what_is_slower_for_most_callers_is_found() -> None:
    draws = random.Random(5)
    comparison = Comparison(RULES)
    usual = {caller: draws.lognormvariate(0, 0.3) for caller in range(60)}
    for turn in range(600):
        caller = turn % 60
        arm, slower = ("candidate", 2.0) if caller % 2 else ("baseline", 1.0)
        ttft_s = draws.lognormvariate(-1, 0.3) * usual[caller] * slower
        comparison.add(
            "candidate" if arm == "candidate" else "baseline",
            Evidence(failed=False, ttft_s=ttft_s, caller=str(caller)),
        )

    assert comparison.finding().verdict == "alarm"
    assert comparison.alarmed


def test_callers_who_differ_and_stay_break_no_promise() -> None:
    """20 callers whose answers differ by a factor, each with one of two equal versions: when
    only requests were compared, two in five of such candidates were rejected. 2 % stated."""
    rules = CanaryRules(min_requests=5, alpha=0.02)
    alarms = 0
    for seed in range(150):
        draws = random.Random(seed)
        scale = {caller: draws.lognormvariate(0, 0.5) for caller in range(20)}
        arms = {caller: draws.random() < 0.5 for caller in range(20)}
        comparison = Comparison(rules)
        for _ in range(600):
            caller = draws.randrange(20)
            evidence = _evidence(draws, length=scale[caller], ttft=scale[caller])
            named = msgspec.structs.replace(evidence, caller=str(caller))
            comparison.add("candidate" if arms[caller] else "baseline", named)
        alarms += comparison.finding().verdict == "alarm"

    assert alarms <= 9
