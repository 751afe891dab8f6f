"""A Whisper of half a megabyte in CTranslate2's format, with weights of our own making: what the real library loads.

Either its weights are random, and so is what it says of each audio; or it says a script, whatever it hears.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

LANGUAGES = ("en", "de", "es")
SPECIALS = (
    *("<|endoftext|>", "<|startoftranscript|>", *(f"<|{language}|>" for language in LANGUAGES), "<|translate|>"),
    *("<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"),
)
CORPUS = ["hello there how are you today", "what is the weather like", "thank you", "no, no, no"] * 4
WIDTH, MELS, POSITIONS, WINDOW = 64, 80, 448, 1500
SURE = 2.0
"""How far a script stands out: its tokens have a probability of nearly 1."""


@dataclass(frozen=True)
class Script:
    """What a model says; ``opening`` is what it expects first of all, a language or ``<|nospeech|>``."""

    text: str
    opening: str = "<|en|>"
    sure: float = SURE


def build(folder: Path, script: Script | None = None, *, multilingual: bool = False, seed: int = 0) -> Path:
    """Write a model into ``folder``; returns it."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(multilingual)
    tokenizer.save(str(folder / "tokenizer.json"))
    spec = _spec(tokenizer, np.random.default_rng(seed))
    if script is not None:
        _learn(spec, tokenizer, script, multilingual)
    spec.validate()
    spec.optimize()
    spec.save(str(folder))
    return folder


def _tokenizer(multilingual: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    if multilingual:  # CTranslate2 tells by the empty token, which OpenAI's multilingual vocabulary has
        content = json.loads(tokenizer.to_str())
        vocabulary = content["model"]["vocab"]
        vocabulary[""] = len(vocabulary)
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", normalized=False) for i in range(1501)])
    return tokenizer


def _spec(tokenizer: Tokenizer, random: np.random.Generator) -> Any:
    """Return a model of one layer each, all weights random."""
    spec = importlib.import_module("ctranslate2.specs.whisper_spec").WhisperSpec(1, 2, 1, 2)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    spec.register_vocabulary([token for token, _ in tokens])
    ids = dict(tokens)
    spec.config.suppress_ids = [ids[token] for token in SPECIALS[1:]]
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = [ids[f"<|{language}|>"] for language in LANGUAGES]
    spec.config.alignment_heads = [[0, 0]]

    def weights(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)

    spec.encoder.conv1.weight, spec.encoder.conv1.bias = weights(WIDTH, MELS, 3), weights(WIDTH)
    spec.encoder.conv2.weight, spec.encoder.conv2.bias = weights(WIDTH, WIDTH, 3), weights(WIDTH)
    spec.encoder.position_encodings.encodings = weights(WINDOW, WIDTH)
    spec.decoder.position_encodings.encodings = weights(POSITIONS, WIDTH)
    spec.decoder.embeddings.weight = weights(len(tokens), WIDTH)
    spec.decoder.projection.weight = 8 * weights(len(tokens), WIDTH)
    encoder, decoder = spec.encoder.layer[0], spec.decoder.layer[0]
    for attention in (encoder.self_attention, decoder.self_attention):
        _linear(attention.linear[0], weights(3 * WIDTH, WIDTH))
        _linear(attention.linear[1], weights(WIDTH, WIDTH))
    for linear, rows in zip(decoder.attention.linear, (1, 2, 1), strict=True):
        _linear(linear, 4 * weights(rows * WIDTH, WIDTH))
    for feed in (encoder.ffn, decoder.ffn):
        _linear(feed.linear_0, weights(2 * WIDTH, WIDTH))
        _linear(feed.linear_1, weights(WIDTH, 2 * WIDTH))
    parts = (encoder.self_attention, encoder.ffn, decoder.self_attention, decoder.attention, decoder.ffn)
    for norm in (spec.encoder.layer_norm, spec.decoder.layer_norm, *(part.layer_norm for part in parts)):
        norm.gamma, norm.beta = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    return spec


def _linear(linear: Any, weight: NDArray[np.float32]) -> None:
    linear.weight, linear.bias = weight, np.zeros(len(weight), np.float32)


def _learn(spec: Any, tokenizer: Tokenizer, script: Script, multilingual: bool) -> None:
    """Let each position point at the embedding of the script's next token, and the layers add nothing to that."""
    layer = spec.decoder.layer[0]
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
