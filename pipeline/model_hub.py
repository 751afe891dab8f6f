"""Models of the Hugging Face hub: those on this machine, and how others get here.

Settings: ``HF_HUB_CACHE`` or ``HF_HOME`` (where they are kept), ``HUGGINGFACE_API_KEY`` or ``HF_TOKEN``,
``HF_ENDPOINT`` (a mirror), ``VOCAL_OFFLINE`` or ``HF_HUB_OFFLINE`` (1: no hub is ever asked).
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.engines import Settings
from pipeline.errors import EngineUnavailable
from pipeline.model_download import RemoteFile, bring
from pipeline.threads import within

HUB_S = 5.0
"""How long the hub may take to say anything."""

SPARE_BYTES = 100_000_000
"""What a download leaves of the disk."""

ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")

OFFLINE = ("VOCAL_OFFLINE", "HF_HUB_OFFLINE")
YES = ("1", "true", "t", "yes", "y", "on")

Progress = Callable[[int, int], None]
"""Hear how many bytes of how many are here."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What the hub has of a model that is wanted here. ``big`` files go on where they were; ``names`` are all."""

    repository: str
    licence: str
    size_bytes: int
    names: tuple[str, ...]
    big: tuple[RemoteFile, ...]


def cached(model: str, settings: Settings, marker: str = "config.json") -> Path | None:
    """Return where the hub's library keeps this model, None if it has not been downloaded. Asks no network.

    ``marker`` is a file that the model has wherever it is.
    """
    folder = _model_folder(model, settings)
    try:
        revision = (folder / "refs" / "main").read_text().strip()
    except OSError:
        return None
    snapshot = folder / "snapshots" / revision
    return snapshot if (snapshot / marker).exists() else None


def _model_folder(model: str, settings: Settings) -> Path:
    return cache_folder(settings) / f"models--{model.replace('/', '--')}"


def cache_folder(settings: Settings) -> Path:
    """Return the hub's common cache: ``HF_HUB_CACHE``, else in ``HF_HOME``, else in the user's cache."""
    if folder := settings.get("HF_HUB_CACHE", "").strip():
        return Path(folder).expanduser()
    home = settings.get("HF_HOME", "").strip() or Path(settings.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"


def offline(settings: Settings) -> str | None:
    """Return the variable that forbids to ask the hub, None if it may be asked."""
    return next((name for name in OFFLINE if settings.get(name, "").strip().lower() in YES), None)


def token(settings: Settings) -> str | None:
    """Return the key for gated models."""
    return settings.get("HUGGINGFACE_API_KEY", "").strip() or settings.get("HF_TOKEN", "").strip() or None


def ask(model: str, files: Sequence[str], settings: Settings) -> Offer:
    """Ask the hub for what matches ``files``. Blocks for at most ``HUB_S``. Raises EngineUnavailable in one line."""
    if forbids := offline(settings):
        raise EngineUnavailable(f"the model {model}, which is not downloaded, while {forbids} forbids it")
    from huggingface_hub import HfApi
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    api = HfApi(endpoint=_endpoint(settings), token=token(settings))
    try:
        # in all: a firewall that answers nothing would be waited for at each of the hub's addresses
        info = within(HUB_S, lambda: api.model_info(model, files_metadata=True, timeout=HUB_S))
        wanted = list(
            filter_repo_objects(info.siblings or [], allow_patterns=list(files), key=lambda item: item.rfilename)
        )
    except Exception as error:
        raise EngineUnavailable(_in_words(model, error, settings)) from None
    return Offer(
        repository=model,
        licence=str(getattr(info.card_data, "license", None) or "unknown"),
        size_bytes=sum(item.size or 0 for item in wanted),
        names=tuple(item.rfilename for item in wanted),
        big=tuple(_remote(model, item, str(info.sha), settings) for item in wanted if item.lfs),
    )


def _endpoint(settings: Settings) -> str | None:
    return settings.get("HF_ENDPOINT", "").strip() or None


def _remote(model: str, item: Any, revision: str, settings: Settings) -> RemoteFile:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(model, item.rfilename, revision=revision, endpoint=_endpoint(settings))
    return RemoteFile(url, item.lfs.size, item.lfs.sha256, build_hf_headers(token=token(settings)))


def download(offer: Offer, settings: Settings, told: Progress) -> Path:
    """Bring what is offered into the cache, going on where an earlier try ended. Blocks; canceled by `stoppable`.

    Raises EngineUnavailable in one line.
    """
    folder = _model_folder(offer.repository, settings)
    blobs = folder / "blobs"
    here = {file.sha256: file.there(blobs) for file in offer.big}
    _check_space(offer, offer.size_bytes - sum(here.values()), folder)

    def note(file: RemoteFile, there_bytes: int) -> None:
        here[file.sha256] = there_bytes
        told(min(sum(here.values()), offer.size_bytes), offer.size_bytes)

    locks = folder.parent / ".locks" / folder.name
    try:
        for file in offer.big:
            bring(file, blobs, locks / f"{file.sha256}.lock", partial(note, file))
        snapshot = _placed(offer, settings)
    except EngineUnavailable as error:
        raise EngineUnavailable(f"{offer.repository}: {error}") from None
    except Exception as error:
        raise EngineUnavailable(_in_words(offer.repository, error, settings)) from None
    told(offer.size_bytes, offer.size_bytes)
    return snapshot


def _check_space(offer: Offer, lacking_bytes: int, folder: Path) -> None:
    there = next(parent for parent in folder.parents if parent.exists())
    free_bytes = shutil.disk_usage(there).free
    if lacking_bytes > 0 and lacking_bytes + SPARE_BYTES > free_bytes:
        raise EngineUnavailable(
            f"disk space: the rest of {offer.repository} takes {readable(lacking_bytes)}, and {readable(free_bytes)}"
            f" are free at {there} (HF_HOME names another place)"
        )


def _placed(offer: Offer, settings: Settings) -> Path:
    """Let the library bring the small files, and put all of them where it looks for them."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import silent_tqdm

    for name in offer.names:
        hf_hub_download(
            offer.repository,
            name,
            cache_dir=cache_folder(settings),
            token=token(settings),
            endpoint=_endpoint(settings),
            etag_timeout=HUB_S,
            tqdm_class=silent_tqdm,
        )
    snapshot = next((found for name in offer.names if (found := cached(offer.repository, settings, name))), None)
    if snapshot is None:
        raise EngineUnavailable("a model: the hub has none of its files")
    return snapshot


def readable(size_bytes: float) -> str:
    """Return a size as people write it: 145 MB, 1.9 GB."""
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 999.5e6 else f"{size_bytes / 1e6:.0f} MB"


def _in_words(model: str, error: Exception, settings: Settings) -> str:
    """Say what the hub's refusal means; its own words may quote addresses and keys."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://huggingface.co/{model}"
    if isinstance(error, GatedRepoError) and token(settings) is None:
        return f"HUGGINGFACE_API_KEY: {model} is gated, ask for access at {page}"
    if isinstance(error, GatedRepoError):
        return f"access to {model}: the key in HUGGINGFACE_API_KEY has none, ask for it at {page}"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"a model that exists: the hub has no {model}, or only for a HUGGINGFACE_API_KEY that may see it"
    if status in (401, 403):
        return f"a HUGGINGFACE_API_KEY that the hub takes for {model} ({status})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"disk space for {model} (HF_HOME says where)"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"a folder for {model} that can be written to, not {error.filename} (HF_HOME says where)"
    again = "the next try goes on where this one ended"
    return f"the hub, which cannot be reached for {model} ({type(error).__name__}); {again}"
