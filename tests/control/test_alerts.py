"""Alerts for real: a controller, a gateway, a fake engine that fails and heals, a receiver."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import httpx
import pytest
import yaml
from tests.control.conftest import Controller, until
from tests.control.test_rollouts import bring_up, wish
from tests.control.traffic import Gateway, gateways
from tests.observe.inbox import Inbox

from modelyard.api.alert_messages import SilenceWish
from modelyard.client import Client
from modelyard.control.main import main
from modelyard.core.alert_states import AlertState
from modelyard.core.errors import NotFound
from modelyard.core.home import Home
from modelyard.core.replicas import ReplicaState

SECRET = "0123456789abcdef0123456789abcdef"
WITHIN_S = 60.0
ERRORS = {
    "kind": "burn_rate",
    "objective": 0.9,
    "factor": 5,
    "long_s": 3600,
    "short_s": 600,
    "min_requests_long": 20,
    "min_requests_short": 20,
    "keep_firing_s": 0,
    "labels": {"team": "models"},
}
"""Half of the requests fail."""


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as opened:
        yield opened


def configure(home: Home, inbox: Inbox, **more: Any) -> None:
    """Short intervals, one rule, one receiver."""
    secret = home.root / "webhook.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    alerts = {
        "every_s": 0.2,
        "defaults": False,
        "rules": {"errors": ERRORS},
        "webhooks": {"team": {"url": inbox.url, "secret_file": "webhook.secret", "timeout_s": 2}},
    }
    home.config.write_text(yaml.safe_dump({"alerts": alerts | more}))


def engine(client: Client) -> str:
    """URL of the one replica that is ready."""
    [replica] = [r for r in client.status().replicas if r.state is ReplicaState.READY]
    return replica.url


def break_engine(client: Client) -> None:
    url = f"{engine(client)}/control/faults"
    httpx.post(url, json={"script": "status=500"}, trust_env=False).raise_for_status()


def heal_engine(client: Client) -> None:
    httpx.delete(f"{engine(client)}/control/faults", trust_env=False).raise_for_status()


def ask(gateway: Gateway, times: int) -> list[int]:
    """The statuses of so many requests."""
    body = {"model": "yardling", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}

    def one(_: int) -> int:
        url = f"{gateway.url}/v1/chat/completions"
        return httpx.post(url, json=body, trust_env=False, timeout=30.0).status_code

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(times)))


def firing(client: Client) -> list[str]:
    standing = client.alerts.standing()
    return [alert.subject for alert in standing.alerts if alert.state is AlertState.FIRING]


def kinds(client: Client) -> list[str]:
    found = [event.kind for event in client.events(limit=1000)]
    return [kind for kind in found if kind in ("alert.firing", "alert.resolved")]


def test_errors_fire_once_and_are_resolved_and_a_restart_in_between_repeats_nothing(
    controller: Controller, inbox: Inbox
) -> None:
    configure(controller.home, inbox)
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        break_engine(client)
        assert 200 not in ask(gateway, 30)
        until(lambda: firing(client), "the alert fires", WITHIN_S)
        until(lambda: inbox.of("alert.firing"), "the receiver is told", WITHIN_S)
        [shown] = client.alerts.preview("errors")
        assert [(f.subject, f.would_fire) for f in shown.findings] == [("yardling", True)]

    controller.kill()
    folder = controller.home.root.parent / "another"
    with (
        controller.start() as client,
        closing(Gateway(controller.home, client.url, folder)) as other,
    ):
        looked = client.alerts.standing().looked_at
        until(lambda: client.alerts.standing().looked_at != looked, "it looks again", WITHIN_S)
        assert firing(client) == ["yardling"]
        heal_engine(client)
        until(lambda: 200 in ask(other, 1), "it answers again", WITHIN_S)
        assert set(ask(other, 60)) == {200}
        until(lambda: inbox.of("alert.resolved"), "the receiver is told of the end", WITHIN_S)
        assert not firing(client)
        [over] = client.alerts.history()
        assert kinds(client) == ["alert.firing", "alert.resolved"]

    [began], [ended] = inbox.of("alert.firing"), inbox.of("alert.resolved")
    assert began.signed_by(SECRET.encode())
    assert ended.signed_by(SECRET.encode())
    assert began.json()["data"]["id"] == ended.json()["data"]["id"] == over.id
    assert began.json()["data"]["labels"] == {"team": "models"}
    assert began.id != ended.id
    assert over.sent


def test_what_is_silenced_is_shown_and_told_when_the_silence_ends(
    controller: Controller, inbox: Inbox
) -> None:
    configure(controller.home, inbox)
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with pytest.raises(NotFound, match="no alert rule 'eror'"):
            client.alerts.silence(SilenceWish(rule="eror", for_s=60, reason="work"))
        made = client.alerts.silence(
            SilenceWish(rule="errors", subject="yardling", for_s=600, reason="work", by="ada")
        )
        break_engine(client)
        ask(gateway, 30)
        until(lambda: firing(client), "the alert fires", WITHIN_S)
        [alert] = client.alerts.standing().alerts
        assert (alert.silenced_by, alert.sent) == (made.id, False)
        looked = client.alerts.standing().looked_at
        until(lambda: client.alerts.standing().looked_at != looked, "it looks again", WITHIN_S)
        assert not inbox.messages
        client.alerts.unsilence(made.id)
        until(lambda: inbox.of("alert.firing"), "the receiver is told", WITHIN_S)
        assert not client.alerts.standing().silences


def test_a_receiver_that_was_away_over_a_restart_gets_the_same_message(
    controller: Controller, inbox: Inbox
) -> None:
    configure(controller.home, inbox)
    inbox.hangs.set()
    with controller.start() as client, gateways(controller.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        break_engine(client)
        ask(gateway, 30)
        until(lambda: inbox.messages, "it was tried", WITHIN_S)
        # While it hangs, looking and serving go on.
        looked = client.alerts.standing().looked_at
        until(lambda: client.alerts.standing().looked_at != looked, "it looks again", WITHIN_S)
    controller.kill()
    tried = inbox.messages[0].id
    before = len(inbox.messages)
    inbox.answers = [(500, {}), (307, {"location": "http://127.0.0.1:1/elsewhere"})]
    inbox.hangs.clear()
    with controller.start() as client:

        def taken() -> bool:
            [webhook] = client.alerts.standing().webhooks
            return webhook.taken_at is not None and webhook.waiting == 0

        until(taken, "it is taken at last", WITHIN_S)
        assert {message.id for message in inbox.messages} == {tried}
        assert len(inbox.messages) >= before
        assert kinds(client) == ["alert.firing"]


def test_a_test_message_says_so_and_secrets_are_told_nowhere(
    controller: Controller, inbox: Inbox
) -> None:
    configure(controller.home, inbox)
    with controller.start() as client:
        [outcome] = client.alerts.test()
        assert outcome.taken
        inbox.answers = [(307, {"location": inbox.url})]
        [moved] = client.alerts.test("team")
        assert not moved.taken
        assert "redirects are not followed" in moved.told
        with pytest.raises(NotFound, match="no webhook 'tema'"):
            client.alerts.test("tema")
        shown = client.alerts.standing().model_dump_json() + json.dumps([moved.model_dump()])
    assert controller.end() == 0
    assert [message.type for message in inbox.messages] == ["alert.test", "alert.test"]
    log = (controller.home.logs / "controller.log").read_text()
    for secret in (SECRET, "token-in-path"):
        assert secret not in shown
        assert secret not in log


def test_a_rule_that_does_not_parse_stops_the_start_by_name(
    controller: Controller, inbox: Inbox, capfd: pytest.CaptureFixture[str]
) -> None:
    home = controller.home
    configure(home, inbox, rules={"errors": {**ERRORS, "factr": 2}})
    assert main(["--home", str(home.root), "--port", "0"]) == 1
    told = capfd.readouterr().err
    assert "alerts.rules.errors.factr: is no key here; did you mean 'factor'?" in told
    configure(home, inbox)
    (home.root / "webhook.secret").chmod(0o644)
    assert main(["--home", str(home.root), "--port", "0"]) == 1
    told = capfd.readouterr().err
    assert "alerts.webhooks.team.secret_file: others may read" in told
    assert SECRET not in told
