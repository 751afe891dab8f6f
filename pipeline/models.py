"""The models that engines load from disk: what each one is, where it lies, how it gets here.

An engine that loads one has a function ``model(settings, name="") -> Model`` beside ``create`` and ``describe``: the
model that it would run by the settings, or another one by its name. It raises EngineUnavailable for a name that cannot
be, imports nothing heavy and asks no network.

The one policy: what is here is used. What is not is downloaded when its engine is created, unless ``VOCAL_OFFLINE`` or
``HF_HUB_OFFLINE`` forbids it, or its licence has to be accepted first: then ``vocal-node models fetch`` brings it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pipeline import engines, model_hub
from pipeline.engines import Kind, Settings
from pipeline.errors import EngineUnavailable
from pipeline.model_hub import Offer, Progress, readable

log = logging.getLogger(__name__)

LOG_S = 3.0
"""The rest between two lines about a download."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a model before the hub is asked."""

    size_bytes: int
    licence: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model that an engine loads from disk.

    ``name`` is what ``setting`` may say: a hub's id, a short name for one, or a folder, which has no ``repository``.
    ``files`` are patterns of what is downloaded. ``check`` raises EngineUnavailable for a folder that lacks something.
    ``needs`` says what to install and what it runs on. ``terms`` is where a licence can be read that has still to be
    accepted. ``marker`` is a file that it has wherever it is.
    """

    engine: str
    name: str
    repository: str
    files: tuple[str, ...]
    setting: str
    check: Callable[[Path], object]
    needs: str
    known: Known | None = None
    terms: str = ""
    marker: str = "config.json"


Begun = Callable[[Offer], Progress]
"""Hear what is about to be downloaded; return who is to hear how far it is."""


def find(model: Model, settings: Settings) -> Path:
    """Return where the whole model is. Asks no network. Raises EngineUnavailable, which says how it gets here."""
    folder: Path | None = Path(model.name).expanduser()
    if model.repository:
        folder = model_hub.cached(model.repository, settings, model.marker)
    if folder is None:
        raise EngineUnavailable(
            f"a model: {model.name} is not here; `vocal-node models fetch {model.engine}` brings it,"
            f" {model.setting} names another"
        )
    model.check(folder)
    return folder


def may_fetch(model: Model, settings: Settings) -> bool:
    """Tell whether it may be downloaded without being asked for."""
    return bool(model.repository) and not model.terms and model_hub.offline(settings) is None


def lacks(model: Model, settings: Settings) -> str | None:
    """Return what keeps it from being used as it is, None if nothing does. Asks no network."""
    try:
        find(model, settings)
    except EngineUnavailable as error:
        return str(error)
    return None


def get(model: Model, settings: Settings) -> Path:
    """Return where the model is, downloaded if it is not here and may be. May take minutes, told of in the log.

    Raises EngineUnavailable.
    """
    if lacks(model, settings) and may_fetch(model, settings):
        return fetch(model, settings, _logged)
    return find(model, settings)


def fetch(model: Model, settings: Settings, begun: Begun) -> Path:
    """Download the model, or the rest of it, and check it. Raises EngineUnavailable; so `model_hub.download`."""
    if not model.repository:
        raise EngineUnavailable(f"nothing: {model.name} is a folder, and no model of the hub")
    offer = model_hub.ask(model.repository, model.files, settings)
    folder = model_hub.download(offer, settings, begun(offer))
    model.check(folder)
    return folder


def _logged(offer: Offer) -> Progress:
    """Say how far it is, now and then."""
    log.info("downloading %s, %s, once", offer.repository, readable(offer.size_bytes))
    said_s = time.monotonic()

    def tell(here_bytes: int, all_bytes: int) -> None:
        nonlocal said_s
        now_s = time.monotonic()
        if now_s - said_s >= LOG_S or here_bytes == all_bytes:
            said_s = now_s
            log.info("%s: %d %% of %s", offer.repository, 100 * here_bytes // max(1, all_bytes), readable(all_bytes))

    return tell


def all_engines() -> Iterator[tuple[Kind, str]]:
    """Yield the engines that load models."""
    for kind in get_args(Kind):
        for name in engines.names(kind):
            if hasattr(engines.module(kind, name), "model"):
                yield kind, name


def of(engine: str, name: str, settings: Settings) -> Model:
    """Return an engine's model; without a ``name`` the one that the settings name. Raises EngineUnavailable."""
    kinds = {engine: kind for kind, engine in all_engines()}
    if engine not in kinds:
        raise EngineUnavailable(f"an engine that loads models ({', '.join(kinds)}), not {engine!r:.100}")
    model: Model = engines.module(kinds[engine], engine).model(settings, name)
    return model
