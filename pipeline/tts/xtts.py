"""XTTS-v2 and its finetuned checkpoints: 17 languages, voices cloned from a few seconds, streamed as it is made.

Settings: ``XTTS_MODEL_PATH`` (the checkpoint's folder, or the id of a fetched one; without it the released one, once it
is fetched: `pipeline.models`), ``VOCAL_XTTS_VOICE`` (a speaker of the checkpoint, or
``sample:`` and a sample's SHA-256; for agents that name no voice), ``VOCAL_XTTS_DEVICE`` (cuda, cpu),
``VOCAL_XTTS_TEMPERATURE``, ``VOCAL_XTTS_STREAMS`` (sentences spoken at once), ``VOCAL_XTTS_SEED`` (the same words sound
the same), ``VOCAL_XTTS_DEEPSPEED`` (0: not even if it is there), ``VOCAL_XTTS_THREADS`` (cores, without a GPU).
Latents of voices are kept in ``VOCAL_DATA_DIR``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import model_hub, models
from pipeline.agents import SAMPLE_PREFIX
from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.models import Known, Model
from pipeline.threads import EngineThreads, run_in_thread
from pipeline.voices import VoiceSamples

if TYPE_CHECKING:
    from ._xtts_latents import Latents
    from ._xtts_model import Checkpoint, Speaker
    from ._xtts_speech import Sentence, Speech
    from ._xtts_text import Texts

log = logging.getLogger(__name__)

CLONES = True
INSTALL = "pip install 'vocal-node[xtts]'"
PACKAGES = ("torch", "torchaudio", "transformers", "TTS", "safetensors")
SETTING = "XTTS_MODEL_PATH"
RELEASED = "coqui/XTTS-v2"
KNOWN = Known(1_876_000_000, "Coqui Public Model License: no commercial use")
TERMS = "https://huggingface.co/coqui/XTTS-v2/blob/main/LICENSE.txt"
FILES = ("config.json", "vocab.json", "model.pth")
MORE_FILES = ("speakers_xtts.pth", "LICENSE.txt")
RANK = 80
"""Above the cloud: it is private and costs nothing a word."""

SLOWEST, FASTEST = 0.5, 2.0
"""Beyond these the model's stretched frames are no speech any more."""


class XttsTextToSpeech:
    """One model and one thread; sentences of all sessions are spoken in one batch."""

    rate_hz = VOICE_RATE_HZ
    clones = CLONES

    def __init__(self, voices: Voices, texts: Texts, speech: Speech, seed: int | None) -> None:
        self._voices = voices
        self._texts = texts
        self._speech = speech
        self._seed = seed
        self._threads = EngineThreads("xtts")
        self._step: asyncio.Future[None] | None = None

    def close(self) -> None:
        """Stop speaking and join the thread. Idempotent."""
        self._threads.close()

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield 24 ms after the first four tokens, then longer and longer pieces. Closing stops after the next token.

        ``voice`` is a speaker of the checkpoint, or ``sample:`` and the SHA-256 of a voice sample. Speeds beyond 0.5 to
        2.0 are brought within. Raises NotOffered for a voice, language or text it cannot speak.
        """
        from ._xtts_speech import Sentence

        pieces, speaker = await run_in_thread(self._threads, partial(self._prepare, clause, language, voice))
        within = max(SLOWEST, min(FASTEST, speed))
        for piece in pieces:
            sentence = Sentence(piece, speaker, within, self._seed)
            self._speech.open(sentence)
            try:
                while await self._more(sentence):
                    yield sentence.pieces.popleft()
            finally:
                sentence.closed = True

    def _prepare(self, clause: str, language: str, voice: str | None) -> tuple[list[list[int]], Speaker]:
        return self._texts.pieces(clause, language), self._voices.find(voice)

    async def _more(self, sentence: Sentence) -> bool:
        """Wait for the sentence's next piece. False at its end; raises what ended it. Cancel-safe."""
        while not sentence.pieces and not sentence.ended:
            await self._one_step()
        if not sentence.pieces and sentence.error is not None:
            raise sentence.error
        return bool(sentence.pieces)

    async def _one_step(self) -> None:
        """Wait for one step of the whole batch, begun by whoever waits first: no one waits, no one computes.

        A step belongs to all who wait for it: canceling one of them leaves it alone.
        """
        step = self._step
        if step is None or step.done() or step.get_loop() is not asyncio.get_running_loop():
            step = self._step = asyncio.wrap_future(self._threads.submit(self._speech.step))
        await asyncio.wait([step])
        if step.cancelled():
            raise EngineError("xtts was closed")


class Voices:
    """The checkpoint's own speakers, and those that samples have. Blocks; not for two threads at once."""

    def __init__(self, checkpoint: Checkpoint, latents: Latents, default: str) -> None:
        """``default`` is the voice of whoever names none; empty, the first speaker is. Raises EngineUnavailable."""
        self._speakers = {name.lower(): speaker for name, speaker in checkpoint.speakers.items()}
        self._names = list(checkpoint.speakers)
        self._latents = latents
        self._default = default or next(iter(self._names), None)
        try:
            if default:
                self.find(default)
        except EngineError as error:
            raise EngineUnavailable(f"VOCAL_XTTS_VOICE: {error}") from error

    def find(self, voice: str | None) -> Speaker:
        """Return a voice; a sample that is new to this model is listened to first. Raises NotOffered, EngineError."""
        wanted = voice or self._default
        if wanted is None:
            what = "tts xtts has no voice of its own: this checkpoint came without speakers_xtts.pth"
            raise NotOffered(f"{what}; clone one from a sample, or set VOCAL_XTTS_VOICE")
        if wanted.startswith(SAMPLE_PREFIX):
            return self._latents.of(wanted.removeprefix(SAMPLE_PREFIX))
        if (speaker := self._speakers.get(wanted.lower())) is None:
            known = f"; among others it has {', '.join(self._names[:5])}" if self._names else ""
            raise NotOffered(f"tts xtts has no voice {wanted[:64]!r}: name one of its speakers or a sample{known}")
        return speaker


def describe(settings: Settings) -> Usable:
    """The best voice there is where a GPU is; without one it speaks slower than anybody listens."""
    gpu = _has_gpu(settings)
    note = "XTTS-v2 with cloned voices, on the GPU" if gpu else "XTTS-v2 with cloned voices; too slow without a GPU"
    return Usable(RANK if gpu else -1, note, _lacks(settings), heavy=True)


def model(settings: Settings, name: str = "") -> Model:
    """Return the checkpoint that would be run, or another one by its hub id. Raises EngineUnavailable.

    All are made from the released one and under its licence, which ``COQUI_TOS_AGREED=1`` accepts, as in the library.
    """
    wanted = name or settings.get(SETTING, "").strip() or RELEASED
    folder = Path(wanted).expanduser()
    of_hub = not folder.is_dir() and model_hub.ID.fullmatch(wanted) is not None
    if not folder.is_dir() and not (of_hub and (wanted in (name, RELEASED) or model_hub.cached(wanted, settings))):
        raise EngineUnavailable(f"{SETTING} that is there: no folder {folder}")
    return Model(
        engine="xtts",
        name=wanted,
        repository=wanted if of_hub else "",
        files=(*FILES, *MORE_FILES),
        setting=SETTING,
        check=_check,
        needs=f"{INSTALL}; a GPU: without one it speaks slower than anybody listens",
        known=KNOWN if wanted == RELEASED else None,
        terms="" if settings.get("COQUI_TOS_AGREED", "").strip() == "1" or not of_hub else TERMS,
    )


def _check(folder: Path) -> None:
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise EngineUnavailable(f"{missing[0]} in {SETTING}={folder}")


def _lacks(settings: Settings) -> str | None:
    if any(find_spec(package) is None for package in PACKAGES):
        return INSTALL
    try:
        return models.lacks(model(settings), settings)
    except EngineUnavailable as error:
        return str(error)


def _has_gpu(settings: Settings) -> bool:
    """Tell whether there is an NVIDIA driver and a torch for it, without importing torch, which takes seconds."""
    if settings.get("VOCAL_XTTS_DEVICE", "").strip().lower() == "cpu":
        return False
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    hidden = settings.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg"))


def create(settings: Settings) -> XttsTextToSpeech:
    """Load the model and speak a word with it. Blocks for seconds. Raises EngineUnavailable naming what is missing."""
    if (missing := _lacks(settings)) is not None:
        raise EngineUnavailable(missing)
    folder = models.find(model(settings), settings)
    log.info("tts xtts: loading %s, %.1f GB", folder, (folder / "model.pth").stat().st_size / 1e9)
    began_s = time.perf_counter()
    from ._xtts_model import load
    from ._xtts_start import device

    engine = assemble(load(folder, device(settings)), settings)
    log.info("tts xtts: %s is ready after %.1f s", folder, time.perf_counter() - began_s)
    return engine


def assemble(checkpoint: Checkpoint, settings: Settings) -> XttsTextToSpeech:
    """Make an engine of a loaded checkpoint. Blocks; raises EngineUnavailable for settings that cannot be."""
    from ._xtts_deepspeed import gpt_for
    from ._xtts_latents import Latents
    from ._xtts_speech import Speech
    from ._xtts_start import sampling, streams, warm
    from ._xtts_text import Texts

    seed = int(number(settings, "VOCAL_XTTS_SEED", -1, least=-1))
    drawing = sampling(checkpoint.config, settings)
    gpt = gpt_for(checkpoint.xtts.gpt, settings)
    speech = Speech(gpt, checkpoint.xtts.hifigan_decoder, drawing, streams(checkpoint, gpt, settings))
    texts = Texts(checkpoint.xtts.tokenizer, checkpoint.config.languages, gpt.max_text_tokens)
    data = Path(settings.get("VOCAL_DATA_DIR", "").strip() or "data")
    latents = Latents(checkpoint, data / "latents", VoiceSamples(data / "voices"))
    voices = Voices(checkpoint, latents, settings.get("VOCAL_XTTS_VOICE", "").strip())
    warm(speech, checkpoint)
    return XttsTextToSpeech(voices, texts, speech, seed if seed >= 0 else None)
