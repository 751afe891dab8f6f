"""OpenAI's ``POST /v1/chat/completions``, streaming or not.

What is said: ``messages`` of text (roles system, developer, user, assistant), the last one the user's. Sampling is the
engine's own setting: ``temperature``, ``top_p``, ``seed``, penalties and the like are read by nobody. ``max_tokens``
and ``max_completion_tokens`` count what the engine gives at a time, a token or a word. ``usage`` is left out, also
where ``stream_options`` asks for it: engines do not count tokens. ``model`` names an engine, or nothing (see
`asking.engine_for_model`); the answer's ``model`` is the engine that gave it.

https://developers.openai.com/api/reference/resources/chat
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from pydantic import ConfigDict, Field

from pipeline.errors import ProtocolError
from pipeline.events import Message
from signaling.bodies import read_json
from signaling.schema import Wire

from .asking import NAME_MAX_CHARS, engine_for_model, refuse, require_short, require_text
from .chat import ANSWER_MAX_CHARS, Thought, thinking
from .streaming import sending_events

CONVERSATION_MAX_BYTES = 4 * 1024 * 1024
MAX_MESSAGES = 1000
UNSUPPORTED = ("tools", "functions", "stop", "audio", "logprobs", "web_search_options", "tool_calls")
SYSTEM_ROLES = ("system", "developer")
DONE = "[DONE]"


class TextPart(Wire):
    """A part of a message; there is no other kind here."""

    type: Literal["text"]
    text: str


class ChatMessage(Wire):
    """Who said what."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        """The whole text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ResponseFormat(Wire):
    """The shape of the answer."""

    type: Literal["text"]


class Completion(Wire):
    """What is asked; fields that are not here are looked at by `refuse`, or by nobody."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str = Field("", max_length=NAME_MAX_CHARS)
    stream: bool | None = None
    n: Literal[1] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    modalities: list[Literal["text"]] | None = None
    response_format: ResponseFormat | None = None

    @property
    def most_deltas(self) -> int:
        """How many pieces the answer may have."""
        return self.max_completion_tokens or self.max_tokens or ANSWER_MAX_CHARS


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer a conversation. Raises ProtocolError, EngineError."""
    asked = await read_json(request, Completion, CONVERSATION_MAX_BYTES)
    refuse(asked.model_extra or {}, UNSUPPORTED)
    prompt = prompt_of(asked.messages)
    engine = await engine_for_model(request.app, "llm", asked.model)
    envelope = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": unix_s(), "model": engine.name}
    async with thinking(request.app, engine, prompt, asked.most_deltas) as thought:
        if asked.stream:
            return await stream(request, envelope, thought)
        text = "".join([delta async for delta in thought])
    message = {"role": "assistant", "content": text, "refusal": None}
    return web.json_response(envelope | {"object": "chat.completion"} | choice(message=message, reason=why(thought)))


async def stream(request: web.Request, envelope: Mapping[str, Any], thought: Thought) -> web.StreamResponse:
    """Send the answer in chunks."""
    envelope = {**envelope, "object": "chat.completion.chunk"}
    delta: dict[str, Any] = {"role": "assistant"}
    async with sending_events(request) as events:
        async for text in thought:
            await events.send(envelope | choice(delta={**delta, "content": text}))
            delta = {}
        await events.send(envelope | choice(delta=delta, reason=why(thought)))
        await events.send(DONE)
        return await events.end()


def prompt_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return what to ask a model: the system's words first, all of them, then who said what.

    Raises ProtocolError for a message that is too long (413), and where the user does not have the last word.
    """
    for i, message in enumerate(messages):
        require_short(message.text, f"messages.{i}.content")
    if messages[-1].role != "user":
        raise ProtocolError("messages must end with the user's: there is nothing to answer", param="messages")
    require_text(messages[-1].text, f"messages.{len(messages) - 1}.content")
    system = "\n\n".join(message.text for message in messages if message.role in SYSTEM_ROLES)
    said = [Message(message.role, message.text) for message in messages if message.role in ("user", "assistant")]
    return [Message("system", system), *said]


def choice(reason: str | None = None, **content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the one choice there is, as part of an answer."""
    return {"choices": [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]}


def why(thought: Thought) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return "length" if thought.cut else "stop"


def unix_s() -> int:
    """Return the time as clients read it."""
    return round(datetime.now(UTC).timestamp())
