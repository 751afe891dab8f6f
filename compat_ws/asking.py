"""What requests to the services have in common: how long a text may be, which agent, which engine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from aiohttp import web

from pipeline.agents import Agent
from pipeline.engines import Chosen, Kind
from pipeline.errors import EngineUnavailable, ProtocolError

from .backend import CATALOGUE, ENGINES

TEXT_MAX_CHARS = 16_384
REQUEST_MAX_BYTES = 256 * 1024
"""Of a request with one text: JSON may need 12 bytes for a character."""
NAME_MAX_CHARS = 200


def require_text(text: str, param: str) -> None:
    """Raise ProtocolError for a text that is blank, or too long (413)."""
    if not text.strip():
        raise ProtocolError(f"{param} is empty: say something", param=param)
    require_short(text, param)


def require_short(text: str, param: str) -> None:
    """Raise ProtocolError 413 for a text that is too long."""
    if len(text) > TEXT_MAX_CHARS:
        raise ProtocolError(
            f"{param} has {len(text)} characters: at most {TEXT_MAX_CHARS} are taken", param=param, status=413
        )


def refuse(given: Mapping[str, Any], unsupported: Collection[str]) -> None:
    """Raise ProtocolError for the first field that would mean something else than what is done here."""
    for name in unsupported:
        if given.get(name):
            raise ProtocolError(f"{name} is not supported here: leave it out", param=name)


async def agent_for(
    app: web.Application, personality: str | None, config_id: str | None, config: Mapping[str, Any] | None = None
) -> Agent:
    """Return the agent that a request names, by id or name, ``personality`` before ``config_id``; else the default.

    The fields of ``config``, those of the raw-PCM configuration, replace the agent's own. Raises ProtocolError for an
    agent that nobody is, and says how to create one.
    """
    if config is None:
        return await app[CATALOGUE].personality(personality or config_id)
    if personality:
        config = {**config, "agentId": (await app[CATALOGUE].personality(personality)).id}
    return await app[CATALOGUE].find({"configId": config_id, **config})


async def engine_named(app: web.Application, kind: Kind, name: str | None) -> Chosen:
    """Return an engine, None being the server's own choice. Raises ProtocolError for a name that is none's,
    EngineUnavailable for one that lacks something, and says what."""
    try:
        return await app[ENGINES].get(kind, name)
    except EngineUnavailable as error:
        raise EngineUnavailable(f"the {kind} engine {name!r} needs {error}") from error


async def engine_for_model(app: web.Application, kind: Kind, model: str) -> Chosen:
    """Return the engine that ``model`` names; the server's own for any other word, as OpenAI's clients must say one."""
    try:
        return await engine_named(app, kind, model or None)
    except ProtocolError:
        return await engine_named(app, kind, None)
