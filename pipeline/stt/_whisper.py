"""Whisper on CTranslate2, a batch of utterances at a time.

Whisper hears 30 s, padded with silence, and its encoder is most of the work on a CPU. Given only the utterance and five
seconds of that silence it says the same words for an eighth of the work (docs/engines.md), but for an utterance
in a hundred, over which it begins to repeat itself: those are decoded again with all of the silence.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import memory
from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence, to_float32
from pipeline.errors import EngineError, EngineUnavailable, NotOffered

from ._whisper_settings import WINDOW_MAX_S, WhisperSettings

FRAMES_PER_S, FFT_SAMPLES = 100, 400

MARGIN_S = 5
"""Silence after the utterance: with three seconds twice as many words differ, with one it rambles."""

WINDOW_STEP_S = 5

TOKENS_MAX = 224
"""Half of the decoder's positions, as OpenAI's own code has it."""

TOKENS, TOKENS_PER_S = 16, 25
"""The most an utterance may have; more is a loop, and would be waited for."""

COMPRESSION_MAX = 2.4
"""A text that zlib makes smaller than by this repeats itself; the threshold is OpenAI's."""

NO_REPEAT_TOKENS = 5
"""The second time, no so many tokens twice: "no, no, no, no" still comes through."""

NO_SPEECH_MIN, EVIDENCE_MIN = 0.6, 0.1
"""See `is_speech`."""

PROMPT_TOKENS = 32
"""Of the words that an utterance's prompt may bring: about ten names, the last ones."""

PROMPT_STEP = 8
"""Longer ones are cut to a multiple of this: utterances are decoded together whose prompts are equally long."""

WORK_BYTES = 200_000_000
"""For what decoding takes besides the weights: 30 s encoded, and the caches of a batch."""

SMALLER = "free some, or set VOCAL_WHISPER_MODEL to a smaller one"

OTHER_CODES = {"nb": "no", "jv": "jw", "iw": "he", "fil": "tl"}
"""Languages that Whisper knows by another code."""


_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
"""How CTranslate2, C++ and cuBLAS say it."""


@dataclass(frozen=True, slots=True)
class Speech:
    """One utterance, or a piece of one: at most 30 s at 16 kHz.

    ``language`` None is to be detected; ``prompt`` are words that may be said in it.
    """

    pcm: Pcm
    language: str | None
    prompt: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was said; empty where nothing was."""

    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Decoded:
    """One text as the model gave it, with its own doubts about it."""

    text: str
    language: str
    no_speech: float
    mean_log_probability: float

    @property
    def loops(self) -> bool:
        """Whether it repeats itself."""
        octets = self.text.encode()
        return len(octets) > COMPRESSION_MAX * len(zlib.compress(octets))

    @property
    def heard(self) -> Heard:
        """The words, if there were any."""
        words = self.text if is_speech(self.no_speech, self.mean_log_probability) else ""
        return Heard(words, self.language)


def is_speech(no_speech: float, mean_log_probability: float) -> bool:
    """Judge by the model's own probabilities whether somebody spoke.

    OpenAI's rule drops a text when speech is improbable and the mean token is, too (below 0.37). Silence is heard as a
    well believed "you", so the two are multiplied instead: 0.03 on silence and noise, from 0.12 up on single words.
    """
    return no_speech <= NO_SPEECH_MIN or (1 - no_speech) * math.exp(mean_log_probability) >= EVIDENCE_MIN


class Whisper:
    """A loaded model. ``hear`` may be called from as many threads at once as there are ``lanes``."""

    def __init__(self, folder: Path, settings: WhisperSettings) -> None:
        """Load and warm it. Blocks for seconds. Raises EngineUnavailable."""
        self._settings = settings
        size_bytes = (folder / "model.bin").stat().st_size
        if settings.device == "cpu":
            memory.require(settings.model, size_bytes + WORK_BYTES, memory.free_bytes(), "the CPU", SMALLER)
        try:
            self._model = _load(folder, settings)
            self._features = _feature_extractor(self._model)
            self.multilingual = bool(self._model.model.is_multilingual)
            self._standing = self._encoded(settings.prompt)
            self.hear([Speech(silence(SPEECH_RATE_HZ), None)])
        except Exception as error:  # each of its three libraries has its own, and tokenizers plain Exceptions
            name = f"{settings.model} on {settings.device} as {settings.compute_type}"
            if _OUT_OF_MEMORY.search(str(error)):
                raise EngineUnavailable(
                    f"memory: the weights of {name} are {size_bytes / memory.GIB:.1f} GiB and did not fit; {SMALLER}"
                ) from error
            raise EngineUnavailable(f"a model that runs here: {name}: {' '.join(str(error).split()):.300}") from error

    def language(self, asked: str | None) -> str | None:
        """Return Whisper's own code, None if it is to be detected. Raises NotOffered for one that it does not know."""
        if asked is None:
            return None if self.multilingual else "en"
        base = asked.lower().partition("-")[0]
        code = OTHER_CODES.get(base, base)
        if code not in self._model.supported_languages:
            other = (
                "it does not know" if self.multilingual else "it knows English only; VOCAL_WHISPER_MODEL names another"
            )
            raise NotOffered(f"stt faster_whisper runs {self._settings.model} and not {asked!r:.50}: {other}")
        return code

    def hear(self, batch: Sequence[Speech], wanted: Callable[[], bool] = lambda: True) -> list[Heard]:
        """Return the words of each utterance; of none once the batch is no longer ``wanted``. Raises EngineError."""
        lengths = [len(self._before(speech.prompt)) for speech in batch]
        heard: dict[int, Heard] = {}
        try:
            for length in sorted({*lengths}):
                # CTranslate2 wants the words to begin at the same place in all of a batch
                alike = [index for index, own in enumerate(lengths) if own == length]
                decoded = self._decode_until_sure([batch[index] for index in alike], wanted)
                heard |= {index: text.heard for index, text in zip(alike, decoded, strict=False)}
        except (RuntimeError, ValueError) as error:
            another = "if that goes on, VOCAL_WHISPER_MODEL names another model"
            raise EngineError(f"stt faster_whisper failed to decode: {error}; {another}") from error
        return [heard[index] for index in range(len(batch))] if len(heard) == len(batch) else []

    def _decode_until_sure(self, batch: Sequence[Speech], wanted: Callable[[], bool]) -> list[Decoded]:
        """Decode; what repeats itself a second time, in another way and without any prompt."""
        decoded = self._decode(batch, wanted)
        looping = [index for index, text in enumerate(decoded) if text.loops]
        if looping:
            again = self._decode([batch[index] for index in looping], wanted, again=True)
            for index, text in zip(looping, again, strict=False):
                decoded[index] = text
        return decoded

    def _decode(self, batch: Sequence[Speech], wanted: Callable[[], bool], *, again: bool = False) -> list[Decoded]:
        longest_s = max(len(speech.pcm) for speech in batch) / SPEECH_RATE_HZ
        frames = (WINDOW_MAX_S if again else self._window_s(longest_s)) * FRAMES_PER_S
        encoded = self._model.encode(np.stack([self._mel(speech.pcm, frames) for speech in batch]))
        if not wanted():
            return []
        languages = self._languages(batch, encoded)
        before = [[] if again else self._before(speech.prompt) for speech in batch]
        prompts = [self._prompt(language, tokens) for language, tokens in zip(languages, before, strict=True)]
        tokens = min(TOKENS_MAX, TOKENS + math.ceil(TOKENS_PER_S * longest_s))
        results = self._model.model.generate(
            encoded,
            prompts,
            beam_size=self._settings.beam_size,
            # It takes the half of this, or what the prompt leaves of it, whichever is less.
            max_length=min(2 * TOKENS_MAX, max(2 * tokens, len(prompts[0]) + tokens)),
            no_repeat_ngram_size=NO_REPEAT_TOKENS if again else 0,
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._decoded(result, language) for result, language in zip(results, languages, strict=True)]

    def _window_s(self, longest_s: float) -> int:
        enough_s = math.ceil((longest_s + MARGIN_S) / WINDOW_STEP_S) * WINDOW_STEP_S
        return min(WINDOW_MAX_S, max(self._settings.window_s, enough_s))

    def _mel(self, pcm: Pcm, frames: int) -> NDArray[np.float32]:
        """Return the log-mel spectrogram of the audio and then silence, shape ``(mels, frames)``."""
        mel = self._features(to_float32(pcm), padding=FFT_SAMPLES)[:, :frames]
        # Silence is 8 below the maximum, or 1e-10, before both are scaled by (x + 4) / 4: as if the audio were padded.
        floor = max(float(mel.max()) - 2.0, -1.5)
        return np.pad(mel, ((0, 0), (0, frames - mel.shape[1])), constant_values=floor).astype(np.float32)

    def _languages(self, batch: Sequence[Speech], encoded: Any) -> list[str]:
        given = [speech.language if self.multilingual else "en" for speech in batch]
        if None not in given:
            return [language for language in given if language is not None]
        detected = [ranked[0][0].strip("<|>") for ranked in self._model.model.detect_language(encoded)]
        return [known or found for known, found in zip(given, detected, strict=True)]

    def _prompt(self, language: str, before: list[int]) -> list[int]:
        tokens: list[int] = self._model.get_prompt(self._tokenizer(language), before, without_timestamps=True)
        return tokens

    def _before(self, prompt: str) -> list[int]:
        """Return what the model is told to have heard before: the words of the settings, and then the utterance's."""
        own = self._encoded(prompt)[-PROMPT_TOKENS:]
        steps = len(own) // PROMPT_STEP * PROMPT_STEP
        return self._standing + own[-steps:]  # all of it if it is shorter than a step

    def _encoded(self, text: str) -> list[int]:
        # whichever language: what it says of it are tokens around these
        tokens: list[int] = self._tokenizer("en").encode(f" {text}") if text else []
        return tokens

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        return Tokenizer(self._model.hf_tokenizer, self.multilingual, task="transcribe", language=language)

    def _decoded(self, result: Any, language: str) -> Decoded:
        tokens = result.sequences_ids[0]
        text = self._tokenizer(language).decode(tokens).strip()
        # The score is the mean over the tokens; the end of the text is one more.
        mean = result.scores[0] * len(tokens) / (len(tokens) + 1)
        return Decoded(text, language, result.no_speech_prob, mean)


def _load(folder: Path, settings: WhisperSettings) -> Any:
    from faster_whisper import WhisperModel

    device, _, index = settings.device.partition(":")
    return WhisperModel(
        str(folder),
        device=device,
        device_index=int(index or 0),
        compute_type=settings.compute_type,
        cpu_threads=settings.threads,
        num_workers=settings.lanes,
        local_files_only=True,
    )


def _feature_extractor(model: Any) -> Any:
    """Return the model's, or one that fits where its directory does not describe it (large-v3 has 128 mels)."""
    from faster_whisper.feature_extractor import FeatureExtractor

    mels = model.model.n_mels
    described = model.feature_extractor
    return described if len(described.mel_filters) == mels else FeatureExtractor(feature_size=mels)
