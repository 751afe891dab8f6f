"""Agents and voices over HTTP: ``/agents`` and ``/voices``. What is written is checked strictly: a typo is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from aiohttp import hdrs, web
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

from .backend import CATALOGUE
from .uploads import Form, WholeForms

AGENT_MAX_BYTES = 256 * 1024
"""A system prompt at its longest, in any script and with every character escaped."""
MAX_UPLOADS = 4
SAMPLE_AGE_S = 3600


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


class VoiceFields(Wire):
    """What a voice's form holds beside the file."""

    model_config = ConfigDict(extra="forbid")

    name: Name


def add_routes(router: web.UrlDispatcher) -> None:
    """Add them. The application has a `CATALOGUE`."""
    router.add_get("/agents", list_agents)
    router.add_post("/agents", add_agent)
    router.add_get("/agents/{id}", show_agent)
    router.add_put("/agents/{id}", replace_agent)
    router.add_delete("/agents/{id}", remove_agent)
    router.add_get("/voices", list_voices)
    router.add_post("/voices", VoiceUploads().add_voice)
    router.add_delete("/voices/{id}", remove_voice)
    router.add_get("/voices/{id}/sample", play_voice)


async def list_agents(request: web.Request) -> web.Response:
    """Show all agents."""
    return _json({"agents": [_shown(agent) for agent in await request.app[CATALOGUE].agents()]})


async def show_agent(request: web.Request) -> web.Response:
    """Show one agent."""
    return _json(_shown(await request.app[CATALOGUE].agent(request.match_info["id"])))


async def add_agent(request: web.Request) -> web.Response:
    """Keep a new agent; without an id it gets one made from its name."""
    body = await read_json(request, AgentBody, AGENT_MAX_BYTES)
    agent = await request.app[CATALOGUE].add(body.agent(body.id or ""))
    return _created(f"/agents/{agent.id}", _shown(agent))


async def replace_agent(request: web.Request) -> web.Response:
    """Replace the whole of an agent."""
    body = await read_json(request, AgentBody, AGENT_MAX_BYTES)
    agent_id = request.match_info["id"]
    if body.id not in (None, agent_id):
        raise ProtocolError("an agent's id is the one in the address, and does not change", param="id")
    agent = body.agent(agent_id)
    await request.app[CATALOGUE].replace(agent)
    return _json(_shown(agent))


async def remove_agent(request: web.Request) -> web.Response:
    """Forget an agent; calls that it is in go on."""
    await request.app[CATALOGUE].remove(request.match_info["id"])
    return web.Response(status=204)


async def list_voices(request: web.Request) -> web.Response:
    """Show all voices."""
    return _json({"voices": [asdict(voice) for voice in await request.app[CATALOGUE].voices()]})


async def remove_voice(request: web.Request) -> web.Response:
    """Forget a voice."""
    await request.app[CATALOGUE].remove_voice(request.match_info["id"])
    return web.Response(status=204)


async def play_voice(request: web.Request) -> web.Response:
    """Return a voice's sample, which never changes, for the one who asked to keep a while."""
    sample = await request.app[CATALOGUE].voice_sample(request.match_info["id"])
    headers = {str(hdrs.CACHE_CONTROL): f"private, max-age={SAMPLE_AGE_S}"}
    return web.Response(body=sample, content_type="audio/wav", headers=headers)


class VoiceUploads:
    """``POST /voices``: few at once, for they are held in memory."""

    def __init__(self) -> None:
        self._forms = WholeForms(MAX_UPLOADS)

    async def add_voice(self, request: web.Request) -> web.Response:
        """Keep a new voice."""
        with self._forms.holding():
            form = Form(request)
            source = await _file(form)
            name = form.read_into(VoiceFields).name
            voice = await request.app[CATALOGUE].add_voice(name, source)
        return _created(f"/voices/{voice.id}", asdict(voice))


async def _file(form: Form) -> bytes:
    """Read a form to its end and return its file."""
    await form.read_fields()
    source = bytearray()
    async for octets in form.content():
        source += octets
    await form.read_fields()
    if form.file is None:
        raise ProtocolError("the form has no sound: send 3 to 30 s of speech as the field 'file'", param="file")
    return bytes(source)


def _shown(agent: Agent) -> dict[str, Any]:
    return {name: getattr(agent, name) for name in AgentBody.model_fields}


def _created(location: str, body: Mapping[str, Any]) -> web.Response:
    return _json(body, status=201, headers={str(hdrs.LOCATION): location})


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers={str(hdrs.CACHE_CONTROL): "no-store", **(headers or {})})
