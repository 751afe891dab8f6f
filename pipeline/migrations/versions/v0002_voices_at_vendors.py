"""What a voice is called at the vendors that have made it, by speech engine."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; the voices there are were made nowhere."""
    op.add_column("voices", sa.Column("engines", sa.JSON, nullable=False, server_default="{}"))
