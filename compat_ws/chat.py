"""A language model as a service.

``POST /chat`` and ``POST /chat/groq`` (the same, answered by Groq): ``{"text", "session_id"?, "personality"?,
"config_id"?, "config"?}`` -> ``{"response"}``. ``session_id`` names a conversation that is to be remembered
(`conversations`); who answers is found by `asking.agent_for`.

With ``Accept: text/event-stream`` the answer comes as server-sent events: ``{"delta"}`` for each piece, then
``{"response"}`` with the whole; or ``{"error"}``, and nothing follows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web
from pydantic import Field

from pipeline.agents import Id
from pipeline.engines import Chosen
from pipeline.events import Message
from signaling.bodies import read_json
from signaling.schema import Wire

from .asking import NAME_MAX_CHARS, REQUEST_MAX_BYTES, agent_for, engine_named, require_text
from .backend import LISTENER
from .conversations import Conversations
from .generating import PATIENCE, Generation
from .streaming import sending_events, wants_events

GROQ = "groq"
ANSWER_MAX_CHARS = 65_536
"""A model that says more is stopped: it repeats itself."""


class ChatRequest(Wire):
    """What is asked, in which conversation, and of whom."""

    text: str
    session_id: Id | None = None
    personality: str | None = Field(None, max_length=NAME_MAX_CHARS)
    config_id: str | None = Field(None, max_length=NAME_MAX_CHARS)
    config: dict[str, Any] | None = None


class ChatService:
    """``POST /chat`` and ``POST /chat/groq``, over the same conversations."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer with the agent's engine, or else the server's own."""
        return await self._answer(request, None)

    async def answer_with_groq(self, request: web.Request) -> web.StreamResponse:
        """Answer with Groq. Raises EngineUnavailable without its key."""
        return await self._answer(request, GROQ)

    async def _answer(self, request: web.Request, engine: str | None) -> web.StreamResponse:
        asked = await read_json(request, ChatRequest, REQUEST_MAX_BYTES)
        require_text(asked.text, "text")
        agent = await agent_for(request.app, asked.personality, asked.config_id, asked.config)
        chosen = await engine_named(request.app, "llm", engine or agent.llm)
        prompt = self._conversations.prompt(asked.session_id, agent.system_prompt, asked.text)
        async with thinking(request.app, chosen, prompt) as thought:
            if wants_events(request):
                return await self._stream(request, asked, thought)
            response = "".join([delta async for delta in thought])
        self._conversations.commit(asked.session_id, asked.text, response)
        return web.json_response({"response": response})

    async def _stream(self, request: web.Request, asked: ChatRequest, thought: Thought) -> web.StreamResponse:
        given: list[str] = []
        try:
            async with sending_events(request) as events:
                async for delta in thought:
                    await events.send({"delta": delta})
                    given.append(delta)
                await events.send({"response": "".join(given)})
                return await events.end()
        finally:
            self._conversations.commit(asked.session_id, asked.text, "".join(given))


class Thought:
    """Iterate: a model's deltas, up to a limit. ``cut`` tells afterwards whether the limit ended them."""

    def __init__(self, deltas: Generation[str], most_deltas: int) -> None:
        self.cut = False
        self._deltas = deltas
        self._deltas_left = most_deltas
        self._chars_left = ANSWER_MAX_CHARS

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if self._deltas_left <= 0 or self._chars_left <= 0:
            self.cut = True
            self._deltas.enough()
            raise StopAsyncIteration
        delta = await anext(self._deltas)
        self._deltas_left -= 1
        self._chars_left -= len(delta)
        return delta


@asynccontextmanager
async def thinking(
    app: web.Application, engine: Chosen, prompt: Sequence[Message], most_deltas: int = ANSWER_MAX_CHARS
) -> AsyncIterator[Thought]:
    """Ask a language model."""
    async with Generation(app[LISTENER], "llm", engine.engine.complete(prompt), PATIENCE.llm_s) as deltas:
        yield Thought(deltas, most_deltas)
