"""The heuristic's judgment: a table of what people say, what it makes of other languages, and of a voice alone."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import turn_set
from benchmarks.end_of_turn import AT_MS, judgments, of
from pipeline import engines
from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence
from pipeline.endpointing import NO_OPINION
from pipeline.engines import load
from pipeline.turn._prosody import MOST_SEMITONES, final_rise_semitones
from pipeline.turn._words import CUES, READ_CHARACTERS, cues
from pipeline.turn.heuristic import HeuristicEndOfTurn

from .recordings import recording

SOON = """
yes
No.
Thank you.
thanks a lot
never mind
Okay
maybe
What time is it?
what is your name
where are you from
can you help me with my bill
How much does it cost?
and what about tomorrow?
what's this?
do you know what time it is
could you tell me where the station is
what do you mean
how long does it take
when does the train leave
""".strip().splitlines()

MIDDLE = """
I live in Berlin.
i live in berlin
turn it on
please turn the lights on
yes it is
no I can't
I already know that.
I feel very well.
we would like a room with a view
""".strip().splitlines()

WAIT = """
I would like to
and
so
Um,
i want a
I need a ticket from London to
we went there because
my name is
it's not that bad, but
I'd like to speak with your
and then I just
yes and
what I mean is the
well you know
let me think
let's see
I think
my number is five five five
it is spelled k a r l
0 1 7
The code is 47 11
Apples, pears, bananas
i'd like mushrooms,
I was wondering...
If it rains tomorrow
when I opened the box
can you give me
I am going
please tell me
""".strip().splitlines()


def probability(words: str, language: str | None = "en", sound: Pcm | None = None) -> float:
    turn = HeuristicEndOfTurn()
    try:
        return asyncio.run(turn.is_complete(silence(0) if sound is None else sound, words, language))
    finally:
        turn.close()


@pytest.mark.parametrize("words", SOON)
def test_what_is_finished_is_answered_soon(words: str) -> None:
    assert probability(words) > 0.75


@pytest.mark.parametrize("words", MIDDLE)
def test_what_may_be_finished_is_waited_for_about_as_long_as_by_the_rule(words: str) -> None:
    assert 0.5 <= probability(words) <= 0.75


@pytest.mark.parametrize("words", WAIT)
def test_what_goes_on_is_given_time(words: str) -> None:
    assert probability(words) < 0.3


@pytest.mark.parametrize("words", ["", "  ", "...", "?!"])
def test_without_words_and_without_a_voice_there_is_no_opinion(words: str) -> None:
    assert probability(words) == NO_OPINION


@pytest.mark.parametrize("language", ["en", "en-GB", "EN"])
def test_english_is_read_whatever_its_code(language: str) -> None:
    assert probability("I would like to", language) < 0.1


@pytest.mark.parametrize("language", ["de", "es", "zh", None])
@pytest.mark.parametrize(
    ("words", "least", "most"),
    [
        ("ich wohne in der Stadt und so", 0.5, 0.5),
        ("no", 0.5, 0.5),
        ("Wie spät ist es?", 0.9, 1.0),
        ("你好吗？", 0.9, 1.0),
        ("Ich möchte,", 0.0, 0.1),
        ("Ich möchte...", 0.0, 0.1),
        ("我想要、", 0.0, 0.1),
        ("Guten Tag.", 0.6, 0.7),
        ("谢谢。", 0.6, 0.7),
    ],
)
def test_of_other_languages_only_the_marks_count(words: str, least: float, most: float, language: str | None) -> None:
    assert least <= probability(words, language) <= most


def test_every_cue_is_found_by_itself() -> None:
    """Each in a text that has it, and not in the same text without what makes it."""
    pairs = {
        "a question mark": ("it is blue?", "it is blue"),
        "a full stop": ("it is blue.", "it is blue..."),
        "a comma, a dash, dots": ("it is blue,", "it is blue"),
        "a short answer": ("yes", "yesterday"),
        "the form of a question": ("is it blue", "it is blue"),
        "a word that wants another": ("give me the", "give me them"),
        "a filler": ("it is um", "it is blue"),
        "a verb that wants an object": ("please give", "please give it"),
        "some digits or letters": ("it is seven two", "it is seven"),
        "a list without its end": ("red, blue, green", "red, blue, and green"),
        "a condition without its consequence": ("if it is blue", "it is blue"),
        "three words or more": ("it is blue", "a blue"),
        "fewer, and no answer": ("blue", "yes"),
    }
    assert set(pairs) == {cue.name for cue in CUES}
    for name, (with_it, without) in pairs.items():
        assert name in {cue.name for cue in cues(with_it, "en")}, with_it
        assert name not in {cue.name for cue in cues(without, "en")}, without


def test_a_whole_number_is_no_part_of_one() -> None:
    assert probability("my number is five five five zero one three four") > 0.5
    assert probability("my number is 555 0134") > 0.5


@pytest.mark.parametrize(
    "text", ["what " + "a " * 50_000, "1" * 100_000, "so " * 30_000, ", " * 50_000, "what's" * 20_000]
)
def test_a_long_text_is_judged_by_its_end_and_at_once(text: str) -> None:
    began_s = time.process_time()
    assert 0.0 <= probability(text) <= 1.0
    assert time.process_time() - began_s < 2.0
    assert probability("I think so. " * READ_CHARACTERS + "and") < 0.1


# --- the voice


def voice(*hz: float) -> Pcm:
    """Return a buzz of 100 ms at each pitch, and a silence."""
    pitch = np.repeat(hz, SPEECH_RATE_HZ // 10)
    phase = 2 * np.pi * np.cumsum(pitch) / SPEECH_RATE_HZ
    buzz = np.sum([np.sin(k * phase) / k for k in range(1, 8)], axis=0)
    return np.concatenate([(6_000 * buzz).astype(np.int16), silence(1_600)])


def test_a_voice_that_falls_has_finished_and_one_that_rises_has_not() -> None:
    level, falling, rising = [voice(120, 120, 120, 120, hz) for hz in (120, 100, 140)]
    assert final_rise_semitones(level) == pytest.approx(0.0, abs=0.3)
    assert final_rise_semitones(falling) == -MOST_SEMITONES and final_rise_semitones(rising) == MOST_SEMITONES
    for words, language in (("", "en"), ("ich möchte", "de")):
        fell, stayed, rose = [probability(words, language, sound) for sound in (falling, level, rising)]
        assert fell > 0.65 > stayed > 0.35 > rose


def test_where_the_words_are_read_the_voice_is_not_listened_to() -> None:
    assert probability("yes", "en", voice(120, 140)) == probability("yes", "en", silence(0))


@pytest.mark.parametrize("sound", [silence(0), silence(100), silence(48_000), voice(120)[:2_000]])
def test_too_little_voice_tells_nothing(sound: Pcm) -> None:
    assert final_rise_semitones(sound) == 0.0


def test_a_voice_is_listened_to_on_a_thread_of_its_own() -> None:
    async def main(turn: HeuristicEndOfTurn) -> None:
        before = {thread.name for thread in threading.enumerate()}
        await turn.is_complete(recording("austen-0880.wav"), "yes", "en")
        assert {thread.name for thread in threading.enumerate()} == before
        await turn.is_complete(recording("austen-0880.wav"), "", "en")
        assert any(thread.name.startswith("heuristic") for thread in threading.enumerate())

    turn = load("turn", "heuristic", {})
    asyncio.run(main(turn))
    engines.close(turn)


# --- the measured promise


@pytest.mark.parametrize("half", turn_set.VOICES)
def test_at_the_same_wait_it_cuts_off_less_than_half_as_often_as_silence_alone(half: str) -> None:
    async def rates() -> tuple[float, float]:
        turn = HeuristicEndOfTurn()
        alone = of(items, [NO_OPINION] * len(items))
        with_it = of(items, await judgments(turn, items, [turn_set.plain(item.words) for item in items]))
        turn.close()
        return alone.cut_off_at(AT_MS), with_it.cut_off_at(AT_MS)

    items = turn_set.synthesized(half)
    assert len(turn_set.pauses(items)) > 200 and len(turn_set.ends(items)) > 200
    alone, with_it = asyncio.run(rates())
    assert alone > 0.5 and with_it < alone / 2


def test_the_documented_weights_are_the_weights() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([+-]\d\.\d) \|", Path("docs/engines.md").read_text(), re.MULTILINE)
    assert {name.strip(): float(weight) for name, weight in rows} == {cue.name: cue.weight for cue in CUES}
