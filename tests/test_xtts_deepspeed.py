"""DeepSpeed's injected layers in the decoding loop, with the operators it falls back to where it has no GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.xtts_checkpoint import MAX_TOKENS, narrow_vocoder, write_checkpoint  # skips this file without the extra

# isort: split
import torch

from pipeline.tts import _xtts_deepspeed as deepspeed_layers
from pipeline.tts import _xtts_model as model
from pipeline.tts._xtts_gpt import Gpt, Layer, Sampling
from pipeline.tts._xtts_speech import Sentence, Speech

GREEDY = Sampling(temperature=0.75, top_k=1, top_p=1.0, repetition=5.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[model.Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        narrow_vocoder(patch)
        yield model.load(write_checkpoint(tmp_path_factory.mktemp("xtts")), "cpu")


@pytest.fixture(scope="module")
def injected(checkpoint: model.Checkpoint) -> Iterator[list[Layer]]:
    """Let DeepSpeed believe that its compiled module is there, but empty: it takes its fallback operators then."""
    pytest.importorskip("deepspeed", reason="the extra deepspeed is not installed: pip install 'vocal-node[deepspeed]'")
    from deepspeed.ops.transformer.inference.op_binding.base import BaseOp

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseOp, "inference_module", object())
        yield deepspeed_layers.inject(checkpoint.xtts.gpt)


def spoken(checkpoint: model.Checkpoint, gpt: Gpt, texts: list[str]) -> list[Sentence]:
    speech = Speech(gpt, checkpoint.xtts.hifigan_decoder, GREEDY, 4)
    encode, speaker = checkpoint.xtts.tokenizer.encode, checkpoint.speakers["Alpha Tester"]
    said = [Sentence(encode(text, lang="en"), speaker, 1.0, 0) for text in texts]
    for one in said:
        speech.open(one)
        speech.step()
    for _ in range(MAX_TOKENS):
        speech.step()
    assert all(one.ended and one.error is None for one in said)
    return said


def test_injected_layers_speak_the_same_for_several_sentences_at_once(
    checkpoint: model.Checkpoint, injected: list[Layer]
) -> None:
    gpt = checkpoint.xtts.gpt
    assert all(isinstance(layer, deepspeed_layers.InjectedLayer) for layer in injected)
    assert len(injected) == gpt.layers
    assert deepspeed_layers.difference(Gpt(gpt), Gpt(gpt, injected), gpt) < 1e-2
    texts = ["hello there", "the quick brown fox jumps", "how are you today? " * 5]
    plain, fast = spoken(checkpoint, Gpt(gpt), texts), spoken(checkpoint, Gpt(gpt, injected), texts)
    for one, other in zip(plain, fast, strict=True):
        alike = sum(a == b for a, b in zip(one.tokens, other.tokens, strict=True))
        assert alike > 0.9 * MAX_TOKENS  # another GELU decides where two tokens are as likely
        assert len(np.concatenate(one.pieces)) == len(np.concatenate(other.pieces))


class WrongLayer:
    """Forgets what went in."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer

    def before(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._layer.before(x)

    def behind(self, x: torch.Tensor, normalized: torch.Tensor, gathered: torch.Tensor) -> torch.Tensor:
        return self._layer.behind(x, normalized, gathered) - x


@pytest.mark.parametrize("what", ["right", "wrong", "failing", "off", "absent"])
def test_the_log_says_plainly_whether_it_is_used_and_why_not(
    checkpoint: model.Checkpoint,
    injected: list[Layer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
) -> None:
    def inject(_: Any) -> list[Layer]:
        if what == "failing":
            raise RuntimeError("nvcc is missing")
        return [WrongLayer(layer) for layer in injected] if what == "wrong" else injected

    monkeypatch.setattr(deepspeed_layers, "inject", inject)
    if what in ("right", "wrong", "failing"):
        monkeypatch.setattr(deepspeed_layers, "_why_not", lambda gpt, settings: None)
    settings = {"VOCAL_XTTS_DEEPSPEED": "0"} if what == "off" else {}
    with caplog.at_level(logging.INFO):
        gpt = deepspeed_layers.gpt_for(checkpoint.xtts.gpt, settings)
    assert isinstance(gpt._layers[0], deepspeed_layers.InjectedLayer) == (what == "right")
    line = {
        "right": "with DeepSpeed's kernels",
        "wrong": "without DeepSpeed: its latents are wrong",
        "failing": "without DeepSpeed: it fails here: RuntimeError: nvcc is missing",
        "off": "without DeepSpeed: VOCAL_XTTS_DEEPSPEED says so",
        "absent": "without DeepSpeed: it needs a GPU",
    }[what]
    assert [line in record.getMessage() for record in caplog.records] == [True]
