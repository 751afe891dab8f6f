"""The transcription service over real HTTP: any file, any cut, any order of fields; and what is refused."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientResponse, FormData
from hypothesis import given
from hypothesis import strategies as st

from compat_ws import routes, transcribe, uploads
from compat_ws.multipart import Part
from compat_ws.sound import SOUND_MAX_BYTES, ArrivingSound, is_headerless
from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm, silence
from pipeline.errors import EngineError, ProtocolError
from pipeline.events import Transcript
from pipeline.reply import Patience
from tests.recordings import AUDIO, recording
from tests.service_server import Service, check, engine_set, error_of, shelf
from tests.sound_files import encoded, flac_of_silence, video, wav, wav_header

SPEECH = recording("go-forward.wav")
S16LE = SPEECH.tobytes()
DURATION_S = round(len(SPEECH) / SPEECH_RATE_HZ, 3)


@dataclass
class Ear:
    """Keeps what it hears, and says how many frames it was; may hang before its words, or fail."""

    fault: Exception | None = None
    hang: bool = False
    heard: list[AudioFrame] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    closed: int = 0

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Listen to the end."""
        self.languages.append(language)
        try:
            async for frame in frames:
                self.heard.append(frame)
            if self.fault is not None:
                raise self.fault
            if self.hang:
                await asyncio.Event().wait()
            yield Transcript("some", False, "en")
            yield Transcript("some words", True, "en")
        finally:
            self.closed += 1

    @property
    def pcm(self) -> Pcm:
        """All that was heard."""
        return np.concatenate([frame.pcm for frame in self.heard])


def file_form(
    content: bytes, name: str = "speech.wav", kind: str | None = None, of: str = "file", **fields: str
) -> FormData:
    """Return a form with a file, which comes first."""
    form = FormData()
    form.add_field(of, io.BytesIO(content), filename=name, content_type=kind)
    for key, value in fields.items():
        form.add_field(key, value)
    return form


async def upload(service: Service, form: Any, **headers: str) -> ClientResponse:
    """Send a form; the answer is read whole."""
    response = await service.client.post(f"{service.url}/transcribe", data=form, headers=headers)
    await response.read()
    return response


async def heard(service: Service, form: Any) -> dict[str, Any]:
    """Send a form; return what was heard."""
    response = await upload(service, form)
    assert response.status == 200, await response.text()
    return dict(await response.json())


def test_recorded_speech_becomes_words() -> None:
    async def test(service: Service) -> None:
        whole = await heard(service, file_form((AUDIO / "go-forward.wav").read_bytes()))
        assert whole == {
            "text": "go forward ten meters",
            "language": "en",
            "duration_s": round(len(SPEECH) / 16_000, 3),
        }
        flac = await heard(service, file_form(encoded(SPEECH, "flac"), "speech.flac", of="audio_file", language="en"))
        assert flac["text"] == "go forward ten meters"
        assert service.counts.ended == [("stt", "finished")] * 2
        assert service.counts.produced > 4

    check(test, engine_set(stt="pocketsphinx"))


@pytest.mark.parametrize(
    "form",
    [
        lambda: file_form(wav(SPEECH)),
        lambda: file_form(wav(SPEECH) + b"LIST\x04\0\0\0abcd"),
        lambda: file_form(wav_header(0xFFFF_FFFF - 36) + S16LE),
        lambda: file_form(wav_header(0) + S16LE),
        lambda: file_form(S16LE, "speech.pcm"),
        lambda: file_form(S16LE, "SPEECH.RAW", "application/octet-stream"),
        lambda: file_form(S16LE, "speech", "audio/pcm;rate=16000"),
        lambda: file_form(S16LE, "speech", format="s16le"),
        lambda: file_form(wav(np.repeat(SPEECH, 2), channels=2)),
    ],
    ids=["wav", "tagged wav", "endless wav", "streamed wav", "pcm", "raw", "typed", "format", "stereo wav"],
)
def test_a_sound_is_heard_sample_by_sample(form: Any) -> None:
    ear = Ear()

    async def test(service: Service) -> None:
        assert await heard(service, form()) == {"text": "some words", "language": "en", "duration_s": DURATION_S}

    check(test, shelf({"stt": ear}))
    np.testing.assert_array_equal(ear.pcm, SPEECH)
    assert {frame.rate_hz for frame in ear.heard} == {SPEECH_RATE_HZ}
    assert max(len(frame.pcm) for frame in ear.heard) <= 320
    assert [frame.pts for frame in ear.heard] == np.cumsum([0, *(len(f.pcm) for f in ear.heard)])[:-1].tolist()


@given(st.lists(st.integers(1, 200), max_size=20), st.booleans())
def test_where_a_sound_is_cut_changes_nothing(cuts: list[int], headed: bool) -> None:
    pcm = np.arange(40, dtype=np.int16)
    content = wav(pcm) + b"LIST" if headed else pcm.tobytes()
    sound = ArrivingSound(headerless=not headed)
    pieces: list[Pcm] = []
    for size in [*cuts, len(content)]:
        pieces.append(sound.push(content[:size]))
        content = content[size:]
    pieces.append(asyncio.run(sound.end()))
    np.testing.assert_array_equal(np.concatenate(pieces), pcm)


def test_samples_are_there_as_soon_as_their_bytes() -> None:
    sound = ArrivingSound(headerless=True)
    assert [len(sound.push(b"x" * size)) for size in (1, 1, 4, 3, 1)] == [0, 1, 2, 1, 1]
    sound = ArrivingSound(headerless=False)
    assert [len(sound.push(octets)) for octets in (wav_header(100)[:43], wav_header(100)[43:] + b"ab", b"cde")] == [
        0,
        1,
        1,
    ]


@pytest.mark.parametrize(
    ("part", "declared", "headerless"),
    [
        (Part("file", "a.wav", "audio/wav"), "", False),
        (Part("file", "a", "application/octet-stream"), "", False),
        (Part("file"), "", False),
        (Part("file"), "s16le", True),
        (Part("file", "a.wav"), "s16le", True),
        (Part("file", "", "audio/pcm", "16000"), "", True),
        (Part("file", "a.wav", "audio/wav", "44100"), "", False),
    ],
)
def test_sound_without_a_header_must_be_declared(part: Part, declared: str, headerless: bool) -> None:
    assert is_headerless(part, declared) is headerless


def test_a_language_is_passed_on_wherever_it_stands() -> None:
    ear = Ear()

    async def test(service: Service) -> None:
        await heard(service, file_form(S16LE, "a.pcm"))
        await heard(service, file_form(S16LE, "a.pcm", language="de"))
        form = FormData({"language": "pt-BR", "whatever": "else"})
        form.add_field("file", S16LE, filename="a.pcm")
        await heard(service, form)
        await heard(service, file_form(S16LE, "a.pcm", language=""))

    check(test, shelf({"stt": ear}))
    assert ear.languages == [None, "de", "pt-BR", None]


# What is refused


def two_files() -> FormData:
    form = file_form(S16LE, "a.pcm")
    form.add_field("audio_file", S16LE, filename="b.pcm")
    return form


def binary_field() -> FormData:
    form = file_form(S16LE, "a.pcm")
    form.add_field("language", io.BytesIO(b"\xff\xfe"), content_type="text/plain", filename="")
    return form


HALF = wav(SPEECH)[:40_000]
BAD: Sequence[tuple[str, Any, int, str | None]] = [
    ("empty wav", lambda: file_form(wav(silence(0))), 400, "file"),
    ("empty pcm", lambda: file_form(b"", "a.pcm"), 400, "file"),
    ("empty file", lambda: file_form(b""), 400, "file"),
    ("truncated wav", lambda: file_form(HALF), 400, "file"),
    ("truncated flac", lambda: file_form(encoded(SPEECH, "flac")[:20_000], "a.flac"), 400, "file"),
    ("odd pcm", lambda: file_form(S16LE[:-1], "a.pcm"), 400, "file"),
    ("odd wav", lambda: file_form(wav_header(99) + bytes(99)), 400, "file"),
    ("other rate", lambda: file_form(S16LE, "a", "audio/pcm;rate=48000"), 400, "file"),
    ("other format", lambda: file_form(S16LE, "a.pcm", format="f32le"), 400, "format"),
    ("no language", lambda: file_form(S16LE, "a.pcm", language="english"), 400, "language"),
    ("rubbish", lambda: file_form(np.random.default_rng(1).bytes(50_000), "a.mp3"), 415, "file"),
    ("a text", lambda: file_form(b"hello " * 1000, "a.txt"), 415, "file"),
    ("a film", lambda: file_form(video(SPEECH), "a.mp4"), 415, "file"),
    ("a bomb", lambda: file_form(flac_of_silence(1000, announced=False), "a.flac"), 413, "file"),
    ("a bomb that says so", lambda: file_form(flac_of_silence(1000, announced=True), "a.flac"), 413, "file"),
    ("65535 channels", lambda: file_form(wav_header(65_535 * 20, channels=65_535) + bytes(65_535 * 20)), 400, "file"),
    ("no file", lambda: FormData([("language", "en"), ("x", "y")], default_to_multipart=True), 400, "file"),
    ("another name", lambda: file_form(S16LE, "a.pcm", of="upload"), 400, "file"),
    ("two files", two_files, 400, "audio_file"),
    ("too many fields", lambda: file_form(S16LE, "a.pcm", **{f"f{i}": "x" for i in range(65)}), 413, None),
    ("a long field", lambda: file_form(S16LE, "a.pcm", language="x" * 17_000), 413, "language"),
    ("no text", binary_field, 400, "language"),
]


@pytest.mark.parametrize(("form", "status", "param"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_what_is_wrong_is_named(form: Any, status: int, param: str | None) -> None:
    async def test(service: Service) -> None:
        error = await error_of(await upload(service, form()), status)
        assert error["param"] == param
        assert len(error["message"]) < 200
        assert service.counts.begun == [], "no engine was troubled"

    check(test)


def test_what_is_no_form_is_refused() -> None:
    async def test(service: Service) -> None:
        await error_of(await upload(service, b'{"file": 1}', **{"Content-Type": "application/json"}), 415)
        await error_of(await upload(service, S16LE, **{"Content-Type": "audio/pcm"}), 415)
        await error_of(await upload(service, S16LE, **{"Content-Type": "multipart/form-data"}), 400)
        await error_of(await upload(service, S16LE, **{"Content-Type": "multipart/form-data; boundary=x"}), 400)
        gzip = {"Content-Type": "multipart/form-data; boundary=x", "Content-Encoding": "gzip"}
        await error_of(await upload(service, b"rubbish", **gzip), 400)

    check(test)


def test_a_file_that_is_too_long_is_refused_before_it_is_read_and_as_soon_as_it_is_known() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pcm"\r\n\r\n'
        while True:
            yield bytes(1 << 20)

    async def test(service: Service) -> None:
        known = await service.client.post(
            f"{service.url}/transcribe",
            data=endless(),
            headers={"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(1 << 40)},
        )
        assert (await error_of(known, 413))["message"].endswith(f"at most {SOUND_MAX_BYTES} bytes are read")
        response = await service.client.post(
            f"{service.url}/transcribe", data=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
        assert (await error_of(response, 413))["param"] == "file"

    check(test)


def test_an_upload_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PAUSE_MAX_S", 0.1)

    async def stalled() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pcm"\r\n\r\nabcd'
        await asyncio.Event().wait()

    async def test(service: Service) -> None:
        await error_of(await upload(service, stalled(), **{"Content-Type": "multipart/form-data; boundary=x"}), 408)

    check(test)


def test_too_many_files_at_once_are_asked_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    began = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"--x\r\n"
        began.set()
        await asyncio.Event().wait()

    async def test(service: Service) -> None:
        form = {"Content-Type": "multipart/form-data; boundary=x"}
        slowly = asyncio.create_task(upload(service, slow(), **form))
        await began.wait()
        for _ in range(20):
            response = await upload(service, file_form(S16LE, "a.pcm"))
            if response.status == 503:
                break
        assert (await error_of(response, 503))["type"] == "overloaded_error"
        assert response.headers["Retry-After"]
        slowly.cancel()
        await asyncio.wait([slowly])
        for _ in range(100):
            if (await upload(service, file_form(S16LE, "a.pcm"))).status == 200:
                return
        raise AssertionError("a client that left still holds its place")

    monkeypatch.setattr(routes, "WholeForms", lambda: uploads.WholeForms(1))
    check(test)


# Engines, and clients that leave


@pytest.mark.parametrize("fault", [EngineError("the model is out of memory"), RuntimeError("secret-inner-text")])
def test_an_engine_that_fails_has_a_true_status(fault: Exception) -> None:
    async def test(service: Service) -> None:
        error = await error_of(await upload(service, file_form(S16LE, "a.pcm")), 502)
        assert error["message"] in ("the model is out of memory", "the stt engine failed: RuntimeError")
        assert service.counts.ended == [("stt", "failed")]

    check(test, shelf({"stt": Ear(fault)}))


def test_an_engine_has_a_limited_time_after_the_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcribe, "PATIENCE", Patience(stt_s=0.05))
    monkeypatch.setattr(transcribe, "REAL_TIMES", 0.0)
    ear = Ear(hang=True)

    async def test(service: Service) -> None:
        error = await error_of(await upload(service, file_form(S16LE, "a.pcm")), 502)
        assert error["message"] == "the stt engine gave nothing for 0.05 s"
        assert ear.closed == 1

    check(test, shelf({"stt": ear}))


def test_who_leaves_stops_the_engine() -> None:
    ear = Ear(hang=True)

    async def test(service: Service) -> None:
        asking = asyncio.create_task(upload(service, file_form(S16LE, "a.pcm")))
        await service.counts.until(lambda: bool(service.counts.begun))
        asking.cancel()
        await asyncio.wait([asking])
        await service.counts.until(lambda: service.counts.ended == [("stt", "abandoned")])
        assert ear.closed == 1

    check(test, shelf({"stt": ear}))


def test_samples_keep_their_sign_and_order() -> None:
    async def end() -> Pcm:
        sound = ArrivingSound(headerless=True)
        pcm = sound.push(b"\x00\x80\xff\x7f\x01\x00")
        assert len(await sound.end()) == 0
        return pcm

    assert asyncio.run(end()).tolist() == [-32768, 32767, 1]


def test_a_sound_that_ends_within_a_sample_is_refused() -> None:
    sound = ArrivingSound(headerless=True)
    sound.push(b"abc")
    with pytest.raises(ProtocolError, match="within a sample"):
        asyncio.run(sound.end())
