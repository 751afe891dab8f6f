"""Conversations by ``session_id``: bounded in turns, in number, in characters and in age."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.events import Message
from pipeline.history import History


@dataclass(frozen=True, slots=True)
class ConversationLimits:
    """How much is remembered; what was used longest ago goes first. ``characters`` are those of all together."""

    turns: int = 20
    conversations: int = 1024
    characters: int = 8 * 1024 * 1024
    unused_s: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Conversation:
    history: History
    used_s: float
    characters: int


class Conversations:
    """What was said, by session. An id is a capability: whoever knows it goes on with the conversation.

    Any number of requests of one session may be answered at once: each sees what had been given out when it began, and
    its question enters together with its answer when that ends, so that user and agent always alternate.
    """

    def __init__(self, clock_s: Callable[[], float], limits: ConversationLimits = ConversationLimits()) -> None:
        self._clock_s = clock_s
        self._limits = limits
        self._conversations: dict[str, _Conversation] = {}
        self._characters = 0

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._conversations)

    def prompt(self, session_id: str | None, system_prompt: str, text: str) -> list[Message]:
        """Return what to ask the model if ``text`` is said now; without an id it is the first thing said.

        The system prompt is the one given now: another personality goes on with the same conversation.
        """
        self._forget()
        known = self._conversations.get(session_id or "")
        said = known.history.messages if known is not None else ()
        return [Message("system", system_prompt), *said, Message("user", text)]

    def commit(self, session_id: str | None, text: str, answer: str) -> None:
        """Remember a question and what was given out of its answer; nothing if nothing was."""
        if not session_id or not answer:
            return
        history = self._drop(session_id) or History("", 2 * self._limits.turns)
        history.commit_user(text)
        history.commit_heard(answer)
        characters = sum(len(message.text) for message in history.messages)
        self._conversations[session_id] = _Conversation(history, self._clock_s(), characters)
        self._characters += characters
        self._forget()

    def _drop(self, session_id: str) -> History | None:
        dropped = self._conversations.pop(session_id, None)
        if dropped is None:
            return None
        self._characters -= dropped.characters
        return dropped.history

    def _forget(self) -> None:
        """Drop the oldest ones, which stand first, until the rest is within the limits."""
        while self._conversations and self._over():
            self._drop(next(iter(self._conversations)))

    def _over(self) -> bool:
        oldest = next(iter(self._conversations.values()))
        return (
            len(self._conversations) > self._limits.conversations
            or self._characters > self._limits.characters
            or self._clock_s() - oldest.used_s > self._limits.unused_s
        )
