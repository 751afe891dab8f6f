"""What may become a voice: speech of one person, and nothing that only sounds."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from pipeline.audio import SPEECH_RATE_HZ, VOICE_RATE_HZ, Pcm, silence, to_float32, to_int16
from pipeline.errors import EngineUnavailable, ProtocolError
from pipeline.pitch import pitch_hz, two_voices_hz
from pipeline.resample import Resampler
from pipeline.sample_check import SampleCheck
from pipeline.vad import silero
from tests.music import KINDS, music
from tests.recordings import recording

MAN = recording("austen-0880.wav")
OTHER_MAN = recording("go-forward.wav")
WOMAN = recording("lj001-0004.wav")
"""A lively reader: her seconds lie between 235 and 320 Hz."""
SAME_WOMAN = recording("lj001-0008.wav")


def joined(*parts: Pcm) -> Pcm:
    return np.concatenate(parts)


def seconds(pcm: Pcm, count: float) -> Pcm:
    return np.resize(pcm, round(count * SPEECH_RATE_HZ))


def prepared(pcm: Pcm, check: SampleCheck | None = None) -> Pcm:
    """Return what is kept of 16 kHz sound."""
    resampler = Resampler(SPEECH_RATE_HZ, VOICE_RATE_HZ)
    sample = joined(resampler.push(pcm), resampler.flush())
    return (check or SampleCheck()).prepare(sample, 3.0, "file")


def why_not(pcm: Pcm) -> str:
    with pytest.raises(ProtocolError) as refused:
        prepared(pcm)
    assert (refused.value.status, refused.value.param) == (422, "file")
    return str(refused.value)


def level_dbfs(pcm: Pcm) -> float:
    """Return the level of it, but for its silent parts."""
    windows = to_float32(pcm[: len(pcm) // 768 * 768]).reshape(-1, 768)
    power = np.square(windows).mean(axis=1)
    return float(10 * np.log10(power[power > 1e-5].mean()))


def hum(hz: float, count: float = 5.0) -> Pcm:
    time_s = np.arange(round(count * SPEECH_RATE_HZ)) / SPEECH_RATE_HZ
    return to_int16(0.3 * np.sin(2 * np.pi * hz * time_s))


def through_a_telephone(pcm: Pcm) -> Pcm:
    """Return what a steep filter from 300 to 3,400 Hz leaves."""
    spectrum = np.fft.rfft(pcm)
    hz = np.fft.rfftfreq(len(pcm), 1 / SPEECH_RATE_HZ)
    return np.fft.irfft(np.where((hz < 300) | (hz > 3_400), 0, spectrum), len(pcm)).astype(np.int16)


@pytest.mark.parametrize("kind", KINDS)
def test_music_is_refused(kind: str) -> None:
    assert "no speech: send" in why_not(music(kind))


@pytest.mark.parametrize("hz", [50.0, 120.0, 440.0, 3_000.0])
def test_a_steady_tone_is_refused(hz: float) -> None:
    assert "is a steady sound and no speech" in why_not(hum(hz))


def test_noise_that_comes_and_goes_is_refused() -> None:
    noise = np.random.default_rng(1).standard_normal(6 * SPEECH_RATE_HZ)
    waves = 0.5 + 0.5 * np.sin(np.arange(len(noise)) * 2 * np.pi * 0.7 / SPEECH_RATE_HZ)
    assert "music, noise or other sound, but no speech" in why_not(to_int16(0.1 * noise * waves))


def test_two_seconds_of_speech_are_too_few_however_long_the_file() -> None:
    spoken = joined(MAN[8_000:40_000], silence(4 * SPEECH_RATE_HZ))
    assert "has 2.0 s of speech: send 3 to 30 s" in why_not(spoken)


def test_long_silences_between_words_are_no_speech() -> None:
    word = MAN[24_000:36_000]
    pause = silence(2 * SPEECH_RATE_HZ)
    assert "s of speech: send 3 to 30 s" in why_not(joined(word, pause, word, pause, word))


def test_short_silences_between_words_are() -> None:
    word = MAN[24_000:36_000]
    pause = silence(SPEECH_RATE_HZ // 4)
    assert len(prepared(joined(word, pause, word, pause, word, pause)))


@pytest.mark.parametrize(
    "voices",
    [(MAN, SAME_WOMAN), (OTHER_MAN, WOMAN), (WOMAN, MAN), (SAME_WOMAN, OTHER_MAN, SAME_WOMAN, OTHER_MAN)],
    ids=["man, woman", "another", "woman, man", "in turns"],
)
def test_a_man_and_a_woman_are_two_voices(voices: tuple[Pcm, ...]) -> None:
    assert "has two voices, at " in why_not(joined(*voices))


@pytest.mark.parametrize(
    "voice",
    [(MAN, MAN), (WOMAN,), (WOMAN, SAME_WOMAN), (SAME_WOMAN, SAME_WOMAN), (MAN, OTHER_MAN)],
    ids=["man", "woman", "two readings", "one sentence", "two men alike"],
)
@pytest.mark.parametrize("tempo", [0.87, 1.0, 1.15])
def test_one_voice_is_one_however_lively(voice: tuple[Pcm, ...], tempo: float) -> None:
    pcm = joined(*voice)
    played = np.interp(np.arange(0, len(pcm) - 1, tempo), np.arange(len(pcm)), pcm).astype(np.int16)
    assert len(prepared(played))


def test_over_the_telephone_pitch_is_not_judged() -> None:
    """Without its fundamental a voice's harmonics pass for it, and one man for two."""
    assert len(prepared(through_a_telephone(joined(MAN, MAN))))
    assert len(prepared(through_a_telephone(joined(MAN, WOMAN))))


@pytest.mark.parametrize("hz", [75.0, 110.0, 220.0, 380.0])
def test_pitch_is_that_of_the_fundamental(hz: float) -> None:
    time_s = np.arange(SPEECH_RATE_HZ) / SPEECH_RATE_HZ
    voice = np.sum([np.sin(2 * np.pi * hz * n * time_s) / n for n in range(1, 8)], axis=0)
    assert pitch_hz(to_int16(0.2 * voice)) == pytest.approx(hz, rel=0.02)


def test_noise_silence_and_next_to_nothing_have_no_pitch() -> None:
    noise = to_int16(0.1 * np.random.default_rng(1).standard_normal(SPEECH_RATE_HZ))
    assert np.isnan(pitch_hz(noise)).mean() > 0.95
    assert np.isnan(pitch_hz(silence(SPEECH_RATE_HZ))).all()
    assert len(pitch_hz(silence(100))) == 0
    assert two_voices_hz(silence(SPEECH_RATE_HZ), np.ones(31, bool), 512) is None


@pytest.mark.parametrize("gain", [0.2, 0.5, 1.0, 2.0])
def test_what_is_kept_is_as_loud_as_any_other(gain: float) -> None:
    kept = prepared(to_int16(gain * joined(MAN, MAN) / 32_768))
    assert level_dbfs(kept) == pytest.approx(-20.0, abs=1.0)
    assert np.abs(kept.astype(np.int32)).max() <= 23_198  # -3 dBFS


def test_peaks_are_never_clipped_for_the_level() -> None:
    click = joined(MAN, MAN)
    click[30_000] = 32_000
    kept = prepared(click)
    assert np.abs(kept.astype(np.int32)).max() == pytest.approx(23_197, abs=700)
    assert level_dbfs(kept) < -25.0


def test_silence_before_and_after_goes_but_for_a_breath() -> None:
    spoken = joined(WOMAN, SAME_WOMAN)
    kept = prepared(joined(silence(2 * SPEECH_RATE_HZ), spoken, silence(3 * SPEECH_RATE_HZ)))
    margins_s = len(kept) / VOICE_RATE_HZ - len(spoken) / SPEECH_RATE_HZ
    assert 0.1 < margins_s < 0.4
    assert np.abs(kept[: VOICE_RATE_HZ // 20]).max() < 200
    assert np.abs(kept[-VOICE_RATE_HZ // 20 :]).max() < 200


@pytest.mark.parametrize("count", [3.0, 3.2, 6.0, 29.0])
def test_what_was_kept_can_be_sent_to_another_server(count: float) -> None:
    pcm = seconds(MAN, count)
    kept = prepared(pcm)
    again = SampleCheck().prepare(kept, 3.0, "file")
    assert 3.0 * VOICE_RATE_HZ <= len(again) <= len(kept) <= 1.5 * len(pcm)
    assert len(kept) - len(again) < 0.1 * VOICE_RATE_HZ
    assert level_dbfs(again) == pytest.approx(level_dbfs(kept), abs=0.2)


@pytest.mark.parametrize("extra", range(0, 768, 97))
def test_any_number_of_samples_will_do(extra: int) -> None:
    pcm = seconds(MAN, 4.0)
    resampler = Resampler(SPEECH_RATE_HZ, VOICE_RATE_HZ)
    sample = joined(resampler.push(pcm), resampler.flush())
    assert len(SampleCheck().prepare(sample[: len(sample) - extra], 3.0, "file"))


def test_without_a_detector_levels_decide_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(settings: object) -> silero.SileroVad:
        raise EngineUnavailable("pip install onnxruntime")

    monkeypatch.setattr(silero, "create", missing)
    check = SampleCheck()
    with caplog.at_level(logging.WARNING):
        assert len(prepared(joined(MAN, MAN), check))
        assert len(prepared(music("piano"), check))
    assert [record.message for record in caplog.records] == [
        "voice samples are judged by their loudness alone, for want of a detector: pip install onnxruntime"
    ]
    with pytest.raises(ProtocolError, match="steady sound"):
        prepared(hum(440.0), check)
