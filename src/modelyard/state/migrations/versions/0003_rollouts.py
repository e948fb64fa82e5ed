"""Every rollout, as it stands or ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(160), primary_key=True),
        sa.Column("deployment", sa.String(128), nullable=False, index=True),
        sa.Column("started_at", sa.Float, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
