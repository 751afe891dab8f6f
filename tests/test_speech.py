"""Speech detection in counted samples: tables, and any chunking alike."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.audio import SAMPLES_PER_MS, AudioTail, Pcm, silence
from pipeline.events import SpeechEnded, SpeechStarted
from pipeline.speech import Ear, SpeechSegmenter, SpeechSettings, trailing_silence

from .fakes import LoudnessDetector

W = 320


def _events(script: str, settings: SpeechSettings | None = None) -> list[object]:
    """One character is a window of 20 ms: ``#`` speech, ``-`` unsure (0.4), ``.`` silence.

    Between them ``(`` presses the talk button, ``)`` releases it, ``;`` after a slip, ``|`` cuts.
    """
    segmenter = SpeechSegmenter(settings or SpeechSettings(min_speech_ms=60, pause_ms=100))
    probability = {"#": 0.9, "-": 0.4, ".": 0.1}
    told: list[object] = []
    samples = 0
    for char in script:
        if char in probability:
            samples += W
            told.append(segmenter.push(probability[char], W))
        else:
            told.append(segmenter.cut(samples) if char == "|" else _button(segmenter, char, samples))
    return [event for event in told if event is not None]


def _button(segmenter: SpeechSegmenter, char: str, samples: int) -> object:
    return segmenter.press(samples) if char == "(" else segmenter.release(samples, slipped=char == ";")


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("....##....", []),
        ("....###...", [SpeechStarted(4 * W)]),
        ("#.#.#.#.#.", []),
        ("###.....", [SpeechStarted(0), SpeechEnded(3 * W)]),
        ("###....###", [SpeechStarted(0)]),
        ("###----.....", [SpeechStarted(0), SpeechEnded(7 * W)]),
        ("----", []),
        ("..###.....###.....", [SpeechStarted(2 * W), SpeechEnded(5 * W), SpeechStarted(10 * W), SpeechEnded(13 * W)]),
    ],
)
def test_segments(script: str, expected: list[object]) -> None:
    assert _events(script) == expected


START, END = SpeechStarted(2 * W), SpeechEnded(8 * W)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("..(......)......", [START, END]),
        ("..(####..)......", [START, END]),
        ("..###(#;##......", [START, END]),
        ("..(#;.....####.....", [START, SpeechEnded(3 * W), SpeechStarted(8 * W), SpeechEnded(12 * W)]),
        ("..(#.#.##)......", [START, END]),
        ("..(......)))....", [START, END]),
        ("..((..(....)......", [START, END]),
        ("..###(...)......", [START, END]),
        ("..(....##)##########......", [START, END]),
        ("..(....##)####....####....", [START, END]),
        ("..(....#.)....###.....", [START, END, SpeechStarted(12 * W), SpeechEnded(15 * W)]),
        ("..(#.....)###.....", [START, END, SpeechStarted(8 * W), SpeechEnded(11 * W)]),
        ("..(....##)####(#..)....", [START, END, SpeechStarted(12 * W), SpeechEnded(15 * W)]),
        ("..######|", [START, END]),
        ("..######|##.....", [START, END]),
        ("..######|###.....", [START, END, SpeechStarted(8 * W), SpeechEnded(11 * W)]),
        ("..(....##|)##", [START, END]),
        ("..(......|)##", [START, END]),
        ("..##|##|", []),
    ],
)
def test_the_talk_button_and_cuts(script: str, expected: list[object]) -> None:
    assert _events(script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("..#.........", []),
        ("..#.#.......", [SpeechStarted(2 * W), SpeechEnded(5 * W)]),
        ("..#...#.......", [SpeechStarted(2 * W), SpeechEnded(7 * W)]),
        ("..#....#.......", []),
        ("..###..#.......", [SpeechStarted(2 * W), SpeechEnded(5 * W), SpeechStarted(7 * W), SpeechEnded(8 * W)]),
        ("..###...#.......", [SpeechStarted(2 * W), SpeechEnded(5 * W), SpeechStarted(8 * W), SpeechEnded(9 * W)]),
        ("..###....#.......", [SpeechStarted(2 * W), SpeechEnded(5 * W)]),
        ("..###..|#.......", [SpeechStarted(2 * W), SpeechEnded(5 * W)]),
        ("..(##)..##...###.....", [SpeechStarted(2 * W), SpeechEnded(4 * W)]),
        ("..(##)....###..", [SpeechStarted(2 * W), SpeechEnded(4 * W), SpeechStarted(8 * W), SpeechEnded(11 * W)]),
    ],
)
def test_speech_with_gaps(script: str, expected: list[object]) -> None:
    """An onset of 60 ms may hold gaps of less than 80 ms; speech that pauses for less goes on at once."""
    assert _events(script, SpeechSettings(min_speech_ms=60, pause_ms=40, gap_ms=80)) == expected


def test_speech_stirs_while_it_may_go_on() -> None:
    segmenter = SpeechSegmenter(SpeechSettings(min_speech_ms=60, pause_ms=40, gap_ms=80))
    stirring = []
    for char in ".#..###.....":
        segmenter.push(float(char == "#"), W)
        stirring.append("!" if segmenter.stirring else " ")
    assert "".join(stirring) == " !!!    !!  "


def _noise(ms: int, level: float) -> Pcm:
    return np.random.default_rng(ms).normal(0, level, ms * SAMPLES_PER_MS).astype(np.int16)


@pytest.mark.parametrize(
    ("spoken", "quiet", "silent_ms"),
    [
        ([_noise(300, 3000), _noise(40, 20)], _noise(32, 20), 40),
        ([_noise(300, 3000), _noise(40, 20)], silence(512), 40),
        ([_noise(300, 3000), _noise(40, 200)], _noise(32, 200), 40),  # noise, but not above what follows
        ([_noise(300, 3000), _noise(40, 200)], silence(512), 0),  # -24 dB, and then it ends: a quiet sound of speech
        ([_noise(300, 3000), _noise(40, 600)], _noise(32, 600), 0),  # -14 dB: no silence, whatever follows
        ([_noise(300, 3000), _noise(300, 20)], _noise(32, 20), 96),  # no more than what was asked for
        ([_noise(300, 3000), _noise(8, 20), _noise(8, 3000)], _noise(32, 20), 0),
        ([silence(0)], silence(512), 0),
    ],
)
def test_silence_that_was_taken_for_speech_is_told_by_its_level(spoken: list[Pcm], quiet: Pcm, silent_ms: int) -> None:
    assert trailing_silence(np.concatenate(spoken), quiet, 96 * SAMPLES_PER_MS) == silent_ms * SAMPLES_PER_MS
    for most_ms in (0, 3, 8):
        most = trailing_silence(np.concatenate(spoken), quiet, most_ms * SAMPLES_PER_MS)
        assert most == min(silent_ms, most_ms // 4 * 4) * SAMPLES_PER_MS


def test_a_pause_is_as_long_as_the_silence_also_by_a_detector_that_lingers() -> None:
    """Two windows late, it tells no pause of 80 ms from speech; by the level it is one, and begins where it began."""

    class Lingering(LoudnessDetector):
        lingers_ms = 30
        late = 0

        def probability(self, window: Pcm) -> float:
            self.late = 2 if super().probability(window) else self.late - 1
            return float(self.late >= 0)

    sound, pause = _noise(300, 8000), silence(80 * SAMPLES_PER_MS)
    ear = Ear(Lingering(), SpeechSettings(pause_ms=75))
    told = ear.push(np.concatenate([sound, pause, sound, pause]))
    ends = [event.at_samples for event in told if isinstance(event, SpeechEnded)]
    assert ends == [len(sound), 2 * len(sound) + len(pause)]


class Scripted(LoudnessDetector):
    """Judges windows of 32 ms as it is told, and may have lingered for three of them."""

    window_samples = 512
    lingers_ms = 96

    def __init__(self, judgments: str) -> None:
        self._judgments = iter(judgments)

    def probability(self, window: Pcm) -> float:
        return float(next(self._judgments, ".") == "#")


def test_what_was_cut_off_within_a_window_goes_on_from_there() -> None:
    ear = Ear(Scripted("#" * 90), SpeechSettings())
    ear.press()
    assert ear.push(_noise(2000, 6000)) == [] and ear.cut() == SpeechEnded(32_000)
    assert ear.push(_noise(500, 6000)) == [SpeechStarted(32_000)]


def test_speech_that_was_all_silence_ends_where_it_began() -> None:
    """After a word, a breath 40 dB softer."""
    word, breath, pauses = _noise(320, 6000), _noise(64, 60), (_noise(256, 20), _noise(640, 20))
    ear = Ear(Scripted("#" * 10 + "." * 8 + "##"), SpeechSettings())
    told = ear.push(np.concatenate([word, pauses[0], breath, pauses[1]]))
    assert told == [SpeechStarted(0), SpeechEnded(320 * 16), SpeechStarted(576 * 16), SpeechEnded(576 * 16)]


@given(
    st.text("#.", min_size=30, max_size=90),
    st.lists(st.tuples(st.integers(0, 3000), st.sampled_from([0, 60, 8000]), st.sampled_from("()|-")), max_size=40),
)
def test_speech_starts_and_ends_in_turns_and_never_before_what_was_told(
    judgments: str, heard: list[tuple[int, int, str]]
) -> None:
    ear, told = Ear(Scripted(judgments), SpeechSettings(pause_ms=64)), list[SpeechStarted | SpeechEnded]()
    acts: dict[str, Callable[[], SpeechStarted | SpeechEnded | None]]
    acts = {"(": ear.press, ")": ear.release, "|": ear.cut, "-": lambda: None}
    for samples, level, act in heard:
        told += ear.push(np.full(samples, level, np.int16))
        told += [event for event in [acts[act]()] if event is not None]
    assert [isinstance(event, SpeechEnded) for event in told] == [i % 2 == 1 for i in range(len(told))]
    assert all(a.at_samples <= b.at_samples for a, b in pairwise(told))


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_any_chunking_hears_the_same(cuts: list[int], random: object) -> None:
    rng = np.random.default_rng(1)
    audio = np.concatenate(
        [np.full(int(n), level, np.int16) for n, level in zip(rng.integers(500, 4000, 20), [0, 8000] * 10, strict=True)]
    )
    whole = Ear(LoudnessDetector(), SpeechSettings(pause_ms=50)).push(audio)
    ear, pieces, at = Ear(LoudnessDetector(), SpeechSettings(pause_ms=50)), [], 0
    for n in [*cuts, len(audio)]:
        pieces += ear.push(audio[at : at + n])
        at += n
    assert pieces == whole and len(whole) > 4


def test_the_tail_keeps_its_limit_and_answers_by_index() -> None:
    tail = AudioTail(1000)
    for i in range(50):
        tail.push(np.full(100, i, np.int16))
    assert tail.end_samples == 5000
    kept = tail.since(0)
    assert 1000 <= len(kept) < 1100 and kept[-1] == 49
    assert len(tail.since(4950)) == 50 and len(tail.since(6000)) == 0


@given(st.lists(st.integers(0, 25), max_size=30), st.integers(0, 200))
def test_the_tail_keeps_the_last_samples_however_they_come(sizes: list[int], at_samples: int) -> None:
    tail = AudioTail(20)
    stream = np.arange(sum(sizes), dtype=np.int16)
    for begin, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        piece = stream[begin : begin + size].copy()
        tail.push(piece)
        piece[:] = -1  # the caller's memory is the caller's
    assert tail.since(at_samples).tolist() == stream[-20:][max(0, at_samples - tail.begin_samples) :].tolist()
