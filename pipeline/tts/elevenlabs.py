"""ElevenLabs' voices, through its own SDK: 24 kHz PCM as it is made, one HTTP request a clause.

Each request says what it continues (ElevenLabs calls that request stitching), so that prosody carries on: the requests
of the clauses before it, where they were read to their end, else their words. A model that refuses the one or the other
is not asked that way again.

https://elevenlabs.io/docs/eleven-api/guides/how-to/text-to-speech/request-stitching

Settings: ``ELEVENLABS_API_KEY``, ``ELEVENLABS_BASE_URL`` (a region's, a proxy), ``VOCAL_ELEVENLABS_VOICE`` (a voice's
id), ``VOCAL_ELEVENLABS_MODEL`` and ``VOCAL_ELEVENLABS_TIMEOUT_S`` (how long it may send nothing).
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.cloud import S16, Vendor, code_of, connections, default_voice, pieces, unwind, voice_id
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError
from pipeline.remote import ask_twice
from pipeline.reply_speech import speak_alone
from pipeline.tasks import closing

from ._elevenlabs_voices import ElevenLabsVoices

if TYPE_CHECKING:
    from elevenlabs.client import AsyncElevenLabs
    from elevenlabs.core.http_response import AsyncHttpResponse

    from pipeline.cloud_transport import WarmPool

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

MAKES_VOICES = True

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


STITCHING = ("previous_request_ids", "previous_text")
"""How a request may say what it continues, the better way first."""
UNSTITCHED = ("eleven_v3",)
"""How the models' names begin that take neither."""
PREVIOUS_REQUESTS = 3
"""As many as it takes."""
PREVIOUS_CHARACTERS = 1_000

DISAGREES = (400, 422)
"""What it answers where a model does not take a field. The code is of no use: it says that the model is unsupported."""


class ElevenLabsTextToSpeech:
    """One pool of connections for all sessions. ``stitching`` are the ways of continuing that its model may take."""

    rate_hz = VOICE_RATE_HZ

    def __init__(
        self, client: AsyncElevenLabs, pool: WarmPool, url: str, voice: str, model: str, timeout_s: float
    ) -> None:
        self.stitching: tuple[str, ...] = () if model.startswith(UNSTITCHED) else STITCHING
        self.voice_maker = ElevenLabsVoices(ELEVENLABS, client, url)
        self._speech = client.text_to_speech.with_raw_response
        self._pool = pool
        self.url = url
        self._voice = voice
        self._model = model
        self._timeout_s = timeout_s

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._pool.aclose()

    def prepare(self) -> None:
        """See `engines.prepare`."""
        self._pool.prepare()

    def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing ends the request. Speeds beyond 0.7 to 1.2 are brought within.

        ``voice`` is a voice's id. Raises NotOffered for one it does not have, and EngineError for all else that goes
        wrong, a stream that breaks off included.
        """
        return speak_alone(self, clause, voice, language, speed)

    def open(self, voice: str | None, language: str, speed: float) -> ElevenLabsSpeech:
        """Begin a reply. Voice, speed and errors are those of ``synthesize``."""
        return ElevenLabsSpeech(self, voice_id(ELEVENLABS, voice, self._voice), self._options(language, speed))

    def _options(self, language: str, speed: float) -> dict[str, Any]:
        """Return what is sent only where it says something: the rest is as the voice's owner has set it."""
        from elevenlabs.types import VoiceSettings

        options: dict[str, Any] = {}
        if not self._model.endswith(NO_LANGUAGE):
            options["language_code"] = language.partition("-")[0]
        if speed != 1.0:
            options["voice_settings"] = VoiceSettings(speed=max(SLOWEST, min(FASTEST, speed)))
        return options

    def request(
        self, voice: str, text: str, options: dict[str, Any]
    ) -> AbstractAsyncContextManager[AsyncHttpResponse[AsyncIterator[bytes]]]:
        """Return the request for a text, which is made on entering it."""
        made: AbstractAsyncContextManager[AsyncHttpResponse[AsyncIterator[bytes]]] = self._speech.stream(
            voice,
            text=text,
            model_id=self._model,
            output_format="pcm_24000",
            request_options={"chunk_size": CHUNK_BYTES},
            **options,
        )
        return made

    @contextmanager
    def in_words(self, voice: str) -> Iterator[None]:
        """Turn what the SDK and its HTTP client raise into what a user understands."""
        from elevenlabs.core.api_error import ApiError

        try:
            yield
        except ApiError as error:
            retry_after = (error.headers or {}).get("retry-after")
            status, code = error.status_code or 0, code_of(error.body)
            refusal = ELEVENLABS.refusal(status, code, retry_after, model=self._model, voice=voice)
            raise (_Disagreed(refusal) if status in DISAGREES else refusal) from None
        except Exception as error:
            raise ELEVENLABS.failure(error, self.url, self._timeout_s) from None


class ElevenLabsSpeech:
    """The requests of one reply, each of which continues those before it."""

    def __init__(self, engine: ElevenLabsTextToSpeech, voice: str, options: dict[str, Any]) -> None:
        self._engine = engine
        self._voice = voice
        self._options = options
        self._requests: deque[str] = deque(maxlen=PREVIOUS_REQUESTS)
        self._said = ""

    async def speak(self, clause: str) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing ends the request. Raises as ``synthesize``."""
        for piece in pieces(clause, PIECE_CHARACTERS):
            async with closing(ask_twice(partial(self._speak, piece))) as sound:
                async for pcm in sound:
                    yield pcm

    async def aclose(self) -> None:
        """Do nothing: between clauses there is nothing."""

    async def _speak(self, text: str) -> AsyncIterator[Pcm]:
        """Ask in the best way that is not refused, and have the engine remember which that is."""
        ways = self._ways()
        for i, (way, previous) in enumerate(ways):
            try:
                async with closing(self._ask(text, {**self._options, **previous})) as sound:
                    async for pcm in sound:
                        yield pcm
            except _Disagreed as disagreed:
                if i == len(ways) - 1:
                    raise disagreed.refusal from None
            else:
                if i:
                    self._engine.stitching = STITCHING[STITCHING.index(way) :] if way else ()
                return

    def _ways(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the ways of saying what was said before, each with its field; without any, if all else is refused."""
        known = {"previous_request_ids": list(self._requests), "previous_text": self._said}
        return [*((way, {way: known[way]}) for way in self._engine.stitching if known[way]), ("", {})]

    async def _ask(self, text: str, options: dict[str, Any]) -> AsyncIterator[Pcm]:
        samples = S16()
        with self._engine.in_words(self._voice):
            async with _answered(self._engine.request(self._voice, text, options)) as response:
                async for chunk in response.data:
                    if len(pcm := samples.push(chunk)):
                        yield pcm
                request_id = response.headers.get("request-id")
        self._said = f"{self._said} {text}".strip()[-PREVIOUS_CHARACTERS:]
        if request_id is None:  # a later one would continue something else
            self._requests.clear()
        else:
            self._requests.append(request_id)


class _Disagreed(EngineError):
    """It refused the request as it was, which may be for what it continues."""

    def __init__(self, refusal: EngineError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@asynccontextmanager
async def _answered(
    request: AbstractAsyncContextManager[AsyncHttpResponse[AsyncIterator[bytes]]],
) -> AsyncIterator[AsyncHttpResponse[AsyncIterator[bytes]]]:
    """Make the request. Raises EngineError for an answer that is no sound."""
    body: AsyncIterator[bytes] | None = None
    try:
        async with request as response:
            body = response.data
            if not _is_sound(response.headers):
                raise ELEVENLABS.rubbish(response.headers.get("content-type", "")[:64])
            yield response
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

    pool = connections(timeout_s, url)
    client = AsyncElevenLabs(api_key=key, base_url=url, httpx_client=pool.client, timeout=None)  # None: the pool's own
    voice = default_voice(settings, "VOCAL_ELEVENLABS_VOICE", VOICE)
    return ElevenLabsTextToSpeech(client, pool, url, voice, _model(settings), timeout_s)


def _model(settings: Settings) -> str:
    return settings.get("VOCAL_ELEVENLABS_MODEL", "").strip() or MODEL
