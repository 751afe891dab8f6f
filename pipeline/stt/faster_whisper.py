"""Whisper through faster-whisper and CTranslate2: speech-to-text on this machine, with any Whisper model.

A caller is heard while they speak: the growing utterance is decoded again and again, which costs its final words
nothing, for they have a thread of their own. What several callers have said by then is decoded as one batch.

Settings, all ``VOCAL_WHISPER_...``:

- ``MODEL``: a size (``tiny.en`` ... ``large-v3``, ``turbo``), a directory, or a hub id of a model in CTranslate2's
  format; by default ``small.en`` on CUDA and ``base.en`` on the CPU.
- ``DEVICE``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
- ``COMPUTE_TYPE``: ``float16`` on CUDA and ``int8`` on the CPU, or another of CTranslate2's.
- ``BEAM_SIZE``: 1 is greedy; more is slower and hardly better on short utterances.
- ``PARTIAL_MS``: how much new audio is worth another look while the caller speaks (500); 0 for final words alone.
- ``PROMPT``: words that are likely; the names that a conversation has had so far follow them.
- ``BATCH``: utterances decoded at once (16 on CUDA, 4 on the CPU).
- ``THREADS``: of the CPU, for each of the two lanes (half of the cores, at most 4).
- ``WINDOW_S``: the least that the model is given to hear, the rest silence (30 on CUDA, 10 on the CPU).

A model that is not here is downloaded (`pipeline.models`); `pipeline.model_hub` says where it lies and what forbids
that.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import AsyncIterator

from pipeline import models
from pipeline.audio import AudioFrame
from pipeline.engines import Settings, Usable
from pipeline.errors import EngineUnavailable
from pipeline.events import Transcript
from pipeline.model_hub import readable
from pipeline.models import Model
from pipeline.tasks import closing

from ._batches import Batches
from ._whisper import Heard, Speech, Whisper
from ._whisper_files import described
from ._whisper_settings import WhisperSettings, ways
from ._whisper_utterance import WhisperUtterance

log = logging.getLogger(__name__)

RANK_CPU, RANK_CUDA = 50, 60
"""Above PocketSphinx in any case."""

MISSING = "pip install faster-whisper"


class FasterWhisperSpeechToText:
    """One model; a lane for final words and those of a pause, and one for those of callers who still speak."""

    hears_pauses = True

    def __init__(self, whisper: Whisper, settings: WhisperSettings) -> None:
        self.device = settings.device
        self._whisper = whisper
        self._partial_ms = settings.partial_ms
        self._finals: Batches[Speech, Heard] = Batches("whisper", whisper.hear, settings.batch)
        self._partials: Batches[Speech, Heard] = Batches("whisper partial", whisper.hear, settings.batch)

    def close(self) -> None:
        """Join the threads, which finish their step. Idempotent."""
        self._partials.close()
        self._finals.close()

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield the words so far while the caller speaks, then the final ones; written with case and punctuation.

        Raises NotOffered for a language that the model does not know, EngineError, and what ``frames`` raises.
        """
        spoken = self._whisper.language(language)
        utterance = WhisperUtterance(self._finals, self._partials, self._partial_ms, spoken, prompt)
        async with closing(utterance.transcripts(frames)) as transcripts:
            async for transcript in transcripts:
                yield transcript


def model(settings: Settings, name: str = "") -> Model:
    """Return the model that would be tried first, or another one by its name. Raises EngineUnavailable."""
    way = ways(settings)[0]
    return described(name or way.model, way.device)


def describe(settings: Settings) -> Usable:
    """Say what would run here: the first way whose model is here, or may be downloaded. Looks for files only."""
    lacks = None if importlib.util.find_spec("faster_whisper") else MISSING
    try:
        for way in [] if lacks == MISSING else ways(settings):
            try:
                return _usable(way, settings)
            except EngineUnavailable as error:
                lacks = lacks or str(error)
    except EngineUnavailable as error:
        lacks = str(error)
    return Usable(RANK_CPU, "Whisper through faster-whisper", lacks)


def _usable(way: WhisperSettings, settings: Settings) -> Usable:
    wanted = described(way.model, way.device)
    note = f"Whisper {way.model} on {way.device}"
    if not models.may_fetch(wanted, settings):
        models.find(wanted, settings)
    elif models.lacks(wanted, settings):
        size = f" ({readable(wanted.known.size_bytes)})" if wanted.known else ""
        note = f"{note}, downloaded when first used{size}"
    return Usable(RANK_CPU if way.device == "cpu" else RANK_CUDA, note)


def create(settings: Settings) -> FasterWhisperSpeechToText:
    """Load the model and decode once; seconds, or minutes where it is downloaded. Raises EngineUnavailable."""
    if importlib.util.find_spec("faster_whisper") is None:
        raise EngineUnavailable(MISSING)
    refusals: list[str] = []
    where = models.get
    for way in ways(settings):
        folder = None
        try:
            folder = where(described(way.model, way.device), settings)
            whisper = Whisper(folder, way)
        except EngineUnavailable as error:
            refusals.append(str(error))
            # a hub that did not answer once is not asked again
            where = models.find if folder is None else where
        else:
            if refusals:
                log.warning("speech-to-text cannot run as it would best: it needs %s", refusals[0])
            log.info("speech-to-text runs %s on %s, %s", way.model, way.device, way.compute_type)
            return FasterWhisperSpeechToText(whisper, way)
    raise EngineUnavailable(refusals[0])
