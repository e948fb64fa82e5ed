"""Receivers are told: signed, in order, again when they refuse, and never at another's cost."""

import asyncio
import base64
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import msgspec
import pytest
from tests.observe.inbox import Inbox

from modelyard.core.alert_states import Alert
from modelyard.core.errors import InvalidConfig, StorageAway
from modelyard.core.receivers import read_webhooks
from modelyard.core.webhooks import (
    LONGEST_WAIT_S,
    Delivery,
    Receiver,
    delivery_of,
    secret_bytes,
    signature,
    trial_alert,
    wait_s,
)
from modelyard.observe.receivers import open_receivers
from modelyard.observe.webhooks import Clocks, Webhooks
from modelyard.state.store import Store, open_sqlite

SECRET = b"0123456789abcdef"
DEADLINE_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_sqlite(tmp_path / "state.db")
    yield opened
    opened.close()


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as opened:
        yield opened


def receiver(inbox: Inbox, name: str = "team", **changes: float) -> Receiver:
    made = Receiver(name=name, url=inbox.url, secret=SECRET, timeout_s=30.0)
    return msgspec.structs.replace(made, **changes)


def clocks(*, faster: float = 1.0) -> Clocks:
    """Time that passes so many times faster for waits."""
    ids = count()
    return Clocks(
        time.time, lambda: time.monotonic() * faster, random.random, lambda: f"id{next(ids)}"
    )


class Told:
    """What the journal was told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def __call__(self, kind: str, subject: str, message: str) -> None:
        self.lines.append((kind, subject, message))


@asynccontextmanager
async def running(webhooks: Webhooks) -> AsyncIterator[Webhooks]:
    task = asyncio.create_task(webhooks.run())
    try:
        yield webhooks
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE_S} s"
        await asyncio.sleep(0.02)


def alert(number: int = 0) -> Alert:
    return msgspec.structs.replace(trial_alert(f"a{number}", 1000.0), rule="errors", told="<x> & y")


def send(store: Store, to: Receiver, *numbers: int) -> list[Delivery]:
    made = [delivery_of(to, alert(number), "alert.firing", 1000.0) for number in numbers]
    store.alerts.save((), made)
    return made


async def test_what_was_refused_is_sent_again_with_the_same_id(store: Store, inbox: Inbox) -> None:
    team = receiver(inbox)
    inbox.answers = [(500, {}), (307, {"location": inbox.url}), (200, {})]
    [made] = send(store, team, 1)
    async with running(Webhooks([team], store.alerts, Told(), clocks(faster=50))) as webhooks:
        await until(lambda: not store.alerts.waiting(), "it was taken")
        await until(lambda: webhooks.standings[0].waiting == 0, "nothing waits")
        assert webhooks.standings[0].error == ""
    assert [message.id for message in inbox.messages] == [made.id] * 3
    assert {message.body for message in inbox.messages} == {made.body.encode()}
    assert all(message.signed_by(SECRET) for message in inbox.messages)
    assert not any(message.signed_by(b"another secret!!") for message in inbox.messages)


async def test_one_that_hangs_holds_up_nobody_else(store: Store, inbox: Inbox) -> None:
    with Inbox() as other:
        inbox.hangs.set()
        hung, well = receiver(inbox, "hung"), receiver(other, "well")
        send(store, hung, 1)
        send(store, well, *range(20))
        async with running(Webhooks([hung, well], store.alerts, Told(), clocks())):
            await until(lambda: not store.alerts.waiting("well"), "the other one is told")
            assert len(store.alerts.waiting("hung")) == 1
            assert len(other.messages) == 20


async def test_what_waits_outlives_the_sender(store: Store, inbox: Inbox) -> None:
    team = receiver(inbox)
    inbox.answers = [(503, {})]
    [made] = send(store, team, 1)
    async with running(Webhooks([team], store.alerts, Told(), clocks())):
        await until(lambda: store.alerts.waiting()[0].attempts == 1, "it was tried")
    async with running(Webhooks([team], store.alerts, Told(), clocks())):
        await until(lambda: not store.alerts.waiting(), "it was taken")
    assert {message.id for message in inbox.messages} == {made.id}


async def test_the_end_is_not_told_before_the_beginning(store: Store, inbox: Inbox) -> None:
    team = receiver(inbox)
    inbox.answers = [(500, {})]
    store.alerts.save(
        (),
        [
            delivery_of(team, alert(1), "alert.firing", 1000.0),
            delivery_of(team, alert(1), "alert.resolved", 1001.0),
        ],
    )
    async with running(Webhooks([team], store.alerts, Told(), clocks(faster=50))):
        await until(lambda: not store.alerts.waiting(), "both were taken")
    kinds = [message.type for message in inbox.messages]
    assert kinds == ["alert.firing", "alert.firing", "alert.resolved"]


async def test_a_message_is_given_up_after_its_time_and_that_is_journalled(
    store: Store, inbox: Inbox
) -> None:
    team, told = receiver(inbox, give_up_s=3.0), Told()
    inbox.answers = [(500, {})] * 50
    send(store, team, 1)
    async with running(Webhooks([team], store.alerts, told, clocks(faster=50))):
        await until(lambda: not store.alerts.waiting(), "it was given up")
        await until(lambda: told.lines, "the journal is told")
    [(kind, subject, message)] = told.lines
    assert (kind, subject) == ("alert.undelivered", "team")
    assert "answered 500" in message
    assert "token-in-path" not in message


async def test_messages_to_webhooks_that_are_gone_are_dropped(store: Store, inbox: Inbox) -> None:
    told = Told()
    send(store, receiver(inbox, "former"), 1)
    async with running(Webhooks([receiver(inbox)], store.alerts, told, clocks())):
        await until(lambda: not store.alerts.waiting(), "it is dropped")
    assert told.lines[0][:2] == ("alert.undelivered", "former")
    assert not inbox.messages


async def test_what_the_state_can_not_take_is_sent_once(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = receiver(inbox)
    made = delivery_of(team, alert(1), "alert.firing", 1000.0)

    def full(*_: object) -> None:
        raise StorageAway("the disk is full")

    async with running(Webhooks([team], store.alerts, Told(), clocks())) as webhooks:
        with monkeypatch.context() as patched:
            patched.setattr(store.alerts, "settled", full)
            webhooks.wake((made,), more=True)
            await until(lambda: inbox.messages, "it is sent")
            await until(lambda: webhooks.standings[0].taken_at, "it is taken")
            webhooks.wake((made,), more=True)
        store.alerts.save((), (made,))
        webhooks.wake((), more=True)
        await until(lambda: not store.alerts.waiting(), "the state forgets it")
    assert len(inbox.messages) == 1


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example that its libraries test themselves with."""
    secret = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    made = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("text", ["short", "whsec_!!!", "whsec_" + base64.b64encode(b"x").decode()])
def test_a_secret_that_is_none_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        secret_bytes(text)
    assert text not in str(refused.value)


def test_waits_double_and_are_drawn_in_part() -> None:
    assert [wait_s(n, 1.0) for n in (1, 2, 3, 4)] == [1.0, 2.0, 4.0, 8.0]
    assert [wait_s(n, 0.0) for n in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert wait_s(10_000, 1.0) == LONGEST_WAIT_S


def test_slacks_form_calls_nobody_that_a_name_holds(inbox: Inbox) -> None:
    slack = msgspec.structs.replace(receiver(inbox), format="slack", secret=b"")
    hostile = msgspec.structs.replace(alert(), subject="<!channel> & co")
    content = json.loads(delivery_of(slack, hostile, "alert.firing", 1000.0).body)
    assert content["text"].startswith("[FIRING] errors: &lt;!channel&gt; &amp; co: &lt;x&gt;")
    assert content["blocks"][0]["type"] == "section"


def test_addresses_and_secrets_come_from_files_and_variables(tmp_path: Path) -> None:
    secret = tmp_path / "s"
    secret.write_text("0123456789abcdef\n")
    secret.chmod(0o600)
    wishes = read_webhooks(
        {
            "a": {"url": "http://127.0.0.1:9/", "secret_file": "s"},
            "b": {"url_env": "URL", "format": "slack"},
        }
    )
    one, other = open_receivers(wishes, tmp_path, {"URL": "https://x.example/y"})
    assert (one.secret, other.url, other.secret) == (SECRET, "https://x.example/y", b"")
    assert "0123" not in repr(one)
    with pytest.raises(InvalidConfig, match="the environment has no URL"):
        open_receivers(wishes, tmp_path, {})
    with pytest.raises(InvalidConfig, match="not a URL"):
        open_receivers(wishes, tmp_path, {"URL": "ftp://secret/"})
    secret.chmod(0o640)
    with pytest.raises(InvalidConfig, match="others may read") as refused:
        open_receivers(wishes, tmp_path, {"URL": "https://x.example/y"})
    assert refused.value.next_step == f"chmod 600 {secret}"
