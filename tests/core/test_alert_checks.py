"""What rules see in generated histories: bursts, slow burns, few requests, clocks that jump."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.alert_checks import (
    AlertFacts,
    Counted,
    Handover,
    Running,
    Scored,
    Space,
    Spent,
    look,
    stretches_of,
    windows_of,
)
from modelyard.core.alert_states import Verdict
from modelyard.core.alerting import (
    FAST,
    SLOW,
    AnyRule,
    BudgetRule,
    BurnRateRule,
    CrashLoopRule,
    DiskRule,
    LatencyRule,
    NoReplicaRule,
    QualityRule,
    RecordsRule,
    read_rules,
)

BY_NAME = {rule.name: rule for rule in read_rules({})}
History = Callable[[int], tuple[int, int]]
"""Requests and failures in the minute so many minutes ago."""


def facts(history: History, *rules: AnyRule) -> AlertFacts:
    """The sums of a history over the windows of the rules."""
    sums = {}
    for rule in rules:
        for window in windows_of(rule):
            minutes = [history(minute) for minute in range(int(window.length_s // 60))]
            total, failed = (sum(each[place] for each in minutes) for place in (0, 1))
            sums[window] = {"chat": Counted(completed=total - failed, failed=failed)}
    return AlertFacts(requests=sums)


def verdict(rule: AnyRule, history: History) -> Verdict:
    [finding] = look(rule, facts(history, rule))
    assert finding.subject == "chat"
    return finding.verdict


def test_a_short_burst_of_a_twentieth_alarms_nobody() -> None:
    def history(minute: int) -> tuple[int, int]:
        return 100, 5 if minute < 10 else 0

    assert verdict(BY_NAME["errors-fast"], history) is Verdict.CLEAR
    assert verdict(BY_NAME["errors-slow"], history) is Verdict.CLEAR


def test_an_outage_pages_within_minutes() -> None:
    def history(minute: int) -> tuple[int, int]:
        return 100, 100 if 0 <= minute < 9 else 0

    assert verdict(BY_NAME["errors-fast"], history) is Verdict.BREACHED
    # And no longer once it is over: the short window is clean.
    assert verdict(BY_NAME["errors-fast"], lambda minute: history(minute - 6)) is Verdict.CLEAR


def test_a_slow_burn_is_found_by_the_slow_rule_alone() -> None:
    def history(_: int) -> tuple[int, int]:
        return 100, 7

    assert verdict(BY_NAME["errors-fast"], history) is Verdict.CLEAR
    assert verdict(BY_NAME["errors-slow"], history) is Verdict.BREACHED


def test_too_few_requests_say_nothing() -> None:
    assert verdict(BY_NAME["errors-fast"], lambda _: (1, 1)) is Verdict.NO_DATA
    assert verdict(BY_NAME["errors-fast"], lambda minute: (30 * (minute > 5), 30)) is (
        Verdict.NO_DATA
    )


@given(
    counts=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=360, max_size=360)
)
def test_both_windows_must_burn_whatever_the_traffic(counts: list[tuple[int, int]]) -> None:
    def history(minute: int) -> tuple[int, int]:
        more, failed = counts[minute]
        return more + failed, failed

    for rate in (FAST, SLOW):
        rule = BY_NAME[rate.name]
        sums = [
            tuple(map(sum, zip(*(history(m) for m in range(length // 60)), strict=True)))
            for length in (rate.long_s, rate.short_s)
        ]
        enough = sums[0][0] >= 100 and sums[1][0] >= 10
        burns = enough and all(failed / total > rate.factor * 0.01 for total, failed in sums)
        assert (verdict(rule, history) is Verdict.BREACHED) == burns
        assert (verdict(rule, history) is Verdict.NO_DATA) == (not enough)


def test_a_clock_that_went_back_leaves_doubt_for_as_long_as_minutes_are_mixed() -> None:
    rule = BY_NAME["errors-fast"]
    burning = facts(lambda _: (100, 100), rule)

    def seen(went_back_s: float, ago_s: float) -> Verdict:
        told = AlertFacts(requests=burning.requests, went_back_s=went_back_s, went_back_s_ago=ago_s)
        return look(rule, told)[0].verdict

    assert seen(600.0, 899.0) is Verdict.IN_DOUBT
    assert seen(600.0, 901.0) is Verdict.BREACHED
    # A clock that was wrong by years does not blind the rule for years.
    assert seen(1e9, 3899.0) is Verdict.IN_DOUBT
    assert seen(1e9, 3901.0) is Verdict.BREACHED


def test_only_named_models_are_looked_at_and_silence_of_one_is_visible() -> None:
    rule = BurnRateRule(name="r", models=("chat", "quiet"))
    sums = {
        window: {"chat": Counted(1000, 0), "other": Counted(0, 1000)} for window in windows_of(rule)
    }
    found = {each.subject: each.verdict for each in look(rule, AlertFacts(requests=sums))}
    assert found == {"chat": Verdict.CLEAR, "quiet": Verdict.NO_DATA}
    # A model that has an alert and is not asked any more is not well, nobody knows.
    [gone] = look(BurnRateRule(name="r"), AlertFacts(), ["chat"])
    assert gone.verdict is Verdict.NO_DATA


def test_late_answers_burn_the_budget_of_a_latency_objective() -> None:
    rule = LatencyRule(name="r", ttft_s=2.0, objective=0.95, factor=2.0)
    for late, expected in ((90, Verdict.CLEAR), (110, Verdict.BREACHED)):
        sums = {window: {"chat": Counted(1000, 500, late)} for window in windows_of(rule)}
        [found] = look(rule, AlertFacts(requests=sums))
        assert found.verdict is expected
        assert found.told.startswith("late: ")


def running(**changes: object) -> Running:
    usual: dict[str, object] = {
        "name": "chat",
        "live": True,
        "ready": 2,
        "wanted": 2,
        "failures": 0,
        "failed_s_ago": None,
        "last_error": "",
    }
    return Running(**{**usual, **changes})  # type: ignore[arg-type]


def test_a_crash_loop_holds_while_replicas_miss_or_the_last_failure_is_near() -> None:
    rule = CrashLoopRule(name="r")

    def seen(**changes: object) -> Verdict:
        return look(rule, AlertFacts(deployments=[running(**changes)]))[0].verdict

    assert seen() is Verdict.CLEAR
    assert seen(failures=2, failed_s_ago=1.0, ready=0) is Verdict.CLEAR
    assert seen(failures=3, failed_s_ago=1.0) is Verdict.BREACHED
    assert seen(failures=3, failed_s_ago=601.0) is Verdict.CLEAR
    assert seen(failures=3, failed_s_ago=601.0, ready=1) is Verdict.BREACHED
    assert seen(failures=3, failed_s_ago=1.0, live=False, ready=0, wanted=0) is Verdict.BREACHED


def test_a_live_deployment_without_a_ready_replica_is_seen() -> None:
    rule = NoReplicaRule(name="r")
    deployments = [running(ready=0), running(name="b", ready=1), running(name="c", live=False)]
    found = look(rule, AlertFacts(deployments=deployments))
    assert [(f.subject, f.verdict) for f in found] == [
        ("chat", Verdict.BREACHED),
        ("b", Verdict.CLEAR),
    ]


def test_budgets_at_their_shares() -> None:
    spent = [
        Spent(scope="tenant", name="acme", kind="cost_per_day", model=None, used=used, amount=10.0)
        for used in (7.99, 8.0, 10.0)
    ]
    eighty = look(BudgetRule(name="r", share=0.8), AlertFacts(spent=spent))
    whole = look(BudgetRule(name="r", share=1.0), AlertFacts(spent=spent))
    assert [f.verdict is Verdict.BREACHED for f in eighty] == [False, True, True]
    assert [f.verdict is Verdict.BREACHED for f in whole] == [False, False, True]
    assert eighty[0].subject == "tenant acme, cost_per_day"
    assert eighty[1].told == "80% used: 8 of 10"


def test_lost_records_a_full_spool_and_a_full_disk_are_seen() -> None:
    rule = RecordsRule(name="r", max_waiting=10)
    each = [Handover(gateway="a", waiting=10, lost=0), Handover(gateway="b", waiting=11, lost=0)]
    each.append(Handover(gateway="c", waiting=0, lost=1))
    found = look(rule, AlertFacts(handovers=each))
    assert [f.verdict is Verdict.BREACHED for f in found] == [False, True, True]
    disk = DiskRule(name="d")
    for free, expected in ((4e9, Verdict.BREACHED), (6e9, Verdict.CLEAR)):
        space = Space(folder="/h", free_bytes=int(free), total_bytes=100_000_000_000)
        assert look(disk, AlertFacts(space=space))[0].verdict is expected
    assert look(disk, AlertFacts()) == []


def test_scores_that_fell_are_a_drift_and_few_of_them_say_nothing() -> None:
    rule = QualityRule(name="r")

    def seen(mean: float, count: int = 100, count_before: int = 1000) -> Verdict:
        scored = Scored(
            model="chat",
            judge="j/1",
            count=count,
            mean=mean,
            count_before=count_before,
            mean_before=0.8,
        )
        [found] = look(rule, AlertFacts(scored={stretches_of(rule): [scored]}))
        assert found.subject == "chat, judge j/1"
        return found.verdict

    assert seen(0.71) is Verdict.CLEAR
    assert seen(0.69) is Verdict.BREACHED
    assert seen(0.1, count=49) is Verdict.NO_DATA
    assert seen(0.1, count_before=49) is Verdict.NO_DATA
