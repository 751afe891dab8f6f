"""AudioSpeechDetector: what it cuts out, and that the cutting of its input changes nothing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.audio import Pcm, silence
from pipeline.speech_detector import AudioSpeechDetector, DetectorSettings, is_loud

from .recordings import WORDS, recording

RATE_HZ = 16_000
Cut = tuple[int, str, bytes]
"""Samples heard when a recording was returned, its reason, its audio."""


def loud(duration_s: float, peak: int = 8000) -> Pcm:
    """Return a square wave, whose every window peaks at ``peak``."""
    samples = round(duration_s * RATE_HZ)
    return np.where(np.arange(samples) // 20 % 2, peak, -peak).astype(np.int16)


def quiet(duration_s: float) -> Pcm:
    return silence(round(duration_s * RATE_HZ))


def cuts(detector: AudioSpeechDetector, audio: Pcm, chunks: itertools.cycle[int]) -> list[Cut]:
    """Feed ``audio`` in chunks of these lengths; return what came out and when."""
    found: list[Cut] = []
    at = 0
    while at < len(audio):
        chunk = audio[at : at + next(chunks)]
        at += len(chunk)
        result = detector.add_audio_chunk(chunk)
        while result["action"] == "process":
            found.append((at, result["reason"], np.concatenate(result["audio_chunks"]).tobytes()))
            result = detector.add_audio_chunk(silence(0))
    return found


def recordings(audio: Pcm, chunk: int = 320, **settings: float) -> list[tuple[str, int]]:
    """Return reason and length in milliseconds of each recording."""
    found = cuts(AudioSpeechDetector(**settings), audio, itertools.cycle([chunk]))  # type: ignore[arg-type]
    return [(reason, len(pcm) // 2 * 1000 // RATE_HZ) for _, reason, pcm in found]


def test_speech_ends_after_the_silence_and_carries_it() -> None:
    audio = np.concatenate([quiet(0.5), loud(0.6), quiet(1.0)])
    assert recordings(audio) == [("speech_end_detected", 600 + 400)]


def test_the_result_has_the_documented_shape() -> None:
    detector = AudioSpeechDetector()
    assert detector.add_audio_chunk(loud(0.6)) == {"action": "continue"}
    result = detector.add_audio_chunk(quiet(0.4))
    assert set(result) == {"action", "reason", "audio_chunks"}
    assert result["action"] == "process"
    assert np.array_equal(np.concatenate(result["audio_chunks"]), np.concatenate([loud(0.6), quiet(0.4)]))


def test_a_pause_shorter_than_the_limit_goes_on() -> None:
    audio = np.concatenate([loud(0.3), quiet(0.39), loud(0.3), quiet(0.5)])
    assert recordings(audio) == [("speech_end_detected", 300 + 390 + 300 + 400)]


def test_a_knock_is_dropped_and_what_follows_is_not() -> None:
    audio = np.concatenate([loud(0.29), quiet(0.5), loud(0.3), quiet(0.5)])
    assert recordings(audio) == [("speech_end_detected", 300 + 400)]


def test_a_recording_is_never_longer_than_its_limit() -> None:
    audio = np.concatenate([loud(25.0), quiet(1.0)])
    assert recordings(audio) == [
        ("max_recording_duration", 10_000),
        ("max_recording_duration", 10_000),
        ("speech_end_detected", 5_000 + 400),
    ]
    assert recordings(audio, max_recording_duration=30.0) == [("speech_end_detected", 25_400)]


def test_energy_is_the_peak_as_a_fraction_of_full_scale() -> None:
    audio = np.concatenate([loud(0.5, peak=3276), quiet(0.5)])
    assert recordings(audio) == []
    assert recordings(audio, energy_threshold=0.09) == [("speech_end_detected", 900)]


@pytest.mark.parametrize("sample", [-32768, 32767])
def test_full_scale_is_loud_on_either_side(sample: int) -> None:
    assert is_loud(np.array([0, sample, 0], np.int16), 0.99)


def test_silence_is_not_loud_at_any_threshold() -> None:
    assert not is_loud(silence(160), 0.0)


def test_reset_forgets_a_recording_and_an_incomplete_window() -> None:
    detector = AudioSpeechDetector()
    detector.add_audio_chunk(loud(0.605))
    detector.reset()
    assert cuts(detector, quiet(1.0), itertools.cycle([320])) == []


def test_other_rates_keep_the_durations() -> None:
    detector = AudioSpeechDetector(sample_rate=8000)
    detector.add_audio_chunk(loud(0.2))  # 3,200 samples: 0.4 s at 8 kHz
    result = detector.add_audio_chunk(silence(3200))
    assert result["action"] == "process"


SLOW_HZ = 1_600
"""Windows of 16 samples: streams of many windows, and pieces of single samples, in little time."""
NUMBERS = {"min_speech_duration": 0.1, "max_silence_duration": 0.15, "max_recording_duration": 0.8}
PIECES = st.lists(st.integers(1, 2_000), min_size=1, max_size=6)


@st.composite
def streams(draw: st.DrawFn) -> Pcm:
    parts = draw(st.lists(st.tuples(st.booleans(), st.integers(1, 1_200)), min_size=1, max_size=12))
    return np.concatenate([np.full(samples, 8_000 * speech, np.int16) for speech, samples in parts])


def slow_detector() -> AudioSpeechDetector:
    return AudioSpeechDetector(SLOW_HZ, **NUMBERS)


def expected(audio: Pcm) -> list[Cut]:
    """Decide over the whole stream at once, as the documentation has it: a slow and plain second opinion."""
    windows = audio[: len(audio) // 16 * 16].reshape(-1, 16)
    loud = np.flatnonzero(windows.max(1) > 0.1 * 32768)
    found: list[Cut] = []
    at = 0
    while len(loud := loud[loud >= at]):
        pauses = np.flatnonzero(np.diff([*loud, loud[-1] + 1_000]) > 15)
        silence_end, limit = loud[pauses[0]] + 1 + 15, loud[0] + 80
        at = int(min(silence_end, limit))
        spoken = loud[loud < at][-1] + 1 - loud[0]
        if at <= len(windows) and spoken >= 10:
            reason = "speech_end_detected" if silence_end <= limit else "max_recording_duration"
            found.append((at * 16, reason, windows[loud[0] : at].tobytes()))
    return found


@settings(deadline=None)
@given(streams(), PIECES)
def test_chunking_changes_neither_the_recordings_nor_the_sample_at_which_they_are_decided(
    audio: Pcm, lengths: list[int]
) -> None:
    """Each recording is returned by the call whose chunk holds the sample that decides, whatever the chunks are."""
    ends = [min(end, len(audio)) for end in itertools.accumulate(lengths * len(audio))]
    pieces = cuts(slow_detector(), audio, itertools.cycle(lengths))
    assert pieces == [(next(end for end in ends if end >= at), *cut) for at, *cut in expected(audio)]


@settings(deadline=None)
@given(streams(), PIECES)
def test_who_asks_once_a_chunk_gets_the_same_recordings_if_later(audio: Pcm, lengths: list[int]) -> None:
    detector = slow_detector()
    ends = [0, *(end for end in itertools.accumulate(lengths * len(audio)) if end < len(audio)), len(audio)]
    chunks = [audio[begin:end] for begin, end in itertools.pairwise(ends)] + [silence(0)] * len(audio)
    results = [detector.add_audio_chunk(chunk) for chunk in chunks]
    found = [(r["reason"], np.concatenate(r["audio_chunks"]).tobytes()) for r in results if r["action"] == "process"]
    assert found == [(reason, pcm) for _, reason, pcm in expected(audio)]


@pytest.mark.parametrize("name", sorted(WORDS))
@pytest.mark.parametrize("lengths", [[7], [320], [4096], [1_000_000]])
def test_recorded_speech_is_cut_alike_in_any_pieces(name: str, lengths: list[int]) -> None:
    audio = np.concatenate([recording(name), silence(16_000)])
    settings = {"energy_threshold": 0.02}
    whole = cuts(AudioSpeechDetector(**settings), audio, itertools.cycle([160]))  # type: ignore[arg-type]
    pieces = cuts(AudioSpeechDetector(**settings), audio, itertools.cycle(lengths))  # type: ignore[arg-type]
    assert [cut[1:] for cut in pieces] == [cut[1:] for cut in whole] and len(whole) >= 1


@pytest.mark.parametrize(
    ("numbers", "named"),
    [
        ({"energy_threshold": -0.1}, "energy_threshold"),
        ({"energy_threshold": 1.1}, "energy_threshold"),
        ({"energy_threshold": math.nan}, "energy_threshold"),
        ({"min_speech_duration": -1.0}, "min_speech_duration"),
        ({"max_silence_duration": math.inf}, "max_silence_duration"),
        ({"max_recording_duration": math.nan}, "max_recording_duration"),
        ({"sample_rate": 0}, "sample_rate"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_by_name(numbers: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        AudioSpeechDetector(**numbers)  # type: ignore[arg-type]
    if named != "sample_rate":
        with pytest.raises(ValueError, match=named):
            DetectorSettings(**numbers)


@pytest.mark.parametrize("chunk", [np.zeros(160), np.zeros((160, 2), np.int16), np.zeros(160, np.uint8)])
def test_audio_in_another_shape_is_refused(chunk: Pcm) -> None:
    with pytest.raises(ValueError, match="int16"):
        AudioSpeechDetector().add_audio_chunk(chunk)


def test_a_recording_is_not_a_sample_longer_than_its_limit() -> None:
    assert recordings(np.concatenate([loud(1.0), quiet(1.0)]), max_recording_duration=0.505)[0][1] == 500


def test_the_chunk_is_the_callers_to_use_again() -> None:
    detector = AudioSpeechDetector()
    buffer = np.full(8_000, 20_000, np.int16)
    detector.add_audio_chunk(buffer)
    buffer[:] = 0
    found = detector.add_audio_chunk(buffer)
    assert found["action"] == "process"
    assert (np.concatenate(found["audio_chunks"])[:8_000] == 20_000).all()
