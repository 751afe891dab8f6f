"""A whole XTTS-v2 checkpoint of random weights, in the released one's layout, small enough to be made in a test."""

from __future__ import annotations

import json
import math
import wave
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# ruff: noqa: E402 - whoever imports this is skipped where the extra is not installed
pytest.importorskip("torch", reason="the extra xtts is not installed: pip install 'vocal-node[xtts]'")
pytest.importorskip("TTS", reason="the extra xtts is not installed: pip install 'vocal-node[xtts]'")

import torch

from pipeline.torch_audio import import_torchaudio

torch.set_num_threads(1)
import_torchaudio()

import tokenizers
from tokenizers import models, pre_tokenizers, trainers
from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder
from TTS.tts.models import xtts as coqui

DIM = 64
VOCODER_CHANNELS = 32
"""Of 512, which no configuration says; the layers and their reach are the real ones."""

VOCODER_GAIN = 4.0
"""What goes in hardly matters to a vocoder of small random weights; with this, other latents are another sound."""

AUDIO_TOKENS = 256
MAX_TOKENS = 36
"""Of a sentence, 1.7 s. It never stops before: random weights would do so at any time."""
SPEAKERS = ("Alpha Tester", "Beta Tester")
LANGUAGES = ("en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh-cn", "hu", "ko", "ja", "hi")
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéèñçßабвгдежзийклмнопрстуфхцчшщыьэюяابتثجحدرسعقلمنهويअआकखगतदनपमरलसहािीे.,!?'-;:"


def narrow_vocoder(patch: pytest.MonkeyPatch) -> None:
    """Let the library build its vocoder with fewer channels."""
    patch.setattr(coqui, "HifiDecoder", partial(HifiDecoder, upsample_initial_channel_decoder=VOCODER_CHANNELS))


def write_checkpoint(folder: Path, *, seed: int = 0) -> Path:
    """Write config.json, vocab.json, model.pth and speakers_xtts.pth."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary(folder / "vocab.json")
    config = XttsConfig(model_args=_args(vocabulary), audio=XttsAudioConfig(), languages=list(LANGUAGES))
    config.temperature, config.repetition_penalty = 0.75, 5.0
    config.save_json(str(folder / "config.json"))
    torch.manual_seed(seed)
    weights = coqui.Xtts(config).state_dict()
    weights["gpt.mel_head.bias"][AUDIO_TOKENS + 1] = -100.0
    for name in weights:
        if ".waveform_decoder.ups." in name and name.endswith("original0"):
            weights[name] *= VOCODER_GAIN
    torch.save({"model": weights}, folder / "model.pth")
    random = torch.Generator().manual_seed(seed + 1)
    torch.save({name: _speaker(random) for name in SPEAKERS}, folder / "speakers_xtts.pth")
    return folder


def _vocabulary(path: Path) -> tokenizers.Tokenizer:
    vocabulary = tokenizers.Tokenizer(models.BPE(unk_token="[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{language}]" for language in LANGUAGES)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=list(LETTERS))
    vocabulary.train_from_iterator(["hello there, how are you today? the quick brown fox jumps", LETTERS], trainer)
    vocabulary.save(str(path))
    return vocabulary


def _args(vocabulary: tokenizers.Tokenizer) -> XttsArgs:
    return XttsArgs(
        gpt_layers=2,
        gpt_n_model_channels=DIM,
        gpt_n_heads=2,
        gpt_number_text_tokens=max(vocabulary.get_vocab().values()) + 1,
        gpt_start_text_token=vocabulary.token_to_id("[START]"),
        gpt_stop_text_token=vocabulary.token_to_id("[STOP]"),
        gpt_num_audio_tokens=AUDIO_TOKENS + 2,
        gpt_start_audio_token=AUDIO_TOKENS,
        gpt_stop_audio_token=AUDIO_TOKENS + 1,
        gpt_max_audio_tokens=MAX_TOKENS + 3,
        gpt_use_perceiver_resampler=True,
        decoder_input_dim=DIM,
    )


def _speaker(random: torch.Generator) -> dict[str, Any]:
    embedding = torch.randn(1, 512, 1, generator=random)
    return {
        "gpt_cond_latent": torch.randn(1, 32, DIM, generator=random) * 0.1,
        "speaker_embedding": torch.nn.functional.normalize(embedding, dim=1),
    }


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
