"""The jitter buffer: order repaired, losses named, nothing delayed, nothing invented."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_server.jitter import (
    FORGOTTEN_S,
    MAX_WAIT_S,
    MAX_WAITING,
    WAIT_S,
    Arrival,
    AudioJitterBuffer,
    Gap,
    Item,
    Lost,
    Packet,
)

PACKET = 960
"""Samples of a 20 ms packet at 48 kHz."""


def buffer(*, fec: bool = False) -> AudioJitterBuffer:
    return AudioJitterBuffer(48_000, lambda payload: PACKET if payload else 0, lambda _: fec)


def arrival(
    index: int, at_ms: float, *, first_seq: int = 0, first_ts: int = 0, silence: int = 0, ssrc: int = 1
) -> Arrival:
    """The ``index``-th packet of a stream; ``silence`` samples were not sent before it."""
    return Arrival(
        sequence_number=(first_seq + index) % (1 << 16),
        timestamp=(first_ts + index * PACKET + silence) % (1 << 32),
        payload=b"%d" % index,
        time_s=at_ms / 1000,
        ssrc=ssrc,
    )


def played(items: list[Item]) -> str:
    """Write items as text: packets by number, ``x`` concealed, ``f4`` recovered from 4, ``_20`` 20 ms of silence."""
    words = []
    for item in items:
        match item:
            case Packet(payload=payload):
                words.append(payload.decode())
            case Lost(following=None):
                words.append("x")
            case Lost(following=bytes() as following):
                words.append("f" + following.decode())
            case Gap(samples=samples):
                words.append(f"_{samples // 48}")
    return " ".join(words)


def play(order: list[int], *, fec: bool = False, every_ms: float = 20.0) -> tuple[str, AudioJitterBuffer]:
    jitter = buffer(fec=fec)
    items: list[Item] = []
    for position, index in enumerate(order):
        items += jitter.push(arrival(index, position * every_ms))
    return played(items + jitter.poll(1e9)), jitter


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([0, 1, 2, 3], "0 1 2 3"),
        ([0, 2, 3], "0 x 2 3"),
        ([0, 3, 4], "0 x x 3 4"),
        ([0, 1, 1, 2, 0], "0 1 2"),
        ([5, 4, 6], "5 6"),
        ([0, 2, 3, 1, 4], "0 x 2 3 4"),
    ],
)
def test_order_loss_and_duplicates(order: list[int], expected: str) -> None:
    assert play(order)[0] == expected


def test_the_last_lost_packet_is_recovered_from_the_one_that_follows() -> None:
    text, jitter = play([0, 2, 3, 6], fec=True)
    assert text == "0 f2 2 3 x f6 6"
    assert (jitter.counters.lost, jitter.counters.recovered, jitter.counters.concealed) == (3, 2, 1)


def test_reordering_within_the_wait_is_repaired() -> None:
    text, jitter = play([0, 2, 1, 3, 6, 5, 4, 7], every_ms=5)
    assert text == "0 1 2 3 4 5 6 7"
    assert jitter.counters.reordered == 3
    assert jitter.counters.lost == 0


def test_a_packet_in_sequence_leaves_as_it_arrives_whatever_the_jitter() -> None:
    jitter = buffer()
    for index, at_ms in enumerate([0, 20, 90, 91, 92, 93, 300, 301]):
        assert played(jitter.push(arrival(index, at_ms))) == str(index)
        assert jitter.deadline_s is None


def test_a_hole_waits_20_ms_and_the_delay_is_gone_at_once() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    assert jitter.push(arrival(2, 40)) == []
    assert jitter.deadline_s == pytest.approx(0.040 + WAIT_S)
    assert jitter.poll(0.0599) == []
    assert played(jitter.poll(0.060)) == "x 2"
    assert played(jitter.push(arrival(3, 61))) == "3"
    assert jitter.push(arrival(1, 62)) == []
    assert jitter.counters.late == 1


def test_a_hole_waits_for_a_bounded_number_of_packets() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    burst = [jitter.push(arrival(index, 100)) for index in range(2, 2 + MAX_WAITING)]
    assert [played(items) for items in burst[:-1]] == [""] * (MAX_WAITING - 1)
    assert played(burst[-1]) == "x " + " ".join(str(index) for index in range(2, 2 + MAX_WAITING))


def test_a_second_hole_has_its_own_wait() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    jitter.push(arrival(2, 40))
    jitter.push(arrival(4, 55))
    assert played(jitter.poll(0.060)) == "x 2"
    assert jitter.deadline_s == pytest.approx(0.055 + WAIT_S)
    assert played(jitter.push(arrival(3, 70))) == "3 4"


@pytest.mark.parametrize(
    ("came_after_ms", "next_wait_ms"),
    [
        ([], 20),
        ([19], 20),
        ([21], 21),
        ([35], 35),
        ([60], 60),
        ([61], 20),  # no wait that is allowed would have helped
        ([400], 20),
        ([35, 50], 50),
        ([50, 35], 50),
        ([50, 70], 50),
    ],
)
def test_holes_wait_as_long_as_packets_lately_needed(came_after_ms: list[float], next_wait_ms: float) -> None:
    """In each second a packet is overtaken by the next one and comes so long after it."""
    jitter = buffer()
    jitter.push(arrival(0, 0))
    for second, wait_ms in enumerate(came_after_ms):
        at_ms = second * 1000.0
        jitter.push(arrival(2 * second + 2, at_ms))
        jitter.poll((at_ms + wait_ms) / 1000)
        jitter.push(arrival(2 * second + 1, at_ms + wait_ms))
    known_s = len(came_after_ms)
    jitter.push(arrival(2 * known_s + 2, known_s * 1000))
    assert jitter.deadline_s is not None
    assert (jitter.deadline_s - known_s) * 1000 == pytest.approx(next_wait_ms, abs=4)  # it fades, 2 ms in a second


def test_a_longer_wait_is_forgotten() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    jitter.push(arrival(2, 0))
    jitter.poll(MAX_WAIT_S)
    jitter.push(arrival(1, MAX_WAIT_S * 1000))
    middle_s = (WAIT_S + MAX_WAIT_S) / 2
    for index, past, wait_s in ((4, 0.0, MAX_WAIT_S), (6, 0.5, middle_s), (8, 1.0, WAIT_S), (10, 5.0, WAIT_S)):
        known_s = MAX_WAIT_S + past * FORGOTTEN_S
        assert jitter.push(arrival(index, known_s * 1000)) == []
        assert jitter.deadline_s == pytest.approx(known_s + wait_s)
        assert played(jitter.poll(known_s + wait_s)) == f"x {index}"


def test_a_jump_in_time_without_loss_is_silence() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    assert played(jitter.push(arrival(1, 420, silence=48 * 400))) == "_400 1"
    assert jitter.counters.lost == 0


def test_a_loss_with_a_jump_conceals_next_to_the_sound_it_is_made_from() -> None:
    for fec, expected in ((False, "x _400 2"), (True, "_400 f2 2")):
        jitter = buffer(fec=fec)
        jitter.push(arrival(0, 0))
        jitter.push(arrival(2, 440, silence=48 * 400))
        assert played(jitter.poll(1)) == expected


def test_a_long_loss_is_made_up_for_120_ms_and_then_silent() -> None:
    assert play([0, 21])[0] == "0 x x x x x x _280 21"
    assert play([0, 21], fec=True)[0] == "0 x x x x x x _260 f21 21"


def test_time_that_stands_still_or_goes_back_adds_nothing() -> None:
    jitter = buffer(fec=True)
    jitter.push(arrival(0, 0, first_ts=10_000_000))
    assert played(jitter.push(arrival(1, 20))) == "1"
    jitter.push(arrival(3, 60, first_ts=-PACKET * 3))
    assert played(jitter.poll(1)) == "3"


def test_sequence_numbers_and_timestamps_wrap() -> None:
    jitter = buffer()
    start = {"first_seq": (1 << 16) - 3, "first_ts": (1 << 32) - 3 * PACKET}
    items = [item for i in (0, 1, 2, 4, 3, 5, 7, 8) for item in jitter.push(arrival(i, i * 20, **start))]
    assert played(items) == "0 1 2 3 4 5 x 7 8"


def test_a_restart_needs_two_packets_in_a_row_and_loses_none() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    assert jitter.push(arrival(0, 20, first_seq=30_000, first_ts=99)) == []
    assert played(jitter.push(arrival(1, 40, first_seq=30_000, first_ts=99))) == "0 1"
    assert jitter.counters.lost == 0
    assert jitter.counters.stray == 0


def test_a_new_source_takes_over_and_what_waited_for_the_old_one_is_not_lost() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    jitter.push(arrival(2, 40))
    jitter.push(arrival(7, 50, ssrc=2))
    assert played(jitter.push(arrival(8, 55, ssrc=2))) == "x 2 7 8"


def test_one_stray_packet_changes_nothing_and_two_sources_do_not_flap() -> None:
    jitter = buffer()
    items: list[Item] = []
    for index in range(50):
        items += jitter.push(arrival(index, index * 20))
        items += jitter.push(arrival(index, index * 20 + 1, ssrc=2))
    assert played(items) == " ".join(str(index) for index in range(50))
    assert jitter.counters.stray == 50


def test_an_empty_packet_takes_its_number_but_no_time() -> None:
    jitter = buffer()
    jitter.push(arrival(0, 0))
    assert jitter.push(Arrival(1, PACKET, b"", 0.02, 1)) == []
    assert played(jitter.push(Arrival(2, PACKET, b"2", 0.04, 1))) == "2"


# --- properties


@st.composite
def networks(draw: st.DrawFn) -> list[tuple[float, int]]:
    """Arrival times and indexes of a stream that lost, delayed and duplicated packets."""
    count = draw(st.integers(1, 60))
    delays = draw(st.lists(st.one_of(st.none(), st.integers(0, 80)), min_size=count, max_size=count))
    copies = draw(st.lists(st.integers(0, count - 1), max_size=5))
    arrivals = [(index * 20.0 + delay, index) for index, delay in enumerate(delays) if delay is not None]
    arrivals += [(at_ms + 3, index) for at_ms, index in arrivals if index in copies]
    return sorted(arrivals)


def run(
    arrivals: list[tuple[float, int]], start: int, *, fec: bool
) -> tuple[list[tuple[float, Item]], AudioJitterBuffer]:
    """Play a network with a timer that is exact; return each item with the time it came out."""
    jitter, out = buffer(fec=fec), []
    for at_ms, index in arrivals:
        while jitter.deadline_s is not None and jitter.deadline_s <= at_ms / 1000:
            due_s = jitter.deadline_s
            out += [(due_s * 1000, item) for item in jitter.poll(due_s)]
        packet = arrival(index, at_ms, first_seq=start, first_ts=start * PACKET)
        out += [(at_ms, item) for item in jitter.push(packet)]
    while jitter.deadline_s is not None:
        due_s = jitter.deadline_s
        out += [(due_s * 1000, item) for item in jitter.poll(due_s)]
    return out, jitter


@settings(deadline=None, max_examples=150)
@given(networks(), st.integers(0, (1 << 16) - 1), st.booleans())
def test_whatever_the_network_does(arrivals: list[tuple[float, int]], start: int, fec: bool) -> None:
    out, jitter = run(arrivals, start, fec=fec)
    numbers = [int(item.payload) for _, item in out if isinstance(item, Packet)]
    assert numbers == sorted(set(numbers)), "out of order, or twice"

    axis = 0
    for _, item in out:
        if isinstance(item, Packet):
            assert axis == (int(item.payload) - numbers[0]) * PACKET, "samples invented or missing"
        axis += item.samples

    came_ms = {index: at_ms for at_ms, index in reversed(arrivals)}
    for at_ms, item in out:
        if isinstance(item, Packet):
            assert at_ms - came_ms[int(item.payload)] <= MAX_WAIT_S * 1000 + 1e-6, "held longer than the wait"

    counters = jitter.counters
    assert counters.received == len(arrivals) == len(numbers) + counters.late + counters.duplicate
    assert counters.lost == counters.concealed + counters.recovered
    if numbers:
        assert counters.lost == numbers[-1] - numbers[0] + 1 - len(numbers)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.integers(0, (1 << 16) - 1), st.integers(0, (1 << 32) - 1), st.integers(0, 2), st.binary(max_size=2)
        ),
        max_size=80,
    )
)
def test_rubbish_stays_bounded(packets: list[tuple[int, int, int, bytes]]) -> None:
    jitter = buffer(fec=True)
    for position, (seq, timestamp, ssrc, payload) in enumerate(packets):
        items = jitter.push(Arrival(seq, timestamp, payload, position * 0.001, ssrc))
        assert len(items) <= 4 * MAX_WAITING + 20
        assert all(0 < item.samples < 1 << 31 for item in items)


def test_the_counters_name_themselves() -> None:
    _, jitter = play([0, 1, 1])
    assert jitter.counters.as_dict()["duplicate"] == 1
