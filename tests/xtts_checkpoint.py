"""A whole XTTS-v2 checkpoint of random weights, in the released one's layout, small enough to be made in a test."""

from __future__ import annotations

import json
import math
import wave
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

# ruff: noqa: E402 - whoever imports this is skipped where the extra is not installed
pytest.importorskip("torch", reason="the extra xtts is not installed: pip install 'vocal-node[xtts]'")
pytest.importorskip("TTS", reason="the extra xtts is not installed: pip install 'vocal-node[xtts]'")

import torch

from pipeline.torch_audio import import_torchaudio

torch.set_num_threads(1)
import_torchaudio()

from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder
from TTS.tts.models import xtts as coqui

from benchmarks import random_xtts

DIM = 64
VOCODER_CHANNELS = 32
"""Of 512, which no configuration says; the layers and their reach are the real ones."""

VOCODER_GAIN = 4.0
"""What goes in hardly matters to a vocoder of small random weights; with this, other latents are another sound."""

AUDIO_TOKENS = 256
MAX_TOKENS = 36
"""Of a sentence, 1.7 s. It never stops before: random weights would do so at any time."""
LANGUAGES, SPEAKERS = random_xtts.LANGUAGES, random_xtts.SPEAKERS
TINY = random_xtts.Shape(layers=2, width=DIM, heads=2, text_tokens=0, audio_tokens=AUDIO_TOKENS, most_tokens=MAX_TOKENS)


def narrow_vocoder(patch: pytest.MonkeyPatch) -> None:
    """Let the library build its vocoder with fewer channels."""
    patch.setattr(coqui, "HifiDecoder", partial(HifiDecoder, upsample_initial_channel_decoder=VOCODER_CHANNELS))


def write_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write config.json, vocab.json, model.pth and speakers_xtts.pth."""
    return random_xtts.write(folder, TINY, seed=seed, gain=VOCODER_GAIN)


def change_config(folder: Path, **values: object) -> None:
    """Overwrite some of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def write_sample(data: Path, seconds: float = 4.0, hz: float = 140.0) -> str:
    """Put a voice sample where they are kept; return its SHA-256."""
    at = np.arange(int(24_000 * seconds)) / 24_000
    pcm = (9_000 * np.sin(math.tau * hz * at) * (0.5 + 0.5 * np.sin(math.tau * 3 * at))).astype("<i2")
    (data / "voices").mkdir(parents=True, exist_ok=True)
    unnamed = data / "voices" / "sample"
    with wave.open(str(unnamed), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    name = sha256(unnamed.read_bytes()).hexdigest()
    unnamed.rename(data / "voices" / f"{name}.wav")
    return name
