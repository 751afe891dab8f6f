"""``vocal-node call FILE``: a caller without a browser.

It speaks a sound file to a running server over WebRTC, prints both sides' words and each turn's latency, by the
server's account and by its own: from the last sample of its speech that left to the first audible one that came back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.audio import VOICE_RATE_HZ, AudioFormat, Pcm
from pipeline.playout import Playout, PlayoutListener
from pipeline.writer import Writer

from .caller_audio import Ear, Unreadable, read_speech, speech_span, write_wav
from .caller_link import CallFailed, Link, Target

GREETING_S = 1.0
"""How long an agent may take to begin a greeting."""
QUIET_S = 1.0
"""How long nothing happens after an answer before it counts as the last one."""
STAGES = {
    "endpoint_ms": "end of turn",
    "stt_ms": "words",
    "ttft_ms": "model",
    "first_clause_ms": "clause",
    "ttfb_ms": "voice",
    "first_audio_ms": "sound",
}

__all__ = ["CallFailed", "Plan", "run"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to say, to whom, and what to do with the answer."""

    file: Path
    url: str
    key: str | None = None
    agent: str | None = None
    out: Path | None = None
    repeat: int = 1
    interrupt_after_s: float | None = None
    timeout_s: float = 30.0


def run(plan: Plan) -> int:
    """Make the call and return the exit code. Raises CallFailed with one line that says what went wrong."""
    try:
        speech = read_speech(plan.file)
    except Unreadable as error:
        raise CallFailed(str(error)) from None
    ear = asyncio.run(_call(plan, speech))
    if plan.out is not None:
        recording = ear.recording()
        try:
            write_wav(plan.out, recording, ear.rate_hz)
        except OSError as error:
            raise CallFailed(f"cannot write {plan.out}: {error.strerror}") from None
        print(f"wrote {plan.out}: {len(recording) / ear.rate_hz:.1f} s of the agent's voice")
    return 0


async def _call(plan: Plan, speech: Pcm) -> Ear:
    mouth = Mouth()
    ear = Ear(VOICE_RATE_HZ)
    async with Link(Target(plan.url, plan.key, plan.agent), mouth.playout, ear) as link:
        await Talk(plan, link, mouth, ear).run(speech)
    return ear


@dataclass(slots=True)
class Utterance:
    """When the first and the last sample that are speech left, on the loop's clock; None: not yet."""

    head_s: float
    tail_s: float
    began_s: float | None = None
    ended_s: float | None = None


class Mouth:
    """Speak over a playout of its own, and note when."""

    def __init__(self) -> None:
        self.playout = Playout(AudioFormat(VOICE_RATE_HZ), high_water_s=float("inf"))
        self.utterances: list[Utterance] = []
        self._done = asyncio.Event()
        self.playout.listener = PlayoutListener(audio_started=self._started, drained=self._drained)

    async def say(self, speech: Pcm) -> Utterance:
        """Speak; return when the last sample has left."""
        start, end = speech_span(speech)
        utterance = Utterance(start / VOICE_RATE_HZ, (len(speech) - end) / VOICE_RATE_HZ)
        self.utterances.append(utterance)
        self._done.clear()
        writer = self.playout.open(len(self.utterances))
        writer.begin("")
        await writer.write(speech)
        writer.end()
        writer.finish()
        await self._done.wait()
        return utterance

    def _started(self, writer: Writer) -> None:
        utterance = self.utterances[-1]
        utterance.began_s = asyncio.get_running_loop().time() + utterance.head_s

    def _drained(self, writer: Writer) -> None:
        utterance = self.utterances[-1]
        utterance.ended_s = asyncio.get_running_loop().time() - utterance.tail_s
        self._done.set()


class Messages(Protocol):
    """Where the server's messages come from."""

    async def next_message(self, timeout_s: float) -> Mapping[str, Any] | None:
        """Return the next one, None if there is none for ``timeout_s``. Raises CallFailed once the call has ended."""
        ...


class Talk:
    """The course of the call, from the greeting to the last answer."""

    def __init__(self, plan: Plan, link: Messages, mouth: Mouth, ear: Ear) -> None:
        self._plan = plan
        self._link = link
        self._mouth = mouth
        self._ear = ear
        self._speaking: set[str] = set()
        self._turns = 0
        self._awaited = False
        self._unmeasured: deque[Utterance] = deque()
        self._agent_words: list[str] = []

    async def run(self, speech: Pcm) -> None:
        """Say the speech as often as planned, each time after the answer. Raises CallFailed."""
        await self._greeting()
        for n in range(self._plan.repeat):
            await self._say(speech)
            if n == 0 and self._plan.interrupt_after_s is not None:
                await self._interrupt(speech, self._plan.interrupt_after_s)
            await self._answer()

    async def _greeting(self) -> None:
        message = await self._link.next_message(GREETING_S)
        while message is not None or self._speaking:
            if message is None:
                message = await self._next()
            self._note(message)
            message = await self._link.next_message(GREETING_S)

    async def _say(self, speech: Pcm) -> Utterance:
        self._turns = 0
        utterance = await self._mouth.say(speech)
        self._unmeasured.append(utterance)
        return utterance

    async def _interrupt(self, speech: Pcm, after_s: float) -> None:
        while "bot" not in self._speaking:
            self._note(await self._next())
        await asyncio.sleep(after_s)
        began_s = (await self._say(speech)).began_s
        silent_s = None if began_s is None else self._ear.silent_after(began_s)
        if began_s is None or silent_s is None:
            print("barge-in: the agent was not speaking any more")
        else:
            print(f"barge-in: the agent was silent {_ms(silent_s - began_s)} after the caller began")

    async def _answer(self) -> None:
        while True:
            settled = self._turns > 0 and not self._speaking and not self._awaited
            message = await self._link.next_message(QUIET_S if settled else self._plan.timeout_s)
            if message is None and not self._turns:
                raise CallFailed(f"no answer within {self._plan.timeout_s:g} s (--timeout)")
            if message is None:
                return
            self._note(message)

    async def _next(self) -> Mapping[str, Any]:
        message = await self._link.next_message(self._plan.timeout_s)
        if message is None:
            raise CallFailed(f"no answer within {self._plan.timeout_s:g} s (--timeout)")
        return message

    def _note(self, message: Mapping[str, Any]) -> None:
        data = message.get("data") or {}
        match message.get("type"):
            case "user-started-speaking":
                self._speaking.add("user")
            case "user-stopped-speaking":
                self._speaking.discard("user")
                self._awaited = True
            case "bot-started-speaking":
                self._speaking.add("bot")
            case "bot-stopped-speaking":
                self._speaking.discard("bot")
                self._print_greeting()
            case "bot-tts-text":
                self._agent_words.append(str(data.get("text", "")))
            case "server-message" if data.get("t") == "turn":
                self._turn(data)
            case "error":
                print(f"server> {data.get('error')}")

    def _print_greeting(self) -> None:
        if not self._mouth.utterances and self._agent_words:
            print(f"agent> {' '.join(self._agent_words)}")
        self._agent_words.clear()

    def _turn(self, turn: Mapping[str, Any]) -> None:
        self._turns += 1
        self._awaited = False
        print(f"you>   {turn.get('user')}")
        print(f"agent> {turn.get('agent')}{' (interrupted)' if turn.get('interrupted') else ''}")
        stages = [f"{name} {turn[key]:.0f}" for key, name in STAGES.items() if turn.get(key) is not None]
        print(
            f"turn {turn.get('turn')}: ms after your last sample: {', '.join(stages)}; heard here: {self._measured()}"
        )

    def _measured(self) -> str:
        """Tell what the turn took by our own clock; an answer that began before we had finished has no latency."""
        if not self._unmeasured or (ended_s := self._unmeasured[0].ended_s) is None:
            return "-"
        onset_s = self._ear.onset_after(ended_s)
        if onset_s is None:
            return "-"
        self._unmeasured.popleft()
        return _ms(onset_s - ended_s)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
