"""Scores find their requests however late they come; two judges are never mixed."""

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.canary import Finding
from modelyard.core.scores import Score, in_order
from modelyard.core.scoring import Scored, Scoring

JUDGE = "judge/1"
PASS = Finding(
    verdict="pass", reason="nothing", readings=(), baseline_requests=1, candidate_requests=1
)


def _score(number: int, judge: str = JUDGE, score: float | None = 0.5) -> Score:
    return Score(request_id=f"r{number}", judge=judge, score=score, at=float(number))


@given(st.integers(1, 30), st.integers(0, 10**6))
def test_in_any_order_each_score_counts_once(count: int, seed: int) -> None:
    draws = random.Random(seed)
    steps = [("request", n) for n in range(count)] + [("score", n) for n in range(count)] * 2
    draws.shuffle(steps)
    scoring, counted = Scoring(), list[Scored]()
    for what, number in steps:
        if what == "request":
            counted += scoring.request(f"r{number}", "candidate", "")
        else:
            counted += scoring.score(_score(number, score=number / 100))

    assert sorted(each.score for each in counted) == [n / 100 for n in range(count)]


def test_an_abstention_is_no_score_and_is_told() -> None:
    scoring = Scoring()
    for number in range(2):
        assert not list(scoring.request(f"r{number}", "baseline", ""))
        assert not list(scoring.score(_score(number, score=None)))
    told = scoring.told(msgspec.structs.replace(PASS, verdict="hold", reason="more"))

    assert told.abstained == 2
    assert told.reason == "more (judge/1 could not say of 2)"
    assert not list(scoring.score(_score(0)))  # what it said first stands


def test_of_two_judges_none_is_chosen_and_nothing_passes() -> None:
    scoring = Scoring()
    for number in range(2):
        list(scoring.request(f"r{number}", "baseline", ""))
    assert list(scoring.score(_score(0)))
    assert scoring.told(PASS).verdict == "pass"
    assert not list(scoring.score(_score(1, judge="judge/2")))
    told = scoring.told(PASS)

    assert told.verdict == "hold"
    assert "judge/1, judge/2" in told.reason
    assert "canary.judge" in told.reason


def test_of_two_judges_the_named_one_counts() -> None:
    scoring = Scoring("judge/2")
    list(scoring.request("r0", "candidate", "somebody"))

    assert not list(scoring.score(_score(0)))
    assert list(scoring.score(_score(0, judge="judge/2"))) == [Scored("candidate", 0.5, "somebody")]
    assert scoring.told(PASS).verdict == "pass"


def test_a_batch_is_not_taken_version_by_version() -> None:
    batch = [
        Score(request_id=f"{version}-{n}", judge=JUDGE, score=0.5, at=1.0)
        for version in (1, 2)
        for n in range(100)
    ]
    told = [each.request_id[0] for each in in_order(batch)]

    assert in_order(batch[::-1]) == in_order(batch)
    assert all("1" in told[i : i + 20] and "2" in told[i : i + 20] for i in range(0, 200, 20))
