"""Silero VAD v6, a small network that tells speech from other sound, window by window.

The ONNX file ships inside the faster-whisper package; only the file is used, the package is never imported (slow).
Model: https://github.com/snakers4/silero-vad (MIT). Input: 64 samples of left context and 512 new ones at 16 kHz,
and the recurrent state ``h`` and ``c``; output: the probability of speech.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.audio import Pcm, to_float32
from pipeline.engines import Settings, Usable
from pipeline.errors import EngineUnavailable

WINDOW_SAMPLES = 512
CONTEXT_SAMPLES = 64
STATE_SHAPE = (1, 1, 128)
MODEL_FILE = "silero_vad_v6.onnx"


class SileroVad:
    """The network, shared by all sessions; one thread, which does not spin while it waits."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._network = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.open().probability(np.zeros(WINDOW_SAMPLES, np.int16))  # the first run allocates: not in a call

    def open(self) -> SileroProbability:
        """Return one session's state."""
        return SileroProbability(self._network)


class SileroProbability:
    """The network's memory of one session's audio."""

    lingers_ms = 96

    def __init__(self, network: Any) -> None:
        self.window_samples = WINDOW_SAMPLES
        self._network = network
        self._input = np.zeros((1, CONTEXT_SAMPLES + WINDOW_SAMPLES), np.float32)
        self._h = np.zeros(STATE_SHAPE, np.float32)
        self._c = np.zeros(STATE_SHAPE, np.float32)

    def probability(self, window: Pcm) -> float:
        """Return the probability of speech in the next 32 ms."""
        self._input[0, :CONTEXT_SAMPLES] = self._input[0, WINDOW_SAMPLES:]
        self._input[0, CONTEXT_SAMPLES:] = to_float32(window)
        feeds = {"input": self._input, "h": self._h, "c": self._c}
        speech, self._h, self._c = self._network.run(None, feeds)
        return float(speech.reshape(()))


def model_path() -> Path | None:
    """Return where the network lies, None where faster-whisper is not installed or carries another one."""
    package = importlib.util.find_spec("faster_whisper")
    if package is None or package.origin is None:
        return None
    path = Path(package.origin).parent / "assets" / MODEL_FILE
    return path if path.is_file() else None


def describe(settings: Settings) -> Usable:
    """The best there is without a GPU."""
    missing = _missing()
    return Usable(100, "Silero VAD v6 on onnxruntime", lacks=missing)


def create(settings: Settings) -> SileroVad:
    """Load the network. Raises EngineUnavailable naming the package it lacks."""
    path, missing = model_path(), _missing()
    if path is None or missing is not None:
        raise EngineUnavailable(missing or "faster-whisper")
    return SileroVad(path)


def _missing() -> str | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return "pip install onnxruntime"
    return None if model_path() is not None else f"pip install 'faster-whisper>=1.2.1' (it carries {MODEL_FILE})"
