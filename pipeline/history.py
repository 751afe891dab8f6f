"""What was said, as the next answer may rely on it: the agent's part is only what was heard."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Literal

from .events import Message

MAX_MESSAGES = 200
MAX_CHARS = 16_384
"""Of each message, its end: typing that is never answered would otherwise become one text without end."""

MAX_NAMES = 16
NAMED_IN_CHARS = 2_048
"""Of each message, its end, is looked through for names."""

_CAPITAL = f"[A-Z{''.join(char for char in map(chr, range(0xC0, 0x530)) if char.isupper())}]"
"""Of Latin, Greek and Cyrillic."""
_WORD = rf"(?!I\b){_CAPITAL}[\w'’-]{{0,28}}\w\b"
_NAME = re.compile(rf"(?<=[^\s.!?:;…\"'(\[{{*#-] ){_WORD}(?: {_WORD}){{0,3}}")
"""Words with a capital letter that no sentence begins with; up to four in a row are one name."""


class History:
    """Messages that alternate between caller and agent: the latest ``max_messages``, the end of each."""

    def __init__(self, system_prompt: str, max_messages: int = MAX_MESSAGES) -> None:
        self._system = Message("system", system_prompt)
        self._given_names = list(_names_in(system_prompt))
        self._said_names: deque[str] = deque(maxlen=4 * MAX_NAMES)
        self._messages: list[Message] = []
        self._max_messages = max_messages

    @property
    def messages(self) -> Sequence[Message]:
        """The conversation so far, without the system prompt."""
        return tuple(self._messages)

    def prompt(self, user: str) -> list[Message]:
        """Return what to ask the model if the caller's turn is ``user``. Commits nothing."""
        return [self._system, *_joined(self._messages, Message("user", user))]

    def names(self) -> Sequence[str]:
        """Return the names that the agent knows or has said, at most ``MAX_NAMES``, the latest at the end.

        Only what was written is trusted with their spelling: the agent's words and its system prompt.
        """
        latest_first = dict.fromkeys([*reversed(self._said_names), *reversed(self._given_names)])
        return list(latest_first)[MAX_NAMES - 1 :: -1]

    def commit_user(self, text: str) -> None:
        """Add the caller's words; joined to their last ones if the agent was not heard in between."""
        self._commit(Message("user", text))

    def commit_heard(self, text: str) -> None:
        """Add what was heard of a reply; nothing if nothing was."""
        if text:
            self._commit(Message("assistant", text))
            self._said_names.extend(_names_in(text))

    def _commit(self, message: Message) -> None:
        self._messages = _joined(self._messages, message)[-self._max_messages :]


def _joined(messages: Sequence[Message], message: Message) -> list[Message]:
    if messages and messages[-1].role == message.role:
        return [*messages[:-1], _bounded(message.role, f"{messages[-1].text} {message.text}")]
    return [*messages, _bounded(message.role, message.text)]


def _names_in(text: str) -> Iterator[str]:
    return (found[0] for found in _NAME.finditer(text[-NAMED_IN_CHARS:]))


def _bounded(role: Literal["system", "user", "assistant"], text: str) -> Message:
    return Message(role, text[-MAX_CHARS:])
