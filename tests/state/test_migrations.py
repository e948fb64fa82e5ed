"""The schema: made from nothing, brought forward from each that there ever was, with its rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from tests.state.test_store import DEPLOYMENT, REPLICA, record

import modelyard.state.migrations
from modelyard.core.errors import StorageError
from modelyard.core.keys import KeyRevoked
from modelyard.core.routes import empty_snapshot
from modelyard.state.store import Store
from modelyard.state.tables import SCHEMA_HEAD, metadata

SCRIPTS = Config()
SCRIPTS.set_main_option("script_location", str(Path(modelyard.state.migrations.__file__).parent))
REVISIONS = [each.revision for each in ScriptDirectory.from_config(SCRIPTS).walk_revisions()]
REVOKED = KeyRevoked(seq=1, at=3.0, key_id="k")
ROWS = {
    "meta": {"key": "epoch", "value": "0123456789abcdef"},
    "deployments": {"name": "chat", "created_at": 1.0, "body": DEPLOYMENT},
    "replicas": {
        "id": REPLICA.id,
        "deployment": "chat",
        "state": "starting",
        "changed_at": 2.0,
        "body": REPLICA,
    },
    "events": {
        "at": 4.0,
        "kind": "replica.ready",
        "subject": REPLICA.id,
        "actor": "reconciler",
        "message": "",
        "details": {"pid": 7},
    },
    "snapshots": {"id": 1, "version": 0, "body": empty_snapshot("0123456789abcdef")},
    "key_log": {"seq": 1, "body": REVOKED},
    "records": {"request_id": "q1", "received_at": 1.0, "outcome": "completed", "body": record(1)},
}
"""What the first schema holds; a body is stored as its JSON."""


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """A transaction on the database, past the store."""
    engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def bring_to(connection: sa.Connection, revision: str) -> None:
    """Make the schema as it was at that revision."""
    SCRIPTS.attributes["connection"] = connection
    command.upgrade(SCRIPTS, revision)


def test_the_migrations_make_the_tables_that_the_code_uses(url: str, store: Store) -> None:
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert context.get_current_revision() == SCHEMA_HEAD == REVISIONS[0]
        assert compare_metadata(context, metadata) == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_earlier_schema_comes_forward_with_what_it_holds(url: str, revision: str) -> None:
    with connected(url) as connection:
        bring_to(connection, revision)
        for name, row in ROWS.items():
            values = {
                key: value if isinstance(value, str | int | float) else msgspec.json.encode(value)
                for key, value in row.items()
            }
            plain = sa.table(name, *(sa.column(key) for key in values))
            text = {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
            connection.execute(sa.insert(plain).values(**text))

    store = Store(url)
    try:
        assert store.meta.epoch() == "0123456789abcdef"
        assert store.deployments.all() == [DEPLOYMENT]
        assert store.replicas.all() == [REPLICA]
        assert store.snapshots.newest() == empty_snapshot("0123456789abcdef")
        assert store.keys.after(0) == (REVOKED,)
        assert store.records.find("q1") == record(1)
        [event] = store.events.after(0, 9)
        assert (event.seq, event.details) == (1, {"pid": 7})
        assert store.events.append(msgspec.structs.replace(event, at=5.0)) == 2
        assert store.records.add([record(1), record(2)]) == (record(2),)
        store.deployments.change("chat", lambda _: None)
        assert [each.rollout.reason for each in store.rollouts.list("chat", 9)] == ["taken away"]
    finally:
        store.close()


def test_a_newer_schema_is_refused(url: str, store: Store) -> None:
    with connected(url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="9999, newer than this Modelyard") as refusal:
        Store(url)
    assert "upgrade" in refusal.value.next_step


def test_the_tables_of_another_program_are_left_alone(url: str) -> None:
    """MLflow's database has a table of the same name."""
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('bda7b8c39065')")
    with pytest.raises(StorageError, match="tables of another program"):
        Store(url)
