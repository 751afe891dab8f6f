"""Conversations as a model's tokens, and its tokens as text: chat template, trimming, detokenization."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

from pipeline.errors import EngineError, EngineUnavailable
from pipeline.events import Message

CHARACTERS_A_TOKEN = 12
"""More than a token of any language holds on average: texts are cut to this before they are counted exactly."""

TURN_TOKENS = 8
"""About what a template puts around a message."""

STEP_MESSAGES = 8
"""Old messages are dropped in steps, so that what a prompt begins with stays the same for several turns."""

BROKEN = "\ufffd"
"""What stands for bytes that are not a character, or not yet."""


class Chat:
    """A tokenizer with a chat template. Its methods block: they belong into a thread. Not thread-safe."""

    def __init__(self, tokenizer: Any, room_tokens: int, name: str) -> None:
        """Prompts are at most ``room_tokens`` long. Raises EngineUnavailable without a template that works."""
        if not tokenizer.chat_template:
            raise EngineUnavailable(f"a chat model: {name} has no chat template; its instruct variant may have one")
        self._tokenizer = tokenizer
        self._room_tokens = room_tokens
        special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")
        self._knows_system = True
        self._probe(name)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the conversation as tokens, ready to be answered, in at most ``room_tokens``.

        The oldest messages are dropped first; the system prompt and the last message stay, cut where they alone are
        too long (of the system prompt the beginning is kept, of the last message the end).
        """
        plain = [Message(m.role, self._special.sub(" ", m.text)) for m in messages]
        system = [self._cut(m, self._room_tokens // 2, "begin") for m in plain if m.role == "system"][:1]
        said = [m for m in plain if m.role != "system"]
        start = self._first_that_fits(system, said)
        tokens = self._render([*system, *said[start:]])
        while len(tokens) > self._room_tokens and start + 1 < len(said):
            start = min(start + STEP_MESSAGES, len(said) - 1)
            tokens = self._render([*system, *said[start:]])
        if (too_many := len(tokens) - self._room_tokens) > 0 and said:
            room = max(1, self._count(said[-1].text) - too_many - TURN_TOKENS)
            tokens = self._render([*system, self._cut(said[-1], room, "end")])
        return tokens[-self._room_tokens :]

    def words(self) -> Words:
        """Return what turns the tokens of one answer into text."""
        return Words(self._decode)

    def _first_that_fits(self, system: Sequence[Message], said: list[Message]) -> int:
        """Return how many of the oldest messages to leave out; cuts the last one where it cannot fit."""
        left = self._room_tokens - sum(self._count(m.text) + TURN_TOKENS for m in system)
        said[-1:] = [self._cut(m, max(1, left - TURN_TOKENS), "end") for m in said[-1:]]
        for index in reversed(range(len(said))):
            left -= self._count(said[index].text) + TURN_TOKENS
            if left < 0:
                out = index + 1
                return min(-(-out // STEP_MESSAGES) * STEP_MESSAGES, len(said) - 1)
        return 0

    def _count(self, text: str) -> int:
        """Count tokens, exactly where there may be room for them."""
        return len(self._encode(text[: self._room_tokens * CHARACTERS_A_TOKEN]))

    def _cut(self, message: Message, tokens: int, keep: Literal["begin", "end"]) -> Message:
        characters = self._room_tokens * CHARACTERS_A_TOKEN
        text = message.text[:characters] if keep == "begin" else message.text[-characters:]
        ids = self._encode(text)
        if len(ids) > tokens:
            text = self._decode(ids[:tokens] if keep == "begin" else ids[-tokens:]).strip(BROKEN)
        return Message(message.role, text)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _render(self, messages: Sequence[Message]) -> list[int]:
        known = messages if self._knows_system else without_system(messages)
        said = [{"role": m.role, "content": m.text} for m in known]
        try:
            # what is thought aloud would be waited for; a template that knows no such thing ignores it
            text = self._tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as error:
            raise EngineError(f"llm transformers: the chat template refuses this ({error!s:.200})") from error
        return self._encode(text)

    def _probe(self, name: str) -> None:
        """Try the template out: some know no system prompt, or nobody who speaks before the user."""
        call: list[Message] = [Message("system", "s"), Message("assistant", "a"), Message("user", "u")]
        try:
            self._render(call)
        except EngineError:
            self._knows_system = False
        try:
            self._render(call)
        except EngineError as error:
            raise EngineUnavailable(f"another model: {name} does not work here: {error}") from error


def without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Return the conversation with the system prompt as what the user said first."""
    if not messages or messages[0].role != "system":
        return messages
    system, rest = messages[0].text, messages[1:]
    if rest and rest[0].role == "user":
        return [Message("user", f"{system}\n\n{rest[0].text}"), *rest[1:]]
    return [Message("user", system), *rest]


class Words:
    """Tokens in, text out, never half a character: bytes wait for the token that completes them."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._said: list[int] = []  # the latest tokens whose text was given: what follows is decoded in their light
        self._held: list[int] = []

    def add(self, token: int) -> str:
        """Return the text that became certain with this token; often empty."""
        self._held.append(token)
        text = self._new_text()
        if not text or text.endswith(BROKEN):
            return ""
        self._said, self._held = self._held, []
        return text.replace(BROKEN, "")

    def rest(self) -> str:
        """Return what is left at the end, without bytes that never became a character."""
        return self._new_text().replace(BROKEN, "")

    def _new_text(self) -> str:
        return self._decode([*self._said, *self._held])[len(self._decode(self._said)) :]
