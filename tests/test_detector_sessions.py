"""A session with a client's loudness detector hears turns where `AudioSpeechDetector` cuts recordings."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.agents import Agent
from pipeline.audio import SPEECH_RATE_HZ, AudioFormat, Pcm, silence
from pipeline.events import ReplyInterrupted, SpeechEnded, SpeechStarted, TurnEnded
from pipeline.playout import Playout
from pipeline.session import Session
from pipeline.session_settings import SessionSettings, session_settings_for
from pipeline.speech import SpeechSettings
from pipeline.speech_detector import AudioSpeechDetector, DetectorSettings
from pipeline.turn_settings import TurnSettings
from pipeline.vad.energy import EnergyVad

from .fakes import FakeStt, engines
from .recordings import WORDS, recording
from .virtual_time import run

BASE = SessionSettings()
IMPATIENT = SessionSettings(turns=TurnSettings(barge_in_ms=0))
"""Over an agent that speaks, too, whatever the detector takes for speech is no cough."""
WINDOW_SAMPLES = 160
Spans = list[tuple[int, int]]
"""First sample, and how many had been heard when it was decided that this was the end."""


def recorded(audio: Pcm, detector: DetectorSettings) -> Spans:
    """Let the detector work alone."""
    alone = AudioSpeechDetector(
        SPEECH_RATE_HZ,
        detector.energy_threshold,
        detector.min_speech_duration,
        detector.max_silence_duration,
        detector.max_recording_duration,
    )
    spans: Spans = []
    for end in range(WINDOW_SAMPLES, len(audio) + 1, WINDOW_SAMPLES):
        found = alone.add_audio_chunk(audio[end - WINDOW_SAMPLES : end])
        if found["action"] == "process":
            spans.append((end - sum(len(chunk) for chunk in found["audio_chunks"]), end))
    return spans


def heard(audio: Pcm, detector: DetectorSettings, base: SessionSettings = BASE, stt: FakeStt | None = None) -> Spans:
    """Let a session hear it, and return its turns."""
    return run(_heard(audio, detector, base, stt or FakeStt()))


async def _heard(audio: Pcm, detector: DetectorSettings, base: SessionSettings, stt: FakeStt) -> Spans:
    bundle = replace(engines(stt), vad=EnergyVad(detector.energy_threshold))
    playout = Playout(AudioFormat(24_000))
    begins: list[int] = []
    spans: Spans = []
    samples = 0

    def note(event: object) -> None:
        if isinstance(event, SpeechStarted):
            begins.append(event.at_samples)
        elif isinstance(event, TurnEnded):
            spans.append((begins[0], samples))
            begins.clear()

    async with Session(Agent("a", "A"), bundle, playout, session_settings_for(detector, base)) as session:
        session.subscribe(note)
        for samples in range(WINDOW_SAMPLES, len(audio) + 1, WINDOW_SAMPLES):
            await asyncio.sleep(WINDOW_SAMPLES / SPEECH_RATE_HZ / 2)
            session.push_audio(audio[samples - WINDOW_SAMPLES : samples])
            await asyncio.sleep(WINDOW_SAMPLES / SPEECH_RATE_HZ / 2)
    return spans


@pytest.mark.parametrize("max_recording_duration", [10.0, 1.0])
@pytest.mark.parametrize("threshold", [0.01, 0.02, 0.05])
@pytest.mark.parametrize("name", sorted(WORDS))
def test_recorded_speech_has_the_same_turns(name: str, threshold: float, max_recording_duration: float) -> None:
    detector = DetectorSettings(threshold, max_recording_duration=max_recording_duration)
    speech = recording(name)
    audio = np.concatenate([silence(8_000), speech, silence(16_000), speech, silence(16_000)])
    alone = recorded(audio, detector)
    assert heard(audio, detector, IMPATIENT) == alone
    assert len(alone) >= (2 if max_recording_duration == 10.0 else 4)


@st.composite
def bursts(draw: st.DrawFn) -> Pcm:
    """Loud and quiet parts of 10 ms to 0.6 s, quiet ones the rarer the longer."""
    parts = draw(
        st.lists(st.tuples(st.integers(1, 60), st.sampled_from((1, 5, 10, 14, 15, 19, 20, 25, 60))), max_size=20)
    )
    windows = [level for loud, quiet in parts for level in [8_000] * loud + [0] * quiet]
    return np.repeat(np.array([*windows, *[0] * 60], np.int16), WINDOW_SAMPLES)


@settings(max_examples=60, deadline=None)
@given(
    bursts(),
    st.sampled_from((0.0, 0.05, 0.1, 0.3)),
    st.sampled_from((0.05, 0.146, 0.15, 0.2)),
    st.sampled_from((0.504, 1.0, 5.0)),
)
def test_any_bursts_have_the_same_turns(audio: Pcm, least: float, silence_s: float, most: float) -> None:
    detector = DetectorSettings(0.1, least, silence_s, most)
    assert heard(audio, detector, IMPATIENT) == recorded(audio, detector)


def test_speech_that_goes_on_at_the_limit_is_a_turn_of_its_own_and_its_events_are_paired() -> None:
    events: list[object] = []

    async def main() -> None:
        detector = DetectorSettings(max_recording_duration=2.0)
        bundle = replace(engines(FakeStt(texts=("one", "two"), delay_s=0.1)), vad=EnergyVad(0.1))
        playout = Playout(AudioFormat(24_000))
        async with Session(Agent("a", "A"), bundle, playout, session_settings_for(detector, BASE)) as session:
            session.subscribe(events.append)
            for level in [8_000] * 150 + [0] * 60:
                await asyncio.sleep(0.02)
                session.push_audio(np.full(320, level, np.int16))

    run(main())
    speech = [event for event in events if isinstance(event, SpeechStarted | SpeechEnded)]
    assert speech == [SpeechStarted(0), SpeechEnded(32_000), SpeechStarted(32_000), SpeechEnded(48_000)]
    assert [event for event in events if isinstance(event, TurnEnded)] == [TurnEnded(1, "one"), TurnEnded(2, "two")]
    cut, second = (
        events.index(next(e for e in events if e == wanted)) for wanted in (ReplyInterrupted(1, ""), speech[-1])
    )
    assert events.index(TurnEnded(1, "one")) < cut < second, "it is a barge-in, like any speech"


def test_every_sample_of_an_utterance_from_its_first_loud_window_is_transcribed() -> None:
    stt = FakeStt()
    bursty = np.repeat(np.array([8_000, 0, 8_000, 0, 0, 8_000] * 20, np.int16), 5 * WINDOW_SAMPLES)
    audio = np.concatenate([silence(16_000), bursty, silence(16_000)])
    [(begin, _)] = heard(audio, DetectorSettings(), stt=stt)
    assert begin == 16_000
    transcribed = np.concatenate([frame.pcm for frame in stt.frames])
    assert int(np.count_nonzero(transcribed)) == int(np.count_nonzero(audio))
    assert stt.frames[0].pts == begin - 300 * 16


def test_the_answer_is_still_prepared_in_an_earlier_pause() -> None:
    settings_ = session_settings_for(DetectorSettings(max_silence_duration=0.8), BASE)
    assert settings_.speech.pause_ms == BASE.speech.pause_ms and settings_.turns.endpoint_ms == 800
    short = session_settings_for(DetectorSettings(max_silence_duration=0.2), BASE)
    assert short.speech.pause_ms == 100


def test_what_the_numbers_do_not_say_is_the_servers() -> None:
    base = SessionSettings(SpeechSettings(pause_ms=50), TurnSettings(allow_interruptions=False, preroll_ms=10))
    made = session_settings_for(DetectorSettings(0.2, 0.25, 0.35, 7.0), base)
    assert made.speech == SpeechSettings(min_speech_ms=250, pause_ms=50, gap_ms=350)
    assert made.turns == replace(
        base.turns, endpoint_min_ms=350, endpoint_ms=350, endpoint_max_ms=350, max_turn_ms=7_000
    )
    assert made.patience == base.patience
