"""Opus both ways: what a packet says about itself, recovery from losses, and silence that does not click."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media_server import opus
from media_server.decoder import AvDecoder, Concealer, Decoder
from media_server.opus import LibopusDecoder, OpusEncoder
from pipeline.audio import AudioFrame, Pcm, silence
from pipeline.errors import ProtocolError
from pipeline.resample import Resampler

SPEECH = Path(__file__).parent / "fixtures" / "audio" / "austen-0880.wav"
SECONDS = 2


def frames(pcm: Pcm, rate_hz: int = 24_000, *, silent: bool = False) -> list[AudioFrame]:
    size = rate_hz // 50
    return [AudioFrame(pcm[i : i + size], rate_hz, i, silent) for i in range(0, len(pcm) - size + 1, size)]


def speech(rate_hz: int = 24_000) -> Pcm:
    with wave.open(str(SPEECH)) as file:
        pcm = np.frombuffer(file.readframes(file.getframerate() * SECONDS), np.int16)
        resampler = Resampler(file.getframerate(), rate_hz)
    return np.concatenate([resampler.push(pcm), resampler.flush()])


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    encoder = OpusEncoder(24_000)
    return [encoder.encode(frame) for frame in frames(speech())]


def libopus_decoder(rate_hz: int = 16_000) -> LibopusDecoder:
    library = opus.libopus()
    assert library is not None, "PyAV's wheel carries libopus"
    return LibopusDecoder(library, rate_hz)


def av_decoder(name: str) -> AvDecoder:
    return AvDecoder((name,), opus.CLOCK_HZ, 16_000)


def encoded(pcm: Pcm, *, layout: str = "mono", **options: str) -> list[bytes]:
    """Encode speech the way other senders do."""
    codec = av.CodecContext.create("libopus", "w")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout, codec.format = 48_000, layout, "s16"
    codec.bit_rate = 32_000
    codec.options = {"application": "voip", **options}
    codec.time_base = Fraction(1, 48_000)
    codec.open()
    size, channels = codec.frame_size, 2 if layout == "stereo" else 1
    out: list[bytes] = []
    for start in range(0, len(pcm) - size + 1, size):
        part = np.repeat(pcm[start : start + size], channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
        frame.sample_rate, frame.pts = 48_000, start
        out += [bytes(packet) for packet in codec.encode(frame)]
    return out


def level(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(pcm.astype(float) ** 2)))


def error_db(heard: Pcm, reference: Pcm) -> float:
    count = min(len(heard), len(reference))
    difference = heard[:count].astype(float) - reference[:count]
    return float(20 * np.log10(level(difference.astype(np.int16)) / level(reference[:count])))


def correlation(heard: Pcm, reference: Pcm) -> float:
    """The best likeness over the delays that codecs and resamplers may have, up to 25 ms."""
    core = reference[2000:18_000].astype(float)
    near = heard[1600:18_400].astype(float)
    dots = np.correlate(near, core, "valid")
    energy = np.convolve(near**2, np.ones(len(core)), "valid")
    return float((dots / np.sqrt(energy * (core**2).sum() + 1)).max())


# --- packets


def test_each_frame_is_one_packet_of_20_ms_with_fec(packets: list[bytes]) -> None:
    assert len(packets) == SECONDS * 50
    assert {opus.samples_of(packet) for packet in packets} == {960}
    assert sum(map(len, packets)) * 8 / (len(packets) * 0.02) == pytest.approx(opus.BIT_RATE, rel=0.2)
    assert np.mean([opus.carries_fec(packet) for packet in packets]) > 0.5


def test_the_encoder_adds_no_frame_of_delay() -> None:
    click = silence(24_000)
    click[12_000:12_240] = 20_000
    decoder, encoder = libopus_decoder(), OpusEncoder(24_000)
    heard = np.concatenate([decoder.decode(encoder.encode(frame)) for frame in frames(click)])
    onset_s = float(np.argmax(np.abs(heard) > 3000)) / 16_000
    assert 0.5 <= onset_s < 0.510


@pytest.mark.parametrize(
    ("payload", "samples"),
    [
        (b"", 0),
        (bytes([1 << 3]), 960),
        (bytes([0 << 3]), 480),
        (bytes([3 << 3 | 1, 0]), 5760),
        (bytes([31 << 3]), 960),
        (bytes([28 << 3]), 120),
        (bytes([13 << 3 | 2, 0]), 1920),
        (bytes([1 << 3 | 3, 6]), 5760),
        (bytes([1 << 3 | 3, 7]), 0),
        (bytes([1 << 3 | 3]), 0),
    ],
)
def test_a_packet_tells_its_length(payload: bytes, samples: int) -> None:
    assert opus.samples_of(payload) == samples


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40))
def test_rubbish_is_a_protocol_error_and_harms_nothing(payload: bytes) -> None:
    opus.carries_fec(payload)
    decoder = libopus_decoder()
    if opus.samples_of(payload) == 0:
        return
    try:
        assert len(decoder.decode(payload)) * 3 == opus.samples_of(payload)
    except ProtocolError:
        assert len(decoder.conceal(320, None)) == 320


# --- decoding


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 24_000, 48_000])
def test_libopus_decodes_at_the_rate_asked_for(packets: list[bytes], rate_hz: int) -> None:
    decoder = libopus_decoder(rate_hz)
    assert {len(decoder.decode(packet)) for packet in packets} == {rate_hz // 50}


@pytest.mark.parametrize("name", ["libopus", "opus"])
def test_without_libopus_pyav_decodes_the_same_sound(packets: list[bytes], name: str) -> None:
    reference = libopus_decoder()
    expected = np.concatenate([reference.decode(packet) for packet in packets])
    decoder = av_decoder(name)
    heard = np.concatenate([decoder.decode(packet) for packet in packets])
    assert abs(len(heard) - len(expected)) <= 32
    assert correlation(heard, expected) > 0.95
    with pytest.raises(ProtocolError):
        decoder.decode(b"\xff\xff\xff")
    assert len(decoder.decode(packets[3])) == 320


def test_open_decoder_takes_what_there_is(monkeypatch: pytest.MonkeyPatch, packets: list[bytes]) -> None:
    assert isinstance(opus.open_decoder(16_000), LibopusDecoder)
    monkeypatch.setattr(opus, "libopus", lambda: None)
    decoder = opus.open_decoder(16_000)
    assert isinstance(decoder, AvDecoder)
    assert not decoder.carries_fec(packets[50])


def test_a_library_that_does_not_load_or_lacks_a_symbol_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rubbish = tmp_path / "libopus.so.0"
    rubbish.write_bytes(b"no library")
    real = list(opus._candidates())
    monkeypatch.setattr(opus, "_candidates", lambda: iter([str(rubbish), "libc.so.6", *real]))
    opus.libopus.cache_clear()
    assert opus.libopus() is not None
    monkeypatch.setattr(opus, "_candidates", lambda: iter([str(rubbish), "libc.so.6"]))
    opus.libopus.cache_clear()
    assert opus.libopus() is None
    opus.libopus.cache_clear()


@pytest.mark.parametrize("duration", ["10", "20", "40", "60"])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize("name", ["ctypes", "libopus", "opus"])
def test_other_senders_packets(duration: str, layout: str, name: str) -> None:
    pcm = speech(48_000)
    sent = encoded(pcm, layout=layout, frame_duration=duration)
    decoder: Decoder = libopus_decoder() if name == "ctypes" else av_decoder(name)
    heard = np.concatenate([decoder.decode(packet) for packet in sent])
    assert {opus.samples_of(packet) for packet in sent} == {int(duration) * 48}
    other = av_decoder("libopus" if name == "opus" else "opus")  # the two implementations there are
    assert correlation(heard, np.concatenate([other.decode(packet) for packet in sent])) > 0.9


@pytest.mark.parametrize("name", ["ctypes", "libopus", "opus"])
def test_dtx_packets_are_comfort_noise(packets: list[bytes], name: str) -> None:
    decoder: Decoder = libopus_decoder() if name == "ctypes" else av_decoder(name)
    for packet in packets[:70]:
        decoder.decode(packet)
    dtx = packets[70][:1]  # a packet of nothing but its first byte (RFC 6716 section 2.1.9)
    heard = [decoder.decode(dtx) for _ in range(25)]
    assert opus.samples_of(dtx) == 960
    assert not opus.carries_fec(dtx)
    assert {len(pcm) for pcm in heard} == {320}
    assert level(np.concatenate(heard[-10:])) < 100


# --- losses


def lossy(decoder: Decoder, packets: list[bytes], lost: set[int], *, fec: bool) -> Pcm:
    parts = []
    for index, packet in enumerate(packets):
        following = packets[index + 1] if index + 1 < len(packets) and index + 1 not in lost else b""
        copy = following if fec and decoder.carries_fec(following) else None
        parts.append(decoder.conceal(320, copy) if index in lost else decoder.decode(packet))
    return np.concatenate(parts)


@pytest.mark.parametrize("percent", [5, 10, 20])
def test_fec_beats_concealment_beats_nothing(packets: list[bytes], percent: int) -> None:
    lost = set(np.flatnonzero(np.random.default_rng(7).random(len(packets)) < percent / 100).tolist()) - {0}
    clean = lossy(libopus_decoder(), packets, set(), fec=False)
    concealed = error_db(lossy(libopus_decoder(), packets, lost, fec=False), clean)
    recovered = error_db(lossy(libopus_decoder(), packets, lost, fec=True), clean)
    holes = clean.copy()
    for index in lost:
        holes[index * 320 : index * 320 + 320] = 0
    assert recovered < concealed - 2
    assert concealed < error_db(holes, clean) - 0.5


@pytest.mark.parametrize("samples", [1, 100, 320, 500, 960])
def test_any_length_can_be_concealed(packets: list[bytes], samples: int) -> None:
    for decoder in (libopus_decoder(), av_decoder("libopus")):
        decoder.decode(packets[50])
        assert len(decoder.conceal(samples, None)) == samples


def test_repeating_the_pitch_fits_fades_and_joins_without_a_click() -> None:
    tone = (np.sin(np.arange(4800) * 2 * np.pi * 200 / 16_000) * 8000).astype(np.int16)
    concealer = Concealer(16_000)
    before = concealer.join(tone[:1600])
    lost = [concealer.make_up(320) for _ in range(5)]
    after = concealer.join(tone[3200:])
    steps = np.abs(np.diff(np.concatenate([before, *lost, after]).astype(int)))
    assert steps.max() < 1.5 * np.abs(np.diff(tone.astype(int))).max()
    assert level(lost[0]) > 0.7 * level(tone) > level(lost[1]) > level(lost[2])
    assert not lost[3].any()
    assert not lost[4].any()
    assert np.array_equal(after[80:], tone[3280:])


# --- silence


def test_silence_is_encoded_a_few_times_and_then_reused() -> None:
    encoder = OpusEncoder(24_000)
    for frame in frames(speech())[50:100]:
        encoder.encode(frame)
    quiet = [encoder.encode(frame) for frame in frames(silence(24_000), silent=True)]
    assert len({id(packet) for packet in quiet}) == opus.SETTLING_FRAMES
    assert len(quiet[-1]) < 40


def test_neither_the_end_nor_the_resumption_of_speech_clicks() -> None:
    talk, pause = frames(speech())[60:130], frames(silence(24_000), silent=True)
    plain = [AudioFrame(frame.pcm, frame.rate_hz, frame.pts) for frame in pause]
    heard = {}
    for name, quiet in (("reused", pause), ("encoded", plain)):
        encoder, decoder = OpusEncoder(24_000), libopus_decoder()
        packets = [encoder.encode(frame) for frame in [*talk, *quiet, *talk]]
        heard[name] = np.concatenate([decoder.decode(packet) for packet in packets])
    start, end = (len(talk) + 3) * 320, (len(talk) + len(pause)) * 320
    assert np.abs(heard["reused"][start:end]).max() <= 3
    resumed = slice(end, None)
    assert error_db(heard["reused"][resumed], heard["encoded"][resumed]) < -10
    assert correlation(heard["reused"][resumed], heard["encoded"][resumed]) > 0.95
    first = slice(end, end + 640)
    assert np.abs(heard["reused"][first]).max() < 1.3 * np.abs(heard["encoded"][first]).max() + 50
