"""Texts as XTTS's tokens: languages, the model's own cleaning of what is written, pieces as long as it can speak."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from pipeline.errors import NotOffered
from pipeline.text import has_words

MAX_CHARACTERS: Final = 8_000
"""About ten minutes of speech."""

MAX_NUMBER_DIGITS: Final = 30
"""Longer ones are read digit by digit: there are no names for them."""

NEEDS: Final[Mapping[str, tuple[str, ...]]] = {"zh": ("pypinyin",), "ja": ("cutlet", "fugashi")}
"""Packages without which coqui-tts cannot read a language."""

_SENTENCE = re.compile(r"[^.!?…。！？।؟]*(?:[.!?…。！？।؟]+[\"')\]”’]*\s*|$)")
_LONG_NUMBER = re.compile(rf"\d{{{MAX_NUMBER_DIGITS + 1},}}")


class Texts:
    """What a checkpoint can read. ``tokenizer`` is coqui's ``VoiceBpeTokenizer``. Blocks for milliseconds."""

    def __init__(self, tokenizer: Any, languages: Sequence[str], max_tokens: int) -> None:
        self.languages = [language.lower() for language in languages]
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._unknown = tokenizer.tokenizer.token_to_id("[UNK]")
        self._space = tokenizer.tokenizer.token_to_id("[SPACE]")

    def pieces(self, text: str, language: str) -> list[list[int]]:
        """Return the tokens of each piece to be spoken on its own.

        Raises NotOffered for a language it does not speak, a text that is too long, and one of which it knows no sign.
        """
        if len(text) > MAX_CHARACTERS:
            what = f"tts xtts speaks at most {MAX_CHARACTERS} characters at once, not {len(text)}"
            raise NotOffered(f"{what}: send the text in parts")
        spoken = self._language(language)
        plain = _LONG_NUMBER.sub(lambda number: " ".join(number[0]), text.replace("[", "(").replace("]", ")"))
        found = [tokens for piece in self._cut(plain, spoken) for tokens in self._tokens(piece, spoken)]
        if not found:
            raise NotOffered(f"tts xtts knows none of the characters of the text in the language {language!r}")
        return found

    def _language(self, wanted: str) -> str:
        """Return the language as the tokenizer calls it: "zh-cn" is "zh" there."""
        language = wanted.lower().replace("_", "-").partition("-")[0]
        known = {offered.partition("-")[0] for offered in self.languages}
        if language not in known or language not in self._tokenizer.char_limits:
            raise NotOffered(f"tts xtts does not speak {wanted[:20]!r}, but {', '.join(sorted(known))}")
        if missing := [package for package in NEEDS.get(language, ()) if find_spec(package) is None]:
            raise NotOffered(f"tts xtts needs a package to read {language!r}: pip install {missing[0]}")
        return language

    def _cut(self, text: str, language: str) -> Iterator[str]:
        """Put as many whole sentences together as the model speaks well at once."""
        limit = int(self._tokenizer.char_limits[language])
        piece = ""
        for sentence in _SENTENCE.findall(text):
            for line in _lines(sentence, limit):
                if len(piece) + len(line) > limit:
                    yield piece
                    piece = ""
                piece += line
        yield piece

    def _tokens(self, text: str, language: str) -> Iterator[list[int]]:
        """Yield its tokens, in two halves where cleaning made it too long, and nothing where it knows none of it."""
        if not has_words(text):
            return
        tokens: list[int] = self._tokenizer.encode(text.strip().lower(), lang=language)
        if len(tokens) > self._max_tokens and len(text) > 1:
            middle = text.rfind(" ", 0, len(text) // 2) + 1 or len(text) // 2
            yield from self._tokens(text[:middle], language)
            yield from self._tokens(text[middle:], language)
        elif any(token not in (self._unknown, self._space) for token in tokens[1:]):
            yield tokens


def _lines(sentence: str, limit: int) -> list[str]:
    return [sentence] if len(sentence) <= limit else [f"{line} " for line in textwrap.wrap(sentence, limit - 1)]
