"""The agents and voices this server knows, in a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from .agents import Agent


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice to clone: ``sha256`` names its sample."""

    id: str
    name: str
    duration_s: float
    sha256: str


class Catalogue:
    """Use as ``async with``: the tables are brought up to date on the way in."""

    async def __aenter__(self) -> Self:
        raise NotImplementedError

    async def __aexit__(self, *_: object) -> None:
        raise NotImplementedError

    async def find(self, request: Mapping[str, Any]) -> Agent:
        """Return the agent a client asked for; see the module."""
        raise NotImplementedError

    async def personality(self, id_or_name: str | None) -> Agent:
        """Return the agent with this id or name, None being the default. Raises ProtocolError (param personality)."""
        raise NotImplementedError

    async def agents(self) -> Sequence[Agent]:
        """Return all of them, by name."""
        raise NotImplementedError

    async def voices(self) -> Sequence[Voice]:
        """Return all of them, by name."""
        raise NotImplementedError
