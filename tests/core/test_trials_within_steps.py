"""Which requests may be compared: those that began and ended while both versions had one share."""

import random

from modelyard.core.canary import CanaryRules, Comparison
from modelyard.core.records import RequestRecord
from modelyard.core.rollout import Entry, Phase
from modelyard.core.trials import evidence_of, within_step

BEGAN_AT = 1000.0
HISTORY = (
    Entry(at=BEGAN_AT - 60, phase=Phase.LAUNCHING, step=0, why="asked for"),
    Entry(at=BEGAN_AT, phase=Phase.STEPPING, step=0, why="passed"),
    Entry(at=BEGAN_AT + 600, phase=Phase.STEPPING, step=1, why="step_over"),
)


def record(received_at: float, e2e_s: float, tokens: int = 10) -> RequestRecord:
    return RequestRecord(
        gateway="g", request_id="r", received_at=received_at, operation="chat", stream=True,
        outcome="completed", status=200, finish_reason="stop", e2e_s=e2e_s,
        completion_tokens=tokens,
    )  # fmt: skip


def test_what_began_before_the_step_in_which_it_ended_is_not_compared() -> None:
    assert within_step(record(BEGAN_AT + 1, 10), HISTORY)
    assert within_step(record(BEGAN_AT + 601, 10), HISTORY)
    assert not within_step(record(BEGAN_AT - 1, 10), HISTORY)
    assert not within_step(record(BEGAN_AT + 599, 10), HISTORY)
    assert not within_step(record(BEGAN_AT + 1, 10), HISTORY[:1])


def test_long_answers_from_before_the_canary_are_no_evidence_against_an_equal_candidate() -> None:
    """Answers of two minutes: by when the candidate's first long ones end, its short ones have."""
    alarms = {True: 0, False: 0}
    for seed in range(12):
        draws = random.Random(seed)
        answers = []
        for _ in range(1500):
            began = draws.uniform(-600, 590)
            tokens = int(draws.lognormvariate(8, 0.7))
            arm = "candidate" if began >= 0 and draws.random() < 0.5 else "baseline"
            answers.append((record(BEGAN_AT + began, tokens * 0.03, tokens), arm))
        answers.sort(key=lambda each: each[0].received_at + each[0].e2e_s)
        for fair in alarms:
            comparison = Comparison(CanaryRules(watch=("length",)))
            for each, arm in answers:
                ended = each.received_at + each.e2e_s - BEGAN_AT
                if 0 <= ended < 600 and (not fair or within_step(each, HISTORY)):
                    comparison.add("candidate" if arm == "candidate" else "baseline",
                                   evidence_of(each))  # fmt: skip
                if comparison.alarmed:
                    alarms[fair] += 1
                    break

    assert alarms[True] == 0
    assert alarms[False] >= 6
