"""Sound files from strangers: every common kind is heard, every bad one is refused in words, and costs little."""

from __future__ import annotations

import asyncio
import io
import json
import random
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import sound_file
from pipeline.audio import SPEECH_RATE_HZ, VOICE_RATE_HZ, Pcm
from pipeline.errors import EngineError, Overloaded, ProtocolError
from pipeline.sound_file import SoundLimits, decode
from tests.recordings import recording
from tests.sound_files import KINDS, encoded, flac_of_silence, video, wav, wav_header, with_cover

SPEECH = recording("austen-0880.wav")
LIMITS = SoundLimits()
TEST_LIMIT_S = 30.0


def heard(
    source: bytes, rate_hz: int = SPEECH_RATE_HZ, limits: SoundLimits = LIMITS, trim_s: float | None = None
) -> Pcm:
    return asyncio.run(decode(source, rate_hz, limits, trim_s=trim_s))


def refusal(source: bytes, limits: SoundLimits = LIMITS) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as refused:
        heard(source, limits=limits)
    assert refused.value.param == "file"
    return refused.value.status, str(refused.value)


def loudness(pcm: Pcm) -> NDArray[np.float64]:
    """Return the level of each 20 ms."""
    frames = pcm[: len(pcm) // 320 * 320].reshape(-1, 320).astype(np.float64)
    levels: NDArray[np.float64] = np.sqrt(np.square(frames).mean(axis=1))
    return levels


def likeness(got: Pcm, wanted: Pcm) -> float:
    """Correlate the levels, up to 60 ms late: encoders of AAC and AMR delay."""
    levels, model = loudness(got), loudness(wanted)[:-4]
    return max(float(np.corrcoef(levels[late : late + len(model)], model)[0, 1]) for late in range(4))


@pytest.mark.parametrize("kind", KINDS)
def test_every_common_kind_is_heard(kind: str) -> None:
    pcm = heard(encoded(SPEECH, kind))
    assert pcm.dtype == np.int16
    assert len(pcm) == pytest.approx(len(SPEECH), abs=0.05 * SPEECH_RATE_HZ)
    assert likeness(pcm, SPEECH) > 0.85


def test_what_needs_no_conversion_comes_out_bit_by_bit() -> None:
    np.testing.assert_array_equal(heard(wav(SPEECH)), SPEECH)


def test_it_comes_at_the_rate_that_was_asked_for() -> None:
    assert len(heard(wav(SPEECH), VOICE_RATE_HZ)) == pytest.approx(len(SPEECH) * 1.5, abs=2)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_channels_are_mixed(channels: int) -> None:
    mixed = heard(wav(np.repeat(SPEECH, channels), channels=channels))
    assert len(mixed) == len(SPEECH)
    assert np.corrcoef(mixed, SPEECH)[0, 1] > 0.99


@pytest.mark.parametrize("size", [0, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
def test_a_wav_whose_writer_could_not_tell_its_length_is_heard(size: int) -> None:
    streamed = wav_header(size, riff_bytes=size) + SPEECH.tobytes()
    np.testing.assert_array_equal(heard(streamed), SPEECH)


def test_a_cover_is_no_video() -> None:
    covered = with_cover(encoded(SPEECH, "mp3"))
    with av.open(io.BytesIO(covered)) as container:
        assert len(container.streams.video) == 1
    assert len(heard(covered)) == pytest.approx(len(SPEECH), abs=800)


def test_tags_may_be_in_any_encoding() -> None:
    name = b"INAM" + (4).to_bytes(4, "little") + b"\xff\xfe\xe9\x00"
    tags = b"LIST" + (len(name) + 4).to_bytes(4, "little") + b"INFO" + name
    tagged = wav_header(SPEECH.nbytes, riff_bytes=36 + SPEECH.nbytes + len(tags)) + SPEECH.tobytes() + tags
    np.testing.assert_array_equal(heard(tagged), SPEECH)


def test_subtitles_beside_the_sound_do_no_harm() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        sound = output.add_stream("pcm_s16le", rate=SPEECH_RATE_HZ, layout="mono")
        output.add_stream("ass")
        frame = av.AudioFrame.from_ndarray(SPEECH.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SPEECH_RATE_HZ
        output.mux(sound.encode(frame))
    with av.open(io.BytesIO(file.getvalue())) as container:
        assert len(container.streams.subtitles) == 1
    np.testing.assert_array_equal(heard(file.getvalue()), SPEECH)


def test_damage_in_the_middle_costs_only_itself() -> None:
    mp3 = bytearray(encoded(SPEECH, "mp3"))
    mp3[len(mp3) // 2 : len(mp3) // 2 + 1_000] = bytes(1_000)
    assert len(heard(bytes(mp3))) > 0.8 * len(SPEECH)


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        pytest.param(b"", 400, "empty", id="empty"),
        pytest.param(b"R", 415, "no sound", id="one byte"),
        pytest.param(b"How do you do?\n" * 1000, 415, "no sound", id="text"),
        pytest.param(random.Random(1).randbytes(100_000), 415, "no sound", id="noise"),
        pytest.param(bytes(1_000_000), 415, "no sound", id="zeros"),
        pytest.param(video(SPEECH), 415, "video", id="video"),
        pytest.param(wav(SPEECH[:0]), 400, "holds no sound", id="no samples"),
        pytest.param(wav(np.zeros(9 * 100, np.int16), channels=9), 400, "9 channels", id="9 channels"),
        pytest.param(wav_header(4, channels=65_535) + bytes(4), 400, "channels", id="65,535 channels"),
        pytest.param(wav(SPEECH, rate_hz=1), 400, "1 Hz", id="1 Hz"),
        pytest.param(wav(SPEECH, rate_hz=2**31 - 1), 400, "2147483647 Hz", id="2 GHz"),
        pytest.param(wav(SPEECH, rate_hz=2**32 - 1), 415, "no sound", id="4 GHz"),
        pytest.param(flac_of_silence(700, announced=True), 413, "longer than 600 s", id="announced too long"),
        pytest.param(flac_of_silence(700, announced=False), 413, "longer than 600 s", id="bomb"),
        pytest.param(bytes(33 * 1024 * 1024), 413, "at most 33554432 bytes", id="too many bytes"),
    ],
)
def test_a_bad_file_is_refused_in_words(source: bytes, status: int, words: str) -> None:
    got, message = refusal(source)
    assert got == status
    assert words in message


@pytest.mark.parametrize("kind", ["wav", "aiff", "flac", "webm"])
def test_a_file_that_has_less_than_it_announces_is_truncated(kind: str) -> None:
    whole = encoded(SPEECH, kind)
    status, message = refusal(whole[: len(whole) * 7 // 10])
    assert (status, "truncated" in message) == (400, True)


def test_an_mp4_without_its_index_holds_nothing_that_can_be_decoded() -> None:
    whole = encoded(SPEECH, "m4a")
    assert refusal(whole[: len(whole) * 7 // 10])[0] == 415


def test_trimming_stops_at_the_sample() -> None:
    pcm = heard(flac_of_silence(700, announced=False), VOICE_RATE_HZ, trim_s=1.5)
    assert len(pcm) == 36_000
    assert len(heard(wav(SPEECH), trim_s=30.0)) == len(SPEECH)


def test_memory_is_bounded() -> None:
    status, message = refusal(flac_of_silence(120, announced=False), SoundLimits(memory_bytes=1024 * 1024))
    assert (status, "memory" in message) == (413, True)


@pytest.fixture(scope="module")
def long() -> bytes:
    """75 minutes of speech, an MP3 being a row of frames: some seconds to decode."""
    return encoded(SPEECH, "mp3") * 1500


LONG_LIMITS = SoundLimits(source_bytes=100_000_000, duration_s=10_000.0)


def test_processor_time_is_bounded(long: bytes) -> None:
    status, message = refusal(long, replace(LONG_LIMITS, cpu_s=1))
    assert (status, "time" in message) == (413, True)


def test_time_is_bounded(long: bytes) -> None:
    status, message = refusal(long, replace(LONG_LIMITS, wall_s=1))
    assert (status, "over 1 s" in message) == (413, True)


# --- what a file makes libav do stays in the child


def test_a_file_cannot_bring_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret.wav").write_bytes(wav(SPEECH))
    monkeypatch.chdir(tmp_path)
    script = b"ffconcat version 1.0\nfile secret.wav\n"
    with av.open(io.BytesIO(script), "r") as container:
        assert len(list(container.decode(audio=0)))  # what libav would do
    assert refusal(script)[0] == 415


def test_a_file_cannot_open_a_socket() -> None:
    """A session description makes libav listen and send: here it is told a socket that would hear of it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(0.2)
        port = peer.getsockname()[1]
        sdp = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
        assert refusal(sdp.encode())[0] == 415
        with pytest.raises(TimeoutError):
            peer.recv(1)


PROBE = f"""
import json, os, resource, socket, sys
sys.path.append({str(sound_file.DECODER.parent)!r})
import sound_decoder

def possible(what, *arguments):
    try:
        return bool(what(*arguments) or True)
    except OSError:
        return False

sys.stdin.buffer.read()
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))  # a system that is stricter than we are
sound_decoder.confine(sound_decoder.Order(**json.loads(sys.argv[1])))
found = [sorted(os.environ), [n for n in range(1024) if possible(os.fstat, n)]]
found += [possible(open, os.devnull), possible(socket.socket), possible(bytearray, 1 << 20)]
print(json.dumps(dict(status=400, message=json.dumps(found))))
"""


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_child_has_no_secrets_and_opens_nothing(
    new_loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    monkeypatch.setattr(sound_file, "DECODER", script(tmp_path, PROBE))
    with socket.socket() as listening, asyncio.Runner(loop_factory=new_loop) as runner:
        listening.set_inheritable(True)
        with pytest.raises(ProtocolError) as told:
            runner.run(decode(b"x", SPEECH_RATE_HZ))
    names, descriptors, *possible = json.loads(str(told.value).partition(": ")[2])
    assert set(names) <= {"PYTHONPATH", "LC_CTYPE", *sound_file.KEPT_VARIABLES}
    assert (descriptors, possible) == ([0, 1, 2], [False, False, True])


def script(folder: Path, code: str) -> Path:
    path = folder / "decoder.py"
    path.write_text(code)
    return path


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        pytest.param("import os; os.abort()", ProtocolError, "no sound", id="crash"),
        pytest.param("import os; os.kill(os.getpid(), 9)", ProtocolError, "too much", id="out of memory"),
        pytest.param("raise SystemExit(3)", EngineError, "exit status 3", id="broken installation"),
        pytest.param("while True: print('x' * 10000)", EngineError, "more than it was asked", id="taken over"),
    ],
)
def test_however_the_child_ends_the_caller_is_told(
    code: str, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_file, "DECODER", script(tmp_path, code))
    with pytest.raises(error, match=words):
        heard(wav(SPEECH), limits=SoundLimits(duration_s=1.0))


def test_a_machine_that_can_start_no_process_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(EngineError, match="cannot start"):
        heard(wav(SPEECH))


# --- how many, and their end


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes that were started, in order."""
    started: list[Process] = []
    start = asyncio.create_subprocess_exec

    async def note(*args: str, **options: object) -> Process:
        started.append(await start(*args, **options))  # type: ignore[arg-type]
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", note)
    return started


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_canceling_ends_the_child(
    new_loop: Callable[[], asyncio.AbstractEventLoop], children: list[Process], long: bytes
) -> None:
    async def main() -> None:
        task = asyncio.create_task(decode(long, SPEECH_RATE_HZ, LONG_LIMITS))
        await until(lambda: len(children) == 1)
        await asyncio.sleep(0.3)  # wherever it is by then
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children[0].returncode == -9

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(limited(main()))


def test_only_so_many_run_at_once(children: list[Process]) -> None:
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, sum(child.returncode is None for child in children))
            await asyncio.sleep(0.005)

    async def main() -> None:
        watching = asyncio.create_task(watch())
        many = sound_file.MAX_CHILDREN + 2
        decoded = await asyncio.gather(*(decode(wav(SPEECH), SPEECH_RATE_HZ) for _ in range(many)))
        assert [len(pcm) for pcm in decoded] == [len(SPEECH)] * many
        watching.cancel()

    asyncio.run(limited(main()))
    assert most == sound_file.MAX_CHILDREN


def test_those_who_wait_are_few_and_wait_no_longer_than_they_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, children: list[Process]
) -> None:
    monkeypatch.setattr(sound_file, "DECODER", script(tmp_path, "import time; time.sleep(60)"))
    monkeypatch.setattr(sound_file, "MAX_WAITING", 1)

    async def main() -> None:
        running = [asyncio.create_task(decode(b"x", 16_000)) for _ in range(sound_file.MAX_CHILDREN)]
        await until(lambda: len(children) == sound_file.MAX_CHILDREN)
        waiting = asyncio.create_task(decode(b"x", 16_000))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await decode(b"x", 16_000)
        waiting.cancel()
        await asyncio.wait([waiting])
        monkeypatch.setattr(sound_file, "MAX_WAIT_S", 0.01)
        with pytest.raises(Overloaded):
            await decode(b"x", 16_000)
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        monkeypatch.setattr(sound_file, "MAX_WAIT_S", 15.0)
        monkeypatch.undo()
        assert len(await decode(wav(SPEECH), 16_000)) == len(SPEECH)

    asyncio.run(limited(main()))


async def limited(work: Awaitable[None]) -> None:
    async with asyncio.timeout(TEST_LIMIT_S):
        await work


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a process begins outside the loop
        await asyncio.sleep(0.005)


FILES = [encoded(SPEECH[:8_000], kind) for kind in KINDS]


DAMAGE = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=30)


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(FILES), DAMAGE)
def test_any_damage_is_heard_or_refused(file: bytes, damage: list[tuple[float, bytes]]) -> None:
    damaged = bytearray(file)
    for place, what in damage:
        begin = int(place * len(damaged))
        damaged[begin : begin + len(what)] = what
    try:
        heard_samples = len(heard(bytes(damaged), limits=SoundLimits(duration_s=10.0)))
    except ProtocolError as error:
        status = error.status
    else:
        status = 200 if 0 < heard_samples <= 10 * SPEECH_RATE_HZ else 500
    assert status in (200, 400, 413, 415)
