"""A language model in this process, by Hugging Face's transformers: any causal chat model, on a GPU or a CPU.

Settings: ``VOCAL_TRANSFORMERS_MODEL`` (a hub's id or a directory), ``HUGGINGFACE_API_KEY`` (for gated ones),
``ENABLE_LOCAL_MODEL`` (0 switches this engine off), ``VOCAL_TRANSFORMERS_BITS`` (4 or 8: quantized by bitsandbytes),
``VOCAL_TRANSFORMERS_DEVICE``, ``VOCAL_TRANSFORMERS_DTYPE``, ``VOCAL_TRANSFORMERS_TEMPERATURE`` (0: always the likeliest
word), ``VOCAL_TRANSFORMERS_MAX_TOKENS`` (of an answer), ``VOCAL_TRANSFORMERS_CONTEXT_TOKENS`` (of a conversation, the
answer included) and ``VOCAL_TRANSFORMERS_CALLS`` (how many are answered at once). A model that is not here is
downloaded (`pipeline.models`); `pipeline.model_hub` says where it lies and what forbids that.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pipeline import model_hub, models
from pipeline.engines import Settings, Usable, number
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.events import Message
from pipeline.model_hub import readable
from pipeline.models import Model
from pipeline.tasks import closing

from . import _checkpoint

if TYPE_CHECKING:
    from ._batch import Batch
    from ._chat import Chat
    from ._model import Options

log = logging.getLogger(__name__)

MODEL = _checkpoint.LLAMA
GATED = ("meta-llama/", "google/gemma", "mistralai/")
"""Whose models are only given to those who have asked, so that it can be said before the hub is asked."""

INSTALL = "pip install vocal-node[transformers]"
LIBRARIES = ("torch", "transformers", "accelerate")

RANK = 40
"""Below a cloud's with a key, above what is no model."""

TEMPERATURE = 0.7
MAX_TOKENS = 256
CONTEXT_TOKENS = 4096
CALLS = 16


class TransformersLanguageModel:
    """One model for all sessions: their answers are made side by side."""

    def __init__(self, chat: Chat, batch: Batch) -> None:
        self._chat = chat
        self._batch = batch
        self.close = batch.close

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield text as it is made, never half a character. Closing stops the model after the token it is at.

        Of a conversation that is too long the oldest messages are left out. Raises EngineError, and Overloaded where
        too many answers are open.
        """
        words = self._chat.words()
        spoke = False
        async with closing(self._batch.tokens(lambda: self._chat.prompt(messages))) as tokens:
            async for token in tokens:
                if delta := words.add(token):
                    spoke = spoke or not delta.isspace()
                    yield delta
        if rest := words.rest():
            spoke = spoke or not rest.isspace()
            yield rest
        if not spoke:
            raise EngineError("llm transformers: the model gave no words; VOCAL_TRANSFORMERS_MODEL names another")


def model(settings: Settings, name: str = "") -> Model:
    """Return the model that would be run, or another one by its name. Raises EngineUnavailable."""
    return _checkpoint.described(name or settings.get(_checkpoint.SETTING, "").strip() or MODEL)


def describe(settings: Settings) -> Usable:
    """Chosen by itself on a machine with a GPU that has the model, and wherever one is named. Imports nothing heavy."""
    named = settings.get(_checkpoint.SETTING, "").strip()
    try:
        wanted = model(settings)
    except EngineUnavailable as error:
        return Usable(RANK, f"{named} on this machine", _switched_off(settings) or str(error), heavy=True)
    here = not wanted.repository or model_hub.cached(wanted.repository, settings) is not None
    rank = RANK if named or (here and _has_gpu(settings)) else -1
    size = f" ({readable(wanted.known.size_bytes)})" if wanted.known else ""
    note = f"{wanted.name} on this machine" + ("" if here else f", downloaded when first used{size}")
    return Usable(rank, note, _lacks(wanted, here, settings), heavy=True)


def _switched_off(settings: Settings) -> str | None:
    if settings.get("ENABLE_LOCAL_MODEL", "").strip().lower() in ("0", "false", "no", "off"):
        return "ENABLE_LOCAL_MODEL=true: local language models are switched off"
    return None


def _lacks(wanted: Model, here: bool, settings: Settings) -> str | None:
    if off := _switched_off(settings):
        return off
    if any(find_spec(library) is None for library in LIBRARIES):
        return INSTALL
    if here:
        return None
    if not models.may_fetch(wanted, settings):
        return models.lacks(wanted, settings)
    if wanted.name.startswith(GATED) and model_hub.token(settings) is None:
        return f"HUGGINGFACE_API_KEY: {wanted.name} is gated; or {_checkpoint.SETTING}, to name one that is not"
    return None


def _has_gpu(settings: Settings) -> bool:
    """Tell whether there is an NVIDIA driver, which costs nothing; torch would take seconds to say more."""
    hidden = settings.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    return not hidden and any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg"))


def create(settings: Settings) -> TransformersLanguageModel:
    """Load the model, downloading it first if need be, and answer once. Blocks for seconds to minutes.

    Raises EngineUnavailable for what is missing, incomplete, too big or not a chat model.
    """
    options = _options(settings)
    if (missing := describe(settings).lacks) is not None:
        raise EngineUnavailable(missing)
    began_s = time.perf_counter()
    checkpoint = _checkpoint.read(models.get(model(settings), settings), options.name)
    log.info("llm transformers: loading %s, %.1fe9 parameters", options.name, checkpoint.parameters / 1e9)
    from ._model import load

    chat, batch = load(checkpoint, options)
    log.info("llm transformers: %s answered after %.1f s", options.name, time.perf_counter() - began_s)
    return TransformersLanguageModel(chat, batch)


def _options(settings: Settings) -> Options:
    from ._model import DTYPES, Options

    max_tokens = int(number(settings, "VOCAL_TRANSFORMERS_MAX_TOKENS", MAX_TOKENS, least=1))
    return Options(
        name=settings.get(_checkpoint.SETTING, "").strip() or MODEL,
        device=_one_of(settings, "VOCAL_TRANSFORMERS_DEVICE", r"cpu|mps|cuda(:\d+)?", "cpu, cuda, cuda:1, ... or mps"),
        dtype=_one_of(settings, "VOCAL_TRANSFORMERS_DTYPE", "|".join(DTYPES), ", ".join(DTYPES)),
        bits=int(_one_of(settings, "VOCAL_TRANSFORMERS_BITS", "4|8", "4 or 8") or 0),
        temperature=number(settings, "VOCAL_TRANSFORMERS_TEMPERATURE", TEMPERATURE),
        max_tokens=max_tokens,
        context_tokens=int(
            number(settings, "VOCAL_TRANSFORMERS_CONTEXT_TOKENS", CONTEXT_TOKENS, least=max_tokens + 64)
        ),
        calls=int(number(settings, "VOCAL_TRANSFORMERS_CALLS", CALLS, least=1)),
    )


def _one_of(settings: Settings, name: str, pattern: str, known: str) -> str:
    value = settings.get(name, "").strip().lower()
    if value and not re.fullmatch(pattern, value):
        raise EngineUnavailable(f"{name} must be {known}, not {value!r:.40}")
    return value
