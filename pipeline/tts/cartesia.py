"""Cartesia's voices, through its own SDK: 24 kHz PCM as it is made, all replies on one warm WebSocket.

A reply is a context there, so that prosody carries on from clause to clause. Each clause is an input of its own, with a
flush behind it, whose answer is the end of the clause's sound.

https://docs.cartesia.ai/use-the-api/tts-websocket/contexts, .../context-flushing-and-flush-i-ds, .../buffering

Settings: ``CARTESIA_API_KEY``, ``CARTESIA_BASE_URL`` (a proxy), ``VOCAL_CARTESIA_VOICE`` (a voice's id),
``VOCAL_CARTESIA_MODEL`` and ``VOCAL_CARTESIA_TIMEOUT_S`` (how long it may send nothing).
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.cloud import CONNECT_S, S16, Vendor, code_of, default_voice, pieces, voice_id
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError
from pipeline.remote import ask_twice
from pipeline.remote_errors import Dropped
from pipeline.reply_speech import speak_alone
from pipeline.tasks import Limited, closing

from ._cartesia_voices import CartesiaVoices
from ._contexts import CANCEL, LAST, Connection, Context, Contexts

if TYPE_CHECKING:
    from cartesia import AsyncCartesia
    from cartesia.types import WebsocketConnectionOptions

CARTESIA = Vendor(
    engine="tts cartesia",
    name="Cartesia",
    key="CARTESIA_API_KEY",
    url="CARTESIA_BASE_URL",
    default_url="https://api.cartesia.ai",
    model="VOCAL_CARTESIA_MODEL",
    console="play.cartesia.ai",
    packages=("cartesia", "httpx", "websockets"),
    meanings={"quota_exceeded": 402, "model_not_found": 404, "concurrency_limited": 429},
)

MAKES_VOICES = True

MODEL = "sonic-3.5"
VOICE = "f786b574-daa5-4673-aa0c-cbe3e8534c02"
"""Katie, English, whom Cartesia's guides use for voice agents."""

TIMEOUT_S = 8.0
PIECE_CHARACTERS = 500
MESSAGE_MAX_BYTES = 1024 * 1024
PING_S = 10.0
CLOSE_S = 1.0

wire = logging.getLogger(f"{__name__}.wire")
wire.setLevel(logging.INFO)  # below that, websockets writes the headers of its request, and the key is in one

SLOWEST, FASTEST = 0.6, 1.5
"""What it takes as speed."""

EXPIRES_S = 0.8
"""How long a context may have been silent to be continued; after that the next clause begins another one. It expires
after a second at Cartesia, whose clock is a round trip ahead of ours by the time that an input arrives."""

UNSPACED = ("ja", "th", "zh")
"""Languages that put no space between sentences. A context's inputs are joined as they are."""

OUTPUT = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": VOICE_RATE_HZ}


class CartesiaTextToSpeech:
    """One WebSocket for all sessions; each reply is a context on it."""

    rate_hz = VOICE_RATE_HZ

    def __init__(
        self, client: AsyncCartesia, options: WebsocketConnectionOptions, voice: str, model: str, timeout_s: float
    ) -> None:
        self.voice_maker = CartesiaVoices(CARTESIA, client)
        self.url = str(client.base_url)
        self._client = client
        self._tts = client.tts  # imported now: the SDK puts that off to the first request
        self._options = options
        self._voice = voice
        self._model = model
        self._timeout_s = timeout_s
        self._contexts = Contexts(self._connect)

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        await self._contexts.aclose()
        await self._client.close()

    def prepare(self) -> None:
        """See `engines.prepare`."""
        self._contexts.prepare()

    def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing cancels it at Cartesia. Speeds beyond 0.6 to 1.5 are brought within.

        ``voice`` is a voice's id. Raises NotOffered for one it does not have, and EngineError for all else that goes
        wrong, a connection that breaks included.
        """
        return speak_alone(self, clause, voice, language, speed)

    def open(self, voice: str | None, language: str, speed: float) -> CartesiaSpeech:
        """Begin a reply, and connect if need be. Voice, speed and errors are those of ``synthesize``."""
        request: dict[str, Any] = {
            "model_id": self._model,
            "voice": voice_id(CARTESIA, voice, self._voice),
            "language": language.partition("-")[0],
            "output_format": OUTPUT,
            "max_buffer_delay_ms": 0,  # a clause is all there is to wait for: speak it at once
        }
        if speed != 1.0:
            request["generation_config"] = {"speed": max(SLOWEST, min(FASTEST, speed))}
        self._contexts.prepare()
        return CartesiaSpeech(self._contexts, request, self._timeout_s, self._in_words)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what the SDK and its WebSocket raise into what a user understands."""
        from websockets.exceptions import ConnectionClosed

        try:
            yield
        except ConnectionClosed:
            raise CARTESIA.dropped() from None
        except Exception as error:
            raise CARTESIA.failure(error, self.url, self._timeout_s) from None

    async def _connect(self) -> Connection:
        from websockets import exceptions

        try:
            # One manager gives out the same connection for ever, also when it is closed: so one for each.
            return await self._tts.websocket_connect(websocket_connection_options=self._options).enter()
        except exceptions.InvalidStatus as refused:
            answer = refused.response
            retry_after = answer.headers.get("Retry-After")
            raise CARTESIA.refusal(answer.status_code, _code_in(answer.body), retry_after, model=self._model) from None
        except (exceptions.InvalidProxy, exceptions.ProxyError, OSError):
            raise CARTESIA.unreachable(self.url) from None
        except Exception as error:
            raise CARTESIA.rubbish(type(error).__name__) from None


class CartesiaSpeech:
    """A context, and another one where that has ended too early: prosody begins anew there, and nothing is lost.

    ``request`` is what all inputs of a context must have in common.
    """

    def __init__(
        self,
        contexts: Contexts,
        request: Mapping[str, Any],
        timeout_s: float,
        in_words: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._contexts = contexts
        self._request = request
        self._timeout_s = timeout_s
        self._in_words = in_words
        self._context: Context | None = None

    async def speak(self, clause: str) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing cancels it at Cartesia. Raises as ``synthesize``."""
        space = "" if self._request["language"] in UNSPACED else " "
        for piece in pieces(clause, PIECE_CHARACTERS):
            async with closing(ask_twice(partial(self._speak, f"{piece}{space}"))) as sound:
                async for pcm in sound:
                    yield pcm

    async def aclose(self) -> None:
        """Cancel what still runs, or say that nothing more will come."""
        context, self._context = self._context, None
        if context is not None:
            over = None if context.quiet_s > EXPIRES_S else self._input("", more=False)
            await context.leave(CANCEL if context.awaited else over)

    def _input(self, transcript: str, *, more: bool = True, **options: bool) -> Mapping[str, Any]:
        return {**self._request, "transcript": transcript, "continue": more, **options}

    async def _speak(self, transcript: str) -> AsyncIterator[Pcm]:
        samples = S16()
        with self._in_words():
            async with closing(self._generate(transcript)) as chunks:
                async for chunk in Limited(chunks, self._timeout_s):
                    if len(pcm := samples.push(base64.b64decode(chunk.data, validate=True))):
                        yield pcm

    async def _generate(self, transcript: str) -> AsyncIterator[Any]:
        """Yield the chunks of sound of one input. The context lives on if they were all taken."""
        context, joined = await self._enter()
        sound = complete = False
        try:
            await context.send(self._input(transcript))
            await context.send(self._input("", flush=True))
            while not complete:
                event = await context.receive()
                if event.type == "chunk":
                    sound = True
                    yield event
                elif event.type in LAST and joined and not sound:
                    raise Dropped("tts cartesia: the context had expired; try again")  # another one may do
                elif event.type == "error":
                    raise self._refusal(event)
                else:  # a flush without sound is that of nothing: the input has been spoken before it
                    complete = event.type == "done" or (event.type == "flush_done" and sound)
            context.awaited = False
        finally:
            if not complete:
                self._context = None
                await context.leave(CANCEL)

    async def _enter(self) -> tuple[Context, bool]:
        """Return the context for the next input, and whether there was an input before."""
        context = self._context
        if context is not None and not context.ended and context.quiet_s <= EXPIRES_S:
            return context, True
        if context is not None:
            await context.leave()
        self._context = self._contexts.open()
        return self._context, False

    def _refusal(self, error: Any) -> EngineError:
        model, voice = self._request["model_id"], self._request["voice"]
        return CARTESIA.refusal(int(error.status_code), code_of(vars(error)), model=model, voice=voice)


def _code_in(body: bytes | bytearray) -> str:
    try:
        return code_of(json.loads(body))
    except ValueError:
        return ""


def describe(settings: Settings) -> Usable:
    """Better than any voice that runs without a GPU."""
    return Usable(55, f"Cartesia, {_model(settings)} in the cloud", CARTESIA.lacks(settings))


def create(settings: Settings) -> CartesiaTextToSpeech:
    """Set the client up; it connects when first asked. Raises EngineUnavailable. Blocks: reads certificates."""
    key, url = CARTESIA.access(settings)
    timeout_s = number(settings, "VOCAL_CARTESIA_TIMEOUT_S", TIMEOUT_S, least=0.1)
    import httpx
    import websockets.asyncio.client  # noqa: F401 - the SDK puts that off to the first request
    from cartesia import AsyncCartesia

    certificates = httpx.create_ssl_context()
    client = AsyncCartesia(
        api_key=key,
        base_url=url,
        websocket_base_url=url.replace("http", "ws", 1),
        http_client=httpx.AsyncClient(verify=certificates),
    )
    # It would look the platform up for a header, which reads files, on the event loop.
    client._platform = "Unknown"
    voice = default_voice(settings, "VOCAL_CARTESIA_VOICE", VOICE)
    return CartesiaTextToSpeech(client, _options(url, certificates), voice, _model(settings), timeout_s)


def _options(url: str, certificates: ssl.SSLContext) -> WebsocketConnectionOptions:
    """Return what ``websockets.connect`` is given: the SDK passes on more than its type names."""
    options: dict[str, Any] = {
        "compression": None,  # sound in base64 gains little, and it costs time on the event loop
        "max_size": MESSAGE_MAX_BYTES,
        "open_timeout": CONNECT_S,
        "close_timeout": CLOSE_S,
        "ping_interval": PING_S,
        "ping_timeout": PING_S,
        "logger": wire,
    }
    if url.startswith("https:"):
        options["ssl"] = certificates  # else read from disk with each connection, on the event loop
    return cast("WebsocketConnectionOptions", options)


def _model(settings: Settings) -> str:
    return settings.get("VOCAL_CARTESIA_MODEL", "").strip() or MODEL
