"""How much memory a model takes, and how much is there."""

from __future__ import annotations

from typing import Any

from pipeline import memory
from pipeline.memory import GIB

from ._batch import Limits
from ._checkpoint import Checkpoint

CUDA_WORK_BYTES = 1 * GIB
CPU_WORK_BYTES = GIB // 4
"""For what a step computes with, besides weights and cache."""

CACHE_SHARE = 0.8
"""Of the memory that is left, what the cache of conversations may take."""

CUDA_STEP_TOKENS = 2048
CPU_STEP_TOKENS = 256
"""Of prompts, read in one step: what the other calls wait for."""


def limits(
    checkpoint: Checkpoint, name: str, *, config: Any, device: Any, item_bytes: int, bits: int, calls: int, context: int
) -> Limits:
    """Share what is free out: weights first, then a cache for up to ``calls`` conversations of ``context`` tokens.

    ``item_bytes`` is the size of a number that is computed with; ``bits`` (4 or 8) that of a quantized weight, or 0.
    Raises EngineUnavailable, which says what is needed, where not even one conversation fits.
    """
    cuda = device.type == "cuda"
    weights = weight_bytes(checkpoint, item_bytes, bits) + (CUDA_WORK_BYTES if cuda else CPU_WORK_BYTES)
    each_token = token_bytes(config, item_bytes)
    free = free_bytes(device)
    smaller = "" if bits or checkpoint.quantized or not cuda else ", set VOCAL_TRANSFORMERS_BITS=4"
    instead = f"free some{smaller} or set VOCAL_TRANSFORMERS_MODEL to a smaller one"
    memory.require(name, weights + each_token * context / CACHE_SHARE, free, str(device), instead)
    tokens = min(calls * context, int((free - weights) * CACHE_SHARE / each_token))
    return Limits(calls, tokens, CUDA_STEP_TOKENS if cuda else CPU_STEP_TOKENS)


def weight_bytes(checkpoint: Checkpoint, item_bytes: int, bits: int) -> int:
    """Return what the weights take once they are loaded."""
    if checkpoint.quantized:
        return checkpoint.stored_bytes
    if not bits:
        return checkpoint.parameters * item_bytes
    # Linear layers shrink, with a constant for each 64 weights; what turns tokens into vectors and back does not.
    both_ends = 2 * int(checkpoint.config.get("vocab_size", 0)) * int(checkpoint.config.get("hidden_size", 0))
    linear = max(0, checkpoint.parameters - both_ends)
    return int(linear * (bits + 0.5) / 8) + min(both_ends, checkpoint.parameters) * item_bytes


def token_bytes(config: Any, item_bytes: int) -> int:
    """Return what one token of a conversation takes in the cache: a key and a value in each layer."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return int(text.num_hidden_layers * heads * head_size * 2 * item_bytes)


def free_bytes(device: Any) -> float:
    """Return the memory that a process may still take on this device."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return memory.free_bytes()
