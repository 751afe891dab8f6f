"""What arrives as JSON, checked once: the base of every such model, and its faults in words."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

FIELD_MAX_CHARS = 64
"""Of a field's name that is repeated: it may be one that was made up."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class Wire(BaseModel):
    """A part of a message: unknown fields are let through unread, so that newer clients connect."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, populate_by_name=True)


def is_id(text: str) -> bool:
    """Tell whether ``text`` can name a call, a session or an agent; nothing else ever becomes part of a lookup."""
    return _ID.fullmatch(text) is not None


def first_error(error: ValidationError) -> tuple[str | None, str]:
    """Return the first wrong field (None: the whole is no JSON object) and why, without repeating what was sent."""
    details: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in details["loc"])[:FIELD_MAX_CHARS] or None
    return field, str(details["msg"])


def explain(error: ValidationError) -> str:
    """Say the first fault in one line."""
    field, why = first_error(error)
    return f"{field}: {why}" if field else why
