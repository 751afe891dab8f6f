"""Speech-to-text as a service.

``POST /transcribe``: a form with the field ``file`` (also ``audio_file``), and optionally ``language`` (ISO 639-1; left
out: detected) and ``format`` (``s16le`` for sound without a header, see `sound.is_headerless`) ->
``{"text", "language", "duration_s"}``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from aiohttp import web

from pipeline.agents import Language
from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm
from pipeline.engines import Chosen, hears_pauses
from pipeline.errors import ProtocolError
from pipeline.events import Transcript
from pipeline.tasks import closing
from signaling.schema import Wire

from .asking import engine_named
from .backend import LISTENER
from .generating import PATIENCE, Generation
from .sound import is_headerless, samples_of
from .uploads import FORM_MAX_S, Form, WholeForms

T = TypeVar("T")

FRAME_SAMPLES = SPEECH_RATE_HZ // 50
FRAMES_AT_ONCE = 50
"""How many frames an engine that takes all there is may take before others get their turn."""
REAL_TIMES = 4.0
"""How many times its own length a sound's transcription may take."""


class TranscribeFields(Wire):
    """What the form holds beside the file."""

    language: Language | None = None


class TranscribeService:
    """``POST /transcribe``."""

    def __init__(self, forms: WholeForms) -> None:
        self._forms = forms

    async def answer(self, request: web.Request) -> web.Response:
        """Transcribe a file. Raises ProtocolError, Overloaded, EngineError."""
        with self._forms.holding():
            form = Form(request)
            await form.read_fields()
            sound = await rest_of(form)
            fields = form.read_into(TranscribeFields)
            engine = await engine_named(request.app, "stt", None)
            async with transcribing(request.app, engine, one_by_one(sound), fields.language) as transcripts:
                heard = await last_of(transcripts)
        language = heard.language or fields.language
        return web.json_response({"text": heard.text, "language": language, "duration_s": duration_s(sound)})


async def rest_of(form: Form) -> Sequence[Pcm]:
    """Read a form on from its file to its end and return the sound. Raises ProtocolError for what is wrong with it."""
    pieces = deque([octets async for octets in form.content()])
    await form.read_fields()
    return [pcm async for pcm in samples_of(used_up(pieces), headerless=headerless(form))]


def headerless(form: Form) -> bool:
    """Tell whether the form's file is declared to be s16le without a header. Raises ProtocolError without a file."""
    if form.file is None:
        raise ProtocolError("the form has no sound: send it as the field 'file'", param="file")
    return is_headerless(form.file, form.fields.get("format", ""))


@asynccontextmanager
async def transcribing(
    app: web.Application, engine: Chosen, sound: AsyncIterator[Pcm], language: str | None, prompt: str = ""
) -> AsyncIterator[Generation[Transcript]]:
    """Transcribe a sound, which may still be arriving; the engine's time is limited once it has all of it."""

    def heard_all(heard_s: float) -> None:
        transcripts.hurry(PATIENCE.stt_s + REAL_TIMES * heard_s)

    pauses = hears_pauses(engine.engine)
    async with closing(in_frames(sound, heard_all, pauses=pauses)) as frames:
        transcripts = Generation(app[LISTENER], "stt", engine.engine.transcribe(frames, language, prompt), FORM_MAX_S)
        async with transcripts:
            yield transcripts


async def in_frames(
    sound: AsyncIterator[Pcm], ended: Callable[[float], None], *, pauses: bool = False
) -> AsyncIterator[AudioFrame]:
    """Cut a sound into frames of 20 ms, those at the end of a piece shorter: nothing is held back.

    A piece without samples is a pause, passed on where ``pauses`` are heard. ``ended`` is told the length, in seconds,
    when the last frame was taken.
    """
    samples = 0
    async with closing(sound):
        async for pcm in sound:
            for i, begin in enumerate(range(0, len(pcm), FRAME_SAMPLES), 1):
                yield AudioFrame(pcm[begin : begin + FRAME_SAMPLES], SPEECH_RATE_HZ, samples + begin)
                if i % FRAMES_AT_ONCE == 0:
                    await asyncio.sleep(0)
            samples += len(pcm)
            if pauses and not len(pcm):
                yield AudioFrame(pcm, SPEECH_RATE_HZ, samples)
    ended(samples / SPEECH_RATE_HZ)


async def last_of(transcripts: AsyncIterator[Transcript]) -> Transcript:
    """Return the last transcript, which is the final one."""
    heard = Transcript("", True)
    async for transcript in transcripts:
        heard = transcript
    return heard


async def one_by_one(pieces: Sequence[T]) -> AsyncIterator[T]:
    """Yield what is there already, letting others have their turn after each."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


async def used_up(pieces: deque[T]) -> AsyncIterator[T]:
    """Yield what is there and keep nothing of it: it may be large."""
    while pieces:
        yield pieces.popleft()
        await asyncio.sleep(0)


def duration_s(sound: Sequence[Pcm]) -> float:
    """Return a sound's length in seconds, to the millisecond."""
    return round(sum(len(pcm) for pcm in sound) / SPEECH_RATE_HZ, 3)
