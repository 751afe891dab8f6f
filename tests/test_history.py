"""History alternates, keeps only what was heard, and is bounded."""

from __future__ import annotations

from pipeline.events import Message
from pipeline.history import MAX_CHARS, History


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
