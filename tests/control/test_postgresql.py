"""A whole controller whose state is on PostgreSQL, and what happens when that goes away."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.stacks import running_stack
from tests.control.conftest import Controller, runs, until
from tests.control.test_rollouts import bring_up, phase, ready, until_phase, wish
from tests.control.traffic import Load, gateways
from tests.postgres import PostgresServer

from modelyard.api.messages import DeployRequest, KeyWish
from modelyard.cli.up import _has_key
from modelyard.client import Client
from modelyard.core.errors import StorageAway
from modelyard.core.home import Home
from modelyard.core.rollout import Phase
from modelyard.settings import load_settings
from modelyard.state.store import Store

pytestmark = pytest.mark.service("postgresql")
SECRETS = ("p%40ss", "p@ss", "wörd")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def database(server: PostgresServer) -> Iterator[str]:
    with server.database() as name:
        yield name


@pytest.fixture
def on_postgresql(controller: Controller, server: PostgresServer, database: str) -> Controller:
    """A controller whose home says where the state is."""
    controller.home.config.write_text(f"state: {{url: '{server.url(database)}'}}\n")
    return controller


@pytest.fixture
def log(on_postgresql: Controller) -> Iterator[Path]:
    """What the controller wrote; there is never a password in it."""
    written = on_postgresql.home.logs / "controller.log"
    yield written
    assert not [secret for secret in SECRETS if secret in written.read_text()]


def run_module(
    module: str, home: Home, *arguments: str, url: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"MODELYARD_STATE__URL": url} if url else {})}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments, "--home", str(home.root)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )


def test_a_killed_controller_finds_all_of_it_again(
    on_postgresql: Controller, database: str, log: Path
) -> None:
    with on_postgresql.start() as client:
        bring_up(client, wish(1, smoke=[]))
        [before] = ready(client, 1)
        client.create_key(KeyWish(tenant="team", key_id="k1"))
        routes = client.status().controller.routes_version
        told = client.status().model_dump_json()
    on_postgresql.kill()
    assert before.pid
    assert runs(before.pid)
    with on_postgresql.start() as client:
        until(lambda: ready(client, 1), "the replica is known")
        [after] = ready(client, 1)
        assert (after.id, after.pid, after.ready_at) == (before.id, before.pid, before.ready_at)
        assert client.status().controller.routes_version == routes
        assert [rollout.id for rollout in client.rollouts()] == ["yardling-1"]
        [key] = client.keys()
        assert key.key_id == "k1"
        assert "replica.adopted" in [event.kind for event in client.events()]
    assert not on_postgresql.home.state.exists()
    assert f"the state is in {database} on 127.0.0.1:" in log.read_text()
    assert not [secret for secret in SECRETS if secret in told]


def test_while_the_server_is_away_everything_serves_and_nothing_is_lost(
    on_postgresql: Controller, server: PostgresServer, log: Path
) -> None:
    two = DeployRequest(
        ref="yardling:1", engine="fake", replicas=2, plan={"smoke": [], "bake_s": 0}
    )
    with on_postgresql.start() as client, gateways(on_postgresql.home, client.url) as [gateway]:
        bring_up(client, two)
        until(lambda: len(ready(client, 1)) == 2, "both replicas are ready")
        kept, killed = ready(client, 1)
        assert kept.pid
        assert killed.pid
        with Load(gateway.url, streams=False) as whole:
            whole.until_answered(20)
            server.stop()
            try:
                with Load(gateway.url) as load:
                    with pytest.raises(StorageAway, match=r"127\.0\.0\.1") as away:
                        client.deploy(wish(2))
                    assert not [secret for secret in SECRETS if secret in str(away.value)]
                    load.until_answered(50)
                    spool = gateway.home.gateway / "spool"
                    until(lambda: list(spool.glob("*.json")), "records wait on the gateway's disk")
                # A stream that a replica has begun ends with it; whole answers can be asked again.
                os.kill(killed.pid, signal.SIGKILL)  # the gateway sees it; the loop, later
                whole.until_answered(20)
                until(lambda: "is tried again" in log.read_text(), "the loop says so")
            finally:
                server.start()
            until(
                lambda: len(ready(client, 1)) == 2 and killed.pid not in pids(client),
                "the dead replica is replaced",
            )
            whole.until_answered(20)
        sent = load.sent + whole.sent
        until(lambda: counted(client) == sent, "each request is counted, once")
        kinds = [(event.kind, event.subject) for event in client.events()]

    assert load.lost == []  # nobody noticed that the database was away
    assert whole.lost == []  # nor that a replica died: its requests were asked again
    assert runs(kept.pid)
    assert ("replica.stopped", killed.id) in kinds  # what happened meanwhile is in the journal
    assert log.read_text().count("is tried again") < 5


def pids(client: Client) -> list[int | None]:
    return [replica.pid for replica in ready(client, 1)]


def counted(client: Client) -> int:
    return sum(row.requests for row in client.usage(2))


def test_a_rollout_goes_on_when_the_server_is_back(
    on_postgresql: Controller, server: PostgresServer, log: Path
) -> None:
    with on_postgresql.start() as client, gateways(on_postgresql.home, client.url) as [gateway]:
        bring_up(client, wish(1))
        with Load(gateway.url) as load:
            client.deploy(wish(2, extra=("--slow-start-s", "2")))
            until_phase(client, Phase.LAUNCHING)
            server.stop()
            try:
                load.until_answered(30)
            finally:
                server.start()
            until(lambda: phase(client) is Phase.BAKING, "it is live", 40.0)
            load.until_answered(20)
    assert load.lost == []
    assert load.order[-1] == "yardling:2"


def test_a_server_that_is_away_at_the_start_is_named(home: Home) -> None:
    url = "postgresql://yard:p%40ss-w@127.0.0.1:1/yard_state"
    direct = run_module("modelyard.control.main", home, "--port", "0", url=url)
    through_up = run_module("modelyard.cli.main", home, "up", "--port", "1", url=url)
    for refused in (direct, through_up):
        assert refused.returncode == 1
        assert "yard_state on 127.0.0.1:1" in refused.stderr
        assert "pg_isready -h 127.0.0.1 -p 1" in refused.stderr
        assert "p%40ss" not in refused.stderr
        assert "p@ss" not in refused.stderr
        assert "Traceback" not in refused.stderr


def test_a_second_home_on_the_same_database_is_refused(
    on_postgresql: Controller, server: PostgresServer, database: str, tmp_path: Path
) -> None:
    with on_postgresql.start():
        other = Home(tmp_path / "other")
        refused = run_module(
            "modelyard.control.main", other, "--port", "0", url=server.url(database)
        )
    assert refused.returncode == 1
    assert f"a controller uses the database {database}" in refused.stderr.splitlines()[-1]


def test_a_controller_that_was_followed_ends_and_leaves_its_workers(
    on_postgresql: Controller, server: PostgresServer, database: str, log: Path
) -> None:
    """As when it was cut off from the server, and another one was started."""
    with on_postgresql.start() as client:
        bring_up(client, wish(1, smoke=[]))
        [replica] = ready(client, 1)
    assert on_postgresql.process
    os.kill(on_postgresql.process.pid, signal.SIGSTOP)
    with server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (database,),
        )
    follower = Store(server.url(database), sole=True)
    os.kill(on_postgresql.process.pid, signal.SIGCONT)
    try:
        assert on_postgresql.process.wait(40) == 1
    finally:
        follower.close()
    assert "a controller uses the database" in log.read_text().splitlines()[-1]
    assert replica.pid
    assert runs(replica.pid)


def test_the_setting_is_read_and_refused_without_being_repeated(home: Home) -> None:
    refused = run_module(
        "modelyard.control.main", home, "--port", "0", url="mysql://root:p@ss-w@somewhere/db"
    )
    assert refused.returncode == 1
    assert "state.url: " in refused.stderr
    assert "postgresql://USER@HOST:5432/DATABASE" in refused.stderr
    assert "p@ss-w" not in refused.stderr
    assert "somewhere" not in refused.stderr


def test_up_runs_on_it_and_looks_there_for_keys(
    home: Home,
    server: PostgresServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = server.url(database)
    monkeypatch.setenv("MODELYARD_STATE__URL", url)
    with running_stack(home.root, "yardling"), Client.from_home(home) as client:
        assert not _has_key(home, load_settings(home.config, {}))
        bring_up(client, wish(1, smoke=[]))
        [replica] = ready(client, 1)
        client.create_key(KeyWish(tenant="team"))
    assert replica.pid
    assert not runs(replica.pid)  # the end of `up` ends the workers too
    assert _has_key(home, load_settings(home.config, {}))
    assert not home.state.exists()
