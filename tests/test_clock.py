"""The outbound timeline, by arithmetic alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.clock import FrameClock

N = 480


def _started(lead_ms: int = 0) -> FrameClock:
    clock = FrameClock(20, N, lead_ms)
    assert clock.wait_s(1.0, speech=False) == 0
    assert clock.tick(1.0, speech=False) == 0
    return clock


def test_silence_is_due_every_ptime_and_never_early() -> None:
    clock = _started()
    assert round(clock.wait_s(1.0, speech=False), 6) == 0.02
    assert clock.tick(1.02, speech=False) == N
    assert round(clock.wait_s(1.021, speech=False), 6) == 0.019


def test_a_talkspurt_leaves_at_once_and_keeps_its_advance() -> None:
    clock = _started()
    assert clock.wait_s(1.005, speech=True) == 0
    clock.tick(1.005, speech=True)
    assert round(clock.wait_s(1.005, speech=True), 6) == 0.02
    clock.tick(1.025, speech=True)
    assert round(clock.wait_s(1.025, speech=False), 6) == 0.035, "silence keeps to the timeline"


@given(st.lists(st.integers(0, 19), min_size=1, max_size=200))
def test_a_thousand_talkspurts_add_up_to_no_drift(offsets_ms: list[int]) -> None:
    clock, now_s, frames = _started(), 1.0, 1
    for offset_ms in offsets_ms:
        now_s += offset_ms / 1000
        clock.tick(now_s, speech=True)
        now_s += clock.wait_s(now_s, speech=False)
        clock.tick(now_s, speech=False)
        frames += 2
    assert abs(now_s - (1.0 + (frames - 1) * 0.02)) < 1e-6


def test_lead_lets_speech_but_not_silence_leave_early() -> None:
    clock = _started(lead_ms=60)
    sent = 0
    while clock.wait_s(1.001, speech=True) <= 0:
        clock.tick(1.001, speech=True)
        sent += 1
    assert sent == 3
    assert clock.wait_s(1.001, speech=False) > 0.07


def test_a_stall_is_skipped_not_burst() -> None:
    clock = _started()
    pts = clock.tick(1.32, speech=False)
    assert pts == 16 * N and clock.skipped_frames == 15
    assert round(clock.wait_s(1.32, speech=False), 6) == 0.02


def test_a_short_delay_is_caught_up() -> None:
    clock = _started()
    assert clock.tick(1.07, speech=False) == N
    assert clock.wait_s(1.07, speech=False) < 0 and clock.skipped_frames == 0 and clock.late_frames == 1
