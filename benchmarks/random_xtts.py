"""XTTS-v2 checkpoints of random weights, in the released one's layout and of any size; they never stop by themselves.

What is random would stop at any time, so the token that stops is made impossible: whoever listens decides how long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from pipeline.torch_audio import import_torchaudio

# ruff: noqa: E402 - before anything imports transformers, which breaks on a broken torchaudio
import_torchaudio()

from TTS.tts.configs.xtts_config import XttsArgs, XttsAudioConfig, XttsConfig
from TTS.tts.models import xtts as coqui

SPEAKERS = ("Alpha Tester", "Beta Tester")
LANGUAGES = ("en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh-cn", "hu", "ko", "ja", "hi")
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüéèñçßабвгдежзийклмнопрстуфхцчшщыьэюяابتثجحدرسعقلمنهويअआकखगतदनपमरलसहािीे.,!?'-;:"


@dataclass(frozen=True)
class Shape:
    """How big. ``text_tokens`` 0: as many as its vocabulary has; ``most_tokens`` are those of a sentence's sound."""

    layers: int
    width: int
    heads: int
    text_tokens: int
    audio_tokens: int
    most_tokens: int


RELEASED = Shape(layers=30, width=1024, heads=16, text_tokens=6681, audio_tokens=1024, most_tokens=602)
"""XTTS-v2's: 454 million parameters, without what only training needs (https://huggingface.co/coqui/XTTS-v2)."""


def write(folder: Path, shape: Shape, *, seed: int = 0, gain: float = 1.0) -> Path:
    """Write config.json, vocab.json, model.pth and speakers_xtts.pth; ``gain`` makes the vocoder's sound louder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _vocabulary(folder / "vocab.json", shape.text_tokens)
    config = XttsConfig(model_args=_args(shape, vocabulary), audio=XttsAudioConfig(), languages=list(LANGUAGES))
    config.temperature, config.repetition_penalty = 0.75, 5.0
    config.save_json(str(folder / "config.json"))
    torch.manual_seed(seed)
    weights = coqui.Xtts(config).state_dict()
    weights["gpt.mel_head.bias"][shape.audio_tokens + 1] = -100.0
    for name in weights:
        if ".waveform_decoder.ups." in name and name.endswith("original0"):
            weights[name] *= gain
    torch.save({"model": weights}, folder / "model.pth")
    random = torch.Generator().manual_seed(seed + 1)
    torch.save({name: _speaker(random, shape.width) for name in SPEAKERS}, folder / "speakers_xtts.pth")
    return folder


def _vocabulary(path: Path, size: int) -> Tokenizer:
    vocabulary = Tokenizer(models.BPE(unk_token="[UNK]"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["[STOP]", "[UNK]", "[SPACE]", "[START]", *(f"[{language}]" for language in LANGUAGES)]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=list(LETTERS))
    vocabulary.train_from_iterator(["hello there, how are you today? the quick brown fox jumps", LETTERS], trainer)
    vocabulary.add_tokens([f"[unused{i}]" for i in range(vocabulary.get_vocab_size(), size)])
    vocabulary.save(str(path))
    return vocabulary


def _args(shape: Shape, vocabulary: Tokenizer) -> XttsArgs:
    return XttsArgs(
        gpt_layers=shape.layers,
        gpt_n_model_channels=shape.width,
        gpt_n_heads=shape.heads,
        gpt_number_text_tokens=max(vocabulary.get_vocab().values()) + 1,
        gpt_start_text_token=vocabulary.token_to_id("[START]"),
        gpt_stop_text_token=vocabulary.token_to_id("[STOP]"),
        gpt_num_audio_tokens=shape.audio_tokens + 2,
        gpt_start_audio_token=shape.audio_tokens,
        gpt_stop_audio_token=shape.audio_tokens + 1,
        gpt_max_audio_tokens=shape.most_tokens + 3,
        gpt_use_perceiver_resampler=True,
        decoder_input_dim=shape.width,
    )


def _speaker(random: torch.Generator, width: int) -> dict[str, Any]:
    embedding = torch.randn(1, 512, 1, generator=random)
    return {
        "gpt_cond_latent": torch.randn(1, 32, width, generator=random) * 0.1,
        "speaker_embedding": torch.nn.functional.normalize(embedding, dim=1),
    }
