"""ElevenLabs' voices, through its own SDK: 24 kHz PCM as it is made, one HTTP request a clause.

Settings: ``ELEVENLABS_API_KEY``, ``ELEVENLABS_BASE_URL`` (a region's, a proxy), ``VOCAL_ELEVENLABS_VOICE`` (a voice's
id), ``VOCAL_ELEVENLABS_MODEL`` and ``VOCAL_ELEVENLABS_TIMEOUT_S`` (how long it may send nothing).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.cloud import S16, Vendor, code_of, connections, default_voice, pieces, unwind, voice_id
from pipeline.engines import Settings, Usable, number
from pipeline.remote import ask_twice
from pipeline.tasks import closing

if TYPE_CHECKING:
    import httpx
    from elevenlabs.client import AsyncElevenLabs
    from elevenlabs.core.http_response import AsyncHttpResponse

ELEVENLABS = Vendor(
    engine="tts elevenlabs",
    name="ElevenLabs",
    key="ELEVENLABS_API_KEY",
    url="ELEVENLABS_BASE_URL",
    default_url="https://api.elevenlabs.io",
    model="VOCAL_ELEVENLABS_MODEL",
    console="elevenlabs.io/app",
    packages=("elevenlabs", "httpx"),
    # It answers 400 and 401 to much that has a status of its own (help.elevenlabs.io, "API - Error Code 400 or 401").
    meanings={
        "quota_exceeded": 402,
        "missing_permissions": 403,
        "model_not_found": 404,
        "max_character_limit_exceeded": 413,
        "too_many_concurrent_requests": 429,
        "system_busy": 429,
    },
)

MODEL = "eleven_flash_v2_5"
"""The fastest that this endpoint serves; 32 languages."""

VOICE = "JBFqnCBsd6RMkjVDRZzb"
"""George, a premade voice that every account has, and the one in the SDK's examples."""

TIMEOUT_S = 8.0
PIECE_CHARACTERS = 2_500
"""Below every model's limit."""

CHUNK_BYTES = VOICE_RATE_HZ * 2 // 50
"""One frame of 20 ms: what the SDK waits for before it passes sound on."""

SLOWEST, FASTEST = 0.7, 1.2
"""What it takes as speed."""

NO_LANGUAGE = ("_v1", "_v2")
"""How the models' names end that take no language: they speak English, or hear it from the text."""


class ElevenLabsTextToSpeech:
    """One pool of connections for all sessions."""

    rate_hz = VOICE_RATE_HZ

    def __init__(
        self, client: AsyncElevenLabs, pool: httpx.AsyncClient, url: str, voice: str, model: str, timeout_s: float
    ) -> None:
        self._speech = client.text_to_speech.with_raw_response
        self._pool = pool
        self._url = url
        self._voice = voice
        self._model = model
        self._timeout_s = timeout_s

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._pool.aclose()

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing ends the request. Speeds beyond 0.7 to 1.2 are brought within.

        ``voice`` is a voice's id. Raises NotOffered for one it does not have, and EngineError for all else that goes
        wrong, a stream that breaks off included.
        """
        wanted = voice_id(ELEVENLABS, voice, self._voice)
        options = self._options(language, speed)
        for piece in pieces(clause, PIECE_CHARACTERS):
            async with closing(ask_twice(partial(self._speak, piece, wanted, options))) as sound:
                async for pcm in sound:
                    yield pcm

    def _options(self, language: str, speed: float) -> dict[str, Any]:
        """Return what is sent only where it says something: the rest is as the voice's owner has set it."""
        from elevenlabs.types import VoiceSettings

        options: dict[str, Any] = {}
        if not self._model.endswith(NO_LANGUAGE):
            options["language_code"] = language.partition("-")[0]
        if speed != 1.0:
            options["voice_settings"] = VoiceSettings(speed=max(SLOWEST, min(FASTEST, speed)))
        return options

    async def _speak(self, text: str, voice: str, options: dict[str, Any]) -> AsyncIterator[Pcm]:
        samples = S16()
        request = self._speech.stream(
            voice,
            text=text,
            model_id=self._model,
            output_format="pcm_24000",
            request_options={"chunk_size": CHUNK_BYTES},
            **options,
        )
        with self._in_words(voice):
            async with closing(_octets(request)) as chunks:
                async for chunk in chunks:
                    if len(pcm := samples.push(chunk)):
                        yield pcm

    @contextmanager
    def _in_words(self, voice: str) -> Iterator[None]:
        """Turn what the SDK and its HTTP client raise into what a user understands."""
        from elevenlabs.core.api_error import ApiError

        try:
            yield
        except ApiError as error:
            retry_after = (error.headers or {}).get("retry-after")
            raise ELEVENLABS.refusal(
                error.status_code or 0, code_of(error.body), retry_after, model=self._model, voice=voice
            ) from None
        except Exception as error:
            raise ELEVENLABS.failure(error, self._url, self._timeout_s) from None


async def _octets(
    request: AbstractAsyncContextManager[AsyncHttpResponse[AsyncIterator[bytes]]],
) -> AsyncIterator[bytes]:
    """Make the request and yield its body. Raises EngineError for one that is no sound."""
    body: AsyncIterator[bytes] | None = None
    try:
        async with request as response:
            body = response.data
            if not _is_sound(response.headers):
                raise ELEVENLABS.rubbish(response.headers.get("content-type", "")[:64])
            async for chunk in body:
                yield chunk
    finally:
        if body is not None:
            await unwind(body)


def _is_sound(headers: dict[str, str]) -> bool:
    """Tell it from a page or a message that came with status 200, as proxies send them."""
    return headers.get("content-type", "audio/").startswith(("audio/", "application/octet-stream"))


def describe(settings: Settings) -> Usable:
    """Better than any voice that runs without a GPU."""
    return Usable(60, f"ElevenLabs, {_model(settings)} in the cloud", ELEVENLABS.lacks(settings))


def create(settings: Settings) -> ElevenLabsTextToSpeech:
    """Set the client up; it connects when first asked. Raises EngineUnavailable. Blocks: reads certificates."""
    key, url = ELEVENLABS.access(settings)
    timeout_s = number(settings, "VOCAL_ELEVENLABS_TIMEOUT_S", TIMEOUT_S, least=0.1)
    from elevenlabs.client import AsyncElevenLabs

    pool = connections(timeout_s)
    client = AsyncElevenLabs(api_key=key, base_url=url, httpx_client=pool, timeout=None)  # None: the pool's own
    voice = default_voice(settings, "VOCAL_ELEVENLABS_VOICE", VOICE)
    return ElevenLabsTextToSpeech(client, pool, url, voice, _model(settings), timeout_s)


def _model(settings: Settings) -> str:
    return settings.get("VOCAL_ELEVENLABS_MODEL", "").strip() or MODEL
