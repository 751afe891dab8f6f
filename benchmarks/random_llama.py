"""Llamas of random weights and of any size, with a chat template: what the real library loads, offline.

Tokens that are no words are never likely, so an answer is as long as the engine lets it be. Every word is a token,
so a prompt is as long as its words are many.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.events import Message
from pipeline.torch_audio import import_torchaudio

import_torchaudio()  # before anything imports transformers, which breaks on a broken one

SHAPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "Llama 3.1 8B": {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
    "SmolLM2 135M": {
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        "tie_word_embeddings": True,
    },
}
"""Their ``config.json``; the second is a Llama, too, and the smallest that anybody talks to."""

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|> {{ m['content'] }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
AROUND_TOKENS = 5
"""What the template puts around a system prompt and the user's words."""

COMMON = """
    a about and are ask at but can day do for friend from give go good have he here how I in is it know like long make
    more not of on one or people say see she so some take tell that the they time to two want was we what you
"""
WORDS = COMMON.split()


def write(folder: Path, shape: Mapping[str, Any], dtype: str, device: str) -> Path:
    """Write a model in ``dtype`` into ``folder``, its weights made on ``device``. Blocks for minutes."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    words = tokenizer(int(shape["vocab_size"]))
    config = LlamaConfig(**shape, bos_token_id=None, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    torch.manual_seed(0)
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        model.lm_head.weight[: len(SPECIALS)] = 0.0  # half of the others are likelier
    model.generation_config = GenerationConfig(eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    del model
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return folder


def tokenizer(size: int) -> Any:
    """Return a tokenizer of ``size`` words, each of them a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    known = [*SPECIALS, *WORDS]
    known += [f"w{i}" for i in range(len(known), size)]
    whole_words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token=SPECIALS[0]))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=whole_words,
        pad_token=SPECIALS[0],
        eos_token=SPECIALS[1],
        additional_special_tokens=list(SPECIALS[2:]),
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made


def prompt(tokens: int, seed: int) -> Sequence[Message]:
    """Return a conversation of ``tokens``, another one for each ``seed`` from its first word on."""
    chosen = random.Random(seed)
    words = [chosen.choice(WORDS) for _ in range(tokens - AROUND_TOKENS)]
    asked = min(16, len(words) // 2)
    return Message("system", " ".join(words[asked:])), Message("user", " ".join(words[:asked]))
