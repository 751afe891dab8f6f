"""What is promised about loss, jitter and drift, held in virtual time: exact, and the same on any machine."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from itertools import pairwise

import numpy as np
import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import loss, lossy_call, speech_quality, virtual_call
from benchmarks.network import CLEAN, PACKET_S, Conditions, Network, arrivals
from benchmarks.receive_delay import Receiver, drift, lose_one, take
from benchmarks.receive_path import browser_packets, receive, receive_in_aiortc, recorded_speech, without_libopus
from media_server import opus
from media_server.codecs import CODECS
from media_server.opus import OpusEncoder
from media_server.tracks import Microphone
from pipeline.audio import AudioFrame, Pcm, silence
from pipeline.resample import Resampler

from . import virtual_time
from .test_opus import error_db

MINUTE = round(60 / PACKET_S)
SETTINGS = {4002: 24_000, 4012: 1, 4014: 10, 4016: 1}
"""An encoder's requests (opus_defines.h): bit rate, FEC, expected loss in percent, DTX."""


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    return browser_packets(recorded_speech(), told_loss_percent=10)


# --- the network that is measured with


@settings(deadline=None, max_examples=20)
@given(
    st.floats(0, 0.3), st.one_of(st.just(0.0), st.floats(1.5, 5)), st.sampled_from(["uniform", "normal", "exponential"])
)
def test_a_network_does_what_it_is_told_and_the_same_each_time(share: float, burst: float, jitter: str) -> None:
    conditions = Conditions(loss=share, burst_packets=burst, jitter_ms=10, jitter=jitter)  # type: ignore[arg-type]
    first, again = (Network(conditions, 7) for _ in range(2))
    delays = [first.delays_s() for _ in range(8_000)]
    assert delays[:500] == [again.delays_s() for _ in range(500)]
    lost = np.array([not each for each in delays])
    assert lost.mean() == pytest.approx(share, abs=0.04)
    came_ms = np.array([ms[0] * 1000 for ms in delays if ms])
    assert came_ms.mean() == pytest.approx(40, abs=0.7)
    if share > 0.05:
        runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]]).astype(int))))[::2]
        assert runs.mean() == pytest.approx(burst or 1 / (1 - share), rel=0.25)


def test_packets_queue_overtake_and_come_twice_as_told() -> None:
    queued = [each.index for each in arrivals(Conditions(jitter_ms=30, in_order=True), 1, 1000)]
    overtaking = [each.index for each in arrivals(Conditions(jitter_ms=30), 1, 1000)]
    assert queued == list(range(1000)) == sorted(overtaking) != overtaking
    assert len(arrivals(Conditions(duplicated=0.1), 1, 1000)) == pytest.approx(1100, abs=40)
    assert arrivals(Conditions(drift_ppm=500), 1, 1001)[-1].at_s == pytest.approx(0.04 + 20 / 1.0005)


# --- delay


@pytest.mark.parametrize("conditions", [CLEAN, Conditions(jitter_ms=10, in_order=True)])
def test_in_order_nothing_is_added_and_all_is_played(packets: list[bytes], conditions: Conditions) -> None:
    taken = take(receive, arrivals(conditions, 1, MINUTE), packets)
    assert taken.held_ms.max() < 1e-6
    assert taken.played == taken.came == MINUTE


def test_one_lost_packet_stalls_20_ms_and_is_over_within_200(packets: list[bytes]) -> None:
    after = lose_one(receive, packets)
    assert after.stall_ms <= 20.001
    assert after.back_ms is not None
    assert after.back_ms <= 200


@pytest.mark.parametrize("jitter", ["uniform", "normal", "exponential"])
@pytest.mark.parametrize("seed", [1, 2])
def test_at_2_percent_loss_and_10_ms_jitter(packets: list[bytes], jitter: str, seed: int) -> None:
    conditions = Conditions(loss=0.02, jitter_ms=10, jitter=jitter)  # type: ignore[arg-type]
    taken = take(receive, arrivals(conditions, seed, 5 * MINUTE), packets)
    assert np.percentile(taken.added_ms, 95) <= 40
    assert taken.played / taken.came >= 0.995
    assert taken.counters["recovered"] >= 0.75 * taken.counters["lost"]


@pytest.mark.parametrize("ppm", [500.0, -500.0])
def test_a_clock_that_drifts_for_ten_minutes_changes_no_delay(packets: list[bytes], ppm: float) -> None:
    changed_ms, sound_ms = drift(receive, packets, ppm, minutes=10)
    assert changed_ms <= 10
    assert abs(sound_ms) <= 10


def test_a_response_is_as_fast_as_its_packets() -> None:
    usual = virtual_call.responses_ms(CLEAN, 1, 10)
    assert usual[0] is not None
    assert usual == [pytest.approx(usual[0])] * 10
    lossy = virtual_call.responses_ms(Conditions(loss=0.02, jitter_ms=10), 1, 20)
    answered = [ms for ms in lossy if ms is not None]
    assert len(answered) == 20
    assert np.median(answered) - usual[0] <= 20


# --- speech


def test_what_we_send_carries_fec_wherever_there_is_speech() -> None:
    """A packet without it is one that the encoder found silent."""
    speech = Resampler(16_000, 24_000).push(recorded_speech())
    encoder = OpusEncoder(24_000)
    sent = [
        (encoder.encode(AudioFrame(frame, 24_000, start)), float(np.abs(frame.astype(float)).mean()))
        for start in range(0, len(speech) - 479, 480)
        for frame in [speech[start : start + 480]]
    ]
    loud_before = [b for (_, level), (b, _) in pairwise(sent) if level > 1000]
    assert np.mean([opus.carries_fec(packet) for packet in loud_before]) > 0.98


def test_a_browser_that_hears_of_no_loss_sends_none(packets: list[bytes]) -> None:
    untold = browser_packets(recorded_speech(), told_loss_percent=0)
    told = browser_packets(recorded_speech(), told_loss_percent=1)
    assert not any(opus.carries_fec(packet) for packet in untold)
    assert np.mean([opus.carries_fec(packet) for packet in told]) > 0.75


@pytest.mark.parametrize("percent", [5, 10])
def test_speech_stays_speech(percent: int) -> None:
    """By its difference from what a clean network brings; the benchmark measures with PESQ and STOI."""
    spoken = recorded_speech()
    sent, plain = (browser_packets(spoken, percent, fec=fec) for fec in (True, False))
    ways: dict[str, tuple[Receiver, list[bytes]]] = {
        "FEC": (receive, sent),
        "concealed": (receive, plain),
        "no libopus": (lambda arrived, packets: receive(arrived, packets, without_libopus), plain),
        "aiortc": (receive_in_aiortc, plain),
    }
    count = len(sent) + loss.HELD_BACK
    arrived = arrivals(Conditions(loss=percent / 100), 3, count)
    assert arrived[0].index == 0
    error = {}
    for name, (way, packets) in ways.items():
        clean, heard = (way(each, packets).pcm[: len(spoken)] for each in (arrivals(CLEAN, 0, count), arrived))
        assert speech_quality.delay(heard, spoken) == speech_quality.delay(clean, spoken)
        error[name] = error_db(heard, clean)
    assert error["FEC"] < error["concealed"] - 3
    assert max(error["concealed"], error["no libopus"]) < error["aiortc"] - 2
    assert error["FEC"] < -10


# --- silence that is not sent


def packets_with_dtx(pcm: Pcm) -> list[bytes]:
    """Encode 16 kHz sound with FEC and DTX, which PyAV does not offer: libopus itself; empty where it sends nothing."""
    library = opus.libopus()
    assert library is not None
    library.opus_encoder_create.restype = ctypes.c_void_p
    error = ctypes.c_int()
    encoder = ctypes.c_void_p(library.opus_encoder_create(16_000, 1, 2048, ctypes.byref(error)))
    for request, value in SETTINGS.items():
        assert library.opus_encoder_ctl(encoder, request, ctypes.c_int(value)) == 0
    out = ctypes.create_string_buffer(1500)
    packets: list[bytes] = []
    for start in range(0, len(pcm) - 319, 320):
        frame = pcm[start : start + 320].tobytes()
        size = library.opus_encode(encoder, frame, 320, out, len(out))
        packets.append(out.raw[:size] if size > 2 else b"")
    library.opus_encoder_destroy(encoder)
    return packets


@pytest.mark.parametrize("percent", [0, 10, 20])
def test_pauses_that_are_not_sent_keep_their_length_whatever_is_lost(percent: int) -> None:
    """DTX, with losses before, in and after pauses: the sound is as long as it was, and speech is recovered."""
    spoken = recorded_speech()[:80_000]
    made = packets_with_dtx(np.concatenate([spoken, silence(32_000)] * 4))
    sent = [index for index, payload in enumerate(made) if payload]
    assert len(sent) < 0.8 * len(made)
    rng = np.random.default_rng(percent)
    lost = set(rng.choice(sent[1:-1], len(sent) * percent // 100, replace=False).tolist())

    async def main() -> tuple[int, dict[str, int]]:
        loop = asyncio.get_running_loop()
        microphone, begun_s = Microphone(lambda _: None), loop.time()
        microphone.start({111: CODECS["audio/opus"]})
        for number, index in enumerate(sent):
            await asyncio.sleep(begun_s + index * PACKET_S - loop.time())
            if index not in lost:
                microphone.receive(RtpPacket(111, 0, number, index * 960, 1, made[index]))
        microphone.close()
        return sent[-1] - sent[0] + 1, microphone.counters

    span, counters = virtual_time.run(main())
    assert counters["pushed_samples"] / 320 == pytest.approx(span, abs=2)
    assert counters["lost"] == len(lost)
    assert counters["undecodable"] == 0
    assert counters["recovered"] >= 0.6 * len(lost)


# --- the benchmark


def test_a_real_call_over_a_lossy_relay_is_answered() -> None:
    """Nothing goes past the relay: what it dropped is what the server misses."""
    conditions = Conditions(loss=0.1, jitter_ms=5)
    (taken,) = asyncio.run(lossy_call.measure({"lossy": conditions}, turns=2, rounds=1)).values()
    counters = taken.counters
    assert len(taken.added_ms()) == 2
    assert counters["dropped"] == pytest.approx(0.1 * counters["sent"], rel=0.5)
    assert 0 < counters["lost"] <= counters["dropped"] + counters["late"]
    assert counters["recovered"] > 0


def test_without_the_measures_the_rest_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    loss.main(["--seeds", "1", "--minutes", "0.05", "--drift-minutes", "0.1", "--virtual-turns", "1", "--turns", "0"])
    printed = capsys.readouterr().out
    assert f"not measured: pesq is not installed, which measures the speech: {speech_quality.INSTALL}" in printed
    assert "| 2 % lost, 10 ms jitter, normal | Vocal Node |" in printed
    assert "stall after one loss" in printed
