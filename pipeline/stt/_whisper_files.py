"""Where a Whisper model in CTranslate2's format is: a directory, or the hub's cache on this machine.

Looking asks no network. Downloading is for those who allow it: ``VOCAL_WHISPER_DOWNLOAD=1``.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from pipeline.engines import Settings
from pipeline.errors import EngineUnavailable

log = logging.getLogger(__name__)

MODEL, DOWNLOAD = "VOCAL_WHISPER_MODEL", "VOCAL_WHISPER_DOWNLOAD"

REPOSITORIES = {
    **{f"{size}{english}": f"Systran/faster-whisper-{size}{english}"
       for size in ("tiny", "base", "small", "medium") for english in ("", ".en")},
    **{f"large-v{version}": f"Systran/faster-whisper-large-v{version}" for version in (1, 2, 3)},
    "large": "Systran/faster-whisper-large-v3",
    **{size: f"Systran/faster-{size.replace('distil', 'distil-whisper')}"
       for size in ("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3")},
    "distil-large-v3.5": "distil-whisper/distil-large-v3.5-ct2",
    "large-v3-turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
    "turbo": "mobiuslabsgmbh/faster-whisper-large-v3-turbo",
}  # fmt: skip
"""Sizes by name: faster-whisper's own table, which would take half a second to import."""

FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
NEEDED = ("model.bin", "config.json", "tokenizer.json")
"""Without its tokenizer the library would fetch one from the hub."""

HUB_S = 5.0
"""How long the hub may take to say anything."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_YES = ("1", "true", "yes", "on")


def find(model: str, settings: Settings) -> Path:
    """Return the model's directory without asking a network. Raises EngineUnavailable naming what is missing."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _complete(folder, model)
    repository = _repository(model)
    snapshot = _cached(repository, settings)
    if snapshot is None:
        raise EngineUnavailable(
            f"a model: {model} is not in the cache; {DOWNLOAD}=1 lets it be downloaded, {MODEL} names a directory"
        )
    return _complete(snapshot, model)


def fetch(model: str, settings: Settings) -> Path:
    """Return the model's directory, downloaded if it is not there and that is allowed. May take minutes."""
    try:
        return find(model, settings)
    except EngineUnavailable:
        if not may_fetch(model, settings):
            raise
    return _complete(_download(_repository(model), settings), model)


def may_fetch(model: str, settings: Settings) -> bool:
    """Tell whether the hub may be asked for this model."""
    allowed = _yes(settings, DOWNLOAD) and not _yes(settings, "HF_HUB_OFFLINE")
    return allowed and (model in REPOSITORIES or _HUB_ID.fullmatch(model) is not None)


def _yes(settings: Settings, name: str) -> bool:
    return settings.get(name, "").strip().lower() in _YES


def _repository(model: str) -> str:
    if model in REPOSITORIES:
        return REPOSITORIES[model]
    if _HUB_ID.fullmatch(model) is None:
        raise EngineUnavailable(
            f"{MODEL} that is a directory, a hub id, or a size ({', '.join(REPOSITORIES)}), not {model!r:.100}"
        )
    return model


def _complete(folder: Path, model: str) -> Path:
    lacking = [name for name in NEEDED if not (folder / name).is_file()]
    if "model.bin" in lacking and [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]:
        raise EngineUnavailable(
            f"{model} in CTranslate2's format: ct2-transformers-converter --model {model} --output_dir DIRECTORY"
            " --copy_files tokenizer.json preprocessor_config.json"
        )
    if lacking:
        raise EngineUnavailable(f"the whole model: {model} has no {lacking[0]}")
    return folder


def _cached(repository: str, settings: Settings) -> Path | None:
    """Return what the hub's library downloaded; https://huggingface.co/docs/huggingface_hub/guides/manage-cache."""
    folder = _cache(settings) / f"models--{repository.replace('/', '--')}"
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


def _cache(settings: Settings) -> Path:
    if folder := settings.get("HF_HUB_CACHE", "").strip():
        return Path(folder).expanduser()
    home = settings.get("HF_HOME", "").strip() or Path(settings.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def _download(repository: str, settings: Settings) -> Path:
    from faster_whisper.utils import disabled_tqdm
    from huggingface_hub import snapshot_download

    disabled_tqdm.monitor_interval = 0  # its bars do not show, but would still start a thread that never ends
    log.info("downloading %s", repository)
    key = settings.get("HUGGINGFACE_API_KEY", "").strip() or settings.get("HF_TOKEN", "").strip() or None
    endpoint = settings.get("HF_ENDPOINT", "").strip() or None
    try:
        return Path(
            snapshot_download(
                repository,
                cache_dir=_cache(settings),
                allow_patterns=list(FILES),
                token=key,
                endpoint=endpoint,
                etag_timeout=HUB_S,
                tqdm_class=disabled_tqdm,
            )
        )
    except Exception as error:  # its own words may quote addresses and keys
        raise EngineUnavailable(_hub_words(repository, error)) from None


def _hub_words(repository: str, error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return f"a model that may be downloaded: the hub has no {repository}, or only for another HUGGINGFACE_API_KEY"
    return f"the hub, once: {repository} cannot be downloaded ({type(error).__name__})"
