"""Silero on real and synthetic speech, on what is no speech, and how its file is found."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import turn_set
from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, Pcm, silence
from pipeline.engines import close, load
from pipeline.errors import EngineUnavailable
from pipeline.resample import Resampler
from pipeline.speech import Ear, SpeechSettings
from pipeline.vad import silero

from .recordings import recording

WINDOW = silero.WINDOW_SAMPLES


@pytest.fixture(scope="module")
def vad() -> silero.SileroVad:
    return silero.create({})


def speech(vad: silero.SileroVad, pcm: Pcm) -> list[bool]:
    state = vad.open()
    return [state.probability(pcm[i : i + WINDOW]) >= 0.5 for i in range(0, len(pcm) - WINDOW + 1, WINDOW)]


class Plain:
    """The network without what it says of itself."""

    def __init__(self, ear: silero.SileroProbability) -> None:
        self.window_samples, self.probability = ear.window_samples, ear.probability


def share(windows: list[bool]) -> float:
    return sum(windows) / len(windows)


def test_speech_is_found_where_it_is(vad: silero.SileroVad) -> None:
    spoken = recording("lj001-0008.wav")  # speech from its first sample to its last
    heard = speech(vad, np.concatenate([silence(SPEECH_RATE_HZ), spoken, silence(SPEECH_RATE_HZ)]))
    begin, end = SPEECH_RATE_HZ // WINDOW, (SPEECH_RATE_HZ + len(spoken)) // WINDOW
    assert not any(heard[:begin])
    assert share(heard[begin + 1 : end]) > 0.9
    assert not any(heard[end + 10 :])


def test_the_state_reaches_over_windows(vad: silero.SileroVad) -> None:
    """A detector that forgot its context or recurrent state would judge each window alone."""
    pcm = recording("austen-0880.wav")
    windows = [pcm[i : i + WINDOW] for i in range(0, len(pcm) - WINDOW + 1, WINDOW)]
    state = vad.open()
    carried = [state.probability(w) for w in windows]
    alone = [vad.open().probability(w) for w in windows]
    assert np.abs(np.subtract(carried, alone)).max() > 0.5


@pytest.mark.parametrize("noise", [0, 8, 60, 200])
@pytest.mark.parametrize("name", ["lj001-0004.wav", "lj001-0008.wav"])
def test_a_silence_begins_with_the_last_sound(vad: silero.SileroVad, name: str, noise: int) -> None:
    """The network itself lingers, as the second assertion says; with noise at 20 dB below a voice it is still told."""
    spoken = turn_set.trimmed(turn_set.read(turn_set.RECORDINGS / name))
    errors_ms, lingered_ms = [], []
    for phase in range(0, WINDOW, WINDOW // 8):
        pcm = np.concatenate([silence(SPEECH_RATE_HZ + phase), spoken, silence(SPEECH_RATE_HZ)])
        pcm = np.clip(pcm + np.random.default_rng(1).normal(0, noise, len(pcm)), -32767, 32767).astype(np.int16)
        ear, alone = Ear(vad.open(), SpeechSettings()), Ear(Plain(vad.open()), SpeechSettings())
        (*_, ended), (*_, late) = ear.push(pcm), alone.push(pcm)
        true_samples = SPEECH_RATE_HZ + phase + len(spoken)
        errors_ms.append((ended.at_samples - true_samples) / SAMPLES_PER_MS)
        lingered_ms.append((late.at_samples - true_samples) / SAMPLES_PER_MS)
    assert min(errors_ms) >= -25 and max(errors_ms) < 12, errors_ms
    assert np.mean(lingered_ms) > 20, lingered_ms


@pytest.mark.parametrize("level", [30, 3000])
def test_noise_and_hum_are_not_speech(vad: silero.SileroVad, level: int) -> None:
    noise = np.random.default_rng(1).normal(0, level, 3 * SPEECH_RATE_HZ).astype(np.int16)
    hum = (level * np.sin(2 * np.pi * 50 / SPEECH_RATE_HZ * np.arange(3 * SPEECH_RATE_HZ))).astype(np.int16)
    assert share(speech(vad, noise)) < 0.1
    assert share(speech(vad, hum)) < 0.1


def test_the_voice_of_espeak_is_speech(vad: silero.SileroVad) -> None:
    tts = load("tts", "espeak", {})

    async def say() -> Pcm:
        chunks = [c async for c in tts.synthesize("Please tell me more about your family.", None, "en", 1.0)]
        return np.concatenate(chunks)

    try:
        spoken = asyncio.run(say())
    finally:
        close(tts)
    assert share(speech(vad, Resampler(tts.rate_hz, SPEECH_RATE_HZ).push(spoken))) > 0.6


def test_faster_whisper_is_never_imported() -> None:
    code = (
        "import sys; from pipeline.vad import silero; silero.create({}).open();"
        "assert 'onnxruntime' in sys.modules; assert 'faster_whisper' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_its_file_it_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silero, "MODEL_FILE", "silero_vad_v5.onnx")
    assert "faster-whisper" in (silero.describe({}).lacks or "")
    with pytest.raises(EngineUnavailable, match="faster-whisper"):
        silero.create({})
