"""Load an XTTS-v2 checkpoint with coqui-tts's own classes, from its weights alone: nothing in it can run code."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from pipeline import memory
from pipeline.errors import EngineUnavailable
from pipeline.torch_audio import import_torchaudio

log = logging.getLogger(__name__)

SPEAKERS: Final = "speakers_xtts.pth"

TRAINED_ONLY: Final = ("torch_mel_spectrogram_style_encoder.", "torch_mel_spectrogram_dvae.", "dvae.")
DOUBLED: Final = ("gpt.gpt_inference.", "gpt.gpt.wte.", "gpt.gpt.wpe.")
"""Weights that older checkpoints hold a second time."""
MASKS: Final = (".attn.bias", ".attn.masked_bias")
"""What older versions of transformers stored with GPT-2."""

WEIGHTS_AND_WORK: Final = 1.5
"""Times the weights are taken, with what a step computes with."""

_CODE = re.compile(r"unsupported global:? (?:GLOBAL )?([\w.]{1,80})", re.IGNORECASE)
"""How torch names what a pickle would call."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a voice is to the model: ``latents`` [1, 32, dim] for its words, ``embedding`` [1, 512, 1] for its sound."""

    latents: Tensor
    embedding: Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model ready to be used, on ``device``. ``xtts`` is coqui's ``Xtts``, ``config`` its ``XttsConfig``."""

    xtts: Any
    config: Any
    device: torch.device
    speakers: Mapping[str, Speaker]

    def fingerprint(self) -> str:
        """Hash all that a voice's latents depend on: the weights that make them, and how they are used."""
        config = self.config
        made = f"{config.gpt_cond_len} {config.gpt_cond_chunk_len} {config.max_ref_len} {config.sound_norm_refs}"
        digest = hashlib.sha256(made.encode())
        parts = ("gpt.conditioning_", "hifigan_decoder.speaker_encoder.", "mel_stats")
        for name, weight in sorted(self.xtts.state_dict().items()):
            if name.startswith(parts):
                digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
                digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(folder: Path, device: str) -> Checkpoint:
    """Load the checkpoint in ``folder``. Blocks for seconds. Raises EngineUnavailable saying what is wrong with it."""
    config_json = _config_json(folder / "config.json")
    if device == "cpu":  # before anything is loaded: a process that takes too much is killed without a word
        _require_memory((folder / "model.pth").stat().st_size, memory.free_bytes(), device)
    import_torchaudio()
    importlib.import_module("transformers").logging.set_verbosity_error()  # it warns of GPT-2's defaults, unused here
    xtts_module = importlib.import_module("TTS.tts.models.xtts")
    config = _config(xtts_module, config_json, folder)
    xtts = _empty_model(xtts_module, config, folder / "vocab.json")
    _fill(xtts, _weights(folder / "model.pth"), folder)
    where = torch.device(device)
    speakers = _speakers(folder / SPEAKERS, where)
    return Checkpoint(_placed(xtts, where), config, where, speakers)


def _config_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"{path} cannot be read: {error}") from error
    model = config.get("model") if isinstance(config, dict) else None
    if model != "xtts":
        raise EngineUnavailable(
            f"{path} is of another model ({str(model)[:40]!r}): XTTS_MODEL_PATH needs an XTTS-v2 one"
        )
    assert isinstance(config, dict)
    return config


def _config(xtts_module: Any, config_json: dict[str, Any], folder: Path) -> Any:
    config = xtts_module.XttsConfig()
    try:
        config.from_dict(config_json)
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineUnavailable(f"{folder / 'config.json'} is no configuration of XTTS: {error}") from error
    if not config.model_args.gpt_use_perceiver_resampler:
        raise EngineUnavailable(f"{folder} holds an XTTS-v1 model: XTTS_MODEL_PATH needs an XTTS-v2 one")
    return config


def _empty_model(xtts_module: Any, config: Any, vocabulary: Path) -> Any:
    """Build the model once, in the size of its vocabulary (``load_checkpoint`` of the library builds it twice)."""
    try:
        tokenizer = xtts_module.VoiceBpeTokenizer(vocab_file=vocabulary)
    except Exception as error:  # the Rust library raises nothing narrower
        raise EngineUnavailable(f"{vocabulary} is no vocabulary of XTTS: {error}") from error
    args = config.model_args
    args.gpt_number_text_tokens = tokenizer.get_number_tokens()
    args.gpt_start_text_token = tokenizer.tokenizer.token_to_id("[START]")
    args.gpt_stop_text_token = tokenizer.tokenizer.token_to_id("[STOP]")
    if args.gpt_start_text_token is None or args.gpt_stop_text_token is None:
        raise EngineUnavailable(f"{vocabulary} is no vocabulary of XTTS: it has no [START] and [STOP]")
    xtts = xtts_module.Xtts(config)
    xtts.tokenizer = tokenizer
    return xtts


def read_weights(path: Path) -> Any:
    """Unpickle tensors and plain containers, and the configuration's classes, which the released checkpoint holds.

    Raises EngineUnavailable where more is needed: a pickle may run any code.
    """
    with torch.serialization.safe_globals(list(_known_classes())):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # what is no pickle at all makes the unpickler raise anything
            code = _CODE.search(str(error))
            if code is None:
                why = (str(error).splitlines() or [type(error).__name__])[0][:160]
                raise EngineUnavailable(f"{path} is damaged, or no checkpoint: {why}") from error
            refused = f"{path} is refused: it holds more than weights, and {code[1]} would be run to read it"
            raise EngineUnavailable(f"{refused}; save its state dict again as tensors only") from error


def _known_classes() -> Iterator[tuple[type, str]]:
    """Yield the dataclasses of the configuration under all names they have had."""
    now: Any = importlib.import_module("TTS.tts.configs.xtts_config")
    shared: Any = importlib.import_module("TTS.config.shared_configs")
    for known in (now.XttsArgs, now.XttsAudioConfig):
        yield known, f"TTS.tts.models.xtts.{known.__name__}"
        yield known, f"TTS.tts.configs.xtts_config.{known.__name__}"
    yield now.XttsConfig, "TTS.tts.configs.xtts_config.XttsConfig"
    yield shared.BaseDatasetConfig, "TTS.config.shared_configs.BaseDatasetConfig"


def _weights(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    weights = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise EngineUnavailable(f"{path} holds no weights of a model")
    named = {str(name).removeprefix("xtts."): weight for name, weight in weights.items()}
    unused = {name for name in named if name.startswith((*TRAINED_ONLY, *DOUBLED)) or name.endswith(MASKS)}
    return {name: weight for name, weight in named.items() if name not in unused}


def _fill(xtts: Any, weights: dict[str, Tensor], folder: Path) -> None:
    try:
        xtts.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        why = str(error).splitlines()[1:2] or [str(error)]
        raise EngineUnavailable(
            f"{folder / 'model.pth'} does not fit its config.json; it is incomplete or of another model: "
            f"{why[0].strip()[:200]}"
        ) from error


def _placed(xtts: Any, device: torch.device) -> Any:
    needed = sum(weight.nbytes for weight in xtts.state_dict().values())
    if device.type == "cuda":
        _require_memory(needed, torch.cuda.mem_get_info(device)[0], str(device))
    _drop_weight_norm(xtts.hifigan_decoder.waveform_decoder)
    return torch.nn.Module.eval(xtts.to(device).requires_grad_(False))


def _require_memory(weight_bytes: int, free_bytes: float, where: str) -> None:
    elsewhere = "" if where == "cpu" else ", or set VOCAL_XTTS_DEVICE=cpu"
    memory.require("tts xtts", WEIGHTS_AND_WORK * weight_bytes, free_bytes, where, f"free some{elsewhere}")


def _drop_weight_norm(generator: Any) -> None:
    """Multiply the norms into the weights once, instead of in every convolution every time."""
    parametrize = torch.nn.utils.parametrize
    for module in list(generator.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")


def _speakers(path: Path, device: torch.device) -> dict[str, Speaker]:
    if not path.is_file():
        return {}
    content = read_weights(path)
    try:
        return {
            str(name): Speaker(
                entry["gpt_cond_latent"].float().to(device), entry["speaker_embedding"].float().to(device)
            )
            for name, entry in content.items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise EngineUnavailable(f"{path} holds no speakers of XTTS-v2: {error!r}") from error
