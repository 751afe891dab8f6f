"""Models of the Hugging Face hub: those on this machine, and how others get here.

Settings: ``HF_HUB_CACHE`` or ``HF_HOME`` (where they are kept), ``HUGGINGFACE_API_KEY`` or ``HF_TOKEN``,
``HF_ENDPOINT`` (a mirror), ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.engines import Settings
from pipeline.errors import EngineUnavailable

log = logging.getLogger(__name__)

HUB_S = 5.0
"""How long the hub may take to say anything."""

ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


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


def offline(settings: Settings) -> bool:
    """Whether the hub must not be asked."""
    return settings.get("HF_HUB_OFFLINE", "").strip().lower() in ("1", "true", "yes", "on")


def token(settings: Settings) -> str | None:
    """Return the key for gated models."""
    return settings.get("HUGGINGFACE_API_KEY", "").strip() or settings.get("HF_TOKEN", "").strip() or None


def download(model: str, files: Sequence[str], settings: Settings) -> Path:
    """Bring what of a model matches ``files`` here, going on where an earlier try ended. Blocks.

    Raises EngineUnavailable in one line: within ``HUB_S`` where the hub cannot be reached.
    """
    if offline(settings):
        raise EngineUnavailable(f"the model {model}, which is not downloaded, while HF_HUB_OFFLINE forbids it")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        """No bars: nobody watches, and the thread that looks after them never ends."""

        monitor_interval = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

    log.info("downloading %s", model)
    key, endpoint = token(settings), settings.get("HF_ENDPOINT", "").strip() or None
    try:
        # asked first, because the first question of what follows would wait for ever
        HfApi(endpoint=endpoint, token=key).model_info(model, timeout=HUB_S)
        folder = snapshot_download(
            model,
            cache_dir=cache_folder(settings),
            allow_patterns=list(files),
            token=key,
            endpoint=endpoint,
            etag_timeout=HUB_S,
            tqdm_class=Silent,
        )
    except Exception as error:
        raise EngineUnavailable(_in_words(model, error, key is not None)) from None
    return Path(folder)


def _in_words(model: str, error: Exception, with_key: bool) -> str:
    """Say what the hub's refusal means; its own words may quote addresses and keys."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://huggingface.co/{model}"
    if isinstance(error, GatedRepoError) and not with_key:
        return f"HUGGINGFACE_API_KEY: {model} is gated, ask for access at {page}"
    if isinstance(error, GatedRepoError):
        return f"access to {model}: the key in HUGGINGFACE_API_KEY has none, ask for it at {page}"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"a model that exists: the hub has no {model}, or only for a HUGGINGFACE_API_KEY that may see it"
    if status in (401, 403):
        return f"a HUGGINGFACE_API_KEY that the hub takes for {model} ({status})"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"disk space for {model} (HF_HOME says where)"
    return f"the hub, which cannot be reached for {model} ({type(error).__name__}); it is downloaded once"
