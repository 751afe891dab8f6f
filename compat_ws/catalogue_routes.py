"""Agents over HTTP: ``/agents``. What is written is checked strictly: a typo is an error."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import AfterValidator, ConfigDict

from pipeline.agents import (
    ENGINE_NAMES,
    SYSTEM_PROMPT,
    Agent,
    EngineKind,
    Greeting,
    Id,
    Language,
    Name,
    Speed,
    SystemPrompt,
    VoiceName,
)
from pipeline.errors import ProtocolError
from signaling.bodies import read_json
from signaling.schema import Wire

from . import voice_routes
from .backend import CATALOGUE
from .shown import created, shown

AGENT_MAX_BYTES = 256 * 1024
"""A system prompt at its longest, in any script and with every character escaped."""


def _engine(kind: EngineKind) -> AfterValidator:
    known = ", ".join(sorted(ENGINE_NAMES[kind]))

    def check(name: str) -> str:
        if name not in ENGINE_NAMES[kind]:
            raise ProtocolError(f"{kind}: no such engine; known: {known}", param=kind)
        return name

    return AfterValidator(check)


class AgentBody(Wire):
    """An agent as it is written and shown; what is left out is as the default agent's once was."""

    model_config = ConfigDict(extra="forbid")

    id: Id | None = None
    name: Name
    system_prompt: SystemPrompt = SYSTEM_PROMPT
    greeting: Greeting = ""
    language: Language = "en"
    speed: Speed = 1.0
    voice: VoiceName | None = None
    allow_interruptions: bool = True
    stt: Annotated[str, _engine("stt")] | None = None
    llm: Annotated[str, _engine("llm")] | None = None
    tts: Annotated[str, _engine("tts")] | None = None

    def agent(self, agent_id: str) -> Agent:
        """Return it as an agent with this id."""
        return Agent(**{**self.model_dump(), "id": agent_id})


def add_routes(router: web.UrlDispatcher) -> None:
    """Add them, and those of the voices. The application has a `CATALOGUE`."""
    router.add_get("/agents", list_agents)
    router.add_post("/agents", add_agent)
    router.add_get("/agents/{id}", show_agent)
    router.add_put("/agents/{id}", replace_agent)
    router.add_delete("/agents/{id}", remove_agent)
    voice_routes.add_routes(router)


async def list_agents(request: web.Request) -> web.Response:
    """Show all agents."""
    return shown({"agents": [_shown(agent) for agent in await request.app[CATALOGUE].agents()]})


async def show_agent(request: web.Request) -> web.Response:
    """Show one agent."""
    return shown(_shown(await request.app[CATALOGUE].agent(request.match_info["id"])))


async def add_agent(request: web.Request) -> web.Response:
    """Keep a new agent; without an id it gets one made from its name."""
    body = await read_json(request, AgentBody, AGENT_MAX_BYTES)
    agent = await request.app[CATALOGUE].add(body.agent(body.id or ""))
    return created(f"/agents/{agent.id}", _shown(agent))


async def replace_agent(request: web.Request) -> web.Response:
    """Replace the whole of an agent."""
    body = await read_json(request, AgentBody, AGENT_MAX_BYTES)
    agent_id = request.match_info["id"]
    if body.id not in (None, agent_id):
        raise ProtocolError("an agent's id is the one in the address, and does not change", param="id")
    agent = body.agent(agent_id)
    await request.app[CATALOGUE].replace(agent)
    return shown(_shown(agent))


async def remove_agent(request: web.Request) -> web.Response:
    """Forget an agent; calls that it is in go on."""
    await request.app[CATALOGUE].remove(request.match_info["id"])
    return web.Response(status=204)


def _shown(agent: Agent) -> dict[str, Any]:
    return {name: getattr(agent, name) for name in AgentBody.model_fields}
