"""The table of alerts: each fires once and ends once, whatever is found and the clock does."""

from collections.abc import Iterator
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.alert_states import (
    FOLDED,
    MAX_SUBJECTS,
    NO_DATA_S,
    Alert,
    AlertState,
    Finding,
    Silence,
    Verdict,
    ended,
    silence_of,
    step,
)
from modelyard.core.alerting import NoReplicaRule

RULE = NoReplicaRule(name="no-replica", for_s=30.0, keep_firing_s=60.0)


class Machine:
    """The table driven look by look; keeps what happened."""

    def __init__(self, rule: NoReplicaRule = RULE) -> None:
        self.rule = rule
        self.active: dict[str, Alert] = {}
        self.happened: list[tuple[str, AlertState]] = []
        self._ids: Iterator[int] = count()

    def look(self, *verdicts: tuple[str, Verdict], now: float = 0.0, after_s: float = 15.0) -> None:
        findings = [Finding(subject=name, verdict=verdict, told="") for name, verdict in verdicts]
        before = self.active
        self.active, resolved = step(
            self.rule, before, findings, now, after_s, lambda: str(next(self._ids))
        )
        for subject, alert in self.active.items():
            known = before.get(subject)
            if known is None or known.id != alert.id or known.state is not alert.state:
                self.happened.append((alert.id, alert.state))
        self.happened += [(alert.id, alert.state) for alert in resolved]

    def states(self) -> list[AlertState]:
        return [state for _, state in self.happened]


def test_it_pends_fires_and_is_resolved_each_after_its_time() -> None:
    machine = Machine()
    for _ in range(2):
        machine.look(("chat", Verdict.BREACHED))
        assert machine.active["chat"].state is AlertState.PENDING
    machine.look(("chat", Verdict.BREACHED))
    assert machine.active["chat"].state is AlertState.FIRING
    for _ in range(4):
        machine.look(("chat", Verdict.CLEAR))
        assert machine.active["chat"].state is AlertState.FIRING
    machine.look(("chat", Verdict.CLEAR))
    assert not machine.active
    assert machine.states() == [AlertState.PENDING, AlertState.FIRING, AlertState.RESOLVED]


def test_what_ends_before_its_time_never_fires() -> None:
    for quiet in (Verdict.CLEAR, Verdict.NO_DATA):
        machine = Machine()
        for _ in range(5):
            machine.look(("chat", Verdict.BREACHED))
            machine.look(("chat", quiet))
        assert AlertState.FIRING not in machine.states()


def test_a_breach_in_between_keeps_it_firing() -> None:
    machine = Machine(NoReplicaRule(name="r", keep_firing_s=60.0))
    machine.look(("chat", Verdict.BREACHED))
    for _ in range(20):
        machine.look(("chat", Verdict.CLEAR), ("other", Verdict.CLEAR))
        machine.look(("chat", Verdict.CLEAR))
        machine.look(("chat", Verdict.BREACHED))
    assert machine.states() == [AlertState.FIRING]


def test_no_data_is_no_alarm_and_ends_one_late() -> None:
    machine = Machine(NoReplicaRule(name="r"))
    machine.look(("chat", Verdict.NO_DATA))
    assert not machine.active
    machine.look(("chat", Verdict.BREACHED))
    for _ in range(int(NO_DATA_S / 15)):
        machine.look(("chat", Verdict.NO_DATA))
        assert machine.active
    machine.look(("chat", Verdict.NO_DATA))
    assert not machine.active


def test_doubt_neither_fires_nor_resolves() -> None:
    machine = Machine()
    machine.look(("chat", Verdict.BREACHED))
    for _ in range(100):
        machine.look(("chat", Verdict.IN_DOUBT))
    assert machine.states() == [AlertState.PENDING]
    machine.look(("chat", Verdict.BREACHED))
    machine.look(("chat", Verdict.BREACHED))
    assert machine.states()[-1] is AlertState.FIRING
    for _ in range(100):
        machine.look(("chat", Verdict.IN_DOUBT))
    machine.look(("chat", Verdict.CLEAR))
    assert machine.active["chat"].state is AlertState.FIRING


def test_a_subject_that_is_gone_is_resolved() -> None:
    machine = Machine(NoReplicaRule(name="r", keep_firing_s=0.0))
    machine.look(("chat", Verdict.BREACHED))
    machine.look()
    assert machine.states() == [AlertState.FIRING, AlertState.RESOLVED]


def test_a_long_pause_between_looks_counts_little() -> None:
    machine = Machine(NoReplicaRule(name="r", for_s=300.0))
    machine.look(("chat", Verdict.BREACHED))
    machine.look(("chat", Verdict.BREACHED), after_s=86_400.0)
    assert machine.active["chat"].state is AlertState.PENDING


Looks = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(list(Verdict))),
        st.floats(-1e6, 2e9),
        st.floats(-100, 1000),
    ),
    max_size=60,
)


@given(looks=Looks, for_s=st.sampled_from([0.0, 20.0]), keep_s=st.sampled_from([0.0, 40.0]))
def test_each_fires_once_and_is_resolved_once_whatever_the_clock_says(
    looks: list[tuple[dict[str, Verdict], float, float]], for_s: float, keep_s: float
) -> None:
    machine = Machine(NoReplicaRule(name="r", for_s=for_s, keep_firing_s=keep_s))
    for verdicts, now, after_s in looks:
        machine.look(*verdicts.items(), now=now, after_s=after_s)
        assert all(subject == alert.subject for subject, alert in machine.active.items())
    fired = [name for name, state in machine.happened if state is AlertState.FIRING]
    resolved = [name for name, state in machine.happened if state is AlertState.RESOLVED]
    assert len(set(fired)) == len(fired)
    assert len(set(resolved)) == len(resolved)
    assert set(resolved) <= set(fired)
    firing = {alert.id for alert in machine.active.values() if alert.state is AlertState.FIRING}
    assert firing == set(fired) - set(resolved)


@given(looks=Looks, jump=st.floats(-1e9, 1e9))
def test_a_clock_that_jumps_changes_nothing(
    looks: list[tuple[dict[str, Verdict], float, float]], jump: float
) -> None:
    steady, jumping = Machine(), Machine()
    now = 1e9
    for number, (verdicts, _, after_s) in enumerate(looks):
        now += after_s
        steady.look(*verdicts.items(), now=now, after_s=after_s)
        told = now + (jump if number > len(looks) // 2 else 0.0)
        jumping.look(*verdicts.items(), now=told, after_s=after_s)
    assert steady.happened == jumping.happened


def test_ten_thousand_subjects_are_folded() -> None:
    machine = Machine(NoReplicaRule(name="r"))
    machine.look(*((f"tenant-{number:05}", Verdict.BREACHED) for number in range(10_000)))
    assert len(machine.active) == MAX_SUBJECTS + 1
    assert machine.active[FOLDED].told.startswith("9900 more")
    first = set(machine.active)
    # Those that fire stay, whoever comes before them by name.
    machine.look(*((f"tenant-{number:05}", Verdict.BREACHED) for number in range(-500, 10_000)))
    assert set(machine.active) == first


def test_silences_cover_a_rule_or_one_subject_until_their_end() -> None:
    machine = Machine(NoReplicaRule(name="r"))
    machine.look(("chat", Verdict.BREACHED))
    alert = machine.active["chat"]

    def silence(until: float, subject: str | None, rule: str = "r") -> Silence:
        return Silence(
            id=str(until), rule=rule, subject=subject, until=until, reason="", by="", created_at=0.0
        )

    assert silence_of(alert, [silence(10.0, None), silence(20.0, "chat")], 5.0) == silence(
        20.0, "chat"
    )
    assert silence_of(alert, [silence(10.0, None)], 10.0) is None
    others = [silence(10.0, "other"), silence(10.0, None, rule="s")]
    assert silence_of(alert, others, 5.0) is None


def test_a_rule_that_is_gone_ends_its_alerts() -> None:
    machine = Machine(NoReplicaRule(name="r"))
    machine.look(("chat", Verdict.BREACHED))
    over = ended(machine.active["chat"], 9.0, "its rule is gone")
    assert (over.state, over.resolved_at, over.told) == (
        AlertState.RESOLVED,
        9.0,
        "its rule is gone",
    )
