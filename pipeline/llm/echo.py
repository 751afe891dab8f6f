"""Answers with a fixed text or the caller's own words, at a settable pace: for tests and benchmarks.

Settings: ``VOCAL_ECHO_TEXT`` (``{text}`` stands for the caller's words), ``VOCAL_ECHO_TTFT_MS`` (to the first word)
and ``VOCAL_ECHO_TOKEN_MS`` (between words).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from pipeline.engines import Settings, Usable, number
from pipeline.events import Message

DEFAULT_TEXT = "You said: {text}."


class EchoLanguageModel:
    """Yields one word at a time."""

    def __init__(self, text: str = DEFAULT_TEXT, ttft_s: float = 0.0, token_s: float = 0.0) -> None:
        self._text = text
        self._ttft_s = ttft_s
        self._token_s = token_s

    async def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Answer the last message of the caller."""
        asked = next((m.text for m in reversed(messages) if m.role == "user"), "nothing")
        wait_s = self._ttft_s
        for word in re.findall(r"\S+\s*", self._text.replace("{text}", asked.rstrip(" .!?"))):
            await asyncio.sleep(wait_s)
            wait_s = self._token_s
            yield word


def describe(settings: Settings) -> Usable:
    """Never chosen by itself: it does not think."""
    return Usable(-1, "the caller's own words, for tests and benchmarks")


def create(settings: Settings) -> EchoLanguageModel:
    """Read text and pace from the settings."""
    return EchoLanguageModel(
        settings.get("VOCAL_ECHO_TEXT", DEFAULT_TEXT),
        number(settings, "VOCAL_ECHO_TTFT_MS", 0.0) / 1000,
        number(settings, "VOCAL_ECHO_TOKEN_MS", 0.0) / 1000,
    )
