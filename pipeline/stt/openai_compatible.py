"""Speech-to-text behind OpenAI's ``/v1/audio/transcriptions``.

A service of ours hears the caller while they speak: the request's body is the running utterance, and its hypotheses
come back as server-sent events meanwhile. Any other server gets the whole utterance as a WAV file at its end.

Settings: those of `pipeline.endpoint`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

from pipeline import endpoint
from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, wav_header
from pipeline.engines import Settings, Usable
from pipeline.errors import EngineError
from pipeline.events import Transcript
from pipeline.remote import Remote, ask_twice
from pipeline.remote_answer import Answer, Pace
from pipeline.tasks import cancel_and_wait, closing

HELD_MAX_BYTES = 25_000_000
"""An utterance is kept until its words are there, so that it can be sent again: 13 minutes, OpenAI's own limit."""

OUR_FILE = ("audio.pcm", f"audio/pcm;rate={SPEECH_RATE_HZ}")
OTHERS_FILE = ("audio.wav", "audio/wav")


class OpenAICompatibleSpeechToText:
    """One request an utterance."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.url = remote.server.url
        self.ready = remote.ready
        self.aclose = remote.aclose
        self.close = remote.close

    @property
    def hears_pauses(self) -> bool:
        """Whether a service of ours is there whose engine does."""
        return self._remote.hears_pauses

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield the server's hypotheses, the final one last. Raises EngineError, and what ``frames`` raises."""
        held = Held()
        holding = asyncio.create_task(held.hold(frames), name="hold utterance")
        try:
            async with closing(ask_twice(partial(self._ask, held, language, prompt))) as transcripts:
                async for transcript in transcripts:
                    yield transcript
        finally:
            await cancel_and_wait(holding)

    async def _ask(self, held: Held, language: str | None, prompt: str) -> AsyncIterator[Transcript]:
        pace = Pace(self._remote.server)
        held.when_ended(lambda: pace.start() if held.error is None else pace.give_up(held.error))
        if not await pace.within(held.after(0, pauses=0)) and held.ended:
            yield Transcript("", True, language)
            return
        ours = (await pace.within(self._remote.known())).ours
        upload = await pace.within(self._upload(held, _hints(language, prompt, ours=ours), ours=ours))
        request = self._remote.request("audio/transcriptions", pace, data=upload, headers=upload.headers)
        async with request as answer, closing((_streamed if ours else _whole)(answer, language)) as transcripts:
            while (transcript := await pace.next(transcripts)) is not None:
                yield _on_the_axis_of(held, transcript)

    async def _upload(self, held: Held, hints: Mapping[str, str], *, ours: bool) -> Upload:
        fields = {"model": await self._remote.model(), "response_format": "json", **hints}
        if ours:
            return Upload(held, {**fields, "stream": "true"}, OUR_FILE)
        await held.whole()
        return Upload(held, fields, OTHERS_FILE, begin=wav_header(SPEECH_RATE_HZ, held.size_bytes))


def _on_the_axis_of(held: Held, transcript: Transcript) -> Transcript:
    """Count a pause as our caller does: the service's utterance begins at 0."""
    if transcript.pause_samples is None:
        return transcript
    return replace(transcript, pause_samples=held.from_samples + transcript.pause_samples)


def _hints(language: str | None, prompt: str, *, ours: bool) -> dict[str, str]:
    """Return the fields that say what will be heard, as far as that is known."""
    spoken = {"language": language if ours else language.partition("-")[0]} if language is not None else {}
    return spoken | ({"prompt": prompt} if prompt else {})


class Held:
    """The audio of one utterance while it comes in, as bytes; to be read from the beginning as often as needed."""

    def __init__(self) -> None:
        self.ended = False
        self.error: Exception | None = None
        self.from_samples = 0
        self.pauses: list[int] = []
        """How many bytes came before each."""
        self._audio = bytearray()
        self._more = asyncio.Event()
        self._on_end: Callable[[], None] = lambda: None

    @property
    def size_bytes(self) -> int:
        """How much there is so far."""
        return len(self._audio)

    async def hold(self, frames: AsyncIterator[AudioFrame]) -> None:
        """Take all frames; what they raise is kept as ``error``."""
        try:
            async for frame in frames:
                self._add(frame)
        except Exception as error:
            self.error = error
        self.ended = True
        self._more.set()
        self._on_end()

    def _add(self, frame: AudioFrame) -> None:
        if frame.rate_hz != SPEECH_RATE_HZ:
            raise EngineError(f"stt openai_compatible hears {SPEECH_RATE_HZ} Hz, not {frame.rate_hz}")
        if not self._audio:
            self.from_samples = frame.pts
        if not len(frame.pcm):
            self.pauses.append(len(self._audio))
        self._audio += frame.pcm.astype("<i2", copy=False).tobytes()
        if len(self._audio) > HELD_MAX_BYTES:
            raise EngineError(f"an utterance is longer than {HELD_MAX_BYTES // 2 // SPEECH_RATE_HZ} s")
        self._more.set()

    def when_ended(self, call: Callable[[], None]) -> None:
        """Call this (instead of what was given before) when the last frame is held, or now if it is."""
        self._on_end = call
        if self.ended:
            call()

    async def after(self, position: int, pauses: int | None = None) -> bytes:
        """Return what lies behind this byte, waiting for some; empty at the end.

        Given how many ``pauses`` lie before it, up to the next one: then empty there, too.
        """
        while len(self._audio) <= position and not self.ended and not (pauses is not None and self.pauses[pauses:]):
            self._more.clear()
            await self._more.wait()
        until = self.pauses[pauses] if pauses is not None and self.pauses[pauses:] else None
        return bytes(self._audio[position:until])

    async def whole(self) -> None:
        """Wait for the end."""
        while not self.ended:
            self._more.clear()
            await self._more.wait()


class Upload:
    """The body of one request, multipart (RFC 7578), sent as the audio comes; a length where all of it has come.

    One that is sent as it comes begins another part of the file at each pause. It is an iterator and no generator:
    aiohttp does not close what it sends.
    """

    def __init__(self, held: Held, fields: Mapping[str, str], file: tuple[str, str], begin: bytes = b"") -> None:
        boundary = secrets.token_hex(16)
        self._held = held
        self._head = _form(boundary, fields, *file) + begin
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._pause = f"\r\n{_file_part(boundary, *file)}".encode()
        self._sent_bytes: int | None = None
        self._pauses: int | None = None if begin else 0
        self.headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        if begin:
            self.headers["Content-Length"] = str(len(self._head) + held.size_bytes + len(self._tail))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._sent_bytes is None:
            self._sent_bytes = 0
            return self._head
        if audio := await self._held.after(self._sent_bytes, self._pauses):
            self._sent_bytes += len(audio)
            return audio
        if self._pauses is not None and self._held.pauses[self._pauses :]:
            self._pauses += 1
            return self._pause
        tail, self._tail = self._tail, b""
        if not tail:
            raise StopAsyncIteration
        return tail


def _form(boundary: str, fields: Mapping[str, str], file_name: str, file_type: str) -> bytes:
    """Return what comes before the content of the file, which is the last field."""
    lines = [f"{_part(boundary, name)}\r\n\r\n{value}\r\n" for name, value in fields.items()]
    return "".join([*lines, _file_part(boundary, file_name, file_type)]).encode()


def _file_part(boundary: str, file_name: str, file_type: str) -> str:
    return f'{_part(boundary, "file")}; filename="{file_name}"\r\nContent-Type: {file_type}\r\n\r\n'


def _part(boundary: str, name: str) -> str:
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'


async def _streamed(answer: Answer, language: str | None) -> AsyncIterator[Transcript]:
    async with closing(answer.events()) as events:
        async for event in events:
            found = answer.parse(event)
            if found.get("type") == "transcript.text.delta":
                yield _transcript(answer, found, language, final=False)
            elif found.get("type") == "transcript.text.done":
                final = _transcript(answer, found, language, final=True)
                break
        else:
            raise EngineError(f"{answer.server} cut its transcript short; try again")
    await answer.drain()  # before they are told: behind final words nobody reads on
    yield final


async def _whole(answer: Answer, language: str | None) -> AsyncIterator[Transcript]:
    yield _transcript(answer, answer.parse(await answer.body()), language, final=True)


def _transcript(answer: Answer, found: Mapping[str, Any], language: str | None, *, final: bool) -> Transcript:
    spoken = found.get("language")
    coded = isinstance(spoken, str) and re.fullmatch(r"[a-z]{2,3}(-\w{2,4})?", spoken)
    pause = found.get("pause_samples")
    pause_samples = pause if isinstance(pause, int) and not final else None
    return Transcript(answer.text(found.get("text")).strip(), final, spoken if coded else language, pause_samples)


def describe(settings: Settings) -> Usable:
    """Usable where a server is named; see `pipeline.endpoint`."""
    return endpoint.describe("stt", settings)


def create(settings: Settings) -> OpenAICompatibleSpeechToText:
    """Read the settings. Raises EngineUnavailable naming the one that is missing or not usable."""
    return OpenAICompatibleSpeechToText(Remote(endpoint.endpoint("stt", settings)))
