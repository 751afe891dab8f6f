"""A call with a vendor that fails in every way: the reply ends with words that say why, the call goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web

from pipeline.agents import Agent
from pipeline.audio import AudioFormat
from pipeline.engines import Engines, Kind, aclose, load
from pipeline.events import EngineFailed, Event, ReplyFinished, ReplyInterrupted
from pipeline.playout import Playout
from pipeline.session import Session
from pipeline.tasks import cancel_and_wait

from .fakes import LoudnessDetector
from .rtc import until
from .script import SILENCE, SPEECH
from .vendors import (
    KEY,
    CartesiaSocket,
    CartesiaVendor,
    HttpVendor,
    Script,
    begin,
    cartesia_speaks,
    created,
    delta,
    eleven_speaks,
    hang_up,
    refusing,
    run,
    saying,
    serving,
    stall,
    tone,
)

SOUND = tone(4_800).astype("<i2").tobytes()
CARTESIA_CODES = {401: "invalid_api_key", 402: "quota_exceeded", 429: "concurrency_limited", 500: "internal_error"}


@dataclass
class Vendor:
    """Answers well, but while ``fault`` is set: then it answers with that."""

    well: Callable[..., Awaitable[Any]]
    fault: Callable[..., Awaitable[Any]] | None

    async def __call__(self, *asked: Any) -> Any:
        return await (self.fault or self.well)(*asked)


async def half(request: web.Request) -> web.StreamResponse:
    """Begin well, then reset the connection."""
    speech = "text-to-speech" in request.path
    response = await begin(request, "audio/pcm" if speech else "text/event-stream")
    await response.write(SOUND if speech else delta(content="This is the beginning, "))
    await asyncio.sleep(0.1)
    return await hang_up(request)


async def half_and_stall(request: web.Request) -> web.StreamResponse:
    """Begin well, then say nothing more."""
    speech = "text-to-speech" in request.path
    response = await begin(request, "audio/pcm" if speech else "text/event-stream")
    await response.write(SOUND if speech else delta(content="This is the beginning, "))
    return await stall(request)


async def one_frame(request: web.Request) -> web.StreamResponse:
    """Speak any text in 200 ms."""
    return web.Response(body=SOUND, content_type="audio/pcm")


async def rubbish(request: web.Request) -> web.StreamResponse:
    """Answer with something else altogether, and status 200."""
    return web.Response(text="<html>Welcome to the hotel</html>", content_type="text/html")


HTTP_FAULTS: dict[str, tuple[Script, str]] = {
    "wrong key": (refusing(401, {}), "does not take the key"),
    "no credit": (refusing(402, {}), "no credit left"),
    "quota": (refusing(429, {}, {"Retry-After": "7"}), "try again in 7 s"),
    "out of order": (refusing(503, {}), "out of order"),
    "lost": (hang_up, "was lost"),
    "lost in the middle": (half, "was lost"),
    "stalls": (stall, "sent nothing for"),
    "stalls in the middle": (half_and_stall, "sent nothing for"),
    "rubbish": (rubbish, "that is no answer"),
}


def cartesia_fault(name: str) -> Callable[[CartesiaSocket, dict[str, Any]], Awaitable[None]]:
    """Return how the same looks on a WebSocket."""

    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        context_id = message["context_id"]
        if "middle" in name:
            await socket.chunk(context_id, SOUND)
        if name in STATUS:
            await socket.error(context_id, STATUS[name], CARTESIA_CODES[STATUS[name]])
        elif "lost" in name:
            socket.drop()
        elif name == "rubbish":
            await socket.ws.send_str('{"type": "chunk", "data": 7}')
            await socket.ws.send_str("<html>")
        else:
            await asyncio.Event().wait()

    return speak


STATUS = {"wrong key": 401, "no credit": 402, "quota": 429, "out of order": 500}
CARTESIA_WORDS = {name: words for name, (_, words) in HTTP_FAULTS.items()} | {"quota": "try again later"}

VENDORS: tuple[tuple[Kind, str], ...] = (("llm", "groq"), ("tts", "elevenlabs"), ("tts", "cartesia"))


def vendor_of(name: str, fault: str) -> tuple[Vendor, Any, str]:
    """Return the vendor, what serves it, and what a caller is told of its fault."""
    if name == "cartesia":
        vendor = Vendor(cartesia_speaks, cartesia_fault(fault))
        return vendor, CartesiaVendor(vendor).handle, CARTESIA_WORDS[fault]
    well = saying("It ", "is ", "well.") if name == "groq" else eleven_speaks
    vendor = Vendor(well, HTTP_FAULTS[fault][0])
    return vendor, HttpVendor(vendor).handle, HTTP_FAULTS[fault][1]


class Caller:
    """Types and listens."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.heard_samples = 0
        self._ends: asyncio.Queue[Event] = asyncio.Queue()
        session.subscribe(self._note)

    def _note(self, event: Event) -> None:
        if isinstance(event, ReplyFinished | ReplyInterrupted | EngineFailed):
            self._ends.put_nowait(event)

    async def listen(self) -> None:
        """Hear all there is."""
        while True:
            frame = await self.session.playout.next_frame()
            self.heard_samples += 0 if frame.silent else len(frame.pcm)

    async def ask(self, text: str) -> Event:
        """Type, and return how the answer ended."""
        self.session.push_text(text)
        return await self._ends.get()

    async def say(self) -> Event:
        """Speak for 0.6 s, and return how the answer ended."""
        for pcm in [SPEECH] * 30 + [SILENCE] * 60:
            self.session.push_audio(pcm)
            await asyncio.sleep(0.001)
        return await self._ends.get()


@asynccontextmanager
async def calling(kind: Kind, name: str, url: str) -> AsyncIterator[tuple[Caller, Session]]:
    """Be in a call whose engine of this kind is the vendor's, and all else stand-ins."""
    settings = {
        f"{name.upper()}_API_KEY": KEY,
        f"{name.upper()}_BASE_URL": url,
        f"VOCAL_{name.upper()}_TIMEOUT_S": "0.3",
        "VOCAL_TONE_CHARACTER_MS": "5",
    }
    engine = await created(kind, name, settings)
    stand_in: tuple[Kind, str] = ("tts", "tone") if kind == "llm" else ("llm", "echo")
    parts = {kind: engine, stand_in[0]: load(*stand_in, settings)}
    engines = Engines(LoudnessDetector(), load("stt", "scripted", {}), parts["llm"], parts["tts"])
    async with Session(Agent("a", "A"), engines, Playout(AudioFormat(24_000))) as session:
        caller = Caller(session)
        listening = asyncio.create_task(caller.listen())
        try:
            yield caller, session
        finally:
            await cancel_and_wait(listening)
    await aclose(engine)


@pytest.mark.parametrize(("kind", "name", "well"), [("llm", "groq", saying("Well.")), ("tts", "elevenlabs", one_frame)])
def test_a_connection_is_there_when_the_caller_has_spoken(kind: Kind, name: str, well: Script) -> None:
    async def main() -> None:
        vendor = HttpVendor(well)
        async with serving(vendor.handle) as url, calling(kind, name, url) as (caller, _):
            await until(lambda: len(vendor.met) == 1)  # the call has begun
            for times in (1, 2, 3):
                assert isinstance(await caller.say(), ReplyFinished)
                assert len(vendor.asked) == times
        assert {asked.peer for asked in vendor.asked} <= set(vendor.met)

    run(main())


@pytest.mark.parametrize("fault", HTTP_FAULTS)
@pytest.mark.parametrize(("kind", "name"), VENDORS)
def test_the_call_outlives_its_vendor_s_fault(kind: Kind, name: str, fault: str) -> None:
    vendor, handle, words = vendor_of(name, fault)

    async def main() -> None:
        async with serving(handle) as url, calling(kind, name, url) as (caller, session):
            failed = await caller.ask("Tell me.")
            assert isinstance(failed, EngineFailed)
            assert failed.stage == kind and words in failed.error and failed.reply is not None
            assert failed.error.startswith(f"{kind} {name}: ")
            vendor.fault = None
            heard_before = caller.heard_samples
            assert isinstance(await caller.ask("Again."), ReplyFinished)
            assert caller.heard_samples - heard_before > 1_000
            asked, answered = session.history.messages[-2:]
            assert asked.text.endswith("Again.") and answered.role == "assistant"

    run(main())
