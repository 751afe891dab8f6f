"""A Whisper model in CTranslate2's format: by its size, its hub id or its directory."""

from __future__ import annotations

from pathlib import Path

from pipeline import model_hub
from pipeline.errors import EngineUnavailable
from pipeline.models import Known, Model

SETTING = "VOCAL_WHISPER_MODEL"

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

SIZES_MB = {
    "tiny": 78, "base": 148, "small": 486, "medium": 1531, "large": 3091, "turbo": 1621,
    "distil-small": 336, "distil-medium": 793, "distil-large": 1517,
}  # fmt: skip
"""All of their files, of every language and version; all are under the MIT licence."""

FILES = ("config.json", "preprocessor_config.json", "model.bin", "tokenizer.json", "vocabulary.*")
NEEDED = ("model.bin", "config.json", "tokenizer.json")
"""Without its tokenizer the library would fetch one from the hub."""


def described(name: str, device: str) -> Model:
    """Return what is known of a model. Raises EngineUnavailable where no model can have this name."""
    folder = Path(name).expanduser()
    if not folder.is_dir() and name not in REPOSITORIES and model_hub.ID.fullmatch(name) is None:
        raise EngineUnavailable(
            f"{SETTING} that is a directory, a hub id, or a size ({', '.join(REPOSITORIES)}), not {name!r:.100}"
        )
    return Model(
        engine="faster_whisper",
        name=name,
        repository="" if folder.is_dir() else REPOSITORIES.get(name, name),
        files=FILES,
        setting=SETTING,
        check=lambda folder: _complete(folder, name),
        needs="an NVIDIA GPU" if device.startswith("cuda") else "a CPU",
        known=_known(name),
    )


def _known(name: str) -> Known | None:
    if name not in REPOSITORIES:
        return None
    if name.endswith("turbo"):
        return Known(SIZES_MB["turbo"] * 10**6, "MIT")
    size = name.removesuffix(".en").partition("-v")[0]
    return Known(SIZES_MB[size] * 10**6, "MIT")


def _complete(folder: Path, model: str) -> None:
    lacking = [name for name in NEEDED if not (folder / name).is_file()]
    if "model.bin" in lacking and [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*")]:
        raise EngineUnavailable(
            f"{model} in CTranslate2's format: ct2-transformers-converter --model {model} --output_dir DIRECTORY"
            " --copy_files tokenizer.json preprocessor_config.json"
        )
    if lacking:
        raise EngineUnavailable(f"the whole model: {model} has no {lacking[0]}")
