"""Labelled outcomes, and whose gate judged an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add them; answers of before stay out of what the gate learns from."""
    op.add_column("answers", sa.Column("checkpoint", sa.String(length=200)))
    op.create_index("answers_by_checkpoint", "answers", ["checkpoint", "created_ms"])
    op.create_table(
        "outcomes",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("checkpoint", sa.String(length=200), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("is_declined", sa.Boolean(), nullable=False),
        sa.Column("is_right", sa.Boolean(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
    )
    op.create_index("outcomes_by_checkpoint", "outcomes", ["checkpoint", "id"])
