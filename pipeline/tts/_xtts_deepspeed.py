"""DeepSpeed's fused kernels in the GPT's layers, where there is a GPU and the package.

DeepSpeed's own way (``use_deepspeed`` of coqui-tts) replaces the attention, too, by one that keeps one sentence's
keys and values for the whole process, and fails inside transformers 5. Here it injects its layers, and of each the loop
uses what keeps nothing: norm and projection before the attention; norm, two layers and residuals behind it. So
DeepSpeed runs beside any version of transformers, and for as many sentences as there are.
"""

from __future__ import annotations

import copy
import logging
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor

from pipeline.engines import Settings

from ._xtts_gpt import Gpt, Layer

log = logging.getLogger(__name__)

MOST_TOKENS: Final = 2_048
"""In one call: more than the longest text with its voice."""

TOLERANCE: Final = 0.02
"""Between latents (of about 1) with and without: sums in another order, and an approximation of the GELU."""

OFF: Final = ("0", "false", "no", "off")


class InjectedLayer:
    """A layer of GPT-2 that DeepSpeed has replaced."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer

    def before(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return queries, keys and values, and the normalized input."""
        layer, attention = self._layer, self._layer.attention
        layer.allocate_workspace((1, MOST_TOKENS))
        three, normalized = attention.qkv_func(
            input=x.contiguous(),
            weight=attention.attn_qkvw,
            bias=attention.attn_qkvb,
            gamma=layer.norm_w,
            beta=layer.norm_b,
        )
        return three, normalized

    def behind(self, x: Tensor, normalized: Tensor, gathered: Tensor) -> Tensor:
        """Return what the next layer takes."""
        attention = self._layer.attention
        out = attention.vector_matmul_func(gathered.contiguous(), attention.attn_ow)
        after: Tensor = self._layer.mlp(out, x, normalized, attention.attn_ob)
        return after


def gpt_for(gpt: Any, settings: Settings) -> Gpt:
    """Return the GPT with DeepSpeed's layers if they are there and right, else with its own; the log says which."""
    plain = Gpt(gpt)
    why_not = _why_not(gpt, settings)
    if why_not is None:
        try:
            fast = Gpt(gpt, inject(gpt))
            apart = difference(plain, fast, gpt)
        except Exception as error:  # whatever its compiler, its kernels or the driver say: there is another way
            why_not = f"it fails here: {type(error).__name__}: {str(error)[:200]}"
        else:
            if apart <= TOLERANCE:
                log.info("tts xtts decodes with DeepSpeed's kernels; latents differ by %.1e from those without", apart)
                return fast
            why_not = f"its latents are wrong by {apart:.2g}"
    log.info("tts xtts decodes without DeepSpeed: %s", why_not)
    return plain


def _why_not(gpt: Any, settings: Settings) -> str | None:
    if settings.get("VOCAL_XTTS_DEEPSPEED", "").strip().lower() in OFF:
        return "VOCAL_XTTS_DEEPSPEED says so"
    device = gpt.mel_embedding.weight.device
    if device.type != "cuda":
        return "it needs a GPU"
    if device.index:
        return "it runs on the first GPU only; CUDA_VISIBLE_DEVICES makes another one the first"
    if find_spec("deepspeed") is None:
        return "it is not installed (pip install 'vocal-node[deepspeed]')"
    return None


def inject(gpt: Any) -> list[Layer]:
    """Return DeepSpeed's layers with a copy of the weights. May compile kernels, which takes minutes the first time."""
    import deepspeed

    engine = deepspeed.init_inference(
        model=copy.deepcopy(gpt.gpt),
        dtype=gpt.mel_embedding.weight.dtype,
        replace_with_kernel_inject=True,
        max_out_tokens=MOST_TOKENS,
    )
    layers = list(engine.module.h)
    if not all(hasattr(layer, "attention") for layer in layers):
        raise RuntimeError("it replaced no layers of this version of transformers")
    return [InjectedLayer(layer) for layer in layers]


def difference(plain: Gpt, fast: Gpt, gpt: Any) -> float:
    """Return how far apart two decoders' latents are after a prompt and some steps with two rows."""
    with torch.inference_mode():
        random = torch.Generator().manual_seed(0)
        voice = (torch.randn(1, 32, int(gpt.model_dim), generator=random) * 0.1).to(gpt.mel_embedding.weight)
        latents = [_latents(decoder, voice) for decoder in (plain, fast)]
        return float((latents[0] - latents[1]).abs().max())


def _latents(gpt: Gpt, voice: Tensor) -> Tensor:
    found = [gpt.begin([voice, voice], [[5, 6, 7], [8] * 20])[0]]
    found += [gpt.step([place, 2 * place], [place, place])[0] for place in range(1, 5)]
    gpt.clear()
    return torch.cat(found)
