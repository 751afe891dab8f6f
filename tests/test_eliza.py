"""Eliza: the same conversation gets the same answers, and importing her costs no NLTK."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from types import ModuleType

import pytest

from pipeline.engines import load
from pipeline.events import Message
from pipeline.llm.eliza import NOTHING_SAID, sentence, speakable


def answer(words: str, seed: str = "", place: int = 1) -> str:
    llm = load("llm", "eliza", {"VOCAL_ELIZA_SEED": seed})

    async def main() -> str:
        return "".join([d async for d in llm.complete([*[Message("assistant", ".")] * place, Message("user", words)])])

    return asyncio.run(main())


def test_she_turns_the_caller_s_words_around() -> None:
    assert "a cup of your tea" in answer("i need a cup of my tea")


def test_the_same_conversation_gets_the_same_answer() -> None:
    assert answer("go forward ten meters") == answer("go forward ten meters")
    assert len({answer("go forward ten meters", place=place) for place in range(12)}) > 2
    assert len({answer("go forward ten meters", seed=str(seed)) for seed in range(12)}) > 2


@pytest.mark.parametrize("place", range(12))
def test_a_percent_sign_is_no_place_holder(place: int) -> None:
    reply = answer("i need 100 %1 of %9", place=place)
    assert "%" not in reply
    assert reply.endswith((".", "!", "?"))


@pytest.mark.parametrize("words", ["", "  ", "?!", "..."])
def test_she_listens_when_nothing_was_said(words: str) -> None:
    assert answer(words) == NOTHING_SAID


def test_words_and_answers_are_brought_into_shape() -> None:
    assert speakable("  I  am\nsad!! ") == "I am sad"
    assert len(speakable("x" * 10_000)) == 500
    assert sentence("i don't know -- why can't you?") == "I don't know, why can't you?"
    assert sentence("he was not.") == "He was not."
    assert sentence("your tea") == "Your tea."


def test_she_is_imported_while_other_threads_import() -> None:
    over = threading.Event()

    def import_something() -> None:
        names = [f"not_a_module_{n}" for n in range(50)]
        while not over.is_set():
            for name in names:
                sys.modules[name] = ModuleType(name)
            for name in names:
                del sys.modules[name]

    others = threading.Thread(target=import_something)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    others.start()
    try:
        assert all(load("llm", "eliza", {}) for _ in range(50))
    finally:
        over.set()
        others.join()
        sys.setswitchinterval(interval_s)


def test_only_her_two_modules_are_imported_and_no_trace_is_left() -> None:
    code = (
        "import sys; from pipeline.engines import load; load('llm', 'eliza', {});"
        "assert not [m for m in sys.modules if m.startswith('nltk')]; assert 'numpy' in sys.modules;"
        "assert 'nltk.tokenize' not in sys.modules; import nltk; assert nltk.chat.eliza and nltk.tokenize"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
