"""The evaluator on a real state: what it gathers, when it fires; the preview is the same."""

import asyncio
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from modelyard.core.alert_states import AlertState, Silence, Verdict
from modelyard.core.alerting import AnyRule, read_rules
from modelyard.core.deployments import Deployment, Replica, SlotSpec
from modelyard.core.errors import StorageAway
from modelyard.core.gateways import GatewayFacts
from modelyard.core.keys import KeyPut, Limit, TenantPut
from modelyard.core.records import RequestRecord
from modelyard.core.replicas import ReplicaState
from modelyard.core.scores import Score
from modelyard.core.webhooks import Receiver
from modelyard.observe.alert_facts import Facts
from modelyard.observe.alerts import Watch
from modelyard.observe.webhooks import Clocks, Webhooks
from modelyard.state.alerts import HISTORY, MAX_WAITING
from modelyard.state.store import Store, open_sqlite

START = 1_790_000_000.0
TEAM = Receiver(name="team", url="http://127.0.0.1:9/", secret=b"0" * 16)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_sqlite(tmp_path / "state.db")
    yield opened
    opened.close()


class Rig:
    """A watch whose time is moved by hand; nothing is sent, messages stay in the state."""

    def __init__(self, store: Store, folder: Path, rules: tuple[AnyRule, ...]) -> None:
        self.store = store
        self.wall = START
        self.steady = 0.0
        self.gateways: list[GatewayFacts] = []
        self.told: list[tuple[str, str]] = []
        self._folder = folder
        self._rules = rules
        self._ids = count()
        self.start()

    def start(self) -> None:
        """As a controller does that starts on the same state."""
        clocks = Clocks(lambda: self.wall, lambda: self.steady, lambda: 0.5, self._id)

        def tell(kind: str, subject: str, _: str) -> None:
            self.told.append((kind, subject))

        self.watch = Watch(
            self._rules,
            Facts(self.store, lambda: self.gateways, self._folder, clocks),
            self.store.alerts,
            Webhooks([TEAM], self.store.alerts, tell, clocks),
            tell,
            clocks,
            every_s=15.0,
        )

    def look(self, times: int = 1, *, after_s: float = 15.0) -> None:
        for _ in range(times):
            self.wall += after_s
            self.steady += after_s
            asyncio.run(self.watch._once())

    def states(self) -> dict[str, AlertState]:
        return {alert.subject: alert.state for alert in self.watch.active()}

    def sent(self) -> list[str]:
        """Events of the messages that wait."""
        return [each.event for each in self.store.alerts.waiting()]

    def _id(self) -> str:
        return f"id{next(self._ids)}"


def rig(store: Store, folder: Path, rules: dict[str, Any], *, defaults: bool = False) -> Rig:
    return Rig(store, folder, read_rules(rules, defaults=defaults))


_NUMBERS = count()


def served(store: Store, at: float, *outcomes: str, **more: Any) -> None:
    """Requests that ended so."""
    store.records.add(
        [
            RequestRecord(
                request_id=f"q{next(_NUMBERS)}",
                gateway="g",
                received_at=at,
                operation="chat",
                stream=False,
                outcome=outcome,  # type: ignore[arg-type]
                status=200 if outcome == "completed" else 500,
                model="chat",
                e2e_s=0.1,
                **more,
            )
            for outcome in outcomes
        ]
    )


BURST: dict[str, Any] = {"errors-fast": {"keep_firing_s": 30}}


def errors_fast() -> dict[str, Any]:
    return {"errors-fast": {"kind": "burn_rate", **BURST["errors-fast"]}}


def test_the_preview_is_the_evaluator(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    for outcomes in (("completed",) * 9, ("failed",) * 100, ("completed",) * 2000):
        served(store, here.wall, *outcomes)
        before = here.watch.active()
        [preview] = here.watch.preview("errors-fast")
        assert here.watch.active() == before  # it changes nothing
        here.look()
        [seen] = here.watch.watched.seen
        assert preview == seen
        fires = here.states().get("chat") is AlertState.FIRING
        # What has just begun to end still fires for `keep_firing_s`.
        assert fires == (preview.fires == {"chat"} or bool(before))


def test_a_burst_fires_once_and_is_resolved_once(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    here.look()
    assert not here.states()
    served(store, here.wall, *["failed"] * 60, *["completed"] * 60)
    here.look(5)
    assert here.states() == {"chat": AlertState.FIRING}
    served(store, here.wall, *["completed"] * 2000)
    here.look(5)
    assert not here.states()
    assert here.told == [
        ("alert.firing", "errors-fast: chat"),
        ("alert.resolved", "errors-fast: chat"),
    ]
    assert here.sent() == ["alert.firing", "alert.resolved"]
    [over] = store.alerts.history(10)
    assert over.sent
    assert over.resolved_at
    assert over.fired_at
    assert over.resolved_at - over.fired_at >= 30


def test_a_start_in_between_fires_nothing_again(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    served(store, here.wall, *["failed"] * 200)
    here.look()
    [before] = here.watch.active()
    here.start()
    here.look(3)
    [after] = here.watch.active()
    assert (after.id, after.fired_at, after.sent) == (before.id, before.fired_at, True)
    assert here.sent() == ["alert.firing"]
    assert [kind for kind, _ in here.told] == ["alert.firing"]


def test_a_rule_that_is_gone_ends_its_alert_at_the_next_start(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    served(store, here.wall, *["failed"] * 200)
    here.look()
    here = rig(store, tmp_path, {"disk": {"kind": "disk"}})
    here.look()
    assert here.told == [("alert.resolved", "errors-fast: chat")]
    assert not store.alerts.firing()
    assert here.sent() == ["alert.firing", "alert.resolved"]


def test_without_requests_there_is_no_data_and_no_alarm(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    served(store, here.wall, *["failed"] * 9)
    here.look()
    [seen] = here.watch.watched.seen
    assert [finding.verdict for finding in seen.findings] == [Verdict.NO_DATA]
    assert not here.states()


@pytest.mark.parametrize("jump_s", [-86_400.0, -1800.0, 1800.0, 86_400.0])
def test_a_clock_that_jumps_neither_fires_nor_resolves(
    store: Store, tmp_path: Path, jump_s: float
) -> None:
    quiet = rig(store, tmp_path, errors_fast())
    # An outage half an hour ago, long over.
    served(store, quiet.wall - 1800, *["failed"] * 200)
    served(store, quiet.wall, *["completed"] * 100)
    quiet.look()
    quiet.wall += jump_s
    for _ in range(20):
        served(store, quiet.wall, *["completed"] * 10)
        quiet.look()
    assert quiet.told == []

    firing = rig(store, tmp_path, errors_fast())
    firing.wall = START + 10 * 86_400
    served(store, firing.wall, *["failed"] * 300)
    firing.look()
    firing.wall += jump_s
    firing.look(10)
    assert firing.told == [("alert.firing", "errors-fast: chat")]


def test_what_is_silenced_is_told_at_the_end_of_the_silence(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    silence = Silence(
        id="s", rule="errors-fast", until=START + 60, reason="", by="ada", created_at=START
    )
    store.alerts.silence(silence, START)
    served(store, here.wall, *["failed"] * 200)
    here.look(2)
    assert here.states() == {"chat": AlertState.FIRING}
    assert here.sent() == []
    here.look(3)
    assert here.sent() == ["alert.firing"]


def test_a_state_that_takes_nothing_keeps_nobody_from_being_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = rig(store, tmp_path, errors_fast())
    served(store, here.wall, *["failed"] * 200)

    def full(*_: object) -> int:
        raise StorageAway("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store.alerts, "save", full)
        here.look(2)
        assert here.states() == {"chat": AlertState.FIRING}
        assert [each.event for each in here.watch.webhooks._offered] == ["alert.firing"]
    here.look()
    assert [alert.sent for alert in store.alerts.firing()] == [True]
    assert here.sent() == ["alert.firing"]
    assert [kind for kind, _ in here.told] == ["alert.firing"]


def test_a_state_that_is_away_is_said_and_looked_at_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = rig(store, tmp_path, errors_fast())

    def away(*_: object) -> None:
        raise StorageAway("no answer from the database")

    with monkeypatch.context() as patched:
        patched.setattr(store.counts, "ended", away)
        here.look(2)
        assert here.watch.watched.trouble == "no answer from the database"
    here.look()
    assert here.watch.watched.trouble == ""


def test_budgets_of_tenants_and_keys_come_from_usage_and_the_key_log(
    store: Store, tmp_path: Path
) -> None:
    here = rig(store, tmp_path, {}, defaults=True)
    limits = (Limit(kind="tokens_per_day", amount=1000), Limit(kind="cost_per_month", amount=2.0))
    store.keys.append(lambda seq: TenantPut(seq=seq, at=START, tenant="acme", limits=limits))
    store.keys.append(
        lambda seq: KeyPut(
            seq=seq,
            at=START,
            key_id="k",
            secret_sha256="0" * 64,
            tenant="acme",
            limits=(Limit(kind="tokens_per_day", amount=850, model="chat"),),
        )
    )
    who: dict[str, Any] = {"tenant": "acme", "key_id": "k", "prompt_tokens": 800, "cost": 1.7}
    served(store, START, "completed", **who, completion_tokens=50)
    here.look()
    firing = {(alert.rule, alert.subject) for alert in here.watch.active()}
    assert firing == {
        ("budget-80", "tenant acme, tokens_per_day"),
        ("budget-80", "tenant acme, cost_per_month"),
        ("budget-80", "key k, tokens_per_day of chat"),
        ("budget-100", "key k, tokens_per_day of chat"),
    }


def test_what_gateways_lose_is_told_for_a_while_and_not_again_by_the_next_controller(
    store: Store, tmp_path: Path
) -> None:
    here = rig(
        store, tmp_path, {"records": {"kind": "records", "within_s": 60, "keep_firing_s": 0}}
    )

    def dropped(number: int) -> GatewayFacts:
        return GatewayFacts(id="g", reported_at=0.0, routes_version=1, records_dropped=number)

    here.gateways = [dropped(5)]
    here.look(2)
    assert not here.states()
    here.gateways = [dropped(6)]
    here.look()
    assert here.states() == {"g": AlertState.FIRING}
    here.look(5)
    assert not here.states()
    here.start()
    here.look()
    assert not here.states()


def test_a_live_deployment_without_a_replica_and_a_crash_loop_are_found(
    store: Store, tmp_path: Path
) -> None:
    here = rig(store, tmp_path, {}, defaults=True)
    spec = SlotSpec(model="m", version=1, digest="sha256:0", engine="fake", generation=1)
    live = Deployment(name="chat", blue=spec, live="blue", created_at=START)
    store.deployments.change("chat", lambda _: live)
    for number in range(3):
        store.replicas.put(
            Replica(
                id=f"r{number}",
                deployment="chat",
                slot="blue",
                version=1,
                digest="sha256:0",
                engine="fake",
                launcher="process",
                state=ReplicaState.STOPPED,
                created_at=START + number,
                changed_at=START + number + 0.5,
                error="exit code 1\nmore",
                generation=1,
            )
        )
    here.look(3)
    firing = {alert.rule: alert.told for alert in here.watch.active()}
    assert firing["crash-loop"] == "3 failures in a row: exit code 1"
    assert firing["no-replica"] == "0 of 1 replicas are ready"


def test_history_and_waiting_messages_are_bounded(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, errors_fast())
    served(store, here.wall, *["failed"] * 200)
    here.look()
    [alert] = store.alerts.firing()
    over = [
        msgspec.structs.replace(
            alert, id=f"a{number}", state=AlertState.RESOLVED, resolved_at=START + number
        )
        for number in range(HISTORY + 50)
    ]
    store.alerts.save(over, ())
    assert len(store.alerts.history(HISTORY + 100)) == HISTORY
    assert store.alerts.history(1)[0].id == f"a{HISTORY + 49}"
    [first] = store.alerts.waiting()
    more = [msgspec.structs.replace(first, id=f"m{number}") for number in range(MAX_WAITING + 9)]
    assert store.alerts.save((), more) == 10
    assert len(store.alerts.waiting()) == MAX_WAITING


def test_a_judge_whose_scores_fall_fires(store: Store, tmp_path: Path) -> None:
    here = rig(store, tmp_path, {"drift": {"kind": "quality", "window_s": 3600, "min_scores": 10}})
    for number in range(40):
        at = START - (60 if number >= 20 else 7200)
        served(store, at + number / 100, "completed")
        score = 0.2 if number >= 20 else 0.9
        newest = store.records.newest(1)[0].request_id
        store.scores.add([Score(request_id=newest, judge="j/1", score=score, at=at)])
    here.look()
    assert here.states() == {"chat, judge j/1": AlertState.FIRING}
