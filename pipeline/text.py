"""From a model's deltas to clauses a voice can speak, and how long it may pause behind each.

A first clause is cut early, at a comma if it is long enough, so that speech can start; later ones are whole sentences,
so that prosody holds. What cannot be spoken (markup, code blocks, emoji, bare links' addresses) is dropped.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

FIRST_CLAUSE_CHARS = 24
"""The first clause may end at a comma from this length on."""
ZERO_WIDTH_SPACE = "\u200b"
MAX_CLAUSE_CHARS = 240
PAUSE_MS = 250
"""The longest silence behind a clause that ends within a sentence; espeak-ng makes 150 at a comma, 226 at a dash."""
SENTENCE_PAUSE_MS = 600
"""The longest one behind a sentence or a line; espeak-ng makes 300 to 340."""

_MARKS, _WIDE_MARKS = ",;:–—", "，；：、"
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]”’]*(?=\s)|[。！？]+|\n+")
_CLAUSE_END = re.compile(rf"[{_MARKS}](?=\s)|[{_WIDE_MARKS}]")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|approx|Nr|z\.B|bzw|a\.m|p\.m)|\b[A-Z])\.$|^\s*\d{1,3}\.$"
)
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ADDRESS = re.compile(r"https?://\S+")
_MARKUP_IN_WORD = re.compile(r"(?<=[^\W_])[*_`~#>|]+(?=[^\W_])")
"""In "3*4" and "snake_case": what it joins stays apart."""
_MARKUP = re.compile(r"[*_`~#>|]+|^\s*[-•]\s+", re.MULTILINE)
_SPACE = re.compile(r"\s+")


class ClauseSplitter:
    """Deltas in, clauses out. Not ``early``: the first clause is a whole sentence, too."""

    def __init__(self, *, early: bool = True) -> None:
        self._buffer = ""
        self._first = early
        self._in_code = False

    def push(self, delta: str) -> list[str]:
        """Add text; return the clauses that are now complete."""
        pieces = (delta[i : i + MAX_CLAUSE_CHARS] for i in range(0, len(delta), MAX_CLAUSE_CHARS))
        return [clause for piece in pieces for clause in self._push(piece)]

    def _push(self, piece: str) -> list[str]:
        """Add text so short that looking through it over and over costs nothing."""
        self._buffer += piece
        clauses: list[str] = []
        while (end := self._cut()) is not None:
            raw, self._buffer = self._buffer[:end], self._buffer[end:]
            clauses += self._clause(raw)
        return clauses

    def flush(self) -> list[str]:
        """The text is complete: return the rest, if it can be spoken."""
        raw, self._buffer = self._buffer, ""
        return self._clause(raw)

    def _clause(self, raw: str) -> list[str]:
        spoken = speakable(self._without_code(raw))
        if spoken:
            self._first = False
        return [spoken] if spoken else []

    def _cut(self) -> int | None:
        self._buffer = self._buffer.lstrip(" ")
        end = min(self._ends(), default=MAX_CLAUSE_CHARS + 1)
        return end if end <= MAX_CLAUSE_CHARS else self._cut_long()

    def _ends(self) -> Iterator[int]:
        """Yield where the first sentence ends, and where an early first clause may."""
        sentences = (match.end() for match in _SENTENCE_END.finditer(self._buffer))
        yield from islice((end for end in sentences if not _ABBREVIATION.search(self._buffer[:end])), 1)
        if self._first:
            clauses = (match.end() for match in _CLAUSE_END.finditer(self._buffer))
            yield from islice((end for end in clauses if end >= FIRST_CLAUSE_CHARS), 1)

    def _cut_long(self) -> int | None:
        if len(self._buffer) <= MAX_CLAUSE_CHARS:
            return None
        ends = [m.end() for m in _CLAUSE_END.finditer(self._buffer, 0, MAX_CLAUSE_CHARS)]
        space = self._buffer.rfind(" ", 1, MAX_CLAUSE_CHARS)
        return ends[-1] if ends else space if space > 0 else MAX_CLAUSE_CHARS

    def _without_code(self, raw: str) -> str:
        """Drop what stands between code fences, also when a fence opens in one clause and closes in another."""
        kept: list[str] = []
        for i, part in enumerate(raw.split("```")):
            self._in_code ^= i > 0
            if not self._in_code:
                kept.append(part)
        return " ".join(kept)


def longest_pause_ms(clause: str) -> int:
    """How much silence may follow a clause, spoken at a voice's own tempo, before it is heard as a gap."""
    return PAUSE_MS if clause[-1:] in (*_MARKS, *_WIDE_MARKS) else SENTENCE_PAUSE_MS


def speakable(text: str) -> str:
    """Return what a voice should say of ``text``; empty if nothing in it can be said."""
    text = _ADDRESS.sub(" ", _LINK.sub(r"\1", text))
    text = _MARKUP.sub("", _MARKUP_IN_WORD.sub(" ", text))
    text = "".join(_spoken(char) for char in text)
    text = _SPACE.sub(" ", text).strip()
    return text if has_words(text) else ""


def has_words(text: str) -> bool:
    """Tell whether there is a letter or a digit: without one nothing is said ("...", "♪")."""
    return any(char.isalnum() for char in text)


def _spoken(char: str) -> str:
    """Return the character, a space for emoji and control characters, nothing for what joins or hyphenates letters."""
    category = unicodedata.category(char)
    if category == "Cf" and char != ZERO_WIDTH_SPACE:
        return ""
    return " " if category in ("So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn") and char not in "°" else char
