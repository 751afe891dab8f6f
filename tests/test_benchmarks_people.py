"""The recorded half of the end-of-turn benchmark: its places, its sound at them, and its tables."""

from __future__ import annotations

import asyncio
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.end_of_turn import Judged, of_people, rows, together
from benchmarks.people import LENGTHS, PAUSE_MS, QUIET_DB, TEXTS, People, aligned, people, readings
from benchmarks.turn_set import JUDGED_MS, LONGEST_MS, RECORDINGS, SHORTEST_MS, Item, plain, read
from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, Pcm, silence
from pipeline.speech import SpeechSegmenter, SpeechSettings
from pipeline.vad.silero import create as silero

JUDGED_SAMPLES = JUDGED_MS * SAMPLES_PER_MS


@pytest.fixture(scope="module")
def found() -> People:
    return people()


def last_words(items: list[Item]) -> list[str]:
    return [item.words.split()[-1] for item in items]


def test_the_texts_are_what_is_said_and_there_is_one_for_each_recording() -> None:
    said = dict(line.split("\t") for line in (RECORDINGS / "words.tsv").read_text().splitlines())
    assert {name: plain(text) for name, text in TEXTS.items()} == said
    assert sorted(said) == sorted(path.name for path in RECORDINGS.glob("*.wav"))


def test_only_the_ends_of_sentences_are_ends(found: People) -> None:
    assert [item.words for item in found.ends] == [text for text in TEXTS.values() if text.endswith(".")]
    assert last_words(found.ends) == ["them.", "meters.", "country.", "modern.", "surpassed."]
    whole = [item.words for item in found.paused if item.words == item.turn]
    assert whole == [text for text in TEXTS.values() if not text.endswith(".")], "the others go on in their sources"


def test_it_finds_where_they_paused(found: People) -> None:
    within = [item.words for item in found.paused if item.words != item.turn]
    assert within == [
        "And so, my fellow Americans:",
        "And so, my fellow Americans: ask",
        "And so, my fellow Americans: ask not",
        "And so, my fellow Americans: ask not what your country can do for you,",
        "produced the block books,",
        "And",
        "And it is worth mention in passing",
    ]


def test_it_cuts_behind_words_and_nowhere_twice(found: People) -> None:
    assert len(found.cut) >= 40
    everywhere = [(item.turn, item.words) for item in [*found.ends, *found.paused, *found.cut]]
    assert len(everywhere) == len(set(everywhere))
    for turn, words in everywhere:
        assert turn.split()[: len(words.split())] == words.split()


def test_what_is_heard_ends_with_the_word_and_then_is_quiet(found: People) -> None:
    """By the level: as loud before as speech in that recording is, and behind it as its quietest parts."""
    for item in [*found.ends, *found.paused, *found.cut]:
        spoken, quiet = item.heard[:-JUDGED_SAMPLES], item.heard[-JUDGED_SAMPLES:]
        levels = [level_db(spoken[i : i + 160]) for i in range(0, len(spoken) - 160, 160)]
        assert level_db(quiet) < max(levels) - QUIET_DB, item.words
        assert level_db(spoken[-320:-80]) > level_db(quiet), item.words


def test_a_place_that_is_heard_to_end_is_silent_to_the_detector_soon(found: People) -> None:
    detector, late_ms = silero({}), []
    for item in [*found.ends, *found.paused, *found.cut]:
        ear, segmenter = detector.open(), SpeechSegmenter(SpeechSettings())
        heard = np.concatenate([item.heard, np.tile(item.heard[-JUDGED_SAMPLES:], 3)])
        for window in heard[: len(heard) // 512 * 512].reshape(-1, 512):
            segmenter.push(ear.probability(window), 512)
        late_ms.append((segmenter.last_speech_samples - len(item.heard) + JUDGED_SAMPLES) / SAMPLES_PER_MS)
    assert min(late_ms) > -100 and np.median(late_ms) < 100 and np.mean([late > 200 for late in late_ms]) < 0.1


def test_the_aligner_says_where_words_are_and_refuses_what_it_cannot_place() -> None:
    pcm = read(RECORDINGS / "go-forward.wav")
    words = aligned(pcm, "go forward ten meters")
    assert [a.end <= b.begin for a, b in pairwise(words)] == [True] * 3
    later = aligned(np.concatenate([silence(SPEECH_RATE_HZ), pcm]), "go forward ten meters")
    assert [b.begin - a.begin for a, b in zip(words[1:], later[1:], strict=True)] == pytest.approx([100] * 3, abs=5)
    with pytest.raises(LookupError, match="lacks one of the words of 'go forward ten zzyzx'"):
        aligned(pcm, "go forward ten zzyzx")
    with pytest.raises(LookupError, match="cannot find 'go forward ten meters' in so much sound"):
        aligned(pcm[:1600], "go forward ten meters")


def test_a_pause_that_is_put_between_words_is_found_and_a_shorter_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words that run into each other: where a cut is possible becomes a pause once it is long enough."""
    name = "go-forward.wav"
    pcm = read(RECORDINGS / name)
    [before, after] = [people([name]).cut[1], aligned(pcm, "go forward ten meters")[1].end * 160]
    assert before.words == "Go forward" and not people([name]).paused
    for pause_ms, is_pause in ((PAUSE_MS + 200, True), (PAUSE_MS - 160, False)):
        room = np.tile(before.heard[-JUDGED_SAMPLES:], 10)[: pause_ms * SAMPLES_PER_MS]
        slow = np.concatenate([pcm[:after], room, pcm[after:]])
        monkeypatch.setattr("benchmarks.people.read", lambda _, slow=slow: slow)
        assert [item.words for item in people([name]).paused] == ["Go forward"] * is_pause


def test_each_place_is_tried_with_short_and_long_pauses(found: People) -> None:
    items = readings([found.ends[0], found.paused[0], found.cut[0]], random.Random(1))
    ends, paused, cut = (items[i : i + LENGTHS] for i in range(0, 3 * LENGTHS, LENGTHS))
    assert {item.pause_ms for item in ends} == {None}
    for some in (paused, cut):
        lengths_ms = [item.pause_ms or 0.0 for item in some]
        assert lengths_ms == sorted(lengths_ms) and lengths_ms[0] >= SHORTEST_MS and lengths_ms[-1] <= LONGEST_MS
        steps = np.log(np.array(lengths_ms) / SHORTEST_MS) / np.log(LONGEST_MS / SHORTEST_MS) * LENGTHS
        assert np.floor(steps).tolist() == list(range(LENGTHS)), "one in each part of the scale"
    assert [a.pause_ms for a in paused] != [b.pause_ms for b in cut]


def test_one_who_knows_cuts_nobody_off_and_each_table_has_its_own_places(
    found: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, paused, cut = len(found.ends), len(found.paused), len(found.cut)
    silent = [0.5] * (ends + paused + cut)
    monkeypatch.setattr("benchmarks.end_of_turn.DRAWN", 5)
    given = {"silence": silent, "knows of cuts": [1.0] * (ends + paused) + [0.0] * cut}
    first, second, both = of_people(found, given).split("\npeople, ")[1:]
    assert cells(second, "knows of cuts") == [0.0] * 5
    assert cells(first, "knows of cuts") == cells(first, "silence"), "of pauses it knows no more than silence"
    for rate, alone in zip(cells(both, "knows of cuts"), cells(both, "silence"), strict=True):
        assert 0.0 < rate < alone / 2


def test_the_documented_tables_are_what_it_prints(found: People, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the rows that need neither a model nor a recognizer; drawn by a seed, they are the same everywhere."""
    monkeypatch.setattr("benchmarks.end_of_turn.DRAWN", 5)
    given = asyncio.run(rows([*found.ends, *found.paused, *found.cut], None, None))
    document = Path("docs/latency.md").read_text().split("| people, ")[1:]
    for printed, written in zip(of_people(found, given).split("\npeople, ")[1:], document, strict=True):
        assert printed.splitlines()[0] == written.partition(":")[0]
        for row in given:
            [documented] = re.findall(rf"^\| {row} \|(.*)\|$", written, re.MULTILINE)[:1]
            figures = [int(figure) for figure in re.findall(r"(\d+) %", documented)[:5]]
            assert figures == pytest.approx(cells(printed, row), abs=0.6), row


def test_a_wait_that_no_scale_reaches_is_not_a_figure() -> None:
    """The longest wait is not scaled: who takes every end for a pause waits that long."""
    doubts = Judged([(0.1, 900.0)], [0.1, 0.1, 0.1])
    assert np.isnan(doubts.cut_off_at(300)) and doubts.cut_off_at(1500) == 0.0
    assert np.isnan(Judged([(0.5, 900.0)], []).cut_off_at(300))


def test_two_engines_together_are_the_mean_of_their_log_odds() -> None:
    assert together([0.9, 0.5, 0.9], [0.1, 0.5, 0.9]) == pytest.approx([0.5, 0.5, 0.9])
    assert 0.99 < together([1.0], [0.5])[0] < 1.0


def cells(table: str, row: str) -> list[float]:
    [line, *_] = [line for line in table.splitlines() if line.startswith(row)]
    return [float(cell) for cell in line.removeprefix(row).split()[:5]]


def level_db(pcm: Pcm) -> float:
    return float(10 * np.log10(np.mean(pcm.astype(float) ** 2) + 1))
