"""Answers with several choices: the course of each."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; an answer of one choice leaves it empty."""
    op.add_column("answers", sa.Column("choices", sa.JSON()))
