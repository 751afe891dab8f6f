"""A network in Smart Turn's shape, written as ONNX by hand: what the real library loads, offline.

It weighs every feature of every moment, and takes the sum's sigmoid. The format: onnx.proto3 of ONNX 1.13, in the
wire format of protocol buffers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SHAPE = (80, 800)
FLOAT = 1
"""A tensor of single precision."""
INTEGER = 2
"""An attribute that is one."""
LENGTH = 2
"""A field whose length goes before it."""
IR_VERSION, OPSET = 8, 13


def build(file: Path, weights: NDArray[np.float32] | None = None, shape: tuple[int, int] = SHAPE) -> Path:
    """Write a network with ``weights`` of that shape, or random ones; return its file."""
    if weights is None:
        weights = np.random.default_rng(1).normal(0, 0.01, shape).astype(np.float32)
    matrix = weights.reshape(-1, 1)
    tensor = _number(1, matrix.size) + _number(1, 1) + _number(2, FLOAT) + _text(8, "weights") + _bytes(9, matrix)
    graph = b"".join(
        [
            _message(
                1, _node("Flatten", ["input_features"], "flat", _text(1, "axis") + _number(3, 1) + _number(20, INTEGER))
            ),
            _message(1, _node("MatMul", ["flat", "weights"], "sum")),
            _message(1, _node("Sigmoid", ["sum"], "logits")),
            _text(2, "tiny smart turn"),
            _message(5, tensor),
            _message(11, _value("input_features", *shape)),
            _message(12, _value("logits", 1)),
        ]
    )
    model = _number(1, IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _number(2, OPSET))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model)
    return file


def _node(kind: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    named = b"".join(_text(1, name) for name in inputs)
    return named + _text(2, output) + _text(4, kind) + (_message(5, attribute) if attribute else b"")


def _value(name: str, *sizes: int) -> bytes:
    """Describe an input or output; its first axis may have any size."""
    axes = _message(1, _text(2, "N")) + b"".join(_message(1, _number(1, size)) for size in sizes)
    return _text(1, name) + _message(2, _message(1, _number(1, FLOAT) + _message(2, axes)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode())


def _bytes(field: int, array: NDArray[np.float32]) -> bytes:
    return _message(field, array.astype("<f4").tobytes())


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
