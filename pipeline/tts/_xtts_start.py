"""What the settings and the machine make of XTTS: where it runs, how it draws, how many sentences at once."""

from __future__ import annotations

import logging
import os
import re
from typing import Any, Final

import torch

from pipeline.engines import Settings, number
from pipeline.errors import EngineUnavailable

from ._xtts_gpt import Gpt, Sampling
from ._xtts_model import Checkpoint, Speaker
from ._xtts_speech import Sentence, Speech

log = logging.getLogger(__name__)

STREAMS_CUDA: Final = 32
STREAMS_CPU: Final = 4
MEMORY_SHARE: Final = 0.6
"""Of what is free once the model is loaded: the vocoder takes 64 MB a sentence, a quarter of its keys and values."""

WARM_STEPS: Final = 12
"""Through the first pieces, in which most kernels are chosen."""


def device(settings: Settings) -> str:
    """Return the device to use, and set torch up for it. Raises EngineUnavailable for one that is not there."""
    wanted = settings.get("VOCAL_XTTS_DEVICE", "").strip().lower()
    if wanted and not re.fullmatch(r"cpu|cuda(:\d+)?", wanted):
        raise EngineUnavailable(f"VOCAL_XTTS_DEVICE must be cpu, cuda or cuda:1, ..., not {wanted[:20]!r}")
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= torch.cuda.device_count():
        found = f"torch {torch.__version__} finds {torch.cuda.device_count()} GPUs"
        raise EngineUnavailable(f"VOCAL_XTTS_DEVICE={wanted} is not there: {found}")
    # half of them: where all cores spin for each other, a step takes many times as long
    torch.set_num_threads(int(number(settings, "VOCAL_XTTS_THREADS", max(1, (os.cpu_count() or 2) // 2), least=1)))
    torch.set_float32_matmul_precision("high")
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def sampling(config: Any, settings: Settings) -> Sampling:
    """Return how tokens are drawn: as the checkpoint's configuration says, at another temperature if one is set."""
    temperature = number(settings, "VOCAL_XTTS_TEMPERATURE", float(config.temperature), least=0.01)
    return Sampling(temperature, max(1, int(config.top_k)), float(config.top_p), float(config.repetition_penalty))


def streams(checkpoint: Checkpoint, gpt: Gpt, settings: Settings) -> int:
    """Return how many sentences are spoken at once: as many as are asked for, fewer where memory is short."""
    cuda = checkpoint.device.type == "cuda"
    wanted = int(number(settings, "VOCAL_XTTS_STREAMS", STREAMS_CUDA if cuda else STREAMS_CPU, least=1))
    if not cuda:
        return wanted
    free, _ = torch.cuda.mem_get_info(checkpoint.device)
    fit = int(free * MEMORY_SHARE / gpt.row_bytes())
    if fit < wanted:
        log.info("tts xtts: GPU memory is enough for %d sentences at once, not %d", max(1, fit), wanted)
    return max(1, min(wanted, fit))


def warm(speech: Speech, checkpoint: Checkpoint) -> None:
    """Speak a few steps, so that the first caller does not wait for what happens once."""
    dim = int(checkpoint.config.model_args.gpt_n_model_channels)
    nobody = Speaker(
        torch.zeros(1, 32, dim, device=checkpoint.device), torch.zeros(1, 512, 1, device=checkpoint.device)
    )
    sentence = Sentence([1, 1, 1], nobody, 1.0, 0)
    speech.open(sentence)
    for _ in range(WARM_STEPS):
        speech.step()
    if sentence.error is not None:
        raise EngineUnavailable(str(sentence.error))
    sentence.closed = True
    speech.step()
