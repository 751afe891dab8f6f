"""Deltas to clauses, and what can be spoken of them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text import MAX_CLAUSE_CHARS, ClauseSplitter, has_words, speakable


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
        ("No. I think not.", ["No.", "I think not."]),
        ("We meet at 5 p.m. on Friday. Yes.", ["We meet at 5 p.m. on Friday.", "Yes."]),
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
        ("soft\u00adhyphen", "softhyphen"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u0937"),
        ("3*4 is 12 in snake_case", "3 4 is 12 in snake case"),
    ],
)
def test_speakable(text: str, expected: str) -> None:
    assert speakable(text) == expected


@pytest.mark.parametrize("text", ["no", "5", "½", "да", "हाँ", "是", "ค่ะ", "ﾊｲ"])
def test_words_of_any_script(text: str) -> None:
    assert has_words(text) and has_words(f"♪ {text}...")


@given(st.text(max_size=2000), st.integers(1, 50))
def test_clauses_are_bounded_and_can_be_spoken(text: str, size: int) -> None:
    clauses = _clauses(text, size)
    assert all(c and len(c) <= MAX_CLAUSE_CHARS for c in clauses)
    assert all(any(char.isalnum() for char in c) for c in clauses)


@given(
    st.lists(st.sampled_from(["alpha", "beta,", "gamma.", "delta?", "Eps;", "zeta"]), max_size=60), st.integers(1, 400)
)
def test_no_word_is_lost_however_the_text_comes(words: list[str], size: int) -> None:
    text = " ".join(words)
    assert " ".join(_clauses(text, size)).split() == text.split()
    assert _clauses(text, size) == _clauses(text, 1)


def test_a_comma_comes_first_whether_or_not_the_sentence_came_with_it() -> None:
    text = "When you are quite ready, we go. Yes, now."
    assert _clauses(text, 100) == _clauses(text, 1) == ["When you are quite ready,", "we go.", "Yes, now."]


def test_a_huge_delta_costs_no_more_than_its_length() -> None:
    begin_s = time.process_time()
    assert _clauses("." * 40_000 + "[" * 10_000 + " and so on. " * 1_000, 1_000_000)[-1] == "and so on."
    assert time.process_time() - begin_s < 4
