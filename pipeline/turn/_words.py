"""What the words so far say of whether a turn is over: cues, each true or not of a text, each with a weight.

Weights are log-odds: those of the cues that a text has are added, and 0 is no opinion. Only English words are known; of
other languages the marks are read. Some recognizers write no marks at all, so no judgment hangs on them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

READ_CHARACTERS = 300
"""How much of a text's end is read."""
LONG_WORDS = 3
"""From here on it may well be a sentence."""
LONG_NUMBER = 7
"""From here on a row of digits or letters may well be whole."""
SHORT_CONDITION = 8
"""A condition this long is followed by its consequence."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


FILLERS = _set("um uh erm er hmm hm mm uhm well so like actually basically")
FILLING = (
    *("you know", "i mean", "let me see", "let me think", "let's see", "sort of", "kind of", "the thing is"),
    *("i think", "i guess", "i believe", "i suppose", "i feel", "i hope", "i wonder", "excuse me"),
)

DETERMINERS = _set(
    "a an the that my your his its our their some every each another very few several new whole only main"
)
ADVERBS = _set("just also even really probably perhaps especially usually always quite almost still maybe rather")
CONJUNCTIONS = _set("and or but nor because although though unless until while whereas if whether than when where")
PREPOSITIONS = _set(
    "to of in on at by for from with without about into onto over under between through during before after"
    " against toward towards near around since per via as"
)
PRONOUNS = _set("i we they he she who which whose i'm we're they're he's she's it's there's that's i'd i'll i've")
AUXILIARIES = _set(
    "is are was were am be been being do does did has have had will would can could shall should may might must"
    " isn't aren't wasn't don't doesn't didn't won't can't couldn't gonna wanna"
)
OPEN = DETERMINERS | ADVERBS | CONJUNCTIONS | PREPOSITIONS | PRONOUNS | AUXILIARIES
"""Words after which another one nearly always comes."""
CLOSED = re.compile(
    r"(what|where|who|how|which) (\w+ )+(for|from|about|to|with|at|on|in|like)"
    r"|.*\b(where|who|how) (\w+ )+(is|are|was|were)|.*\bwhat (\w+ )?(it|that|this|they) (is|are|was|were)"
    r"|(yes |no |so |of course )?(i|you|we|they|he|she|it|that|there)"
    r" ((do|does|did|could|would|have|has|is|are|was)(n't)?|can|can't|will|won't|am)"
    r"|.*\b(do|like|want|know|need|get|take|use|with|about|for|of|is|was|said|see|heard|what's|who's) that"
    r"|.*\b(come|go|going|move|hold|hang|carry|(turn|switch|log|try)( \w+){0,3}) (in|on|over)"
    r"|.*\b(think|hope|guess|suppose|believe) so|.*\b(as|very|feel|not|really) well"
)
"""Sentences that may end in such a word all the same."""
VERBS = _set(
    "want need give send get buy take make put tell say said says called bring ask keep speak mean going trying looking"
    " supposed able used waiting thinking wondering talking hoping interested"
)
GIVING = re.compile(r".*\b(give|send|get|buy|make|tell|bring|show|call) (me|us|him|them)")
ASKED_FOR = re.compile(r"(what|which|who|how) .*")
"""Questions for what a verb at their end wants."""

ANSWERS = _set(
    "yes no yeah yep nope okay ok sure right exactly correct thanks please hello hi hey bye goodbye stop maybe perfect"
    " great fine good cool absolutely definitely certainly nothing never both neither"
)
ANSWERING = (
    *("thank you", "no thanks", "no thank you", "yes please", "of course", "that's right", "that's all", "that's it"),
    *("never mind", "not really", "not yet", "i don't know", "i do", "i don't", "i think so", "good morning"),
    *("good evening", "good afternoon", "good night", "all right", "sounds good", "that sounds good", "go ahead"),
    *("me too", "no problem", "i see", "i understand", "nothing else", "thanks a lot", "thank you very much"),
)
_BEGIN = r"((and|so|but|okay|well|um|uh|hello|hi|excuse me) )*"
_DO = r"(is|are|was|were|do|does|did|can|could|will|would|should|have|has|may)"
QUESTION = re.compile(rf"{_BEGIN}({_DO}|what|where|who|whose|which|why|how|when {_DO})\b.*")
CONDITION = re.compile(rf"{_BEGIN}(if|when(?! {_DO}\b)|because|while|since|before|after|although|unless)\b.*")
DIGITS = _set("zero oh one two three four five six seven eight nine double")


@dataclass(frozen=True, slots=True)
class Said:
    """A text, as it is written; its ``words`` in lower case without marks; those of its last ``sentence``."""

    text: str
    words: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class Cue:
    """Something that is true of some texts."""

    name: str
    weight: float
    applies: Callable[[Said], bool]
    any_language: bool = False


def _asks(said: Said) -> bool:
    return len(said.words) >= LONG_WORDS and bool(QUESTION.fullmatch(said.sentence))


def _answers(said: Said) -> bool:
    return (len(said.words) <= 2 and ANSWERS.issuperset(said.words)) or " ".join(said.words) in ANSWERING


def _is_open(said: Said) -> bool:
    return said.words[-1] in OPEN and not CLOSED.fullmatch(said.sentence) and not _answers(said)


def _fills(said: Said) -> bool:
    filled = said.words[-1] in FILLERS or f" {said.sentence}".endswith(tuple(f" {phrase}" for phrase in FILLING))
    return filled and not CLOSED.fullmatch(said.sentence) and not _answers(said)


def _wants_object(said: Said) -> bool:
    wants = said.words[-1] in VERBS or bool(GIVING.fullmatch(said.sentence))
    return wants and not ASKED_FOR.fullmatch(said.sentence)


def _spells(said: Said) -> bool:
    """Tell whether it ends in digits or letters, more than one and too few."""
    count = 0
    for word in reversed(said.words):
        if not (word in DIGITS or word.isdigit() or (len(word) == 1 and word not in "ai")):
            break
        count += len(word) if word.isdigit() else 1
    return 1 < count < LONG_NUMBER


def _lists(said: Said) -> bool:
    """Tell whether it is items parted by commas, the last of them not announced."""
    *before, last = said.text.rstrip(" .,").split(",")
    return bool(before) and len(_words(last)) <= 3 and not re.match(r"\s*(and|or)\b", last)


def _sets_a_condition(said: Said) -> bool:
    return bool(CONDITION.fullmatch(said.sentence)) and said.sentence.count(" ") < SHORT_CONDITION - 1


CUES: tuple[Cue, ...] = (
    Cue("a question mark", 3.5, lambda said: said.text.endswith(("?", "？", "؟")), any_language=True),
    Cue("a full stop", 0.5, lambda said: bool(re.search(r"(?<!\.\.)[.!。！।]$", said.text)), any_language=True),
    Cue("a comma, a dash, dots", -2.5, lambda said: bool(re.search(r"([,，、:–—-]|\.\.\.|…)$", said.text)), True),
    Cue("a short answer", 2.0, _answers),
    Cue("the form of a question", 1.0, _asks),
    Cue("a word that wants another", -3.5, _is_open),
    Cue("a filler", -4.0, _fills),
    Cue("a verb that wants an object", -3.0, _wants_object),
    Cue("some digits or letters", -2.0, _spells),
    Cue("a list without its end", -1.5, _lists),
    Cue("a condition without its consequence", -1.5, _sets_a_condition),
    Cue("three words or more", 0.4, lambda said: len(said.words) >= LONG_WORDS),
    Cue("fewer, and no answer", -0.4, lambda said: len(said.words) < LONG_WORDS and not _answers(said)),
)


def cues(text: str, language: str | None) -> list[Cue]:
    """Return the cues that a text has. Of one in a language that is not known, or not English, its marks count."""
    text = text.strip()[-READ_CHARACTERS:]
    said = Said(text, _words(text), " ".join(_words(re.split(r"(?<=[.?!])\s+", text)[-1])))
    return [cue for cue in CUES if said.words and (cue.any_language or is_read(language)) and cue.applies(said)]


def is_read(language: str | None) -> bool:
    """Tell whether words of this language (ISO 639-1) are known."""
    return language is not None and language.lower().partition("-")[0] == "en"


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("’", "'")))
