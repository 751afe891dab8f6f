"""A text spoken by an engine: clause by clause, so that the first sound comes early, at 24 kHz, in small pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from pipeline.agents import SAMPLE_PREFIX
from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.cloning import clones, voice_maker
from pipeline.engines import Chosen, TextToSpeech
from pipeline.errors import EngineError, ProtocolError
from pipeline.reply_speech import Speech, open_speech
from pipeline.resample import Resampler
from pipeline.tasks import closing
from pipeline.text import ClauseSplitter
from signaling.schema import is_id

from .backend import CATALOGUE, LISTENER
from .generating import PATIENCE, Generation

PIECE_SAMPLES = VOICE_RATE_HZ // 5
"""An engine may give a whole sentence at once: as one message it would be larger than many clients take."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How to speak. ``voice`` None is the engine's default."""

    voice: str | None = None
    language: str = "en"
    speed: float = 1.0


async def voice_of(app: web.Application, chosen: Chosen, wanted: str) -> str | None:
    """Return the voice to ask an engine for, where ``wanted`` is a sample, or the id of a voice kept here.

    That is the sample for an engine that clones, and what its vendor calls the voice if it was made there. Any other
    engine uses its default instead of a sample, which is what our own server asks for.
    """
    sha256 = wanted.removeprefix(SAMPLE_PREFIX) if wanted.startswith(SAMPLE_PREFIX) else None
    if sha256 is None and not is_id(wanted):
        return wanted
    if clones(chosen.engine):
        return wanted if sha256 is not None else await _sample(app, wanted)
    instead = wanted if sha256 is None else None
    if voice_maker(chosen.engine) is None:
        return instead
    return await app[CATALOGUE].voice_at(chosen.name, voice_id=wanted, sha256=sha256) or instead


async def _sample(app: web.Application, voice_id: str) -> str:
    try:
        return f"{SAMPLE_PREFIX}{(await app[CATALOGUE].voice(voice_id)).sha256}"
    except ProtocolError:
        return voice_id


def speech_of(tts: TextToSpeech, manner: Manner) -> Speech:
    """Begin to speak in this manner. Close what is returned."""
    return open_speech(tts, manner.voice, manner.language, manner.speed)


@asynccontextmanager
async def begun(tts: TextToSpeech, manner: Manner) -> AsyncIterator[Speech]:
    """Begin when entered, and close on the way out."""
    async with aclosing(speech_of(tts, manner)) as speech:
        yield speech


def speaking(
    app: web.Application,
    text: str,
    speech: AbstractAsyncContextManager[Speech],
    rate_hz: int,
    *,
    param: str,
    early: bool = True,
) -> Generation[Pcm]:
    """Speak ``text``, which came as the request's ``param``. Raises ProtocolError if nothing in it can be spoken.

    Not ``early``: sentences stay whole, so that a clause which was cut out of a text is not cut once more.
    """
    splitter = ClauseSplitter(early=early)
    clauses = [*splitter.push(text), *splitter.flush()]
    if not clauses:
        raise ProtocolError(f"{param} holds nothing that can be spoken", param=param)
    return Generation(app[LISTENER], "tts", spoken(clauses, speech, rate_hz), PATIENCE.tts_s)


async def spoken(
    clauses: Sequence[str], entering: AbstractAsyncContextManager[Speech], rate_hz: int
) -> AsyncIterator[Pcm]:
    """Yield the clauses' sound. Raises EngineError where there is none."""
    resampler = Resampler(rate_hz, VOICE_RATE_HZ)
    silent = True
    async with entering as speech:
        for clause in clauses:
            async with closing(speech.speak(clause)) as audio:
                async for pcm in audio:
                    silent &= not len(pcm)
                    for piece in cut(resampler.push(pcm)):
                        yield piece
        for piece in cut(resampler.flush()):
            yield piece
        if silent:
            raise EngineError("the speech engine gave no sound")


def cut(pcm: Pcm) -> Sequence[Pcm]:
    """Cut sound into pieces."""
    return [pcm[begin : begin + PIECE_SAMPLES] for begin in range(0, len(pcm), PIECE_SAMPLES)]
