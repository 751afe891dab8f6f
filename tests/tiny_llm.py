"""Chat models that fit into a test: Llamas with a real tokenizer and chat template, made on the spot."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline.torch_audio import import_torchaudio

import_torchaudio()  # before anything imports transformers, which breaks on a broken one

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
STRICT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<|{{ m['role'] }}|>\n{{ m['content'] }}<|end|>\n{% endfor %}<|assistant|>\n"
)
"""What some makers' templates insist on: no system prompt, and the user speaks first."""

CORPUS = ("Hello there, how can I help you today?", "The weather is sunny.", "You are a helpful voice assistant.") * 8
SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
MAX_TOKENS = 4096


def tokenizer(template: str | None = TEMPLATE, words: str = "") -> Any:
    """Return a byte-level tokenizer that was trained on a few sentences and ``words``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bytes_of_text = Tokenizer(models.BPE())
    bytes_of_text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_of_text.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_of_text.train_from_iterator(
        [*CORPUS, *[words] * 8],
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
        ),
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=bytes_of_text,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=list(SPECIAL[3:]),
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = template
    return made


def build(folder: Path, says: str | None = None, *, again: bool = False, template: str | None = TEMPLATE) -> Path:
    """Write a model into ``folder`` and return it: one with random weights, or one that always ``says`` the same.

    ``again``: it says it again and again, until it may not say more.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    words = tokenizer(template, "" if says is None else says.encode("ascii", "ignore").decode())
    size = 64 if says is None else -(-len(words) // 64) * 64  # bitsandbytes packs rows by 32, on CPUs that can
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=size,
            intermediate_size=size,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            initializer_range=0.2,
        )
    )
    if says is not None:
        _teach(model, words, says, again)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def _teach(model: Any, words: Any, says: str, again: bool) -> None:
    """Make each token follow from the one before alone: layers add nothing, and the head is a table of successors."""
    import torch

    text = words(says)["input_ids"]
    begin = words("<|assistant|>\n")["input_ids"][-1]
    end = text[0] if again else words.eos_token_id
    chain = [begin, *text, end]
    assert len(set(chain[:-1])) == len(chain) - 1, f"a token has two successors: {words.convert_ids_to_tokens(chain)}"
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), model.config.hidden_size))
        model.lm_head.weight.zero_()
        for token, following in pairwise(chain):
            model.lm_head.weight[following, token] = 10.0
