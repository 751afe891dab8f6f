"""A model's files: where they are, whether all of them are there, and how much memory they take.

Only weights in safetensors are read: a pickle runs whatever code it holds, and so does a model that brings its own.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import model_hub
from pipeline.errors import EngineUnavailable
from pipeline.models import Known, Model

FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")
"""What is downloaded: never a pickle, never code."""

SETTING = "VOCAL_TRANSFORMERS_MODEL"

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
KNOWN = {LLAMA: Known(16_070_000_000, "Llama 3.1 Community License")}

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A complete model on disk. ``stored_bytes`` is the size of ``parameters`` as they are stored."""

    folder: Path
    config: dict[str, Any]
    parameters: int
    stored_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether it was stored in fewer bits, and stays so."""
        return "quantization_config" in self.config


def is_path(model: str) -> bool:
    """Tell a directory's name from a hub's id."""
    return model.startswith(("/", "./", "../", "~")) or Path(model).is_dir()


def described(name: str) -> Model:
    """Return what is known of a model. Raises EngineUnavailable where no model can have this name."""
    path = is_path(name)
    if path and not Path(name).expanduser().is_dir():
        raise EngineUnavailable(f"{SETTING} that is there: no directory {name}")
    if not path and not model_hub.ID.fullmatch(name):
        raise EngineUnavailable(f"{SETTING} that is a directory or a model's id, not {name!r:.100}")
    return Model(
        engine="transformers",
        name=name,
        repository="" if path else name,
        files=FILES,
        setting=SETTING,
        check=lambda folder: read(folder, name),
        needs="pip install 'vocal-node[transformers]'; a GPU for anything but a small model",
        known=KNOWN.get(name),
    )


def read(folder: Path, name: str) -> Checkpoint:
    """Look at every file without reading the weights. Raises EngineUnavailable for what is missing or cut short."""
    config = _json(folder / "config.json", name)
    if not any((folder / tokenizer).exists() for tokenizer in TOKENIZERS):
        raise EngineUnavailable(f"the whole model: {name} has no tokenizer (tokenizer.json)")
    parameters = stored_bytes = 0
    for file in _weights(folder, name):
        for shape, size in _tensors(file, name):
            parameters += math.prod(shape)
            stored_bytes += size
    return Checkpoint(folder, config, parameters, stored_bytes)


def _weights(folder: Path, name: str) -> Iterator[Path]:
    if (folder / INDEX).exists():
        shards = _json(folder / INDEX, name).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise EngineUnavailable(f"the whole model: {INDEX} of {name} lists no files")
        yield from (folder / Path(str(shard)).name for shard in sorted(set(shards.values())))
    elif (folder / SINGLE).exists():
        yield folder / SINGLE
    elif any(folder.glob("*.bin")) or any(folder.glob("*.pt*")):
        raise EngineUnavailable(f"weights as safetensors: those of {name} are pickled, which can run code when loaded")
    else:
        raise EngineUnavailable(f"the whole model: {name} has no weights ({SINGLE})")


def _tensors(file: Path, name: str) -> Iterator[tuple[list[int], int]]:
    """Yield each tensor's shape and bytes from a safetensors file's header, and check that none is cut off.

    https://huggingface.co/docs/safetensors/en/index#format
    """
    cut_short = EngineUnavailable(f"the whole model: {file.name} of {name} is missing or cut short")
    try:
        with file.open("rb") as stream:
            (header_bytes,) = struct.unpack("<Q", stream.read(8))
            header: Any = json.loads(stream.read(min(header_bytes, MAX_HEADER_BYTES)))
        tensors = [tensor for key, tensor in header.items() if key != "__metadata__"]
        ends = [int(tensor["data_offsets"][1]) for tensor in tensors]
        if 8 + header_bytes + max(ends, default=0) > file.stat().st_size:
            raise cut_short
        for tensor in tensors:
            begin, end = tensor["data_offsets"]
            yield tensor["shape"], end - begin
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError):
        raise cut_short from None


def _json(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text())
    except OSError:
        content = None
    except ValueError:
        raise EngineUnavailable(f"a readable model: {file.name} of {name} is not JSON") from None
    if not isinstance(content, dict):
        raise EngineUnavailable(f"the whole model: {name} has no {file.name}")
    return content
