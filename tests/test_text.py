"""Deltas to clauses, and what can be spoken of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import MAX_CLAUSE_CHARS, ClauseSplitter, speakable


def _clauses(text: str, size: int = 1) -> list[str]:
    splitter = ClauseSplitter()
    cut = [clause for i in range(0, len(text), size) for clause in splitter.push(text[i : i + size])]
    return cut + splitter.flush()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. How are you?", ["Hello there.", "How are you?"]),
        ("Mr. Smith paid 3.50 dollars. Fine.", ["Mr. Smith paid 3.50 dollars.", "Fine."]),
        ("He came, he saw. Then he left, again.", ["He came, he saw.", "Then he left, again."]),
        ("When you are quite ready, we go. Yes, now.", ["When you are quite ready,", "we go.", "Yes, now."]),
        ('"Really?" she asked. No!', ['"Really?"', "she asked.", "No!"]),
        ("Wait... what?", ["Wait...", "what?"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("one\ntwo", ["one", "two"]),
        ("", []),
        ("   ", []),
        ("😀 👍", []),
    ],
)
def test_clauses(text: str, expected: list[str]) -> None:
    assert _clauses(text) == expected


def test_code_is_not_spoken_across_clauses() -> None:
    assert _clauses("Look. ```py\nprint(1). And.\n``` Done.") == ["Look.", "Done."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("**Bold** and _soft_", "Bold and soft"),
        ("see [the page](http://x.y/z) now", "see the page now"),
        ("go to https://example.org/a?b=c please", "go to please"),
        ("- item", "item"),
        ("fine 😀!", "fine !"),
        ("20 °C", "20 °C"),
        ("...", ""),
        ("zero\u200bwidth", "zero width"),
    ],
)
def test_speakable(text: str, expected: str) -> None:
    assert speakable(text) == expected


@given(st.text(max_size=2000), st.integers(1, 50))
def test_clauses_do_not_depend_on_the_deltas_and_are_bounded(text: str, size: int) -> None:
    clauses = _clauses(text, size)
    assert all(c and len(c) <= MAX_CLAUSE_CHARS + 60 for c in clauses)
    assert all(any(char.isalnum() for char in c) for c in clauses)


@given(
    st.lists(st.sampled_from(["alpha", "beta,", "gamma.", "delta?", "Eps;", "zeta"]), max_size=60), st.integers(1, 9)
)
def test_no_word_is_lost_however_the_text_comes(words: list[str], size: int) -> None:
    text = " ".join(words)
    assert " ".join(_clauses(text, size)).split() == text.split()
    assert _clauses(text, size) == _clauses(text, 1)
