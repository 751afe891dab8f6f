"""Text-to-speech as a service.

WebSocket ``/tts/stream``, ``/tts/stream/cartesia``, ``/tts/stream/elevenlabs``: each text message is a request,
``{"text", "personality"?, "config_id"?, "voice"?, "language"?, "speed"?}``, answered in its turn by ``stream_start``,
``audio_chunk`` ..., ``stream_end``, or by an ``error`` at any point, after which the next one is answered.

``POST /tts`` takes the same -> ``{"audio": base64 of a WAV, "format": "wav", "sample_rate"}``.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aiohttp import WSCloseCode, web
from aiohttp.typedefs import Handler
from pydantic import Field, ValidationError

from pipeline.agents import Language, Speed, VoiceName
from pipeline.audio import VOICE_RATE_HZ, Pcm, wav_header
from pipeline.cloning import clones
from pipeline.errors import ProtocolError, VocalError
from pipeline.tasks import cancel_and_wait
from signaling.bodies import read_json
from signaling.schema import Wire, explain

from .asking import NAME_MAX_CHARS, REQUEST_MAX_BYTES, agent_for, engine_named, require_text
from .audio_chunk import audio_chunk
from .client_socket import ClientSocket, Ending, ending_of
from .generating import Generation
from .speaking import Manner, begun, speaking, voice_of

MAX_WAITING = 64
"""Requests that may wait on one socket while another is spoken."""
WAV_MAX_S = 300.0
"""What ``POST /tts`` gives at most: it holds all of it. Streams have no such bound."""


class SpeechRequest(Wire):
    """What is to be said and by whom; what is not given is the agent's."""

    text: str
    personality: str | None = Field(None, max_length=NAME_MAX_CHARS)
    config_id: str | None = Field(None, max_length=NAME_MAX_CHARS)
    voice: VoiceName | None = None
    language: Language | None = None
    speed: Speed | None = None


async def answer(request: web.Request) -> web.Response:
    """Speak a text. Raises ProtocolError (413 for one that takes too long to say), EngineError."""
    asked = await read_json(request, SpeechRequest, REQUEST_MAX_BYTES)
    require_text(asked.text, "text")
    pieces: list[bytes] = []
    left_samples = round(WAV_MAX_S * VOICE_RATE_HZ)
    async with await begin(request.app, asked, None) as speech:
        async for pcm in speech:
            left_samples -= len(pcm)
            if left_samples < 0:
                why = f"text takes over {WAV_MAX_S:g} s to say: stream it from /tts/stream"
                raise ProtocolError(why, param="text", status=413)
            pieces.append(pcm.astype("<i2", copy=False).tobytes())
    sound = b"".join(pieces)
    # put together by hand: a JSON encoder would look at each of its millions of characters
    body = b'{"audio": "%b", "format": "wav", "sample_rate": %d}' % (
        base64.b64encode(wav_header(VOICE_RATE_HZ, len(sound)) + sound),
        VOICE_RATE_HZ,
    )
    return web.Response(body=body, content_type="application/json")


async def begin(app: web.Application, asked: SpeechRequest, engine: str | None) -> Generation[Pcm]:
    """Find out who speaks, with which engine and voice. Raises ProtocolError, EngineUnavailable."""
    agent = await agent_for(app, asked.personality, asked.config_id)
    chosen = await engine_named(app, "tts", engine or agent.tts)
    if asked.voice is None:
        voice = agent.voice_for(chosen.name, clones=clones(chosen.engine))
    else:
        voice = await voice_of(app, chosen, asked.voice)
    manner = Manner(voice, asked.language or agent.language, asked.speed or agent.speed)
    return speaking(app, asked.text, begun(chosen.engine, manner), chosen.engine.rate_hz, param="text")


def streaming_from(engine: str | None) -> Handler:
    """Return the handler of a WebSocket on which ``engine`` speaks; None: the agent's engine, else the server's."""

    async def stream(request: web.Request) -> web.WebSocketResponse:
        client = await ClientSocket.accept(request)
        await SpeechSocket(request.app, client, engine).serve()
        return client.response

    return stream


class SpeechSocket:
    """One client's requests, each spoken when the one before it is done. A socket that closes ends them all at once."""

    def __init__(self, app: web.Application, client: ClientSocket, engine: str | None) -> None:
        self._app = app
        self._client = client
        self._engine = engine
        self._asked: asyncio.Queue[SpeechRequest | ProtocolError] = asyncio.Queue(MAX_WAITING)

    async def serve(self) -> None:
        """Return when the connection is closed. Canceling is safe."""
        reading = asyncio.create_task(self._read(), name="speech requests")
        speaking = asyncio.create_task(self._speak_all(), name="speech")
        try:
            done, _ = await asyncio.wait({reading, speaking}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception as error:
            await cancel_and_wait(reading, speaking)
            ending = ending_of(error)
            last = [] if ending.error is None else [json.dumps(_error(ending.error))]
            await self._client.close(ending.code, last)
        finally:
            await cancel_and_wait(reading, speaking)

    async def _read(self) -> None:
        """Queue requests until the connection ends. Raises Ending."""
        while True:
            asked = _read_request(await self._client.receive())
            if self._asked.full():
                raise Ending("too fast", WSCloseCode.POLICY_VIOLATION, f"over {MAX_WAITING} requests wait: send less")
            self._asked.put_nowait(asked)

    async def _speak_all(self) -> None:
        while True:
            asked = await self._asked.get()
            try:
                if isinstance(asked, ProtocolError):
                    raise asked
                await self._speak(asked)
            except VocalError as error:
                await self._send(_error(str(error)))

    async def _speak(self, asked: SpeechRequest) -> None:
        begun = False
        async with await begin(self._app, asked, self._engine) as speech:
            async for pcm in speech:
                if not begun:
                    begun = True
                    await self._send({"type": "stream_start"})
                await self._send(audio_chunk(pcm, datetime.now(UTC).timestamp()))
        await self._send({"type": "stream_end"})

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._client.send(json.dumps(message))


def _read_request(message: str | bytes) -> SpeechRequest | ProtocolError:
    if isinstance(message, bytes):
        return ProtocolError("a request is JSON in a text message, not a binary one")
    try:
        asked = SpeechRequest.model_validate_json(message)
        require_text(asked.text, "text")
    except ValidationError as error:
        return ProtocolError(explain(error))
    except ProtocolError as error:
        return error
    return asked


def _error(why: str) -> Mapping[str, Any]:
    return {"type": "error", "error": why}
