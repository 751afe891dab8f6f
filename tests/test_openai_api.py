"""The services in OpenAI's shapes, asked by OpenAI's own client; and what this client would never send."""

from __future__ import annotations

import asyncio
import io
import json
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientPayloadError
from openai import APIError, AsyncOpenAI, BadRequestError, InternalServerError

from compat_ws import routes, uploads
from pipeline.audio import VOICE_RATE_HZ, AudioFrame
from pipeline.errors import EngineError
from pipeline.events import Message, Transcript
from tests.fakes import FakeLlm, FakeStt
from tests.recordings import AUDIO, recording
from tests.service_server import Service, check, engine_set, error_of, events_of, shelf
from tests.sound_files import encoded, wav_header
from tests.test_chat import SteppedLlm
from tests.test_speech_service import Voice
from tests.test_transcribe import Ear, file_form

SPEECH = recording("go-forward.wav")
WAV = (AUDIO / "go-forward.wav").read_bytes()
HELLO: Any = [{"role": "user", "content": "Hello there"}]


@asynccontextmanager
async def openai_client(service: Service) -> AsyncIterator[AsyncOpenAI]:
    """Return OpenAI's own client, which tries nothing twice."""
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none needed", max_retries=0) as client:
        yield client


# Models


def test_models_are_the_engines_served() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            models = [model async for model in client.models.list()]
        assert [(model.id, model.owned_by) for model in models] == [
            (name, "vocal-node") for name in ("scripted", "echo", "tone")
        ]

    check(test)


# Transcriptions


def test_a_real_recording_is_transcribed_in_every_shape() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            create = client.audio.transcriptions.create
            plain = await create(model="whisper-1", file=("speech.wav", WAV), language="en")
            assert plain.text == "go forward ten meters"
            text = await create(model="whisper-1", file=("speech.wav", WAV), response_format="text")
            assert str(text) == "go forward ten meters\n"
            verbose = await create(
                model="whisper-1", file=("speech.flac", encoded(SPEECH, "flac")), response_format="verbose_json"
            )
            assert (verbose.text, verbose.language) == ("go forward ten meters", "en")
            assert verbose.duration == pytest.approx(len(SPEECH) / 16_000, abs=0.05)

    check(test, engine_set(stt="pocketsphinx"))


def test_a_real_recording_is_transcribed_as_a_stream() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            stream = await client.audio.transcriptions.create(model="any", file=("speech.wav", WAV), stream=True)
            events = [event async for event in stream]
        assert {event.type for event in events[:-1]} == {"transcript.text.delta"}
        assert len(events) > 3
        done = events[-1]
        assert done.type == "transcript.text.done"
        assert done.text == "go forward ten meters"
        assert (done.model_extra or {})["language"] == "en"
        assert events[-2].model_extra == {"text": "go forward ten meters"}

    check(test, engine_set(stt="pocketsphinx"))


def test_the_engine_is_told_the_prompt() -> None:
    ear = FakeStt(("fine",))

    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            create = client.audio.transcriptions.create
            assert (await create(model="any", file=("speech.wav", WAV), prompt="Zoë, Ada")).text == "fine"
            stream = await create(model="any", file=("speech.wav", WAV), prompt="Bob", stream=True)
            assert [event.type async for event in stream][-1] == "transcript.text.done"
            with pytest.raises(BadRequestError, match="prompt"):
                await create(model="any", file=("speech.wav", WAV), prompt="x" * 5_000)
        assert ear.prompts == ["Zoë, Ada", "Bob"]

    check(test, shelf({"stt": ear}))


@dataclass
class LiveEar:
    """Says ``hypotheses`` one after the other, each when it has heard 100 ms more."""

    hypotheses: tuple[str, ...]
    heard_samples: int = 0
    closed: int = 0
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Listen and guess."""
        left = list(self.hypotheses)
        try:
            async for frame in frames:
                self.heard_samples += len(frame.pcm)
                self.heard.set()
                if left and self.heard_samples >= 1600 * (len(self.hypotheses) - len(left) + 1):
                    yield Transcript(left.pop(0), False, language)
            yield Transcript(self.hypotheses[-1], True, language)
        finally:
            self.closed += 1


def part(name: str, text: str) -> str:
    """Return a field as a form has it."""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'


def file_part(name: str, kind: str) -> str:
    """Return a part that has a sound, without its content."""
    return part(name, "").replace("\r\n\r\n\r\n", f"\r\nContent-Type: {kind}\r\n\r\n")


SAME_PART = file_part("file", "audio/pcm;rate=16000") + "\0\0\r\n"
"""More of a `LiveUpload`."""


class LiveUpload:
    """A form whose file is still being spoken."""

    def __init__(self, head: bytes = b"", kind: str = "audio/pcm;rate=16000", **fields: str) -> None:
        """``fields`` stand before the file."""
        texts = {"model": "any", "language": "en", "stream": "true", **fields}
        file = file_part("file", kind)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self.send("".join([*(part(name, text) for name, text in texts.items()), file]).encode())
        self.send(head)

    def send(self, octets: bytes) -> None:
        """Send so much more."""
        if octets:
            self._pieces.put_nowait(octets)

    def end(self, after: str = "") -> None:
        """Send the form's end; ``after`` stands behind the file."""
        self.send(f"\r\n{after}--x--\r\n".encode())
        self._pieces.put_nowait(b"")

    async def body(self) -> AsyncIterator[bytes]:
        """Yield what is sent."""
        while octets := await self._pieces.get():
            yield octets

    def post(self, service: Service) -> Any:
        """Begin the request."""
        return service.client.post(
            f"{service.url}/v1/audio/transcriptions",
            data=self.body(),
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )


async def next_event(response: Any) -> dict[str, Any]:
    """Return the next server-sent event."""
    return dict(json.loads((await response.content.readuntil(b"\n\n")).removeprefix(b"data: ")))


@pytest.mark.parametrize("head", [b"", wav_header(0)], ids=["pcm", "wav"])
def test_words_come_while_the_upload_goes_on(head: bytes) -> None:
    ear = LiveEar(("go", "go four", "go forward"))

    async def test(service: Service) -> None:
        upload = LiveUpload(head, "audio/wav" if head else "audio/pcm;rate=16000")
        upload.send(bytes(3200))
        async with upload.post(service) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            assert await next_event(response) == delta("go", "go")
            upload.send(bytes(3200))
            assert await next_event(response) == delta(" four", "go four")
            upload.send(bytes(3200))
            assert await next_event(response) == delta("", "go forward"), "it took words back"
            assert ear.closed == 0
            upload.send(bytes(320))
            upload.end()
            done = {"type": "transcript.text.done", "text": "go forward", "language": "en"}
            assert await next_event(response) == done
            assert await response.content.read() == b""
        assert ear.heard_samples == 4800 + 160
        assert service.counts.ended == [("stt", "finished")]

    check(test, shelf({"stt": ear}))


def delta(text: str, whole: str) -> dict[str, str]:
    """Return an event as it is documented."""
    return {"type": "transcript.text.delta", "delta": text, "text": whole}


def test_sound_is_heard_as_soon_as_it_arrives() -> None:
    """Not a chunk later: the engine hears the last samples that were sent, with nothing behind them."""
    ear = LiveEar(("go",))

    async def test(service: Service) -> None:
        upload = LiveUpload()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(asked(service, upload))
            for count in range(1, 5):
                ear.heard.clear()
                upload.send(bytes(64))
                await ear.heard.wait()
                assert ear.heard_samples == 32 * count
            upload.end()
            assert json.loads(events_of(await asking)[-1])["text"] == "go"

    async def asked(service: Service, upload: LiveUpload) -> str:
        async with upload.post(service) as response:
            return str(await response.text())

    check(test, shelf({"stt": ear}))


@dataclass
class PausingEar:
    """Says at each pause, and at the end, how many samples there were before it."""

    hears_pauses: bool = True
    frames: list[AudioFrame] = field(default_factory=list)

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Listen and count."""
        samples = 0
        async for frame in frames:
            self.frames.append(frame)
            samples += len(frame.pcm)
            if not len(frame.pcm):
                yield Transcript(str(samples), False, language, frame.pts)
        yield Transcript(str(samples), True, language)


def of_pause(samples: int, added: str) -> dict[str, Any]:
    """Return the event that answers a pause, as it is documented."""
    return {"type": "transcript.text.delta", "delta": added, "text": str(samples), "pause_samples": samples}


def test_a_file_in_several_parts_has_pauses_between_them() -> None:
    ear = PausingEar()

    async def test(service: Service) -> None:
        models = await (await service.client.get(f"{service.url}/v1/models")).json()
        assert [model.get("hears_pauses") for model in models["data"] if model["id"] == "own"] == [True]
        upload = LiveUpload()
        upload.send(bytes(3200))
        upload.send(b"\r\n" + file_part("file", "audio/pcm;rate=16000").encode())
        async with upload.post(service) as response:
            assert await next_event(response) == of_pause(1600, "1600"), "before a byte of the next part is there"
            upload.send(b"\r\n" + file_part("file", "audio/pcm;rate=16000").encode())
            assert await next_event(response) == of_pause(1600, ""), "each is answered, though there are no new words"
            upload.send(bytes(320))
            upload.end()
            assert (await next_event(response))["text"] == "1760"
            assert (await next_event(response))["type"] == "transcript.text.done"
        assert [len(frame.pcm) for frame in ear.frames if not len(frame.pcm) or frame.pts == 0] == [320, 0, 0]

    check(test, shelf({"stt": ear}))


def test_who_does_not_hear_pauses_is_told_none() -> None:
    ear = PausingEar(hears_pauses=False)

    async def test(service: Service) -> None:
        models = await (await service.client.get(f"{service.url}/v1/models")).json()
        assert all("hears_pauses" not in model for model in models["data"])
        upload = LiveUpload()
        upload.send(bytes(3200) + b"\r\n" + file_part("file", "audio/pcm;rate=16000").encode() + bytes(3200))
        upload.end()
        async with upload.post(service) as response:
            assert [json.loads(event)["text"] for event in events_of(await response.text())] == ["3200"] * 2
        assert ear.frames and all(len(frame.pcm) for frame in ear.frames)

    check(test, shelf({"stt": ear}))


@pytest.mark.parametrize("stream", ["true", "false"])
def test_two_files_with_headers_are_no_file_in_two_parts(stream: str) -> None:
    """Nor is one that is not listened to while it arrives."""

    async def test(service: Service) -> None:
        upload = LiveUpload(wav_header(3200) + bytes(3200), "audio/wav", stream=stream)
        upload.end(file_part("file", "audio/wav") + "\0\0\r\n")
        async with upload.post(service) as response:
            assert "two files" in await response.text()

    check(test, shelf({"stt": PausingEar()}))


def test_who_hangs_up_while_speaking_stops_the_engine() -> None:
    ear = LiveEar(("go",))

    async def test(service: Service) -> None:
        upload = LiveUpload()
        upload.send(bytes(3200))
        async with upload.post(service) as response:
            await next_event(response)
            response.close()
        await service.counts.until(lambda: service.counts.ended == [("stt", "abandoned")])
        assert ear.closed == 1

    check(test, shelf({"stt": ear}))


def test_files_that_stream_in_are_counted_like_those_that_do_not_and_plain_sound_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An Ogg is kept until it is whole, and so is what only claims to be one."""
    ear = LiveEar(("go",))

    async def test(service: Service) -> None:
        file, another, plain = (
            LiveUpload(b"OggS" + bytes(60), "audio/ogg"),
            LiveUpload(b"OggS", "audio/ogg"),
            LiveUpload(),
        )
        first = asyncio.create_task(answered(file.post(service)))
        await service.counts.until(lambda: service.counts.begun == ["stt"])
        async with another.post(service) as response:
            assert (await error_of(response, 503))["type"] == "overloaded_error"
        plain.send(bytes(3200))
        async with plain.post(service) as response:
            assert await next_event(response) == delta("go", "go")
        file.end()
        assert await first in (400, 415)

    async def answered(request: Any) -> int:
        async with request as response:
            return int(response.status)

    monkeypatch.setattr(routes, "WholeForms", lambda: uploads.WholeForms(1))
    check(test, shelf({"stt": ear}))


@pytest.mark.parametrize(
    ("octets", "after", "why"),
    [
        (bytes(3), "", "within a sample"),
        (
            bytes(2),
            '--x\r\nContent-Disposition: form-data; name="language"\r\n\r\nde\r\n',
            "must be the form's last field",
        ),
        (bytes(2), '--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nde\r\n', "two files"),
        (bytes(2), file_part("audio_file", "audio/pcm;rate=16000"), "two files"),
        (bytes(2), file_part("file", "audio/pcm"), "two files"),
        (bytes(2), file_part("file", "audio/wav"), "two files"),
        (bytes(2), SAME_PART + file_part("file", "audio/wav"), "two files"),
        (bytes(2), SAME_PART + part("language", "de"), "must be the form's last field"),
        (b"\r\n--x rubbish", "", "cannot be read"),
    ],
)
def test_what_turns_out_wrong_on_the_way_is_said_in_the_stream_and_cuts_it_off(
    octets: bytes, after: str, why: str
) -> None:
    ear = LiveEar(("go",))

    async def test(service: Service) -> None:
        upload = LiveUpload()
        upload.send(bytes(3200))
        async with upload.post(service) as response:
            await next_event(response)
            upload.send(octets)
            upload.end(after)
            error = (await next_event(response))["error"]
            assert error["type"] == "invalid_request_error" and why in error["message"]
            with pytest.raises(ClientPayloadError):
                await response.content.read()
        assert service.counts.ended == [("stt", "abandoned")], "it is not the engine's fault"
        assert ear.closed == 1

    check(test, shelf({"stt": ear}))


def test_what_is_wrong_at_once_has_a_true_status() -> None:
    async def test(service: Service) -> None:
        for fields in ({"language": "english"}, {"format": "f32le"}, {"stream": "true", "response_format": "srt"}):
            upload = LiveUpload(b"", **fields)
            upload.end()
            async with upload.post(service) as response:
                await error_of(response, 400)
        upload = LiveUpload(kind="audio/pcm;rate=8000")
        upload.end()
        async with upload.post(service) as response:
            await error_of(response, 400)
        assert service.counts.begun == []

    check(test)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "srt"}, "response_format"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
        ({"include[]": "logprobs"}, "include[]"),
        ({"stream": "maybe"}, "stream"),
        ({"model": "m" * 300}, "model"),
    ],
)
def test_what_cannot_be_done_with_a_file_is_named(fields: dict[str, str], param: str) -> None:
    async def test(service: Service) -> None:
        url = f"{service.url}/v1/audio/transcriptions"
        response = await service.client.post(url, data=file_form(WAV, **fields))
        assert (await error_of(response, 400))["param"] == param

    check(test)


def test_fields_may_follow_a_file_that_is_not_streamed() -> None:
    ear = Ear()

    async def test(service: Service) -> None:
        url = f"{service.url}/v1/audio/transcriptions"
        response = await service.client.post(url, data=file_form(WAV, language="de", response_format="text"))
        assert await response.text() == "some words\n"

    check(test, shelf({"stt": ear}))
    assert ear.languages == ["de"]


# Chat


def test_a_real_engine_completes_a_chat() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            answer = await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": "My mother hates me."}], temperature=0.2, seed=1
            )
        assert "mother" in (answer.choices[0].message.content or "")
        assert (answer.model, answer.object, answer.usage) == ("eliza", "chat.completion", None)
        assert (answer.choices[0].finish_reason, answer.choices[0].message.role) == ("stop", "assistant")
        assert answer.id.startswith("chatcmpl-") and answer.created > 1_700_000_000

    check(test, engine_set(llm="eliza"))


def test_a_chat_is_streamed() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            stream = await client.chat.completions.create(
                model="echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["You ", "said: ", "Hello ", "there.", None]
        assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None, None]
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, None, "stop"]
        assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
        assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
        response = await service.post("/v1/chat/completions", {"messages": HELLO, "stream": True})
        assert events_of(await response.text())[-1] == "[DONE]"

    check(test)


def test_who_said_what_reaches_the_engine_with_the_system_first() -> None:
    llm = FakeLlm("Yes.")

    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            await client.chat.completions.create(
                model="",
                messages=[
                    {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo."}]},
                    {"role": "system", "content": "Be brief."},
                    {"role": "assistant", "content": "Hi."},
                    {"role": "developer", "content": "Be kind."},
                    {"role": "user", "content": "Well?"},
                ],
            )
            await client.chat.completions.create(model="", messages=HELLO)

    check(test, shelf({"llm": llm}))
    assert llm.prompts[0] == [
        Message("system", "Be brief.\n\nBe kind."),
        Message("user", "Hello."),
        Message("assistant", "Hi."),
        Message("user", "Well?"),
    ]
    assert llm.prompts[1] == [Message("system", ""), Message("user", "Hello there")]


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_cut_where_it_is_asked_to_be(limit: str, stream: bool) -> None:
    llm = FakeLlm("One two three four.")

    async def test(service: Service) -> None:
        body = {"messages": HELLO, limit: 2, "stream": stream}
        response = await service.post("/v1/chat/completions", body)
        if stream:
            chunks = [json.loads(event) for event in events_of(await response.text())[:-1]]
            assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == ["One ", "two ", None]
            reason = chunks[-1]["choices"][0]["finish_reason"]
        else:
            choice = (await response.json())["choices"][0]
            assert choice["message"]["content"] == "One two "
            reason = choice["finish_reason"]
        assert (reason, llm.closed) == ("length", 1)
        assert service.counts.ended == [("llm", "finished")]

    check(test, shelf({"llm": llm}))


def test_a_model_is_an_engine_s_name_or_nothing() -> None:
    named, lacking = {"other": FakeLlm("The other.")}, {"groq": "GROQ_API_KEY"}

    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            for model, text in {"other": "The other. ", "own": "Own. ", "gpt-4o": "Own. ", "../x": "Own. "}.items():
                answer = await client.chat.completions.create(model=model, messages=HELLO)
                assert answer.choices[0].message.content == text
                assert answer.model == ("other" if model == "other" else "own")
            with pytest.raises(InternalServerError, match="GROQ_API_KEY"):
                await client.chat.completions.create(model="groq", messages=HELLO)

    check(test, shelf({"llm": FakeLlm("Own.")}, named, lacking))


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"tools": [{"type": "function"}]}, 400, "tools"),
        ({"functions": [{}]}, 400, "functions"),
        ({"stop": "\n"}, 400, "stop"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"audio": {"voice": "alloy"}}, 400, "audio"),
        ({"modalities": ["text", "audio"]}, 400, "modalities.1"),
        ({"n": 2}, 400, "n"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "response_format.type"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"messages": None}, 400, "messages"),
        ({"messages": HELLO * 1001}, 400, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, None),
        ({"messages": [*HELLO, {"role": "assistant", "content": "Hi."}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * 100_000}]}, 413, "messages.0.content"),
        ({"messages": [{"role": "system", "content": "x" * 100_000}, *HELLO]}, 413, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x" * (5 << 20)}]}, 413, None),
    ],
)
def test_what_cannot_be_answered_is_named(body: dict[str, Any], status: int, param: str | None) -> None:
    async def test(service: Service) -> None:
        response = await service.post("/v1/chat/completions", {"messages": HELLO, **body})
        error = await error_of(response, status)
        assert param is None or error["param"] == param
        assert service.counts.begun == []

    check(test)


def test_fields_that_ask_for_nothing_special_are_taken() -> None:
    async def test(service: Service) -> None:
        harmless: dict[str, Any] = {
            "tools": [],
            "stop": None,
            "n": 1,
            "logprobs": False,
            "modalities": ["text"],
            "user": "me",
        }
        harmless |= {"response_format": {"type": "text"}, "top_p": 0.5, "tool_choice": "none", "max_tokens": None}
        assert (await service.post("/v1/chat/completions", {"messages": HELLO, **harmless})).status == 200

    check(test)


def test_a_stream_that_fails_half_way_raises_in_the_client() -> None:
    llm = SteppedLlm(("one ",), EngineError("the model fell over"))

    async def test(service: Service) -> None:
        llm.allow(1)
        async with openai_client(service) as client:
            stream = await client.chat.completions.create(model="", messages=HELLO, stream=True)
            with pytest.raises(APIError, match="the model fell over"):
                [chunk async for chunk in stream]
            failing = SteppedLlm((), EngineError("no memory"))
            llm.words, llm.fault = failing.words, failing.fault
            with pytest.raises(InternalServerError, match="no memory") as raised:
                await client.chat.completions.create(model="", messages=HELLO, stream=True)
            assert raised.value.status_code == 502

    check(test, shelf({"llm": llm}))


# Speech


def test_a_real_voice_speaks_pcm_and_wav() -> None:
    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            text = "Hello there, how are you today?"
            pcm = await client.audio.speech.create(model="tts-1", voice="alloy", input=text, response_format="pcm")
            assert pcm.response.headers["Content-Type"] == "audio/pcm;rate=24000"
            sound = np.frombuffer(pcm.content, "<i2")
            assert 1.0 < len(sound) / VOICE_RATE_HZ < 4.0
            assert int(np.abs(sound).max()) > 3000
            as_wav = await client.audio.speech.create(model="tts-1", voice="nova", input=text)
            with wave.open(io.BytesIO(as_wav.content)) as file:
                assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, VOICE_RATE_HZ)
                again = np.frombuffer(file.readframes(1 << 30), "<i2")
            assert len(again) == pytest.approx(len(sound), rel=0.05), "it hardly speaks differently the second time"

    check(test, engine_set(tts="espeak"))


def test_sound_is_sent_as_it_is_made() -> None:
    voice = Voice(chunks=3)

    async def test(service: Service) -> None:
        voice.permits = asyncio.Semaphore(1)
        async with openai_client(service) as client:
            streaming = client.audio.speech.with_streaming_response
            async with streaming.create(model="", voice="", input="Hello.", response_format="pcm") as response:
                chunks = response.iter_bytes()
                assert np.frombuffer(await anext(chunks), "<i2").tolist() == [8000] * 480
                assert (voice.given, voice.closed) == (1, 0)
                voice.permits.release()
                assert len(await anext(chunks)) == 960
        await service.counts.until(lambda: service.counts.ended == [("tts", "abandoned")])
        assert (voice.given, voice.closed) == (2, 1)

    check(test, shelf({"tts": voice}))


def test_a_clause_is_spoken_whole_and_a_text_sentence_by_sentence() -> None:
    voice = Voice()

    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            for text in ("Well, this is a long story, and it begins.", "One, two, three and so on. Then four."):
                await client.audio.speech.create(model="", voice="", input=text)

    check(test, shelf({"tts": voice}))
    assert [asked[0] for asked in voice.asked] == [
        "Well, this is a long story, and it begins.",
        "One, two, three and so on.",
        "Then four.",
    ]


@pytest.mark.parametrize("clones", [True, False])
def test_a_voice_is_the_default_one_of_ours_or_the_engine_s(clones: bool) -> None:
    voice, sample = Voice(clones=clones), f"sample:{'0' * 64}"

    async def test(service: Service) -> None:
        async with openai_client(service) as client:
            for name in ("alloy", "Marin", "default", "", "deep", sample):
                await client.audio.speech.create(
                    model="", voice=name, input="Hello.", speed=1.5, extra_body={"language": "de"}
                )

    check(test, shelf({"tts": voice}))
    wanted = [None, None, None, None, "deep", sample if clones else None]
    assert [asked[1:] for asked in voice.asked] == [(name, "de", 1.5) for name in wanted]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"response_format": "mp3"}, 400, "response_format"),
        ({"stream_format": "sse"}, 400, "stream_format"),
        ({"input": ""}, 400, "input"),
        ({"input": "\N{GRINNING FACE}"}, 400, "input"),
        ({"input": "x" * 100_000}, 413, "input"),
        ({"input": None}, 400, "input"),
        ({"speed": 9}, 400, "speed"),
        ({"voice": "v" * 300}, 400, "voice"),
        ({"language": "klingon"}, 400, "language"),
    ],
)
def test_what_cannot_be_spoken_is_named(body: dict[str, Any], status: int, param: str) -> None:
    async def test(service: Service) -> None:
        request = {"model": "tts-1", "voice": "alloy", "input": "Hello.", **body}
        assert (await error_of(await service.post("/v1/audio/speech", request), status))["param"] == param
        assert service.counts.begun == []

    check(test)


def test_a_voice_that_fails_has_a_true_status_or_is_cut_off() -> None:
    voice = Voice(fault=EngineError("the voice broke"))

    async def test(service: Service) -> None:
        body = {"input": "Hello.", "response_format": "pcm"}
        assert (await error_of(await service.post("/v1/audio/speech", body), 502))["message"] == "the voice broke"
        voice.fails_after = 1
        with pytest.raises(ClientPayloadError):
            await service.post("/v1/audio/speech", body)
        assert service.counts.ended == [("tts", "failed")] * 2

    check(test, shelf({"tts": voice}))
