"""Silence for a caller who sends nothing: never within a stream, however it is cut, and never too little after it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_ws.pauses import GRACE_S, MAX_COVERED_S, MAX_OWED_S, TICK_S, Pauses
from signaling.rate_limit import TokenBucket

NEVER = float("inf")


class Caller:
    """Drive pauses the way a reader does: pieces at given times, the deadline in between."""

    def __init__(self) -> None:
        self.pauses = Pauses()
        self.silence: list[tuple[float, float]] = []

    def wait(self, until_s: float) -> None:
        while (due_s := self.pauses.deadline_s or NEVER) <= until_s:
            owed_s = self.pauses.owed_s(due_s)
            assert owed_s > 0, "a deadline that brings nothing would spin"
            self.silence.append((due_s, owed_s))

    def piece(self, at_s: float, seconds: float) -> None:
        self.wait(at_s)
        self.pauses.heard(seconds, at_s)

    def talk(self, pieces: int, seconds: float, from_s: float = 10.0) -> float:
        """Send pieces as they are spoken; return when the last one came."""
        for n in range(1, pieces + 1):
            self.piece(from_s + n * seconds, seconds)
        return from_s + pieces * seconds

    @property
    def silent_s(self) -> float:
        return sum(seconds for _, seconds in self.silence)


@pytest.mark.parametrize("seconds", [0.008, 0.020, 0.100, 0.256, 0.512, 1.024])
def test_nothing_is_put_between_pieces_and_all_of_what_follows_is_silence(seconds: float) -> None:
    caller = Caller()
    last_s = caller.talk(round(60 / seconds), seconds)
    assert caller.silence == []
    caller.wait(last_s + 5.0)
    first_s, owed_s = caller.silence[0]
    assert GRACE_S < first_s - last_s <= GRACE_S + seconds
    assert owed_s == pytest.approx(first_s - last_s), "all since the last piece came, at once"
    assert {round(owed_s, 6) for _, owed_s in caller.silence[1:]} == {TICK_S}
    assert caller.silent_s == pytest.approx(5.0, abs=TICK_S)


def test_a_burst_of_tiny_pieces_covers_what_one_large_piece_does() -> None:
    caller, at_s = Caller(), 10.0
    for _ in range(100):  # 256 ms every 256 ms, each in pieces of 3 samples
        at_s += 0.256
        for n in range(4096 // 3):
            caller.piece(at_s + n * 1e-6, 3 / 16_000)
    caller.wait(at_s + 0.2 + 0.25)
    assert caller.silence == []
    caller.wait(at_s + 0.2 + 0.26)
    assert len(caller.silence) == 1


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from([0.0002, 0.020, 0.256, 1.0]),
    st.lists(st.floats(0, 0.18), min_size=1, max_size=200),
    st.floats(-0.0005, 0.0005),
)
def test_what_comes_late_by_less_than_the_grace_is_not_missing(
    seconds: float, delays_s: list[float], drift: float
) -> None:
    caller, at_s = Caller(), 0.0
    for n, delay_s in enumerate(delays_s, 1):
        at_s = max(at_s, 10.0 + n * seconds * (1 + drift) + delay_s)  # TCP keeps the order
        caller.piece(at_s, seconds)
    assert caller.silence == []


def test_before_the_first_sound_there_is_no_silence() -> None:
    assert Pauses().deadline_s is None
    assert Pauses().owed_s(1e9) == 0.0


def test_a_file_sent_at_once_is_followed_by_silence_soon() -> None:
    caller = Caller()
    caller.piece(10.0, 30.0)
    caller.wait(12.0)
    assert caller.silence[0] == pytest.approx((10 + MAX_COVERED_S + GRACE_S, MAX_COVERED_S + GRACE_S))


def test_a_stall_is_a_pause_and_the_next_pause_is_whole() -> None:
    caller = Caller()
    last_s = caller.talk(50, 0.020)
    for _ in range(50):  # a second late, all together
        caller.piece(last_s + 1.0, 0.020)
    assert caller.silent_s == pytest.approx(1.0, abs=TICK_S)
    caller.silence.clear()
    caller.wait(last_s + 4.0)
    assert caller.silent_s == pytest.approx(3.0, abs=TICK_S)


@pytest.mark.parametrize("ppm", [-500, 500])
def test_clocks_that_differ_do_not_delay_silence(ppm: int) -> None:
    caller, at_s = Caller(), 10.0
    for _ in range(3 * 3600 * 4):
        at_s += 0.25 * (1 + ppm / 1e6)
        caller.piece(at_s, 0.25)
    assert caller.silence == []
    caller.wait(at_s + 1.0)
    assert caller.silence[0][0] - at_s <= 0.25 + GRACE_S


def test_a_loop_that_stood_still_reads_its_sockets_first() -> None:
    pauses = Pauses()
    pauses.heard(0.020, 10.0)
    assert pauses.owed_s(11.0) == 0.0
    assert pauses.deadline_s == 11.0 + TICK_S
    pauses.heard(0.020, 11.001)  # it had come in time
    assert pauses.owed_s(11.1) == 0.0
    assert pauses.owed_s(12.0) == 0.0, "once more"
    assert pauses.owed_s(12.5) == pytest.approx(12.5 - 11.001), "and then it is silence, however late the loop still is"


def test_a_process_that_was_suspended_does_not_make_up_hours() -> None:
    pauses = Pauses()
    pauses.heard(0.020, 10.0)
    pauses.owed_s(7200.0)
    assert pauses.owed_s(7200.5) == MAX_OWED_S
    assert pauses.deadline_s == 7200.5 + TICK_S


def test_an_allowance_comes_back_and_is_never_more_than_its_burst() -> None:
    allowance = TokenBucket(60.0, 1.01, now_s=0.0)
    assert allowance.take(0.0, 60.0) == 0
    assert allowance.take(0.1, 0.5) > 0, "what does not fit is not taken in part"
    assert allowance.take(0.1, 0.1) == 0
    assert allowance.take(1000.0, 60.0) == 0
    assert allowance.take(1000.0, 0.1) > 0


def test_an_allowance_lasts_a_clock_that_runs_fast_for_ever() -> None:
    allowance = TokenBucket(60.0, 1.01, now_s=0.0)
    assert not any(allowance.take(float(second), 1.0005) for second in range(100_000))
