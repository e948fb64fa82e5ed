"""Tables of the controller's state.

A row keeps its message whole as JSON in `body` (msgspec, so that a field added later has its
default in older rows) beside the columns that queries need.
"""

import sqlalchemy as sa

from modelyard.core.rollups import Sums, TenantSums

SCHEMA_HEAD = "0004"
"""Revision of the newest migration; a test holds it to the scripts."""


class Told(sa.types.TypeDecorator[str]):
    """Text that comes from elsewhere, and is stored whatever it is.

    PostgreSQL refuses NUL, and what is longer than the column, where SQLite takes both. A journal
    line is for people, and a record's columns are there to find it (its body has all of it).
    """

    impl = sa.String
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)
        self.length = length

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """As it goes into the database."""
        return None if value is None else value.replace("\0", "\ufffd")[: self.length]


class ToldText(Told):
    """The same, of any length."""

    impl = sa.Text
    cache_ok = True


metadata = sa.MetaData()
_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
deployments = sa.Table(
    "deployments",
    metadata,
    sa.Column("name", sa.String(128), primary_key=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
rollouts = sa.Table(
    "rollouts",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("deployment", sa.String(128), nullable=False, index=True),
    sa.Column("started_at", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
replicas = sa.Table(
    "replicas",
    metadata,
    sa.Column("id", sa.String(200), primary_key=True),
    sa.Column("deployment", sa.String(128), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("changed_at", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", Told(64), nullable=False, index=True),
    sa.Column("subject", Told(256), nullable=False, index=True),
    sa.Column("actor", Told(128), nullable=False),
    sa.Column("message", ToldText(), nullable=False),
    sa.Column("details", sa.Text, nullable=False),
)
snapshots = sa.Table(
    "snapshots",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
key_log = sa.Table(
    "key_log",
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=False),
    sa.Column("body", sa.Text, nullable=False),
)
records = sa.Table(
    "records",
    metadata,
    sa.Column("request_id", sa.String(128), primary_key=True),
    sa.Column("received_at", sa.Float, nullable=False, index=True),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("tenant", Told(128)),
    sa.Column("key_id", Told(128)),
    sa.Column("model", Told(128), index=True),
    sa.Column("digest", Told(80)),
    sa.Column("replica", Told(200)),
    sa.Column("body", sa.Text, nullable=False),
)
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tenant", Told(128), primary_key=True),
    sa.Column("key_id", Told(128), primary_key=True),
    sa.Column("model", Told(128), primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("unsuccessful", sa.BigInteger, nullable=False),
    sa.Column("cached", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_nanos", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("priced", sa.BigInteger, nullable=False, server_default="0"),
)
"""`day`: days since 1970; an empty tenant or key: none was needed."""
rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", Told(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("digest", Told(80), primary_key=True),
    sa.Column("slot", sa.String(8), primary_key=True),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in Sums.COUNTS),
    *(sa.Column(name, sa.LargeBinary, nullable=False) for name in Sums.SKETCHES),
    sa.Index("ix_rollups_model", "model", "step", "at"),
    sqlite_with_rowid=False,
)
"""Trends (`core/rollups.py`). `step`: seconds; `at`: Unix seconds at which it began."""
tenant_hours = sa.Table(
    "tenant_hours",
    metadata,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("tenant", Told(128), primary_key=True),
    sa.Column("model", Told(128), primary_key=True),
    *(sa.Column(name, sa.BigInteger, nullable=False) for name in TenantSums.COUNTS),
    sqlite_with_rowid=False,
)
capacity = sa.Table(
    "capacity",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model", Told(128), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("slot", sa.String(8), primary_key=True),
    sa.Column("replica_ms", sa.BigInteger, nullable=False),
    sa.Column("accelerator_ms", sa.BigInteger, nullable=False),
    sa.Column("priced_ms", sa.BigInteger, nullable=False),
    sa.Column("cost_nanos", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What ran, asked or not: time of replicas and of their accelerators, and what it cost; of the
replicas' time, that which has a price."""
metered = sa.Table(
    "metered",
    metadata,
    sa.Column("replica", sa.String(200), primary_key=True),
    sa.Column("until_ms", sa.BigInteger, nullable=False),
    sa.Column("accelerators", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)
"""Until when a replica that runs is in `capacity`: Unix milliseconds."""
machines = sa.Table(
    "machines",
    metadata,
    sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("host", Told(128), primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sqlite_with_rowid=False,
)
"""Memory, processors and accelerators of the machine, averaged over each step."""
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("request_id", sa.String(128), primary_key=True),
    sa.Column("judge", Told(128), primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("score", sa.Float),
    sa.Column("body", sa.Text, nullable=False),
)
"""What judges said of answers; without a score: that they could not say, and why."""
alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.String(160), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("since", sa.Float, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)
silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("until", sa.Float, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("seq", _SEQ, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(200), nullable=False, unique=True),
    sa.Column("webhook", sa.String(64), nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)
"""What webhooks are still to be told of alerts; a row goes when it was taken, or given up."""
