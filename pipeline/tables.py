"""The tables as they are now; how they became so is in ``pipeline.migrations``, and a test compares the two."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, MetaData, String, Table, Text

metadata = MetaData()

agents = Table(
    "agents",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("system_prompt", Text, nullable=False),
    Column("greeting", Text, nullable=False),
    Column("language", String(16), nullable=False),
    Column("speed", Float, nullable=False),
    Column("voice", String(200)),
    Column("allow_interruptions", Boolean, nullable=False),
    Column("stt", String(64)),
    Column("llm", String(64)),
    Column("tts", String(64)),
)
"""``voice`` is a voice's id, or what a speech engine calls one of its own: hence no foreign key."""

voices = Table(
    "voices",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("sha256", String(64), nullable=False, index=True),
    Column("engines", JSON, nullable=False, server_default="{}"),
)
"""Several voices may have the same sample. ``engines`` are the voice's ids at vendors, by speech engine."""
