"""Alerts, silences, messages and the sums that rules look at, in both kinds of database."""

import msgspec
from tests.state.test_store import record

from modelyard.core.alert_states import Alert, AlertState, Silence
from modelyard.core.rollups import Step
from modelyard.core.scores import Score
from modelyard.core.usage import DAY_S
from modelyard.core.webhooks import Delivery
from modelyard.state.counts import Ended, Judged, Used
from modelyard.state.store import Store

NOW = 1_790_000_000.0
ALERT = Alert(
    id="a1",
    rule="r",
    kind="disk",
    subject="/home \0",
    severity="page",
    state=AlertState.FIRING,
    began_at=NOW,
    fired_at=NOW,
    labels={"team": "models"},
)
DELIVERY = Delivery(
    id="m1", webhook="team", alert="a1", event="alert.firing", body="{}", created_at=NOW
)


def test_an_alert_is_written_with_its_messages_and_moves_into_the_history(store: Store) -> None:
    store.alerts.save([ALERT], [DELIVERY, DELIVERY])
    assert store.alerts.firing() == [ALERT]
    assert store.alerts.waiting("team") == [DELIVERY]
    assert store.alerts.waiting("other") == []
    over = msgspec.structs.replace(ALERT, state=AlertState.RESOLVED, resolved_at=NOW + 60)
    another = msgspec.structs.replace(over, id="a2", rule="s", resolved_at=NOW + 90)
    store.alerts.save([over, another], [])
    assert store.alerts.firing() == []
    assert store.alerts.history(10) == [another, over]
    assert store.alerts.history(10, rule="r") == [over]
    assert store.alerts.history(1) == [another]


def test_messages_are_noted_and_forgotten(store: Store) -> None:
    store.alerts.save([], [DELIVERY])
    tried = msgspec.structs.replace(DELIVERY, attempts=2, error="answered 500")
    store.alerts.tried(tried)
    assert store.alerts.waiting() == [tried]
    store.alerts.settled(["m1", "unknown"])
    assert store.alerts.waiting() == []


def test_silences_end(store: Store) -> None:
    silence = Silence(id="s", rule="r", until=NOW, reason="", by="ada", created_at=NOW - 60)
    later = msgspec.structs.replace(silence, id="t", until=NOW + 60)
    store.alerts.silence(silence, NOW - 60)
    store.alerts.silence(later, NOW - 60)
    assert store.alerts.silences(NOW - 1) == [silence, later]
    assert store.alerts.silences(NOW) == [later]
    assert store.alerts.unsilence("t")
    assert not store.alerts.unsilence("t")


def test_sums_reach_back_to_the_step_in_which_the_time_began(store: Store) -> None:
    minute = Step.MINUTE.begin(NOW)
    times = {"in": minute + 1.0, "edge": minute - 300.0, "out": minute - 301.0}
    made = [
        msgspec.structs.replace(
            record(number),
            request_id=name,
            received_at=at,
            model="chat",
            outcome="failed" if name == "edge" else "completed",
            ttft_s=float(number),
            tenant="acme",
            key_id="k",
            prompt_tokens=10,
            completion_tokens=5,
            cost=0.5,
        )
        for number, (name, at) in enumerate(times.items(), 1)
    ]
    store.records.add(made)
    assert store.counts.ended(300.0, minute + 30.0) == {"chat": Ended(1, 1)}
    assert store.counts.ended(3600.0, minute + 30.0) == {"chat": Ended(2, 1)}
    assert store.counts.ended(6 * 3600.0, minute + 30.0) == {"chat": Ended(2, 1)}
    assert store.counts.late(3600.0, minute + 30.0, 2.0) == {"chat": 1}
    today = int(NOW // DAY_S)
    assert store.counts.used(today) == [Used("acme", "k", "chat", 45, 1_500_000_000)]
    assert store.counts.used(today + 1) == []


def test_scores_are_those_of_the_model_that_the_record_names(store: Store) -> None:
    store.records.add(
        [msgspec.structs.replace(record(n), request_id=f"q{n}", model="chat") for n in (1, 2, 3)]
    )
    store.scores.add(
        [
            Score(request_id="q1", judge="j", score=0.5, at=NOW),
            Score(request_id="q2", judge="j", score=1.0, at=NOW + 1),
            Score(request_id="q3", judge="j", score=None, at=NOW),
            Score(request_id="unknown", judge="j", score=0.0, at=NOW),
            Score(request_id="q1", judge="k", score=0.1, at=NOW + 60),
        ]
    )
    assert store.counts.judged(NOW, NOW + 60) == [Judged("chat", "j", 2, 0.75)]
