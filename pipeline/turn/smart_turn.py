"""Smart Turn v3: a small network that hears whether somebody has finished, in 23 languages, whatever the words.

Whisper tiny's encoder with a head that tells the probability of an end (https://github.com/pipecat-ai/smart-turn, BSD
2-Clause, 8.7 MB), on onnxruntime. It hears the last 8 s of the turn, silence in front of what is shorter.

Settings:

- ``VOCAL_SMART_TURN_MODEL``: a hub id, a folder, or an ONNX file of the same shape; by default the released one.
- ``VOCAL_SMART_TURN_THREADS``: turns judged at once (half of the cores, at most 4), 100 ms of a core each.

A model that is not here is downloaded where the engine is named (`pipeline.models`); ``auto`` takes one that is.
"""

from __future__ import annotations

import importlib.util
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline import model_hub, models
from pipeline.audio import SPEECH_RATE_HZ, Pcm, to_float32
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineUnavailable
from pipeline.model_hub import readable
from pipeline.models import Known, Model
from pipeline.threads import EngineThreads, run_in_thread

from ._log_mel import BANDS, HOP_SAMPLES, log_mel

RANK: Final = 50
"""Above the heuristic."""
SETTING: Final = "VOCAL_SMART_TURN_MODEL"
REPOSITORY: Final = "pipecat-ai/smart-turn-v3"
FILE: Final = "smart-turn-v3.2-cpu.onnx"
SAMPLES: Final = 8 * SPEECH_RATE_HZ
SHAPE: Final = (BANDS, SAMPLES // HOP_SAMPLES)
INPUT: Final = "input_features"
MISSING: Final = "pip install onnxruntime"


class SmartTurnEndOfTurn:
    """The network, shared by all sessions; each judgment takes one thread, which does not spin while it waits."""

    reads_words = False

    def __init__(self, network: Any, threads: EngineThreads) -> None:
        self._network = network
        self._threads = threads
        self.close = threads.close

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        """Return the network's probability that the turn is over. Canceling returns at once."""
        return await run_in_thread(self._threads, partial(judge, self._network, audio_tail))


def judge(network: Any, audio_tail: Pcm) -> float:
    """Return the probability of an end. Blocks for about 100 ms."""
    [probability, *_] = network.run(None, {INPUT: features(audio_tail)[None]})
    return float(np.reshape(probability, -1)[0])


def features(audio_tail: Pcm) -> NDArray[np.float32]:
    """Return what the network hears of the last 8 s, the sound at their end: zero mean, unit variance, log-mel."""
    sound = np.zeros(SAMPLES, np.float32)
    kept = audio_tail[-SAMPLES:]
    sound[SAMPLES - len(kept) :] = to_float32(kept)
    return log_mel((sound - sound.mean()) / np.sqrt(sound.var() + 1e-7))


def model(settings: Settings, name: str = "") -> Model:
    """Return the model that would be run, or another one by its name. Raises EngineUnavailable."""
    name = name or settings.get(SETTING, "").strip() or REPOSITORY
    is_here = Path(name).expanduser().exists()
    if not is_here and model_hub.ID.fullmatch(name) is None:
        raise EngineUnavailable(f"{SETTING} that is an ONNX file, a folder or a hub id, not {name!r:.100}")
    return Model(
        engine="smart_turn",
        name=name,
        repository="" if is_here else name,
        files=(FILE,),
        setting=SETTING,
        check=_file,
        needs="a CPU",
        known=Known(8_700_000, "BSD 2-Clause") if name == REPOSITORY else None,
        marker=FILE,
    )


def _file(place: Path) -> Path:
    """Return the network's file. Raises EngineUnavailable where there is none."""
    file = place if place.is_file() else place / FILE
    if not file.is_file():
        raise EngineUnavailable(f"{FILE}, which {place} does not have")
    return file


def describe(settings: Settings) -> Usable:
    """Chosen by itself where its model is here or one is named. Looks for files only."""
    if importlib.util.find_spec("onnxruntime") is None:
        return Usable(RANK, "Smart Turn v3 on onnxruntime", MISSING)
    try:
        wanted = model(settings)
    except EngineUnavailable as error:
        return Usable(RANK, "Smart Turn v3 on onnxruntime", str(error))
    lacks, note = models.lacks(wanted, settings), f"Smart Turn, {wanted.name}"
    if lacks is not None and models.may_fetch(wanted, settings):
        size = f" ({readable(wanted.known.size_bytes)})" if wanted.known else ""
        note, lacks, here = f"{note}, downloaded when first used{size}", None, False
    else:
        here = lacks is None
    return Usable(RANK if here or settings.get(SETTING) else -1, note, lacks)


def create(settings: Settings) -> SmartTurnEndOfTurn:
    """Load the network, downloading it first if need be, and judge once. Raises EngineUnavailable."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise EngineUnavailable(MISSING)
    at_once = max(1, min(4, (os.cpu_count() or 1) // 2))
    workers = int(number(settings, "VOCAL_SMART_TURN_THREADS", at_once, least=1))
    network = _loaded(_file(models.get(model(settings), settings)))
    return SmartTurnEndOfTurn(network, EngineThreads("smart turn", workers))


def _loaded(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        network = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        taken = {one.name: tuple(one.shape[1:]) for one in network.get_inputs()}
    except Exception as error:  # of its library's own kinds, which share no other base
        raise EngineUnavailable(f"a network that can be loaded, which {file} is not: {error}") from error
    if taken != {INPUT: SHAPE}:
        raise EngineUnavailable(f"a network that takes {INPUT} of {SHAPE}, as Smart Turn v3 does: {file} takes {taken}")
    judge(network, np.zeros(0, np.int16))  # the first run allocates: not in a call
    return network
