"""OpenAI's ``/v1/models``, ``/v1/audio/transcriptions`` and ``/v1/audio/speech``; ``/v1/chat/completions`` is
`openai_chat`.

``model`` names an engine, or nothing (see `asking.engine_for_model`).

https://developers.openai.com/api/reference/resources/audio
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Literal

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import Field

from pipeline.agents import Language, Speed
from pipeline.audio import VOICE_RATE_HZ, wav_header
from pipeline.engines import Chosen, Kind, hears_pauses
from pipeline.errors import ProtocolError
from pipeline.events import Transcript
from pipeline.remote import OURS
from pipeline.reply_speech import Speech, joins
from pipeline.tasks import closing
from signaling.bodies import read_json
from signaling.schema import Wire

from .asking import NAME_MAX_CHARS, REQUEST_MAX_BYTES, engine_for_model, refuse, require_text
from .backend import ENGINES
from .generating import Generation
from .sound import samples_of
from .speaking import Manner, begun, speaking, speech_of, voice_of
from .speech_contexts import SpeechContexts
from .streaming import Streamed, sending_events
from .transcribe import duration_s, headerless, last_of, one_by_one, rest_of, transcribing
from .uploads import Form, WholeForms

OPENAI_VOICES = "alloy ash ballad cedar coral echo fable marin nova onyx sage shimmer verse"
DEFAULT_VOICES = frozenset(("", "default", *OPENAI_VOICES.split()))
"""OpenAI's clients must name a voice: theirs are the engine's default."""
PROMPT_MAX_CHARS = 4_096
ID_MAX_CHARS = 64
TRANSCRIPTION_UNSUPPORTED = ("include[]", "timestamp_granularities[]", "known_speaker_names[]")
SPEECH_TYPES = {"pcm": f"audio/pcm;rate={VOICE_RATE_HZ}", "wav": "audio/wav"}


def models_of(kinds: Collection[Kind]) -> Handler:
    """Return the handler of ``GET /v1/models``: the engines that serve these kinds."""

    async def answer(request: web.Request) -> web.Response:
        served = request.app[ENGINES].served()
        engines = {served[kind].name: served[kind].engine for kind in kinds if kind in served}
        models = [
            {"id": name, "object": "model", "created": 0, "owned_by": OURS}
            | ({"hears_pauses": True} if hears_pauses(engine) else {})
            for name, engine in engines.items()
        ]
        return web.json_response({"object": "list", "data": models})

    return answer


class TranscriptionFields(Wire):
    """What the form holds beside the file. ``temperature`` and the like are the engine's own settings."""

    model: str = Field("", max_length=NAME_MAX_CHARS)
    language: Language | None = None
    prompt: str = Field("", max_length=PROMPT_MAX_CHARS)
    response_format: Literal["json", "text", "verbose_json"] = "json"
    stream: Literal["true", "false"] = "false"


class TranscriptionService:
    """``POST /v1/audio/transcriptions``.

    With ``stream=true`` in front of the file, which is then the form's last field, the answer is server-sent events,
    and the sound is listened to while it arrives (as far as `sound` can): ``{"type": "transcript.text.delta", "delta",
    "text"}`` for each hypothesis and ``{"type": "transcript.text.done", "text", "language"}`` for the final one.
    ``text`` is the whole hypothesis, which may take back words of the one before; ``delta`` is what it adds to that
    one, and empty where it does not merely add.

    A file without a header may come in several parts of the same name: between them the caller has fallen silent, maybe
    for good. An engine that ``hears_pauses`` (as ``/v1/models`` has it) answers each pause with an event that has all
    words up to there, and ``pause_samples``, the number of samples before it.
    """

    def __init__(self, forms: WholeForms) -> None:
        self._forms = forms

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Transcribe a file. Raises ProtocolError, Overloaded, EngineError."""
        form = Form(request)
        await form.read_fields()
        if form.fields.get("stream") == "true":
            return await self._stream(request, form)
        with self._forms.holding():
            return await self._whole(request, form)

    async def _stream(self, request: web.Request, form: Form) -> web.StreamResponse:
        fields = read_fields(form)
        engine = await engine_for_model(request.app, "stt", fields.model)
        plain = headerless(form)
        sound = samples_of(last_field(form, in_parts=plain), headerless=plain)
        with nullcontext() if plain else self._forms.holding():  # a file may have to be whole to be heard
            async with transcribing(request.app, engine, sound, fields.language, fields.prompt) as transcripts:
                return await send_transcripts(request, transcripts, fields.language)

    async def _whole(self, request: web.Request, form: Form) -> web.Response:
        sound = await rest_of(form)
        fields = read_fields(form)
        engine = await engine_for_model(request.app, "stt", fields.model)
        async with transcribing(request.app, engine, one_by_one(sound), fields.language, fields.prompt) as transcripts:
            heard = await last_of(transcripts)
        match fields.response_format:
            case "text":
                return web.Response(text=f"{heard.text}\n")
            case "json":
                return web.json_response({"text": heard.text})
        language = heard.language or fields.language or "unknown"
        verbose = {"task": "transcribe", "language": language, "duration": duration_s(sound), "text": heard.text}
        return web.json_response(verbose)


def read_fields(form: Form) -> TranscriptionFields:
    """Check the fields. Raises ProtocolError."""
    refuse(form.fields, TRANSCRIPTION_UNSUPPORTED)
    return form.read_into(TranscriptionFields)


async def last_field(form: Form, *, in_parts: bool) -> AsyncIterator[bytes]:
    """Yield the file as it arrives, and nothing (``b""``) between its parts, if it may have several: a pause.

    Raises ProtocolError if another field follows: it would have come too late.
    """
    while True:
        async with closing(form.content()) as content:
            async for octets in content:
                yield octets
        if not (in_parts and await form.goes_on()):
            break
        yield b""
    if await form.read_fields():
        raise ProtocolError("with stream=true the file must be the form's last field", param="file")


async def send_transcripts(
    request: web.Request, transcripts: Generation[Transcript], language: str | None
) -> web.StreamResponse:
    """Send each hypothesis as it comes."""
    heard = Transcript("", True, language)
    async with sending_events(request) as events:
        async for transcript in transcripts:
            if transcript.text != heard.text or transcript.pause_samples is not None:
                delta = transcript.text.removeprefix(heard.text) if transcript.text.startswith(heard.text) else ""
                pause = {} if transcript.pause_samples is None else {"pause_samples": transcript.pause_samples}
                event = {"type": "transcript.text.delta", "delta": delta, "text": transcript.text, **pause}
                await events.send(event)
            if transcript.pause_samples is not None:
                transcripts.enough()  # who hangs up now has all that was said
            heard = transcript
        done = {"type": "transcript.text.done", "text": heard.text, "language": heard.language or language}
        await events.send(done)
        return await events.end()


class SpeechFields(Wire):
    """What is to be said, and how. ``language`` and ``context`` are ours. ``instructions`` are read by nobody.

    Requests with the same ``context``, one after another, are one speech.
    """

    input: str
    model: str = Field("", max_length=NAME_MAX_CHARS)
    voice: str = Field("", max_length=NAME_MAX_CHARS)
    language: Language = "en"
    speed: Speed = 1.0
    response_format: str = Field("wav", max_length=20)
    stream_format: Literal["audio"] = "audio"
    context: str = Field("", max_length=ID_MAX_CHARS)


class SpeechService:
    """``POST /v1/audio/speech``."""

    def __init__(self, contexts: SpeechContexts) -> None:
        self._contexts = contexts

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Speak a text: s16le at 24 kHz, sent as it is made; plain (``pcm``), or (``wav``) a WAV of unknown length.

        Raises ProtocolError, EngineError.
        """
        asked = await read_json(request, SpeechFields, REQUEST_MAX_BYTES)
        require_text(asked.input, "input")
        content_type = SPEECH_TYPES.get(asked.response_format)
        if content_type is None:
            formats = " or ".join(SPEECH_TYPES)
            raise ProtocolError(f"this response_format is not supported here: use {formats}", param="response_format")
        chosen = await engine_for_model(request.app, "tts", asked.model)
        voice = None if asked.voice.lower() in DEFAULT_VOICES else await voice_of(request.app, chosen, asked.voice)
        speech = self._enter(asked.context, chosen, Manner(voice, asked.language, asked.speed))
        streamed = Streamed(request, content_type)
        head = wav_header(VOICE_RATE_HZ, None) if asked.response_format == "wav" else b""
        rate_hz = chosen.engine.rate_hz
        async with speaking(request.app, asked.input, speech, rate_hz, param="input", early=False) as sound:
            async for pcm in sound:
                await streamed.write(head + pcm.astype("<i2", copy=False).tobytes())
                head = b""
        return await streamed.end()

    def _enter(self, context: str, chosen: Chosen, manner: Manner) -> AbstractAsyncContextManager[Speech]:
        if not context or not joins(chosen.engine):
            return begun(chosen.engine, manner)
        return self._contexts.lend((context, chosen.name, manner), partial(speech_of, chosen.engine, manner))
