"""NLTK's Eliza: answers by turning the caller's words around. No model, no understanding, no network.

Where there is no language model it keeps a conversation going. What it answers depends on the conversation alone:
the same words at the same place get the same answer, under every ``VOCAL_ELIZA_SEED``.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from types import ModuleType

from pipeline.engines import Settings, Usable
from pipeline.errors import EngineUnavailable
from pipeline.events import Message

MAX_CHARACTERS = 500
"""Of the caller's words; its patterns are tried one after the other on all of them."""

NOTHING_SAID = "I am listening."


class ElizaLanguageModel:
    """Yields one word at a time; keeps no conversation."""

    def __init__(self, chat: ModuleType, pairs: Sequence[object], seed: str = "") -> None:
        self._chat = chat
        self._bot = chat.Chat(pairs, chat.reflections)
        self._seed = seed

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Answer the caller's last words."""
        asked = next((m.text for m in reversed(messages) if m.role == "user"), "")
        for word in re.findall(r"\S+\s*", self._answer(asked, len(messages))):
            await asyncio.sleep(0)
            yield word

    def _answer(self, asked: str, place: int) -> str:
        words = speakable(asked)
        if not words:
            return NOTHING_SAID
        # Its choice among answers comes from the module's `random`: ours is a function of the conversation.
        self._chat.random = random.Random(f"{self._seed}|{place}|{words}")  # type: ignore[attr-defined]
        return sentence(self._bot.respond(words) or NOTHING_SAID)


def speakable(asked: str) -> str:
    """Return the words as Eliza's patterns expect them.

    A percent sign is a place holder in its answers: one that the caller says would be filled in again, or raise.
    """
    return " ".join(asked.replace("%", " percent ").split())[:MAX_CHARACTERS].rstrip(" .!?,;:")


def sentence(answer: str) -> str:
    """Return the answer with single spaces, a capital and an end."""
    text = " ".join(answer.replace("--", ",").split()).replace(" ,", ",")
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _import_eliza() -> tuple[ModuleType, Sequence[object]]:
    """Import Eliza's two modules without their package.

    ``import nltk`` loads all of NLTK (600 ms); behind an empty package of its name they take 80 ms. Afterwards every
    trace is removed from ``sys.modules``, so that another ``import nltk`` gets the whole package.
    """
    spec = importlib.util.find_spec("nltk")
    if spec is None:
        raise EngineUnavailable("pip install nltk")
    before = _take_out_nltk()
    sys.modules["nltk"] = importlib.util.module_from_spec(spec)
    try:
        chat, eliza = importlib.import_module("nltk.chat.util"), importlib.import_module("nltk.chat.eliza")
    finally:
        _take_out_nltk()
        sys.modules.update(before)
    return chat, eliza.pairs


def _take_out_nltk() -> dict[str, ModuleType]:
    """Remove what is loaded of it and return that. Looks at a copy: other threads import meanwhile."""
    loaded = [name for name in tuple(sys.modules) if name.partition(".")[0] == "nltk"]
    return {name: sys.modules.pop(name) for name in loaded}


def describe(settings: Settings) -> Usable:
    """Better than silence, worse than any model."""
    missing = "pip install nltk" if importlib.util.find_spec("nltk") is None else None
    return Usable(10, "NLTK's Eliza, no language model: turns the caller's words around", missing)


def create(settings: Settings) -> ElizaLanguageModel:
    """Load the patterns. Raises EngineUnavailable without NLTK."""
    return ElizaLanguageModel(*_import_eliza(), seed=settings.get("VOCAL_ELIZA_SEED", ""))
