"""A voice behind OpenAI's ``/v1/audio/speech``: a service of ours, or any other that streams raw PCM at 24 kHz.

Settings: those of `pipeline.endpoint`, and ``VOCAL_TTS_VOICE``, the voice for agents that name none (``alloy``; with a
service of ours, its engine's own).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline import endpoint
from pipeline.agents import SAMPLE_PREFIX
from pipeline.audio import VOICE_RATE_HZ, Pcm
from pipeline.engines import Settings, Usable
from pipeline.errors import EngineError
from pipeline.remote import Remote, ask_twice
from pipeline.remote_answer import Answer, Pace
from pipeline.tasks import closing

CLONES = True
"""A service of ours may."""
OUR_VOICE = "default"
OTHERS_VOICE = "alloy"
SLOWEST, FASTEST = 0.25, 4.0

CONTAINERS = (b"RIFF", b"OggS", b"fLaC", b"ID3")
"""How the files begin that some servers send whatever they are asked for."""


@dataclass(frozen=True, slots=True)
class _Manner:
    """How to speak, and the reply that it belongs to."""

    voice: str | None
    language: str
    speed: float
    context: str | None = None


class OpenAICompatibleTextToSpeech:
    """One request a clause, at 24 kHz whatever the server's engine speaks at."""

    rate_hz = VOICE_RATE_HZ

    def __init__(self, remote: Remote, voice: str | None) -> None:
        self._remote = remote
        self._voice = voice
        self.url = remote.server.url
        self.ready = remote.ready
        self.aclose = remote.aclose
        self.close = remote.close

    @property
    def clones(self) -> bool:
        """Take voice samples, unless the server is known to be another's: ours use their default if they cannot."""
        return self._remote.maybe_ours

    def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield what the server sends, as it comes. Raises EngineError in words that hold nothing of the clause."""
        return self.ask(clause, _Manner(voice, language, speed))

    def open(self, voice: str | None, language: str, speed: float) -> RemoteSpeech:
        """Begin a reply, which a service of ours has its engine join. Errors are those of ``synthesize``."""
        return RemoteSpeech(self, _Manner(voice, language, speed, secrets.token_hex(16)))

    async def ask(self, clause: str, manner: _Manner) -> AsyncIterator[Pcm]:
        """Have a clause spoken."""
        if not clause.strip():
            return
        async with closing(ask_twice(partial(self._ask, clause, manner))) as pieces:
            async for pcm in pieces:
                yield pcm

    async def _ask(self, clause: str, manner: _Manner) -> AsyncIterator[Pcm]:
        pace = Pace(self._remote.server)
        pace.start()
        ours = (await self._remote.known()).ours
        body: dict[str, Any] = {
            "model": await self._remote.model(),
            "input": clause,
            "voice": self._voice_for(manner.voice, ours),
            "speed": max(SLOWEST, min(FASTEST, manner.speed)),
            "response_format": "pcm",
        }
        if ours:  # others may refuse a field that is not OpenAI's
            body["language"] = manner.language
            if manner.context is not None:
                body["context"] = manner.context
        request = self._remote.request("audio/speech", pace, [clause], json=body)
        async with request as answer, closing(_samples(answer)) as pieces:
            while (pcm := await pace.next(pieces)) is not None:
                yield pcm

    def _voice_for(self, voice: str | None, ours: bool) -> str:
        if voice is not None and (ours or not voice.startswith(SAMPLE_PREFIX)):
            return voice
        return self._voice or (OUR_VOICE if ours else OTHERS_VOICE)


@dataclass(frozen=True, slots=True)
class RemoteSpeech:
    """The requests of one reply. A service keeps what they have in common for some seconds after the last one."""

    engine: OpenAICompatibleTextToSpeech
    manner: _Manner

    def speak(self, clause: str) -> AsyncIterator[Pcm]:
        """Yield what the server sends, as it comes; closing ends the request, and the reply there."""
        return self.engine.ask(clause, self.manner)

    async def aclose(self) -> None:
        """Do nothing: nothing runs between clauses, and the server notices that no more come."""


async def _samples(answer: Answer) -> AsyncIterator[Pcm]:
    """Yield whole samples; half a sample waits for its other half."""
    await _check_type(answer)
    rest: bytes | None = None
    async for chunk in answer.chunks():
        if rest is None:
            _check_begin(answer, chunk)
        pending = rest + chunk if rest else chunk
        whole = len(pending) // 2 * 2
        rest = pending[whole:]
        if whole:
            yield np.frombuffer(pending[:whole], "<i2").astype(np.int16, copy=False)


async def _check_type(answer: Answer) -> None:
    """Refuse text, which may be an error's, and samples of another rate."""
    if answer.content_type == "application/json":
        answer.parse(await answer.body())
    if answer.content_type.startswith(("text/", "application/json")):
        raise EngineError(f"{answer.server} sent {answer.content_type} where sound was asked for")
    rate = re.search(r"rate=(\d{1,9})", answer.response.headers.get("Content-Type", ""))
    if rate and int(rate[1]) != VOICE_RATE_HZ:
        raise EngineError(f"{answer.server} speaks at {rate[1]} Hz, not {VOICE_RATE_HZ}")


def _check_begin(answer: Answer, begin: bytes) -> None:
    """Refuse a sound file: it would be noise. The type alone says nothing; proxies call everything audio/mpeg."""
    mpeg = answer.content_type == "audio/mpeg" and begin[:1] == b"\xff" and begin[1:2] >= b"\xe0"
    if mpeg or begin.startswith(CONTAINERS):
        raise EngineError(f"{answer.server} sent a file where raw PCM was asked for (response_format pcm)")


def describe(settings: Settings) -> Usable:
    """Usable where a server is named; see `pipeline.endpoint`."""
    return endpoint.describe("tts", settings)


def create(settings: Settings) -> OpenAICompatibleTextToSpeech:
    """Read the settings. Raises EngineUnavailable naming the one that is missing or not usable."""
    voice = settings.get("VOCAL_TTS_VOICE", "").strip() or None
    return OpenAICompatibleTextToSpeech(Remote(endpoint.endpoint("tts", settings)), voice)
