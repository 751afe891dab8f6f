"""A language model behind OpenAI's ``/v1/chat/completions``: vLLM, Ollama, llama.cpp, a cloud, or a service of ours.

Settings: those of `pipeline.endpoint`, and for sampling ``VOCAL_LLM_TEMPERATURE``, ``VOCAL_LLM_MAX_TOKENS`` and
``VOCAL_LLM_EXTRA``, a JSON object whose fields every request gets (``{"reasoning_effort": "low"}``); without them the
server decides.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline import endpoint
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.events import Message
from pipeline.remote import Remote, ask_twice
from pipeline.remote_answer import Answer, Pace
from pipeline.tasks import closing

DONE = "[DONE]"


class OpenAICompatibleLanguageModel:
    """Streams; a server that answers in one piece is understood as well. Reasoning is not spoken."""

    def __init__(self, remote: Remote, sampling: Mapping[str, Any]) -> None:
        self._remote = remote
        self._sampling = sampling
        self.url = remote.server.url
        self.ready = remote.ready
        self.aclose = remote.aclose
        self.close = remote.close

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield text as the server sends it. Raises EngineError in words that hold nothing of the conversation."""
        async with closing(ask_twice(partial(self._ask, messages))) as deltas:
            async for delta in deltas:
                yield delta

    async def _ask(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        pace = Pace(self._remote.server)
        pace.start()
        body = {
            **self._sampling,
            "model": await self._remote.model(),
            "messages": [{"role": message.role, "content": message.text} for message in messages],
            "stream": True,
        }
        private = [message.text for message in messages]
        request = self._remote.request("chat/completions", pace, private, json=body)
        async with request as answer, closing(_deltas(answer)) as deltas:
            while (delta := await pace.next(deltas)) is not None:
                yield delta


async def _deltas(answer: Answer) -> AsyncIterator[str]:
    if answer.content_type == "application/json":
        text, _ = _text(answer, answer.parse(await answer.body()), "message")
        if text:
            yield text
        return
    finished = False
    async with closing(answer.events()) as events:
        async for event in events:
            if event.strip() == DONE:
                finished = True
                break
            text, ended = _text(answer, answer.parse(event), "delta")
            finished = finished or ended
            if text:
                yield text
    if not finished:
        raise EngineError(f"{answer.server} cut its answer short; try again")
    await answer.drain()


def _text(answer: Answer, chunk: Mapping[str, Any], part: str) -> tuple[str, bool]:
    """Return the text of the first choice and whether it is the last of it; a chunk of counts has no choice."""
    try:
        choice: Any = next(iter(chunk.get("choices") or []), {})
        text = (choice.get(part) or {}).get("content") or ""
        ended = bool(choice.get("finish_reason"))
    except (AttributeError, TypeError):
        text, ended = None, False
    return answer.text(text), ended


def describe(settings: Settings) -> Usable:
    """Usable where a server is named; see `pipeline.endpoint`."""
    return endpoint.describe("llm", settings)


def create(settings: Settings) -> OpenAICompatibleLanguageModel:
    """Read the settings. Raises EngineUnavailable naming the one that is missing or not usable."""
    return OpenAICompatibleLanguageModel(Remote(endpoint.endpoint("llm", settings)), _sampling(settings))


def _sampling(settings: Settings) -> dict[str, Any]:
    sampling: dict[str, Any] = _extra(settings.get("VOCAL_LLM_EXTRA", ""))
    if settings.get("VOCAL_LLM_TEMPERATURE", "").strip():
        sampling["temperature"] = number(settings, "VOCAL_LLM_TEMPERATURE", 0.0)
    if settings.get("VOCAL_LLM_MAX_TOKENS", "").strip():
        sampling["max_tokens"] = int(number(settings, "VOCAL_LLM_MAX_TOKENS", 0.0, least=1.0))
    return sampling


def _extra(text: str) -> dict[str, Any]:
    try:
        extra = json.loads(text or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise EngineUnavailable('VOCAL_LLM_EXTRA that is a JSON object like {"top_p": 0.9}')
    return extra
