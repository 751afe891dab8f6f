"""Groq's hosted language models, through its own SDK.

Settings: ``GROQ_API_KEY``, ``GROQ_BASE_URL`` (a proxy), ``VOCAL_GROQ_MODEL``, ``VOCAL_GROQ_TEMPERATURE``,
``VOCAL_GROQ_MAX_TOKENS`` (of an answer, thoughts included), ``VOCAL_GROQ_REASONING_EFFORT`` (what the model knows:
none, low, medium, ...) and ``VOCAL_GROQ_TIMEOUT_S`` (how long it may send nothing).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.cloud import Vendor, code_of, connections, unwind
from pipeline.engines import Settings, Usable, number
from pipeline.events import Message
from pipeline.remote import ask_twice

if TYPE_CHECKING:
    from groq import AsyncGroq, AsyncStream
    from groq.types.chat import ChatCompletionChunk

    from pipeline.cloud_transport import WarmPool

GROQ = Vendor(
    engine="llm groq",
    name="Groq",
    key="GROQ_API_KEY",
    url="GROQ_BASE_URL",
    default_url="https://api.groq.com",
    model="VOCAL_GROQ_MODEL",
    console="console.groq.com",
    packages=("groq", "httpx"),
    meanings={"model_decommissioned": 404, "insufficient_quota": 402},
)

MODEL = "openai/gpt-oss-120b"
"""A production model; Groq has shut down the Llama models that were the usual choice before."""

TEMPERATURE = 0.7
MAX_TOKENS = 1024
TIMEOUT_S = 15.0

NO_STREAM = ("text/html", "text/plain", "application/json")
"""What a page or a message of a proxy comes as, with status 200; the SDK finds no event in it."""

REASONING: Mapping[str, Mapping[str, Any]] = {
    "openai/gpt-oss": {"reasoning_effort": "low", "include_reasoning": False},
    "qwen/": {"reasoning_effort": "none", "reasoning_format": "hidden"},
}
"""By a model's prefix: think as little as it can, and never aloud. https://console.groq.com/docs/reasoning"""


class GroqLanguageModel:
    """One pool of connections for all sessions; ``request`` is what every request has besides its messages."""

    def __init__(self, client: AsyncGroq, pool: WarmPool, request: Mapping[str, Any], timeout_s: float) -> None:
        self.prepare = pool.prepare
        self._pool = pool
        self.url = str(client.base_url)
        self._client = client
        self._completions = client.chat.completions  # imported now: the SDK puts that off to the first request
        self._request = dict(request)
        self._timeout_s = timeout_s

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._pool.aclose()

    def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield what the model says, never what it thinks. Closing ends the request.

        Raises EngineError for all that goes wrong, a stream that breaks off included.
        """
        return ask_twice(lambda: self._complete(messages))

    async def _complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        said: list[Any] = [{"role": message.role, "content": message.text} for message in messages]
        finish: str | None = None
        spoke = False
        with self._in_words():
            stream = await self._completions.create(messages=said, stream=True, **self._request)
            try:
                if (kind := stream.response.headers.get("content-type", "")).startswith(NO_STREAM):
                    raise GROQ.rubbish(kind[:64])
                async for chunk in stream:
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            spoke = True
                            yield choice.delta.content
            finally:
                await _leave(stream)
            if finish is None:
                raise GROQ.dropped()
            if not spoke:
                raise GROQ.error(f"the model gave no words ({finish}); raise VOCAL_GROQ_MAX_TOKENS or ask another")

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what the SDK raises into what a user understands."""
        import groq

        url, model = self.url, self._request["model"]
        try:
            yield
        except groq.APIStatusError as error:
            retry_after = error.response.headers.get("retry-after")
            raise GROQ.refusal(error.status_code, code_of(error.body), retry_after, model=model) from None
        except groq.APIConnectionError as error:
            raise GROQ.failure(error.__cause__, url, self._timeout_s) from None
        except groq.APIError as error:
            raise GROQ.refusal(500, code_of(error.body), model=model) from None  # in the stream, after 200
        except Exception as error:
            raise GROQ.failure(error, url, self._timeout_s) from None


async def _leave(stream: AsyncStream[ChatCompletionChunk]) -> None:
    """End the request, if it has not ended."""
    await stream.close()
    await unwind(stream)


def describe(settings: Settings) -> Usable:
    """Better than anything that runs without a GPU."""
    return Usable(50, f"Groq, {_model(settings)} in the cloud", GROQ.lacks(settings))


def create(settings: Settings) -> GroqLanguageModel:
    """Set the client up; it connects when first asked. Raises EngineUnavailable. Blocks: reads certificates."""
    key, url = GROQ.access(settings)
    timeout_s = number(settings, "VOCAL_GROQ_TIMEOUT_S", TIMEOUT_S, least=0.1)
    request = _request(settings)
    from groq import AsyncGroq

    # No retries of the SDK's: it would sleep through a Retry-After of up to a minute while the caller waits.
    pool = connections(timeout_s, url)
    client = AsyncGroq(api_key=key, base_url=url, max_retries=0, http_client=pool.client)
    # It would look the platform up for a header, with its first request, on the loop's default executor.
    client._platform = "Unknown"
    return GroqLanguageModel(client, pool, request, timeout_s)


def _model(settings: Settings) -> str:
    return settings.get("VOCAL_GROQ_MODEL", "").strip() or MODEL


def _request(settings: Settings) -> dict[str, Any]:
    model = _model(settings)
    reasoning = next((dict(its) for prefix, its in REASONING.items() if model.startswith(prefix)), {})
    if effort := settings.get("VOCAL_GROQ_REASONING_EFFORT", "").strip():
        reasoning["reasoning_effort"] = effort
    return {
        "model": model,
        "temperature": number(settings, "VOCAL_GROQ_TEMPERATURE", TEMPERATURE),
        "max_completion_tokens": int(number(settings, "VOCAL_GROQ_MAX_TOKENS", MAX_TOKENS, least=1)),
        **reasoning,
    }
