"""The end-of-turn benchmark: its set of turns, its arithmetic, and its tables, of a few turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import end_of_turn, turn_set
from benchmarks.end_of_turn import SHIPPED, Judged, measure
from benchmarks.people import people
from pipeline.audio import SPEECH_RATE_HZ
from pipeline.speech import SpeechSegmenter, SpeechSettings
from pipeline.vad.silero import create as silero

from .tiny_smart_turn import build


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let there be few turns and recordings, none of the developer's settings, and one voice a half."""
    monkeypatch.setattr(end_of_turn, "DRAWN", 20)
    monkeypatch.setattr(end_of_turn, "people", lambda: people(["go-forward.wav", "lj001-0004.wav"]))
    monkeypatch.setattr(
        turn_set, "TURNS", ["Yes.", "No.", "I want | tea.", "Um | hello.", "Red, | green.", "It's in | May."]
    )
    monkeypatch.setattr(turn_set, "VOICES", {"tuned on": ("en-us",), "held out": ("en-gb",)})
    monkeypatch.setenv("VOCAL_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", "/nonexistent")
    monkeypatch.delenv("VOCAL_SMART_TURN_MODEL", raising=False)


def test_the_set_is_the_same_each_time_and_its_halves_share_nothing(few: None) -> None:
    tuned, again, held = (turn_set.synthesized(half) for half in ("tuned on", "tuned on", "held out"))
    assert [(item.words, item.pause_ms) for item in tuned] == [(item.words, item.pause_ms) for item in again]
    lengths = np.array([[len(a.heard), len(b.heard)] for a, b in zip(tuned, again, strict=True)])
    np.testing.assert_allclose(lengths[:, 0], lengths[:, 1], rtol=0.05)  # espeak-ng's hiss is drawn anew each time
    assert [item.words for item in tuned] == ["Yes.", "I want", "I want tea.", "Red,", "Red, green."]
    assert not {item.words for item in tuned} & {item.words for item in held}
    pauses_ms = [item.pause_ms for item in turn_set.pauses(tuned + held)]
    assert all(turn_set.SHORTEST_MS <= ms <= turn_set.LONGEST_MS for ms in pauses_ms if ms is not None)


def test_every_turn_is_well_formed() -> None:
    for turn in turn_set.TURNS:
        parts = [part.strip() for part in turn.split("|")]
        assert all(parts) and parts[-1][-1] in ".?", turn
    assert not set(turn_set.TURNS[::2]) & set(turn_set.TURNS[1::2]), "no sentence is in both halves"


def test_every_silence_is_one_to_the_detector_too(few: None) -> None:
    """What is heard ends in the silence that an engine is asked about: 64 to 160 ms of it, by windows of 32 ms."""
    detector = silero({})
    for item in turn_set.synthesized("held out"):
        ear, segmenter = detector.open(), SpeechSegmenter(SpeechSettings())
        windows = item.heard[: len(item.heard) // 512 * 512].reshape(-1, 512)
        for window in windows:
            segmenter.push(ear.probability(window), 512)
        silent_ms = (windows.size - segmenter.last_speech_samples) * 1000 / SPEECH_RATE_HZ
        assert 32 <= silent_ms <= 192, item.words


def test_false_cut_offs_are_counted_at_the_wait_that_is_asked_for() -> None:
    alone = Judged([(0.5, float(ms)) for ms in range(100, 500, 100)], [0.5] * 3)
    assert [alone.cut_off_at(ms) for ms in (150, 250, 350, 450)] == [0.75, 0.5, 0.25, 0.0]
    assert (alone.wait_ms(1.0), alone.cut_off(1.0)) == (SHIPPED.endpoint_ms, 0.0)
    knows = Judged([(0.0, 1500.0), (1.0, 250.0)], [1.0, 1.0, 0.0])
    assert (knows.wait_ms(1.0), knows.cut_off(1.0), knows.cut_off_at(300)) == (200, 0.5, 0.0)


def test_it_prints_a_row_for_each_engine_and_says_what_it_lacks(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    measure(with_cues=True, recognizer="scripted")
    out = capsys.readouterr().out
    assert "tuned on: 2 pauses, 3 ends, 1 voices" in out and "held out: 2 pauses, 3 ends, 1 voices" in out
    assert "people: 1 ends of sentences, 2 places where they paused, 8 where they were cut" in out
    assert (out.count("\nsilence "), out.count("\nheuristic, recognized words ")) == (6, 11)
    assert "smart_turn was not measured: a model: pipecat-ai/smart-turn-v3 is not here" in out
    assert "a word that wants another                    -3.5" in out
    assert out.count("\n  Go forward ten meters.\n") == 1 and "true printed book" not in out, "where people end"


def test_it_measures_smart_turn_where_a_model_is(
    few: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOCAL_SMART_TURN_MODEL", str(build(tmp_path / "turn.onnx")))
    measure(with_cues=False, recognizer="")
    out = capsys.readouterr().out
    assert out.count("\nsmart_turn  ") == out.count("\nsmart_turn and words without marks  ") == 11
    assert "was not measured" not in out
