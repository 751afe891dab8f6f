"""Whispers of random weights in CTranslate2's format, of any size: what the real library loads, offline.

Either its weights are random, and so is what it says of each audio; or it says a script, whatever it hears. A script's
length is what decides how long decoding takes, so a model of random weights can be measured like a real one.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

LANGUAGES = ("en", "de", "es")
SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES), "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
TIMESTAMPS = tuple(f"<|{i * 0.02:.2f}|>" for i in range(1501))
MELS, POSITIONS, WINDOW = 80, 448, 1500
WORDS = 400
"""Tokens of text that have a meaning, bytes included: enough for some sentences' words."""
SURE = 2.0
"""How far a script stands out: its tokens have a probability of nearly 1."""


@dataclass(frozen=True)
class Shape:
    """How big. ``vocabulary`` 0: as many tokens as its words need."""

    layers: int
    width: int
    heads: int
    feed: int
    vocabulary: int = 0


SHAPES: Final[Mapping[str, Shape]] = {
    "tiny.en": Shape(4, 384, 6, 1536, 51_864),
    "base.en": Shape(6, 512, 8, 2048, 51_864),
    "small.en": Shape(12, 768, 12, 3072, 51_864),
}
"""OpenAI's, encoder and decoder alike (https://github.com/openai/whisper/blob/main/model-card.md)."""


@dataclass(frozen=True)
class Script:
    """What a model says; ``opening`` is what it expects first of all, a language or ``<|nospeech|>``."""

    text: str
    opening: str = "<|en|>"
    sure: float = SURE


def write(
    folder: Path,
    shape: Shape,
    words: Sequence[str],
    script: Script | None = None,
    *,
    multilingual: bool = False,
    seed: int = 0,
    stored: str | None = None,
) -> Path:
    """Write a model into ``folder``, its weights ``stored`` as float16 or as they are; returns it.

    Its tokens are made of ``words``, which a script must be made of, too.
    """
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(words, multilingual, shape.vocabulary)
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = _spec(shape, tokenizer, np.random.default_rng(seed))
    if script is not None:
        _learn(spec, tokenizer, script, multilingual)
    spec.validate()
    spec.optimize(stored)
    spec.save(str(folder))
    return folder


def _tokenizer(words: Sequence[str], multilingual: bool, size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        words, trainers.BpeTrainer(vocab_size=WORDS, initial_alphabet=alphabet, show_progress=False)
    )
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for i in range(len(vocabulary), size - len(SPECIALS) - len(TIMESTAMPS)):
        vocabulary[f"{i}"] = i  # never said: nothing is made of it
    if multilingual:  # CTranslate2 tells by the empty token, which OpenAI's multilingual vocabulary has
        vocabulary[""] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in TIMESTAMPS])
    return tokenizer


def _spec(shape: Shape, tokenizer: Tokenizer, random: np.random.Generator) -> Any:
    """Return a model whose weights are all random."""
    width, feed = shape.width, shape.feed
    specs = importlib.import_module("ctranslate2.specs.whisper_spec")
    spec = specs.WhisperSpec(shape.layers, shape.heads, shape.layers, shape.heads)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    _configure(spec, tokens)

    def weights(*size: int) -> NDArray[np.float32]:
        return random.normal(0, size[-1] ** -0.5, size).astype(np.float32)

    spec.encoder.conv1.weight, spec.encoder.conv1.bias = weights(width, MELS, 3), weights(width)
    spec.encoder.conv2.weight, spec.encoder.conv2.bias = weights(width, width, 3), weights(width)
    spec.encoder.position_encodings.encodings = weights(WINDOW, width)
    spec.decoder.position_encodings.encodings = weights(POSITIONS, width)
    spec.decoder.embeddings.weight = weights(len(tokens), width)
    spec.decoder.projection.weight = 8 * weights(len(tokens), width)
    norms = [spec.encoder.layer_norm, spec.decoder.layer_norm]
    for encoder, decoder in zip(spec.encoder.layer, spec.decoder.layer, strict=True):
        for attention in (encoder.self_attention, decoder.self_attention):
            _linear(attention.linear[0], weights(3 * width, width))
            _linear(attention.linear[1], weights(width, width))
        for linear, rows in zip(decoder.attention.linear, (1, 2, 1), strict=True):
            _linear(linear, 4 * weights(rows * width, width))
        for half in (encoder.ffn, decoder.ffn):
            _linear(half.linear_0, weights(feed, width))
            _linear(half.linear_1, weights(width, feed))
        parts = (encoder.self_attention, encoder.ffn, decoder.self_attention, decoder.attention, decoder.ffn)
        norms += [part.layer_norm for part in parts]
    for norm in norms:
        norm.gamma, norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)
    return spec


def _configure(spec: Any, tokens: Sequence[tuple[str, int]]) -> None:
    spec.register_vocabulary([token for token, _ in tokens])
    ids = dict(tokens)
    spec.config.suppress_ids = [ids[token] for token in SPECIALS[1:]]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[f"<|{language}|>"] for language in LANGUAGES]
    spec.config.alignment_heads = [[0, 0]]


def _linear(linear: Any, weight: NDArray[np.float32]) -> None:
    linear.weight, linear.bias = weight, np.zeros(len(weight), np.float32)


def _learn(spec: Any, tokenizer: Tokenizer, script: Script, multilingual: bool) -> None:
    """Let each position point at the embedding of the script's next token, and the layers add nothing to that."""
    for layer in spec.decoder.layer:
        for linear in (layer.self_attention.linear[1], layer.attention.linear[2], layer.ffn.linear_1):
            linear.weight = np.zeros_like(linear.weight)
    embeddings = spec.decoder.embeddings.weight
    embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    before = [tokenizer.token_to_id(script.opening)] * (3 if multilingual else 1)
    said = tokenizer.encode(script.text, add_special_tokens=False).ids
    ids = before + said + [tokenizer.token_to_id("<|endoftext|>")] * (POSITIONS - len(before) - len(said))
    spec.decoder.embeddings.weight = embeddings
    spec.decoder.position_encodings.encodings = 8 * embeddings[ids]
    spec.decoder.projection.weight = script.sure * embeddings
