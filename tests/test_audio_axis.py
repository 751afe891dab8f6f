"""The caller's axis of samples: pauses counted once, never faster than real time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_server.audio_axis import FORGIVEN, MAX_AHEAD_S, AudioAxis

RATE_HZ = 16_000
PACKET = 320


class Caller:
    """Drive an axis the way the microphone does: packets at given times, the timer in between."""

    def __init__(self) -> None:
        self.axis = AudioAxis(RATE_HZ, 0.0)
        self.samples = 0
        self.silence: list[tuple[float, int]] = []

    def wait(self, until_s: float) -> None:
        while self.axis.deadline_s <= until_s:
            due_s = self.axis.deadline_s
            samples = self.axis.silence(due_s)
            assert samples > 0, "a deadline that brings nothing would spin"
            self.silence.append((due_s, samples))
            self.samples += samples

    def packet(self, at_s: float, gap_s: float = 0.0) -> None:
        self.wait(at_s)
        if gap_s:
            self.samples += self.axis.gap(round(gap_s * RATE_HZ), at_s)
        self.axis.play(PACKET, at_s)
        self.samples += PACKET

    def talk(self, from_s: float, packets: int, ptime_s: float = 0.020) -> float:
        for index in range(packets):
            self.packet(from_s + index * ptime_s)
        return from_s + (packets - 1) * ptime_s

    @property
    def seconds(self) -> float:
        return self.samples / RATE_HZ


def test_in_sequence_nothing_is_added() -> None:
    caller = Caller()
    caller.talk(0.02, 100)
    assert caller.seconds == pytest.approx(2.0)
    assert not caller.silence


def test_a_caller_who_never_sends_is_silent_in_real_time() -> None:
    caller = Caller()
    caller.wait(10.0)
    assert caller.seconds == pytest.approx(10.0, abs=0.021)
    assert caller.silence[0] == (0.2, 3200)
    assert {samples for _, samples in caller.silence[1:]} == {PACKET}


def test_after_200_ms_without_packets_those_200_ms_are_silent_at_once() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    caller.wait(last_s + 0.199)
    assert not caller.silence
    caller.wait(last_s + 0.201)
    assert caller.silence == [(last_s + 0.2, 3200)]


def test_a_pause_the_timestamps_tell_is_not_counted_twice() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    for _ in range(20):  # DTX: comfort noise every 400 ms
        last_s += 0.4
        caller.packet(last_s, gap_s=0.38)
    assert caller.seconds == pytest.approx(last_s, abs=0.025)


def test_a_pause_the_timestamps_do_not_tell_is_counted_by_the_clock() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    last_s = caller.talk(last_s + 5.0, 50)
    assert caller.seconds == pytest.approx(last_s, abs=0.041)


def test_a_short_gap_is_taken_as_it_is_told() -> None:
    caller = Caller()
    caller.talk(0.02, 50)
    before = caller.samples
    caller.packet(1.02 + 0.1, gap_s=0.1)
    assert caller.samples - before == 1600 + PACKET


@pytest.mark.parametrize("ppm", [-500, 0, 500])
def test_clock_drift_is_harmless(ppm: int) -> None:
    """Half an hour: talk, mute with and without DTX timestamps. The caller's clock is off by ``ppm``."""
    caller, at_s, speed = Caller(), 0.02, 1 + ppm / 1e6
    while at_s < 1800:
        last_s = caller.talk(at_s, 500, 0.020 / speed)
        reactions = len(caller.silence)
        at_s = last_s + 5.0
        caller.packet(at_s, gap_s=4.98 * speed)
        assert caller.silence[reactions][0] == pytest.approx(last_s + 0.2, abs=0.001)
        assert sum(samples for _, samples in caller.silence[reactions:]) <= 5.0 * RATE_HZ
        at_s += 0.020 / speed
    talked_s = 1800 * 10 / 15
    assert caller.seconds == pytest.approx(at_s, abs=0.1 + talked_s * abs(ppm) / 1e6)


def test_a_mute_of_an_hour_with_drift_adds_nothing_when_it_ends() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    caller.wait(last_s + 3600)
    before = caller.samples
    caller.packet(last_s + 3600, gap_s=3600 * 1.0005)
    assert caller.samples - before <= 2 * PACKET


def test_a_burst_after_a_stall_is_heard_and_its_debt_is_repaid_by_less_silence() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    for _ in range(15):  # 300 ms of packets arrive together
        caller.packet(last_s + 0.3)
    assert caller.seconds == pytest.approx(1.0 + 0.28 + 0.3, abs=0.021)
    caller.wait(last_s + 5.0)
    assert caller.seconds == pytest.approx(last_s + 5.0, abs=0.05)


def test_it_does_not_run_ahead_for_long_over_many_stalls() -> None:
    caller, at_s = Caller(), 0.02
    for _ in range(100):
        at_s = caller.talk(at_s, 250) + 0.3
        for _ in range(15):
            caller.packet(at_s)
        caller.packet(at_s + 0.6, gap_s=0.58)
        at_s += 0.62
    assert caller.seconds <= at_s * (1 + FORGIVEN) + MAX_AHEAD_S


def test_a_jump_no_clock_confirms_is_bounded() -> None:
    caller = Caller()
    last_s = caller.talk(0.02, 50)
    for index in range(500):
        caller.packet(last_s + 0.02 + index * 0.02, gap_s=40_000.0)
    assert caller.seconds <= last_s + 10 + MAX_AHEAD_S


def test_a_process_that_slept_does_not_make_up_hours_of_silence() -> None:
    axis = AudioAxis(RATE_HZ, 0.0)
    assert axis.silence(7200.0) <= MAX_AHEAD_S * RATE_HZ + 1
    assert axis.deadline_s > 7200.0


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 3)), max_size=60))
def test_whatever_comes_the_axis_stays_near_the_clock(steps: list[tuple[float, float]]) -> None:
    caller, at_s = Caller(), 0.0
    for wait_s, gap_s in steps:
        at_s += wait_s
        caller.packet(at_s, gap_s=gap_s)
    forgiven_s = len(steps) * (0.020 + FORGIVEN)
    assert caller.seconds <= at_s + MAX_AHEAD_S + forgiven_s
