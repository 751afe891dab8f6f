"""XTTS's vocoder, a few latents at a time, and nothing vocoded twice.

HiFi-GAN is a stack of convolutions: a sample depends on 13 frames of 256 samples to either side. Instead of vocoding
that overlap again with every piece, every convolution keeps the last inputs that its next outputs need, and gives the
outputs that no later input can change. What comes out, put together, is what the whole sentence gives at once; it is
late by the 13 frames (three tokens), which the last piece makes up for.

Sentences that are in step, as many latents in and as many to come, go through it together: every tensor that is kept
has a row for each of them. How much a layer keeps depends on how much has gone in alone, not on how it was cut.

What is kept is copied (``clone``): a view would keep all of a piece in memory, 300 MB for a long one.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SLOPE = 0.1
"""Of the leaky ReLUs inside the generator; before the last convolution it has torch's default."""


class Stretch:
    """Linear interpolation to ``factor`` times as many frames, as ``functional.interpolate`` does it over the whole."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._kept: Tensor | None = None
        self._first = 0
        """Which input frame ``_kept`` begins with."""
        self._made = 0

    def push(self, frames: Tensor, last: bool) -> Tensor:
        """Take ``[rows, channels, n]``; return the frames that are certain now."""
        kept = frames if self._kept is None else torch.cat([self._kept, frames], -1)
        taken = self._first + kept.shape[-1]
        at = self._positions(taken, last).to(frames.device)
        left = at.floor().long().clamp(max=taken - 1)
        right = (left + 1).clamp(max=taken - 1)
        made = torch.lerp(kept[..., left - self._first], kept[..., right - self._first], (at - left).to(frames.dtype))
        self._made += len(at)
        first = min(taken, max(0, math.floor(self._source(self._made))))
        self._kept, self._first = kept[..., first - self._first :].clone(), first
        return made

    def _source(self, made: float) -> float:
        """Return the place in the input of an output frame (``align_corners=False``)."""
        return (made + 0.5) / self._factor - 0.5

    def _positions(self, taken: int, last: bool) -> Tensor:
        end = int(taken * self._factor)
        if not last:  # both of its neighbours are there
            end = min(end, math.ceil((taken - 0.5) * self._factor - 0.5))
        made = torch.arange(self._made, max(self._made, end), dtype=torch.float64)
        return ((made + 0.5) / self._factor - 0.5).clamp(min=0.0)


class _Waiting:
    """Samples that wait for their counterparts on a longer way."""

    def __init__(self) -> None:
        self._kept: Tensor | None = None

    def push(self, x: Tensor) -> int:
        """Add; return how many there are."""
        self._kept = x if self._kept is None else torch.cat([self._kept, x], -1)
        return int(self._kept.shape[-1])

    def take(self, samples: int) -> Tensor:
        """Remove the first ones."""
        assert self._kept is not None
        taken, self._kept = self._kept[..., :samples], self._kept[..., samples:].clone()
        return taken


class _Convolution:
    """One whose padding keeps the length: its input's last ``2 * reach`` samples are kept."""

    def __init__(self, layer: Any, rows: int) -> None:
        self._layer = layer
        self._reach = int(layer.padding[0])
        self._kept = layer.weight.new_zeros(rows, layer.in_channels, self._reach)

    def push(self, x: Tensor, last: bool) -> Tensor:
        kept = torch.cat([self._kept, x], -1)
        if last:
            kept = functional.pad(kept, (0, self._reach))
        if kept.shape[-1] <= 2 * self._reach:
            self._kept = kept
            return kept.new_zeros(len(kept), self._layer.out_channels, 0)
        self._kept = kept[..., -2 * self._reach :].clone()
        return functional.conv1d(kept, self._layer.weight, self._layer.bias, dilation=self._layer.dilation)


class _Upsampling:
    """A transposed convolution with a kernel of two strides: each block of output has two inputs, this and the last."""

    def __init__(self, layer: Any, rows: int) -> None:
        self._layer = layer
        self._stride = int(layer.stride[0])
        self._trim = self._stride // 2
        self._to_trim = self._trim
        self._kept = layer.weight.new_zeros(rows, layer.in_channels, 1)

    def push(self, x: Tensor, last: bool) -> Tensor:
        kept = torch.cat([self._kept, x], -1)
        if last:
            kept = functional.pad(kept, (0, 1))
        blocks = kept.shape[-1] - 1
        if not blocks:
            return kept.new_zeros(len(kept), self._layer.out_channels, 0)
        self._kept = kept[..., -1:].clone()
        whole = functional.conv_transpose1d(kept, self._layer.weight, self._layer.bias, self._stride)
        begin = self._stride + self._to_trim
        end = self._stride * (1 + blocks) - (self._trim if last else 0)
        self._to_trim = 0
        return whole[..., begin:end]


class _Residual:
    """A block of three pairs of convolutions, each added to what went in."""

    def __init__(self, block: Any, rows: int) -> None:
        pairs = zip(block.convs1, block.convs2, strict=True)
        self._pairs = [(_Convolution(one, rows), _Convolution(two, rows), _Waiting()) for one, two in pairs]

    def push(self, x: Tensor, last: bool) -> Tensor:
        for one, two, waiting in self._pairs:
            waiting.push(x)
            y = one.push(functional.leaky_relu(x, SLOPE), last)
            y = two.push(functional.leaky_relu(y, SLOPE), last)
            x = y + waiting.take(y.shape[-1])
        return x


class _Level:
    """Upsampling and the mean of its residual blocks, which are late by different amounts."""

    def __init__(self, upsampling: Any, blocks: list[Any], voice: Tensor) -> None:
        self._upsampling = _Upsampling(upsampling, len(voice))
        self._blocks = [(_Residual(block, len(voice)), _Waiting()) for block in blocks]
        self._voice = voice

    def push(self, x: Tensor, last: bool) -> Tensor:
        x = self._upsampling.push(functional.leaky_relu(x, SLOPE), last) + self._voice
        ready = min([waiting.push(block.push(x, last)) for block, waiting in self._blocks])
        return torch.stack([waiting.take(ready) for _, waiting in self._blocks]).mean(0)


class Vocoding:
    """Sentences in step on their way through ``decoder`` (coqui's ``HifiDecoder``), which others use meanwhile.

    ``speakers`` are their voices' embeddings, ``[rows, 512, 1]``; ``speed`` 1.0 is a voice's own tempo. To be used
    within ``torch.inference_mode()``.
    """

    def __init__(self, decoder: Any, speakers: Tensor, speed: float = 1.0) -> None:
        generator = decoder.waveform_decoder
        blocks, each = list(generator.resblocks), generator.num_kernels
        self._stretches = [Stretch(factor) for factor in _factors(decoder, speed)]
        self._first = _Convolution(generator.conv_pre, len(speakers))
        self._voice = generator.cond_layer(speakers)
        self._levels = [
            _Level(up, blocks[i * each : (i + 1) * each], _voice_of_level(generator, i, speakers))
            for i, up in enumerate(generator.ups)
        ]
        self._last = _Convolution(generator.conv_post, len(speakers))

    def push(self, latents: Tensor, last: bool) -> Tensor:
        """Take latents ``[rows, n, dim]``, none too if they are the last.

        Returns the samples (-1..1) that are certain now, ``[rows, samples]``.
        """
        x = latents.transpose(1, 2)
        for stretch in self._stretches:
            x = stretch.push(x, last)
        x = self._first.push(x, last) + self._voice
        for level in self._levels:
            x = level.push(x, last)
        return torch.tanh(self._last.push(functional.leaky_relu(x), last))[:, 0]

    def of(self, rows: Sequence[int]) -> Vocoding:
        """Return a vocoding that goes on with some of the rows and leaves this one as it is; with all, this one."""
        if len(rows) == len(self._voice):
            return self
        some: Vocoding = _with_rows(self, torch.tensor(rows, device=self._voice.device))
        return some


def _with_rows(state: Any, rows: Tensor) -> Any:
    """Copy our own objects with some rows of all that they keep; the model's layers are shared."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if isinstance(state, list | tuple):
        return type(state)(_with_rows(part, rows) for part in state)
    if type(state).__module__ != __name__:
        return state
    copied = copy.copy(state)
    for name, part in vars(state).items():
        setattr(copied, name, _with_rows(part, rows))
    return copied


def _factors(decoder: Any, speed: float) -> list[float]:
    """Return the steps in which the model itself goes from tokens to frames; each rounds its length down."""
    factors = [
        1.0 / speed,
        decoder.ar_mel_length_compression / decoder.output_hop_length,
        decoder.output_sample_rate / decoder.input_sample_rate,
    ]
    return [factor for factor in factors if factor != 1.0]


def _voice_of_level(generator: Any, level: int, speakers: Tensor) -> Tensor:
    if generator.cond_in_each_up_layer:
        voices: Tensor = generator.conds[level](speakers)
        return voices
    return speakers.new_zeros(len(speakers), 1, 1)
