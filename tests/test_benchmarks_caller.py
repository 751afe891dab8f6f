"""The measuring caller notes what happened, and the stand-ins keep the rules that every server is told."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from benchmarks.measuring_caller import FASTRTC_PATH, PATH, Ear, Mouth, offer, speech
from benchmarks.stand_ins import ANSWER_S, Hearing, Rules, answer
from pipeline.audio import Pcm

from .virtual_time import run

RULES = Rules(200, 64)


# --- rules and stand-ins


def heard(rules: Rules, pcm: Pcm, chunk: int) -> list[tuple[str, int]]:
    """Hear ``pcm`` in pieces; return what became known, with the samples heard until then."""
    hearing = Hearing(rules, 16_000)
    return [(became, at + chunk) for at in range(0, len(pcm), chunk) for became in hearing.push(pcm[at : at + chunk])]


def sound(*parts_ms: int) -> Pcm:
    """Return silence, loudness, silence, ... of these lengths at 16 kHz."""
    return np.concatenate([np.full(ms * 16, 9_000 * (i % 2), np.int16) for i, ms in enumerate(parts_ms)])


def test_rules_survive_a_command_line() -> None:
    rules = Rules(300, 64, 40, 120, 90)
    assert Rules.of(rules.arguments()) == rules
    assert rules.models_ms == 250


@pytest.mark.parametrize("chunk", [160, 320, 777])
def test_speech_and_silence_count_in_samples(chunk: int) -> None:
    events = heard(RULES, sound(100, 300, 150, 100, 400), chunk)
    assert [became for became, _ in events] == ["speech", "paused", "resumed", "paused", "over"]
    due_ms = [170, 410, 560, 660, 850]
    assert [at / 16 for _, at in events] == [pytest.approx(ms, abs=chunk / 16) for ms in due_ms]


def test_a_click_is_no_speech() -> None:
    assert heard(RULES, sound(100, 60, 100, 60, 400), 160) == []


def test_an_answer_is_audible_from_its_first_sample_on() -> None:
    pieces = list(answer(24_000))
    assert pieces[0][0] > 9_000
    assert sum(map(len, pieces)) == pytest.approx(ANSWER_S * 24_000, abs=960)


# --- the caller


@pytest.mark.parametrize("place", [0, 1, 240, 479])
def test_speech_lies_where_it_was_said(place: int) -> None:
    spoken = range(480 + place, 1440 + place)
    pcm = np.concatenate([speech(spoken, pts) for pts in range(0, 480 * 5, 480)])
    loud = np.flatnonzero(pcm)
    assert spoken.start <= loud[0] < spoken.start + 24 and spoken.stop - 24 <= loud[-1] < spoken.stop


async def said(mouth: Mouth, seconds: float) -> tuple[float, float]:
    """Let a mouth speak; return when speech began and ended by the moments at which its frames came."""
    loop = asyncio.get_running_loop()
    mouth.speak(seconds)
    began_s = ended_s = 0.0
    while not mouth.ended.is_set():
        frame = await mouth.next_frame()
        if len(loud := np.flatnonzero(frame.pcm)):
            began_s = began_s or loop.time() - (len(frame.pcm) - loud[0]) / frame.rate_hz
            ended_s = loop.time() - (len(frame.pcm) - 1 - loud[-1]) / frame.rate_hz
    return began_s, ended_s


def test_a_mouth_notes_when_its_samples_were_spoken() -> None:
    async def main() -> set[float]:
        mouth = Mouth(random.Random(1), asyncio.get_running_loop().time)
        lengths_s = set()
        for _ in range(6):
            began_s, ended_s = await said(mouth, 0.05)
            assert mouth.started_s == pytest.approx(began_s, abs=0.0002)  # the very first sample is next to nothing
            assert mouth.ended_s == pytest.approx(ended_s, abs=0.0002)
            lengths_s.add(round(mouth.ended_s - mouth.started_s, 4))
            mouth.shift()
            await mouth.next_frame()
        return lengths_s

    lengths_s = run(main())
    assert len(lengths_s) == 6 and min(lengths_s) >= 0.05 and max(lengths_s) < 0.07


def test_a_mouths_phase_moves_only_when_asked_and_never_drifts() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        mouth = Mouth(random.Random(2), loop.time)
        phases_ms: list[float] = []
        for _ in range(50):
            seen = set()
            for _ in range(3):
                frame = await mouth.next_frame()
                seen.add(round(1000 * (loop.time() - frame.pts / frame.rate_hz), 3))
            assert len(seen) == 1
            phases_ms += seen
            mouth.shift()
        return phases_ms

    moved_ms = np.array(run(main()))
    moved_ms -= moved_ms[0]
    assert np.ptp(moved_ms) > 15 and moved_ms.min() >= 0 and moved_ms.max() < 20


def test_an_old_answer_is_not_taken_for_the_next() -> None:
    async def main() -> None:
        now = asyncio.get_running_loop().time
        ear, loud = Ear(now), np.full(160, 9_000, np.int16)
        ear.push(loud)
        spoken_s = now()
        await asyncio.sleep(0.02)
        ear.push(loud)  # still the answer before
        assert await ear.onset_after(spoken_s, timeout_s=0.02) is None
        assert ear.last_before_quiet(spoken_s) == ear.arrivals_s[-1]
        await ear.quiet()
        await asyncio.sleep(0.02)
        later_s = now()
        assert ear.last_before_quiet(later_s) is None
        ear.push(loud)
        assert await ear.onset_after(spoken_s) == ear.arrivals_s[-1] == later_s

    run(main())


def test_offers_are_what_each_server_takes() -> None:
    assert offer("v=0", PATH) == {"sdp": "v=0", "type": "offer"}
    named = [offer("v=0", FASTRTC_PATH) for _ in range(2)]
    assert all(each.keys() == {"sdp", "type", "webrtc_id"} for each in named)
    assert named[0]["webrtc_id"] != named[1]["webrtc_id"]
