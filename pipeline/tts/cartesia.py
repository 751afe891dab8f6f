"""Cartesia's voices, through its own SDK: 24 kHz PCM as it is made, all clauses on one warm WebSocket.

Settings: ``CARTESIA_API_KEY``, ``CARTESIA_BASE_URL`` (a proxy), ``VOCAL_CARTESIA_VOICE`` (a voice's id),
``VOCAL_CARTESIA_MODEL`` and ``VOCAL_CARTESIA_TIMEOUT_S`` (how long it may send nothing).
"""

from __future__ import annotations

import base64
import json
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.cloud import CONNECT_S, S16, Vendor, code_of, default_voice, pieces, voice_id
from pipeline.engines import Settings, Usable, number
from pipeline.remote import ask_twice
from pipeline.tasks import Limited, closing

from ._contexts import Connection, Contexts

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

OUTPUT = {"container": "raw", "encoding": "pcm_s16le", "sample_rate": VOICE_RATE_HZ}


class CartesiaTextToSpeech:
    """One WebSocket for all sessions; each piece of text is a context on it."""

    rate_hz = VOICE_RATE_HZ

    def __init__(
        self, client: AsyncCartesia, options: WebsocketConnectionOptions, voice: str, model: str, timeout_s: float
    ) -> None:
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

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield sound as it comes; closing cancels it at Cartesia. Speeds beyond 0.6 to 1.5 are brought within.

        ``voice`` is a voice's id. Raises NotOffered for one it does not have, and EngineError for all else that goes
        wrong, a connection that breaks included.
        """
        request: dict[str, Any] = {
            "model_id": self._model,
            "voice": voice_id(CARTESIA, voice, self._voice),
            "language": language.partition("-")[0],
            "output_format": OUTPUT,
        }
        if speed != 1.0:
            request["generation_config"] = {"speed": max(SLOWEST, min(FASTEST, speed))}
        for piece in pieces(clause, PIECE_CHARACTERS):
            async with closing(ask_twice(partial(self._speak, {**request, "transcript": piece}))) as sound:
                async for pcm in sound:
                    yield pcm

    async def _speak(self, request: dict[str, Any]) -> AsyncIterator[Pcm]:
        samples = S16()
        context_id = secrets.token_hex(8)
        generating = self._contexts.generate(context_id, {**request, "context_id": context_id, "continue": False})
        with self._in_words():
            async with closing(generating) as events:
                async for event in Limited(events, self._timeout_s):
                    if event.type == "error":
                        code = code_of(vars(event))
                        raise CARTESIA.refusal(int(event.status_code), code, model=self._model, voice=request["voice"])
                    if event.type == "chunk" and len(pcm := samples.push(base64.b64decode(event.data, validate=True))):
                        yield pcm

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Turn what the SDK and its WebSocket raise into what a user understands."""
        from websockets.exceptions import ConnectionClosed

        try:
            yield
        except ConnectionClosed:
            raise CARTESIA.dropped() from None
        except Exception as error:
            raise CARTESIA.failure(error, str(self._client.base_url), self._timeout_s) from None

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
            raise CARTESIA.unreachable(str(self._client.base_url)) from None
        except Exception as error:
            raise CARTESIA.rubbish(type(error).__name__) from None


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
