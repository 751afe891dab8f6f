"""What is looked up alike in every table of the catalogue, and how rows are named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from sqlalchemy import RowMapping, Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from .agents import is_id
from .errors import ProtocolError

SLUG_CHARS = 48


async def rows_of(connection: AsyncConnection, table: Table) -> Sequence[RowMapping]:
    """Return all."""
    return (await connection.execute(select(table))).mappings().all()


async def ids_of(connection: AsyncConnection, table: Table) -> Sequence[str]:
    """Return all ids, in order."""
    return (await connection.scalars(select(table.c.id).order_by(table.c.id))).all()


async def row_of(connection: AsyncConnection, table: Table, row_id: str) -> RowMapping | None:
    """Look up one row. What cannot be an id is in no table, and never gets there."""
    if not is_id(row_id):
        return None
    return (await connection.execute(select(table).where(table.c.id == row_id))).mappings().one_or_none()


def require_room(there_are: int, most: int, what: str) -> None:
    """Raise ProtocolError 409 where there are as many as are kept."""
    if there_are >= most:
        raise ProtocolError(f"there are {there_are} {what} already, no more are kept: delete some first", status=409)


def slug(name: str, instead: str) -> str:
    """Return ``name`` as an id, as far as it can be written in ASCII."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:SLUG_CHARS].strip("-") or instead
