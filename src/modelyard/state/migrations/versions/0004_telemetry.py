"""Trends, capacity, machines, scores, alerts and who is told; the cost of what was used."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_COUNTS = (
    "requests", "failed", "cancelled", "rejected", "limited", "cached", "streamed",
    "prompt_tokens", "completion_tokens", "cost_nanos", "priced", "e2e_ms", "ttft_ms",
)  # fmt: skip
_TENANT_COUNTS = ("requests", "unsuccessful", "prompt_tokens", "completion_tokens", "cost_nanos")


def upgrade() -> None:
    """Make the tables, and the column."""
    for name in ("cost_nanos", "priced"):
        op.add_column("usage", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "rollups",
        *_step(),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("slot", sa.String(8), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _COUNTS),
        *(sa.Column(name, sa.LargeBinary, nullable=False) for name in ("e2e", "ttft", "itl")),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_rollups_model", "rollups", ["model", "step", "at"])
    op.create_table(
        "tenant_hours",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("tenant", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _TENANT_COUNTS),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "capacity",
        *_step(),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("slot", sa.String(8), primary_key=True),
        sa.Column("replica_ms", sa.BigInteger, nullable=False),
        sa.Column("accelerator_ms", sa.BigInteger, nullable=False),
        sa.Column("priced_ms", sa.BigInteger, nullable=False),
        sa.Column("cost_nanos", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "metered",
        sa.Column("replica", sa.String(200), primary_key=True),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("accelerators", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "machines",
        *_step(),
        sa.Column("host", sa.String(128), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "scores",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("judge", sa.String(128), primary_key=True),
        sa.Column("at", sa.Float, nullable=False, index=True),
        sa.Column("score", sa.Float),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(160), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("since", sa.Float, nullable=False, index=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "silences",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer, "sqlite"),
            primary_key=True,
            autoincrement=True,
        ),
        sa.Column("id", sa.String(200), nullable=False, unique=True),
        sa.Column("webhook", sa.String(64), nullable=False, index=True),
        sa.Column("body", sa.Text, nullable=False),
    )


def _step() -> tuple[sa.Column[int], sa.Column[int]]:
    return (
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    )
