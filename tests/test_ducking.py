"""A reply ducked, held, released and revoked in virtual time: no sample lost or said twice, and no click."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from pipeline.audio import AudioFormat, AudioFrame, Pcm
from pipeline.events import ReplyFinished
from pipeline.gain import DUCKED, FADE_MS, UNDUCK_MS
from pipeline.playout import Playout, PlayoutListener
from pipeline.session import Session
from pipeline.writer import Writer

from .clicks import LOUD, clicks, swelling_tone
from .fakes import LOUD as VOICE
from .script import play
from .virtual_time import run

RATE = 24_000
REPLY_MS = 600
FRAME = RATE // 50
FADE = RATE * FADE_MS // 1000

Acts = Sequence[tuple[float, str]]
"""When (ms after the reply began), and what is done to its writer."""


def _tone(ms: int) -> Pcm:
    return swelling_tone(RATE * ms // 1000)


@dataclass
class Heard:
    """What a listener got, with the writer's state as each frame left."""

    frames: list[AudioFrame] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)

    @property
    def pcm(self) -> np.ndarray:
        return np.concatenate([f.pcm for f in self.frames]).astype(int)


def _hear(acts: Acts, seconds: float = 2.0, clauses: int = 3, start_ms: float = 31.0) -> Heard:
    """Say the tone in clauses that join, and act on it meanwhile."""

    async def main() -> Heard:
        heard, loop = Heard(), asyncio.get_running_loop()
        playout = Playout(AudioFormat(RATE))
        playout.listener = PlayoutListener(
            lambda w: heard.told.append("started"),
            lambda w, text: heard.told.append(text),
            lambda w: heard.told.append("drained"),
        )
        begin_s = loop.time() + start_ms / 1000
        writer, level = playout.open(1, held=True), [1.0]
        for i, part in enumerate(np.array_split(_tone(REPLY_MS), clauses)):
            writer.begin(f"clause {i}.")
            await writer.write(part)
            writer.end()
        writer.finish()
        loop.call_at(begin_s, writer.release)
        for ms, name in acts:
            loop.call_at(begin_s + ms / 1000, _act, playout, writer, name, level)
        while loop.time() < begin_s + seconds:
            frame = await playout.next_frame()
            heard.frames.append(frame)
            heard.held.append(writer.held or writer.revoked)
            heard.levels.append(level[0])
        return heard

    return run(main())


def _act(playout: Playout, writer: Writer, name: str, level: list[float]) -> None:
    done: dict[str, Callable[[], object]] = {
        "duck": writer.duck,
        "unduck": writer.unduck,
        "hold": writer.hold,
        "release": writer.release,
        "clear": playout.clear,
    }
    level[0] = {"duck": level[0] if writer.held else DUCKED, "unduck": 1.0, "release": 1.0}.get(name, level[0])
    done[name]()


def _check_samples(heard: Heard, tone: Pcm) -> None:
    """Outside of ramps every sample is there once, in order, at its level."""
    said, settled = 0, 0
    before = (True, 1.0)
    for frame, held, level in zip(heard.frames, heard.held, heard.levels, strict=True):
        if (held, level) != before:
            slow = level == 1.0 and not before[0] and not held
            settled = RATE * (UNDUCK_MS if slow else FADE_MS) // 1000
            before = (held, level)
        expected = np.zeros(FRAME) if held else np.pad(tone[said : said + FRAME] * level, (0, FRAME))[:FRAME]
        said += 0 if held else FRAME
        assert np.allclose(frame.pcm[settled:], np.rint(expected)[settled:], atol=1)
        settled = max(0, settled - FRAME)
    assert said >= len(tone)


SCRIPTS: dict[str, Acts] = {
    "duck and back": [(0, "duck"), (90, "unduck")],
    "a cough": [(0, "duck"), (60, "hold"), (160, "release")],
    "twice": [(0, "duck"), (60, "hold"), (160, "release"), (190, "duck"), (230, "hold"), (290, "release")],
    "twice the same": [(0, "hold"), (25, "hold"), (60, "release"), (65, "release"), (70, "duck"), (95, "duck")],
    "held while it rises": [(0, "duck"), (40, "unduck"), (60, "hold"), (120, "release"), (130, "unduck")],
    "ducked while it rises": [(0, "duck"), (40, "unduck"), (65, "duck"), (140, "unduck")],
    "at once": [
        (0, "hold"),
        (0, "release"),
        (40, "duck"),
        (40, "hold"),
        (40, "release"),
        (40, "hold"),
        (90, "release"),
    ],
    "ducked while held": [(0, "hold"), (20, "duck"), (60, "release")],
    "let go, and ducked": [(0, "hold"), (60, "release"), (60, "duck"), (120, "unduck")],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_sample_is_lost_or_said_twice_and_nothing_clicks_wherever_it_happens(name: str) -> None:
    tone = _tone(REPLY_MS)
    for offset_ms in range(0, REPLY_MS, 10):
        heard = _hear([(offset_ms + ms, act) for ms, act in SCRIPTS[name]])
        assert not clicks(heard.pcm), f"{offset_ms} ms"
        _check_samples(heard, tone)
        assert heard.told == ["started", "clause 0.", "clause 1.", "clause 2.", "drained"], f"{offset_ms} ms"


@pytest.mark.parametrize("before", [[], [(0.0, "duck")], [(0.0, "duck"), (50.0, "unduck")], [(0.0, "hold")]])
def test_what_is_revoked_ends_without_a_click_in_whatever_state_it_was(before: Acts) -> None:
    for offset_ms in range(0, REPLY_MS, 10):
        heard = _hear([*((offset_ms + ms, act) for ms, act in before), (offset_ms + 65, "clear")], seconds=1)
        assert not clicks(heard.pcm), f"{offset_ms} ms"
        after = [f for f, held in zip(heard.frames, heard.held, strict=True) if held][-20:]
        assert all(f.silent for f in after)


def test_a_click_is_told_from_the_tone() -> None:
    tone = _tone(REPLY_MS).astype(int)
    assert not clicks(tone)
    assert clicks(np.concatenate([tone[:5_000], tone[5_010:]])), "samples lost"
    faded = tone.copy()
    faded[5_000:5_120] = faded[5_000:5_120] * np.linspace(1, 0, 120)
    faded[5_120:] = 0
    assert clicks(faded), "a fade with corners"


def test_ducking_is_heard_in_the_next_frame_and_12_db_down() -> None:
    heard = _hear([(200, "duck")])
    level = [float(np.abs(f.pcm[FADE:].astype(int)).max()) for f in heard.frames if not f.silent]
    assert level[9] / level[10] == pytest.approx(1 / DUCKED, rel=0.2)
    assert 20 * np.log10(DUCKED) == pytest.approx(-12, abs=0.1)


def test_a_reply_that_starts_has_no_fade() -> None:
    spoken, tone = _hear([]).pcm, _tone(REPLY_MS)
    begin = int(np.flatnonzero(spoken)[0] - np.flatnonzero(tone)[0])
    assert np.array_equal(spoken[begin : begin + len(tone)], tone)


def test_one_that_is_ducked_before_its_first_sound_starts_soft() -> None:
    async def main() -> Pcm:
        playout = Playout(AudioFormat(RATE))
        writer = playout.open(1)
        writer.duck()
        writer.begin("hello")
        await writer.write(_tone(REPLY_MS))
        return np.concatenate([(await playout.next_frame()).pcm for _ in range(30)])

    assert run(main()).max() == pytest.approx(LOUD * DUCKED, rel=0.01)


def test_a_session_ducks_the_reply_that_is_heard_and_not_the_next_one() -> None:
    def duck(session: Session) -> None:
        session.answering.duck()
        asyncio.get_running_loop().call_later(0.5, session.answering.unduck)
        asyncio.get_running_loop().call_later(0.7, session.answering.duck)

    played = play("." * 10 + "#" * 20 + "." * 200 + "#" * 20 + "." * 250, at=(2_000, duck))
    whole = [ms for ms, frame in played.frames if (frame.pcm == VOICE).all()]
    soft = [ms for ms, frame in played.frames if (frame.pcm == VOICE * DUCKED).all()]
    first, second = (played.at(ReplyFinished, i) for i in (0, 1))
    assert 2_000 < min(soft) <= 2_040 and max(ms for ms in soft if ms < 2_550) > 2_450
    assert [ms for ms in whole if 2_570 < ms < 2_690] and max(soft) <= first < second
    assert len([ms for ms in whole if ms > first]) * 20 == pytest.approx(3_000, abs=40)


def test_words_count_as_heard_whether_or_not_they_were_ducked() -> None:
    heard: list[str] = []

    async def main() -> None:
        playout = Playout(AudioFormat(RATE))
        writer = playout.open(1)
        writer.begin("one two three four")
        await writer.write(np.full(RATE, LOUD, np.int16))
        writer.end()
        for act in (writer.duck, writer.hold, writer.release, playout.clear):
            for _ in range(15):
                await playout.next_frame()
            act()
            heard.append(writer.heard())

    run(main())
    assert heard == ["one", "one two", "one two", "one two three"]
