"""A model's files: where they are, whether all of them are there, and how much memory they take.

Only weights in safetensors are read: a pickle runs whatever code it holds, and so does a model that brings its own.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engines import Settings
from pipeline.errors import EngineUnavailable

HUB_S = 5.0
"""How long the hub may take to say anything."""

FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")
"""What is downloaded: never a pickle, never code."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
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


def cached(model: str, settings: Settings) -> Path | None:
    """Return where the hub's library keeps this model, None if it has not been downloaded. Asks no network."""
    folder = cache_folder(settings) / f"models--{model.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if (snapshot / "config.json").exists() else None


def cache_folder(settings: Settings) -> Path:
    """Return the hub's common cache: ``HF_HUB_CACHE``, else in ``HF_HOME``, else in the user's cache."""
    if folder := settings.get("HF_HUB_CACHE", "").strip():
        return Path(folder).expanduser()
    home = settings.get("HF_HOME", "").strip() or Path(settings.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def find(model: str, settings: Settings) -> Checkpoint:
    """Return the model, downloaded if need be: may take long. Raises EngineUnavailable in one line."""
    if is_path(model):
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise EngineUnavailable(f"VOCAL_TRANSFORMERS_MODEL that is there: no directory {model}")
        return read(folder, model)
    if not HUB_ID.fullmatch(model):
        raise EngineUnavailable(f"VOCAL_TRANSFORMERS_MODEL that is a directory or the id of a model, not {model!r:.100}")
    if (folder_or_none := cached(model, settings)) is not None:
        try:
            return read(folder_or_none, model)
        except EngineUnavailable:  # a download that was cut off: it goes on where it was
            if offline(settings):
                raise
    return read(_download(model, settings), model)


def offline(settings: Settings) -> bool:
    """Whether the hub must not be asked."""
    return settings.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def token(settings: Settings) -> str | None:
    """Return the key for gated models."""
    return settings.get("HUGGINGFACE_API_KEY", "").strip() or settings.get("HF_TOKEN", "").strip() or None


def _download(model: str, settings: Settings) -> Path:
    if offline(settings):
        raise EngineUnavailable(f"the model {model}, which is not downloaded, while HF_HUB_OFFLINE forbids it")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(
            model,
            cache_dir=cache_folder(settings),
            allow_patterns=list(FILES),
            token=token(settings),
            endpoint=settings.get("HF_ENDPOINT", "").strip() or None,
            etag_timeout=HUB_S,
        )
    except Exception as error:
        raise EngineUnavailable(_hub_words(model, error, token(settings) is not None)) from None
    return Path(folder)


def _hub_words(model: str, error: Exception, with_key: bool) -> str:
    """Say what the hub's refusal means; its own words may quote addresses and keys."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://huggingface.co/{model}"
    if isinstance(error, GatedRepoError) or status in (401, 403):
        if not with_key:
            return f"HUGGINGFACE_API_KEY: {model} is gated, ask for access at {page}"
        return f"access to {model}: the key in HUGGINGFACE_API_KEY has none, ask for it at {page}"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"a model that exists: the hub has no {model}, or only for a HUGGINGFACE_API_KEY that may see it"
    if isinstance(error, OSError) and error.errno is not None and status is None and "space" in str(error).lower():
        return f"disk space for {model} in the hub's cache (HF_HOME)"
    return f"the hub, which cannot be reached for {model} ({type(error).__name__}); it is downloaded once"


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
            header = json.loads(stream.read(header_bytes)) if header_bytes <= MAX_HEADER_BYTES else None
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
