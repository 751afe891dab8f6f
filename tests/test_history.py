"""History alternates, keeps only what was heard, and is bounded."""

from __future__ import annotations

import pytest

from pipeline.events import Message
from pipeline.history import MAX_CHARS, MAX_NAMES, History


def test_only_what_was_heard_is_kept_and_roles_alternate() -> None:
    history = History("be kind")
    history.commit_user("he was")
    history.commit_heard("")
    history.commit_user("not ill disposed")
    history.commit_heard("I see")
    assert history.messages == (Message("user", "he was not ill disposed"), Message("assistant", "I see"))


def test_a_prompt_commits_nothing() -> None:
    history = History("be kind")
    history.commit_user("one")
    assert history.prompt("two") == [Message("system", "be kind"), Message("user", "one two")]
    assert history.messages == (Message("user", "one"),)


def test_it_is_bounded() -> None:
    history = History("x", max_messages=4)
    for i in range(10):
        history.commit_user(f"u{i}")
        history.commit_heard(f"a{i}")
    assert [m.text for m in history.messages] == ["u8", "a8", "u9", "a9"]


def test_words_that_are_never_answered_are_bounded_too() -> None:
    history = History("x")
    for i in range(20):
        history.commit_user(f"{i} " * 1_000)
    (message,) = history.messages
    assert len(message.text) == MAX_CHARS
    assert message.text.endswith("19 19 ")
    assert len(history.prompt("y" * 100_000)[1].text) == MAX_CHARS


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("You are Ada, a helper at Acme Dental in Zürich. Answer shortly.", ["Ada", "Acme Dental", "Zürich"]),
        ("I am sure that I'll see Siobhan O'Neill and NASA on Monday", ["Siobhan O'Neill", "NASA", "Monday"]),
        ("im été sah Сергей Иванов den Ärger", ["Сергей Иванов", "Ärger"]),
        ("Yes. Grace said: Hopper! No? Well… So", []),
        ("你好 and 안녕", []),
    ],
)
def test_names_are_written_with_a_capital_where_no_sentence_begins(text: str, names: list[str]) -> None:
    assert History(text).names() == names


def test_whoever_shouts_names_nobody_at_length() -> None:
    history = History("be kind")
    for i in range(40):
        history.commit_user("what?")
        history.commit_heard(f"no {' '.join(['WHAT', 'A', f'NICE{i}', 'DAY', 'X' * 500] * 100)}")
    assert 0 < len(", ".join(history.names())) < 4_096, "which is what a service of ours takes"


def test_names_are_those_the_agent_knows_and_said_the_latest_last() -> None:
    history = History("You are Ada, at Acme Dental.")
    history.commit_user("my name is Greys Hoper")  # as it was misheard
    history.commit_heard("Good day, Grace Hopper. Is it Doctor Turing?")
    history.commit_user("yes")
    history.commit_heard("So it is, Grace Hopper.")
    assert history.names() == ["Ada", "Acme Dental", "Doctor Turing", "Grace Hopper"]
    for i in range(50):
        history.commit_user("next")
        history.commit_heard(f"Then N{chr(97 + i % 26)}{i} comes")
    assert len(history.names()) == MAX_NAMES
    assert history.names()[-1] == "Nx49"
