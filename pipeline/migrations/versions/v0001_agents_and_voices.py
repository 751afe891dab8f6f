"""Agents, the default one among them, and voices."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create both tables."""
    agents = op.create_table(
        "agents",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("system_prompt", sa.Text, nullable=False),
        sa.Column("greeting", sa.Text, nullable=False),
        sa.Column("language", sa.String(16), nullable=False),
        sa.Column("speed", sa.Float, nullable=False),
        sa.Column("voice", sa.String(200)),
        sa.Column("allow_interruptions", sa.Boolean, nullable=False),
        sa.Column("stt", sa.String(64)),
        sa.Column("llm", sa.String(64)),
        sa.Column("tts", sa.String(64)),
    )
    op.create_table(
        "voices",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    op.create_index("ix_voices_sha256", "voices", ["sha256"])
    op.bulk_insert(agents, [DEFAULT_AGENT])


DEFAULT_AGENT = {
    "id": "default",
    "name": "Ada",
    "system_prompt": (
        "You are a friendly companion on a voice call. Answer in one or two short spoken sentences, "
        "at most thirty words, without lists, markup or emoji."
    ),
    "greeting": "",
    "language": "en",
    "speed": 1.0,
    "allow_interruptions": True,
}
