"""Where a Whisper model in CTranslate2's format is: a directory, or the hub's cache on this machine.

Looking asks no network. Downloading is for those who allow it: ``VOCAL_WHISPER_DOWNLOAD=1``.
"""

from __future__ import annotations

from pathlib import Path

from pipeline import model_hub
from pipeline.engines import Settings
from pipeline.errors import EngineUnavailable

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

_YES = ("1", "true", "yes", "on")


def find(model: str, settings: Settings) -> Path:
    """Return the model's directory without asking a network. Raises EngineUnavailable naming what is missing."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _complete(folder, model)
    repository = _repository(model)
    snapshot = model_hub.cached(repository, settings)
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
    return _complete(model_hub.download(_repository(model), FILES, settings), model)


def may_fetch(model: str, settings: Settings) -> bool:
    """Tell whether the hub may be asked for this model."""
    allowed = settings.get(DOWNLOAD, "").strip().lower() in _YES and not model_hub.offline(settings)
    return allowed and (model in REPOSITORIES or model_hub.ID.fullmatch(model) is not None)


def _repository(model: str) -> str:
    if model in REPOSITORIES:
        return REPOSITORIES[model]
    if model_hub.ID.fullmatch(model) is None:
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
