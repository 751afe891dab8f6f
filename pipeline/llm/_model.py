"""Load a chat model and its tokenizer from disk; imports torch and transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from pipeline.errors import EngineUnavailable
from pipeline.events import Message
from pipeline.torch_audio import import_torchaudio

from ._batch import Batch
from ._chat import Chat
from ._checkpoint import Checkpoint
from ._memory import limits

log = logging.getLogger(__name__)

DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Options:
    """What the settings say. An empty ``device`` or ``dtype`` is the machine's best; ``bits`` is 0, 4 or 8."""

    name: str
    device: str
    dtype: str
    bits: int
    temperature: float
    max_tokens: int
    context_tokens: int
    calls: int


def load(checkpoint: Checkpoint, options: Options) -> tuple[Chat, Batch]:
    """Load it, run it once, and return its two halves. Blocks. Raises EngineUnavailable in one line."""
    import torch

    import_torchaudio()
    from transformers import AutoTokenizer

    _quiet()
    with _in_words(options.name):
        config = _config(checkpoint, options.name)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    device = _device(options.device)
    dtype = getattr(torch, options.dtype or _dtype(device))
    context = min(options.context_tokens, getattr(config.get_text_config(), "max_position_embeddings", 1 << 30))
    chat = Chat(tokenizer, context - options.max_tokens, options.name)
    fits = limits(
        checkpoint,
        options.name,
        config=config,
        device=device,
        item_bytes=dtype.itemsize,
        bits=options.bits,
        calls=options.calls,
        context=context,
    )
    with _in_words(options.name):
        model = _weights(checkpoint, config, options, device, dtype)
        batch = Batch(model, _generation(model, tokenizer, options), fits)
    _warm(chat, batch, options.name)
    return chat, batch


def _quiet() -> None:
    """Say errors only: what these libraries log below has pieces of prompts in it."""
    from transformers.utils import logging as library

    library.set_verbosity_error()
    library.disable_progress_bar()
    for chatty in ("ContinuousBatchingLogger", "bitsandbytes"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Turn what the libraries raise while they load into one line."""
    import torch

    try:
        yield
    except EngineUnavailable:
        raise
    except torch.OutOfMemoryError:
        raise EngineUnavailable(f"memory: {name} did not fit; free some or set VOCAL_TRANSFORMERS_BITS=4") from None
    except Exception as error:
        log.debug("loading %s", name, exc_info=True)
        first = (str(error).strip().splitlines() or [""])[0]
        raise EngineUnavailable(
            f"another model: {name} cannot be loaded ({type(error).__name__}: {first:.300})"
        ) from None


def _config(checkpoint: Checkpoint, name: str) -> Any:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    kind = checkpoint.config.get("model_type")
    if kind not in CAUSAL and "auto_map" in checkpoint.config:
        raise EngineUnavailable(f"another model: {name} brings its own code, which is not run")
    written = checkpoint.config.get("architectures") or [CAUSAL.get(kind)]
    known = {one for names in CAUSAL.values() for one in ([names] if isinstance(names, str) else names)}
    if not set(written) & known:
        raise EngineUnavailable(f"a model that answers: {name} is no causal language model ({written[0]})")
    return AutoConfig.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)


def _device(wanted: str) -> Any:
    import torch

    device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and (device.index or 0) >= (there := torch.cuda.device_count()):
        raise EngineUnavailable(f"a GPU that torch can use: VOCAL_TRANSFORMERS_DEVICE is {wanted}, there are {there}")
    if device.type == "cpu":
        # One core stays with the calls: a thread that must wait for its core holds up all others at every layer.
        torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) - 1)))
    return device


def _dtype(device: Any) -> str:
    """Half the memory where the hardware computes in it; on most CPUs it only costs time."""
    import torch

    if device.type != "cuda":
        return "float32"
    return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"


def _weights(checkpoint: Checkpoint, config: Any, options: Options, device: Any, dtype: Any) -> Any:
    from transformers import AutoModelForCausalLM

    model, report = AutoModelForCausalLM.from_pretrained(
        checkpoint.folder,
        config=config,
        dtype=dtype,
        device_map={"": device},
        attn_implementation="sdpa",
        quantization_config=_quantization(checkpoint, options.bits, dtype),
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        raise EngineUnavailable(f"the whole model: {options.name} lacks {len(missing)} weights, such as {missing[0]}")
    return model.eval()


def _quantization(checkpoint: Checkpoint, bits: int, dtype: Any) -> Any:
    if not bits or checkpoint.quantized:
        return None
    if find_spec("bitsandbytes") is None:
        raise EngineUnavailable(f"pip install bitsandbytes, for VOCAL_TRANSFORMERS_BITS={bits}")
    from transformers import BitsAndBytesConfig

    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _generation(model: Any, tokenizer: Any, options: Options) -> Any:
    """Sample as the model's makers do, at our temperature; stop where either of the two says that a turn ends."""
    from transformers import GenerationConfig

    theirs = model.generation_config
    written = theirs.eos_token_id if isinstance(theirs.eos_token_id, list) else [theirs.eos_token_id]
    ends = {end for end in [*written, tokenizer.eos_token_id] if end is not None}
    if not ends:
        raise EngineUnavailable(f"another model: {options.name} does not say which token ends an answer")
    sampling = {"temperature": options.temperature, "top_p": theirs.top_p, "top_k": theirs.top_k}
    return GenerationConfig(
        eos_token_id=sorted(ends),
        pad_token_id=min(ends),
        max_new_tokens=options.max_tokens,
        do_sample=options.temperature > 0,
        **(sampling if options.temperature > 0 else {}),
    )


def _warm(chat: Chat, batch: Batch, name: str) -> None:
    """Answer once, so that what happens only once does not happen to the first caller."""
    try:
        with _in_words(name):
            batch.try_out(chat.prompt([Message("system", "You are on the phone."), Message("user", "Hello!")]))
    except BaseException:
        batch.close()
        raise
