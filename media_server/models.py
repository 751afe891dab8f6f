"""``vocal-node models``: which models the engines would run here, where they are, and how they get here."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import models
from pipeline.engines import Kind, Settings, module
from pipeline.errors import EngineUnavailable
from pipeline.model_hub import Offer, Progress, cache_folder, readable
from pipeline.models import Model

STEP = 10
"""Percent from one line to the next where there is no terminal."""

UNKNOWN = "not known before the hub is asked"


@dataclass(frozen=True, slots=True)
class Listed:
    """One engine's model. ``here`` is its folder, None if ``lacks`` says why it cannot be used as it is."""

    kind: Kind
    engine: str
    model: str
    repository: str
    size_bytes: int | None
    licence: str | None
    needs: str
    here: str | None
    lacks: str | None


def listing(settings: Settings, *, as_json: bool = False) -> str:
    """Return the models of all engines as text. Loads none and asks no network."""
    found = [_listed(kind, engine, settings) for kind, engine in models.all_engines()]
    if as_json:
        return json.dumps([asdict(one) for one in found], indent=2)
    return "\n\n".join([*map(_as_text, found), f"The cache is {cache_folder(settings)} (HF_HOME says where)."])


def _listed(kind: Kind, engine: str, settings: Settings) -> Listed:
    try:
        model: Model = module(kind, engine).model(settings)
    except EngineUnavailable as error:
        return Listed(kind, engine, "", "", None, None, "", None, str(error))
    known = model.known
    size, licence = (known.size_bytes, known.licence) if known else (None, None)
    lacks = models.lacks(model, settings)
    here = None if lacks else str(models.find(model, settings))
    return Listed(kind, engine, model.name, model.repository, size, licence, model.needs, here, lacks)


def _as_text(one: Listed) -> str:
    title = f"{one.engine} ({one.kind}) {one.model}"
    if not one.model:
        return f"{title}\n  lacks    {one.lacks}"
    where = f"here     {one.here}" if one.here else f"lacks    {one.lacks}"
    lines = [title, f"  {where}", f"  needs    {one.needs}"]
    if one.repository:
        size = readable(one.size_bytes) if one.size_bytes else UNKNOWN
        lines += [f"  size     {size}", f"  licence  {one.licence or UNKNOWN}"]
    return "\n".join(lines)


def fetch(model: Model, settings: Settings, *, accept: bool) -> Path:
    """Return where the model is, once all of it is. Blocks; tells on stderr how far it is, and how to use it.

    Asks on a terminal for a licence that has to be accepted, unless ``accept`` already does. Raises EngineUnavailable;
    what has come by then is kept.
    """
    if models.lacks(model, settings) is not None:
        if model.terms and not (accept or _ask_to_accept(model)):
            raise EngineUnavailable(f"its licence to be accepted: read {model.terms}, then say --accept-license")
        models.fetch(model, settings, lambda offer: _begun(offer, settings))
    if not _is_own(model, settings):
        _say(f"To run it, set {model.setting}={model.name}")
    return models.find(model, settings)


def _is_own(model: Model, settings: Settings) -> bool:
    """Tell whether the settings name this model."""
    try:
        return model.name == models.of(model.engine, "", settings).name
    except EngineUnavailable:
        return False


def _begun(offer: Offer, settings: Settings) -> Progress:
    size = readable(offer.size_bytes)
    _say(f"{offer.repository}: {size}, licence {offer.licence}, into {cache_folder(settings)}")
    _say("Ctrl-C ends it, and the same command goes on where it was.")
    return _bar(offer) if sys.stderr.isatty() else _percent(offer)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _percent(offer: Offer) -> Progress:
    said = -STEP

    def tell(here_bytes: int, all_bytes: int) -> None:
        nonlocal said
        percent = 100 * here_bytes // max(1, all_bytes)
        if percent >= said + STEP:
            said = percent - percent % STEP
            _say(f"{offer.repository}: {said} % of {readable(all_bytes)}")

    return tell


def _bar(offer: Offer) -> Progress:
    from huggingface_hub.utils.tqdm import tqdm

    bar: Any = tqdm(  # type: ignore[no-untyped-call]
        total=offer.size_bytes, unit="B", unit_scale=True, desc=offer.repository
    )

    def tell(here_bytes: int, all_bytes: int) -> None:
        bar.update(here_bytes - bar.n)
        if here_bytes == all_bytes:
            bar.close()

    return tell


def _ask_to_accept(model: Model) -> bool:
    """Ask whoever sits there. Nobody there is a no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    licence = model.known.licence if model.known else "licence of the model it was made from"
    _say(f"{model.name} is under the {licence}.\nRead it: {model.terms}")
    sys.stderr.write("Do you accept it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
