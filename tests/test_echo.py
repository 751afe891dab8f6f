"""The agent's own voice coming back: what is taken for it, what is not, and whole conversations over an echo."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.echo import PATHS, returned
from benchmarks.turn_set import say
from pipeline.agents import Agent
from pipeline.audio import SPEECH_RATE_HZ, VOICE_RATE_HZ, AudioFormat, AudioFrame, Pcm, silence
from pipeline.echo import HEARD_SAMPLES, Echo
from pipeline.engines import Engines, VoiceActivityDetector, load
from pipeline.events import Event, ReplyFinished, ReplyInterrupted, SpeechStarted
from pipeline.playout import Playout, PlayoutListener
from pipeline.resample import Resampler
from pipeline.session import Session
from pipeline.speech import Ear, SpeechSettings

from .fakes import FakeLlm, FakeStt, LoudnessDetector
from .recordings import recording
from .virtual_time import run

WINDOW = 512
FRAME = VOICE_RATE_HZ // 50
TEXT = "Your parcel was sent yesterday and should arrive tomorrow before noon. If not, please call us again."
AT_80_MS = PATHS["80 ms, -20 dB"]


def _resampled(pcm: Pcm, from_hz: int, to_hz: int) -> Pcm:
    resampler = Resampler(from_hz, to_hz)
    return np.concatenate([resampler.push(pcm), resampler.flush()])


@cache
def _agent() -> Pcm:
    return _resampled(say(TEXT, "en-gb", 1.0), SPEECH_RATE_HZ, VOICE_RATE_HZ)


def _caller(gain: float = 1.0) -> Pcm:
    return (recording("lj001-0004.wav") * gain).astype(np.int16)


def _tone(hz: float, rate_hz: int, seconds: float = 2.0) -> Pcm:
    tone: Pcm = (np.sin(np.arange(round(seconds * rate_hz)) * 2 * np.pi * hz / rate_hz) * 9_000).astype(np.int16)
    return tone


def _judged(agent: Pcm, heard: Pcm, rate_hz: int = VOICE_RATE_HZ, silent: bool = False) -> list[bool]:
    """Judge each window that is loud, while frames of 20 ms leave."""
    echo, sent, judged, frame = Echo(), 0, list[bool](), rate_hz // 50
    for end in range(HEARD_SAMPLES, len(heard) + 1, WINDOW):
        while sent * SPEECH_RATE_HZ <= end * rate_hz:
            pcm = agent[sent : sent + frame]
            echo.left(AudioFrame(np.pad(pcm, (0, frame - len(pcm))), rate_hz, sent, silent or not len(pcm)))
            sent += frame
        if np.abs(heard[end - WINDOW : end]).max() > 100:
            judged.append(echo.is_echo(heard[end - HEARD_SAMPLES : end], end, WINDOW))
    assert len(judged) > 20
    return judged


@pytest.mark.parametrize("path", [name for name in PATHS if "room" not in name])
def test_the_agents_own_voice_is_known_whatever_the_path(path: str) -> None:
    judged = _judged(_agent(), returned(_agent(), PATHS[path]))
    assert np.mean(judged) > 0.97


@pytest.mark.parametrize("room_s", [0.2, 0.5])
def test_and_in_a_room(room_s: float) -> None:
    assert np.mean(_judged(_agent(), returned(_agent(), replace(AT_80_MS, room_s=room_s)))) > 0.9


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 48_000])
def test_at_every_rate_at_which_voices_leave(rate_hz: int) -> None:
    heard = returned(_agent(), AT_80_MS)
    assert np.mean(_judged(_resampled(_agent(), VOICE_RATE_HZ, rate_hz), heard, rate_hz)) > 0.97


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.03])
def test_a_caller_is_heard_however_loud_the_agent_is_and_however_quiet_they_are(gain: float) -> None:
    assert np.mean(_judged(_agent(), _caller(gain))) < 0.03


def test_a_caller_is_heard_over_an_echo_and_the_echo_is_known_before_and_after() -> None:
    begin, caller = 2 * SPEECH_RATE_HZ, _caller()[:SPEECH_RATE_HZ]
    spoken = np.zeros(5 * SPEECH_RATE_HZ)
    spoken[begin : begin + len(caller)] = caller
    heard = returned(_agent(), AT_80_MS, spoken)
    assert np.mean(_judged(_agent(), heard[:begin])) > 0.95
    echo, during = _judged(_agent(), heard[: begin + len(caller)]), len(caller) // WINDOW
    assert not any(echo[-during:][:8]), "at once"
    assert np.mean(echo[-during:]) < 0.5
    assert np.mean(_judged(_agent(), heard)[-20:]) > 0.95


def test_other_tones_are_no_echo_and_the_same_is() -> None:
    agent = _tone(440, VOICE_RATE_HZ)
    assert not any(_judged(agent, np.concatenate([silence(8_000), _tone(300, SPEECH_RATE_HZ)])))
    assert np.mean(_judged(agent, (np.concatenate([silence(1_280), _tone(440, SPEECH_RATE_HZ)]) // 10))) > 0.9


def test_nothing_is_an_echo_of_silence() -> None:
    assert not any(_judged(_agent(), returned(_agent(), AT_80_MS), silent=True))


def test_frames_that_were_skipped_were_silence() -> None:
    """The clock moves on after a stall; the path's delay does not."""
    agent, skipped = _agent(), 40 * FRAME
    echo, heard = (
        Echo(),
        returned(np.concatenate([agent[: 50 * FRAME], silence(skipped), agent[50 * FRAME :]]), AT_80_MS),
    )
    for begin in range(0, 100 * FRAME, FRAME):
        pts = begin + (skipped if begin >= 50 * FRAME else 0)
        echo.left(AudioFrame(agent[begin : begin + FRAME], VOICE_RATE_HZ, pts))
    end = 140 * 320
    assert echo.is_echo(heard[end - HEARD_SAMPLES : end], end, WINDOW)
    assert echo.is_echo(heard[end + WINDOW - HEARD_SAMPLES :][:HEARD_SAMPLES], end + WINDOW, WINDOW)
    assert echo.returned_ms == 64


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=20))
def test_how_the_microphones_sound_is_cut_changes_nothing(sizes: list[int]) -> None:
    heard = returned(_agent()[:VOICE_RATE_HZ], AT_80_MS, np.r_[np.zeros(9_000), _caller()[:7_000]])

    def told(sizes: list[int]) -> tuple[list[object], int]:
        echo = Echo()
        for begin in range(0, VOICE_RATE_HZ, FRAME):
            echo.left(AudioFrame(_agent()[begin : begin + FRAME], VOICE_RATE_HZ, begin))
        ear, events, at = Ear(LoudnessDetector(), SpeechSettings(), echo), list[object](), 0
        while at < len(heard):
            size = sizes[len(events) % len(sizes)]
            events += [*ear.push(heard[at : at + size]), None]
            at += size
        return [event for event in events if event is not None], echo.returned_ms

    assert told(sizes) == told([len(heard)])
    assert told(sizes)[1] > 0 and told(sizes)[0]


def test_a_talk_button_is_stronger_than_an_echo() -> None:
    echo = Echo()
    ear = Ear(LoudnessDetector(), SpeechSettings(pause_ms=100), echo)
    heard = returned(_agent(), AT_80_MS)
    ear.press()
    for i in range(100):
        echo.left(AudioFrame(_agent()[i * FRAME : (i + 1) * FRAME], VOICE_RATE_HZ, i * FRAME))
        assert ear.push(heard[i * 320 : (i + 1) * 320]) == []
    assert echo.returned_ms == 0 and ear.release() is not None


def test_the_clock_tells_each_frame_that_leaves() -> None:
    async def main() -> None:
        playout, left = Playout(AudioFormat(VOICE_RATE_HZ)), list[AudioFrame]()
        playout.listener = PlayoutListener(left=left.append)
        assert [await playout.next_frame() for _ in range(3)] == left

    run(main())


# --- whole conversations


@dataclass
class _Voice:
    """Says everything in espeak's voice, made before: a thread knows no virtual time."""

    rate_hz: int = VOICE_RATE_HZ

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        yield _agent()


async def _conversation(
    vad: VoiceActivityDetector, *, echo: bool, caller_at_ms: int | None = None, deaf_to_echo: bool = True
) -> tuple[list[tuple[float, Event]], list[AudioFrame]]:
    """The agent greets; all that leaves comes back 80 ms later at -20 dB. Return events with ms, and all frames."""
    engines = Engines(vad, FakeStt(("stop it",)), FakeLlm("Fine."), _Voice())
    loop, playout, frames = asyncio.get_running_loop(), Playout(AudioFormat(VOICE_RATE_HZ)), list[AudioFrame]()
    events, back, begun_s = list[tuple[float, Event]](), [silence(4 * 320)], loop.time()
    down = Resampler(VOICE_RATE_HZ, SPEECH_RATE_HZ)

    async def play() -> None:
        while True:
            frames.append(await playout.next_frame())
            back.append((down.push(frames[-1].pcm) * 0.1).astype(np.int16))

    async with Session(Agent("a", "A", greeting=TEXT), engines, playout) as session:
        session.subscribe(lambda event: events.append((round((loop.time() - begun_s) * 1000), event)))
        if not deaf_to_echo:
            session.answering.echo.is_echo = lambda *_: False  # type: ignore[method-assign]
        ear = asyncio.create_task(play())
        session.greet()
        caller = silence(0) if caller_at_ms is None else np.r_[silence(caller_at_ms * 16), _caller()]
        for i in range(650):
            await asyncio.sleep(begun_s + (i + 1) * 0.02 - loop.time())
            heard = np.concatenate(back)[i * 320 : (i + 1) * 320] * int(echo)
            spoken = caller[i * 320 : (i + 1) * 320]
            session.push_audio(np.pad(heard, (0, 320 - len(heard))) + np.pad(spoken, (0, 320 - len(spoken))))
            if caller_at_ms is not None and any(isinstance(event, ReplyInterrupted) for _, event in events):
                break
        ear.cancel()
        await asyncio.gather(ear, return_exceptions=True)
    return events, frames


@pytest.fixture(params=["silero", "energy"])
def vad(request: pytest.FixtureRequest) -> VoiceActivityDetector:
    _agent()  # made now: on the event loop nobody may load a library
    detector = load("vad", request.param, {})
    assert isinstance(detector, VoiceActivityDetector)
    return detector


def test_an_agent_that_hears_itself_goes_on(vad: VoiceActivityDetector) -> None:
    events, frames = run(_conversation(vad, echo=True))
    names = [type(event).__name__ for _, event in events]
    assert "SpeechStarted" not in names and "ReplyInterrupted" not in names
    assert [event for _, event in events if isinstance(event, ReplyFinished)] == [ReplyFinished(1, TEXT)]
    silent = [frame.silent for frame in frames]
    assert not any(silent[silent.index(False) : len(silent) - silent[::-1].index(False)]), "it was never held"


def test_and_would_not_if_it_took_itself_for_the_caller(vad: VoiceActivityDetector) -> None:
    """What the test above is worth."""
    events, _ = run(_conversation(vad, echo=True, deaf_to_echo=False))
    assert any(isinstance(event, SpeechStarted) for _, event in events)


@pytest.mark.parametrize("caller_at_ms", [1_600, 2_310, 3_000])
def test_a_caller_over_the_echo_interrupts_as_fast_as_without(vad: VoiceActivityDetector, caller_at_ms: int) -> None:
    def at(echo: bool, kind: type[Event]) -> float:
        events, _ = run(_conversation(vad, echo=echo, caller_at_ms=caller_at_ms))
        return next(ms for ms, event in events if isinstance(event, kind))

    for kind in (SpeechStarted, ReplyInterrupted):
        assert at(True, kind) <= at(False, kind) + 64
