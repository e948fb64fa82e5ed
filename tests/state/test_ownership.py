"""One controller to a database that several machines reach."""

from pathlib import Path
from typing import Any

import pytest
from tests.postgres import PostgresServer
from tests.state.conftest import ON_POSTGRESQL
from tests.state.test_store import DEPLOYMENT

from modelyard.core.errors import Conflict, StorageAway, StorageError
from modelyard.state import ownership
from modelyard.state.store import Store

pytestmark = ON_POSTGRESQL


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody here is on the way out: one look is enough."""
    monkeypatch.setattr(ownership, "_LOOKS", 1)


def cut_sessions(server: PostgresServer, database: str) -> None:
    """End every session in the database, as a server that stops does."""
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (database,),
        )


def test_the_second_is_refused_and_told_who_has_it(server: PostgresServer, database: str) -> None:
    url = server.url(database)
    first = Store(f"{url}?application_name=the+first", sole=True)
    with pytest.raises(Conflict, match=rf"{database} on 127.0.0.1:\d+ already: the first") as told:
        Store(url, sole=True)
    assert "stop that one" in told.value.next_step
    onlooker = Store(url)  # a command that only looks
    assert onlooker.deployments.all() == []
    onlooker.close()
    first.close()
    Store(url, sole=True).close()


def test_it_is_held_again_after_the_sessions_were_cut(
    server: PostgresServer, database: str
) -> None:
    url = server.url(database)
    store = Store(url, sole=True)
    cut_sessions(server, database)
    store.deployments.change("chat", lambda _: DEPLOYMENT)  # the pool looks before it gives
    store.confirm()
    with pytest.raises(Conflict):
        Store(url, sole=True)
    store.close()


def test_one_that_was_followed_writes_nothing_any_more(
    server: PostgresServer, database: str
) -> None:
    """Cut off from the server, it lost the lock; another one started meanwhile."""
    url = server.url(database)
    first = Store(url, sole=True)
    cut_sessions(server, database)
    second = Store(url, sole=True)
    for write in (
        lambda: first.deployments.change("chat", lambda _: DEPLOYMENT),
        lambda: first.meta.set_default_model("chat"),
        first.confirm,
    ):
        with pytest.raises(Conflict):
            write()
    second.close()
    with pytest.raises(Conflict, match="another controller has taken over"):
        first.confirm()  # though the lock is free again
    assert first.deployments.all() == []
    first.close()


def test_no_schema_is_changed_under_a_controller(
    server: PostgresServer, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.url(database)
    store = Store(url, sole=True)
    monkeypatch.setattr("modelyard.state.database.SCHEMA_HEAD", "a newer one")
    with pytest.raises(Conflict, match="of another Modelyard uses the database"):
        Store(url)
    store.close()


@pytest.mark.parametrize(
    ("part", "by", "words", "next_step"),
    [
        ("/{database}", "/nothing", "does not exist", "createdb"),
        ("w%C3%B6rd@", "wrong@", "password authentication failed", "~/.pgpass"),
        (":{port}/", ":1/", "Connection refused", "pg_isready -h 127.0.0.1 -p 1"),
    ],
)
def test_a_server_that_can_not_be_used_is_named_without_the_password(
    server: PostgresServer, database: str, part: str, by: str, words: str, next_step: str
) -> None:
    url = server.url(database).replace("wörd", "w%C3%B6rd")
    wrong = url.replace(part.format(database=database, port=server.port), by)
    assert wrong != url
    with pytest.raises(StorageAway) as refusal:
        Store(wrong)
    told = refusal.value
    assert words in told.message
    assert "127.0.0.1:" in told.message
    assert next_step in told.next_step
    assert "\n" not in told.message
    for secret in ("p%40ss", "p@ss", "wörd", "%C3%B6rd", "wrong"):
        assert secret not in f"{told.message}{told.next_step}"


def test_a_server_that_takes_no_writes_for_now_may_take_them_later(
    server: PostgresServer, database: str
) -> None:
    """As a standby does, until it is made the primary."""
    Store(server.url(database)).close()
    store = Store(f"{server.url(database)}?options=-cdefault_transaction_read_only%3Don")
    with pytest.raises(StorageAway, match="read-only") as refusal:
        store.meta.set_default_model("chat")
    assert "target_session_attrs" in refusal.value.next_step
    store.close()


def test_a_password_in_the_query_is_not_shown_either(server: PostgresServer) -> None:
    url = f"postgresql:///nothing?host=127.0.0.1&port={server.port}&user=postgres&password=secret"
    with pytest.raises(StorageError, match=rf"nothing on 127.0.0.1:{server.port}") as refusal:
        Store(url)
    assert "secret" not in refusal.value.message


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with PostgresServer() as server, server.database() as database:
        store = Store(server.url(database), sole=True)
        store.deployments.change("chat", lambda _: DEPLOYMENT)
        server.stop()
        uses: list[Any] = [
            store.deployments.all,
            lambda: store.meta.set_default_model("chat"),
            store.confirm,
        ]
        for use in uses:
            with pytest.raises(StorageAway, match=database):
                use()
        server.start()
        assert store.deployments.all() == [DEPLOYMENT]
        store.meta.set_default_model("chat")
        store.confirm()
        store.close()
