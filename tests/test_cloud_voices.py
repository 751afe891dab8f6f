"""What the voices of ElevenLabs and Cartesia have in common, each behind its real SDK."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pytest
from aiohttp import web

from pipeline.agents import Agent
from pipeline.audio import AudioFormat, Pcm
from pipeline.engines import Engines, aclose, choose, load, module, usable
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.events import ReplyInterrupted
from pipeline.playout import Playout
from pipeline.reply_speech import Speech
from pipeline.session import Session
from pipeline.tasks import closing

from .fakes import FakeLlm, FakeStt, LoudnessDetector
from .vendors import (
    KEY,
    RATE_HZ,
    CartesiaSocket,
    CartesiaVendor,
    HttpVendor,
    begin,
    created,
    hang_up,
    nothing_is_ended_by_the_garbage_collector,
    run,
    serving,
    spoken,
    stall,
    tone,
)

CLAUSE = "A canary sang: how are you?"
REPLY = ["Well, a canary sang.", "It was yellow, and it sang for a long time.", "Then it flew away."]
FRAME = tone(480).astype("<i2").tobytes()
STOPPED_S = 0.05
"""Within which a vendor is told to stop; once in a few times, as a busy machine may stumble in between."""
TITLES = {"cartesia": "Cartesia", "elevenlabs": "ElevenLabs"}


class Outlet(Protocol):
    """What a vendor speaks one text into."""

    text: str

    async def sound(self, octets: bytes) -> None: ...

    async def drop(self) -> None: ...


Say = Callable[[Outlet], Awaitable[None]]


@dataclass
class Told:
    """What a vendor was asked, in order, and how often it was told to stop."""

    texts: list[str] = field(default_factory=list)
    peers: set[Any] = field(default_factory=set)
    stopped: asyncio.Queue[None] = field(default_factory=asyncio.Queue)
    cartesia: CartesiaVendor | None = None
    notes: list[list[Any]] = field(default_factory=list)
    """What the vendor keeps for tests."""

    async def forget(self) -> None:
        """Forget all that was asked, once nothing is being spoken."""
        if self.cartesia is not None:
            await self.cartesia.quiet.wait()
            for socket in self.cartesia.sockets:
                socket.forget()
        self.peers.clear()
        for notes in [self.texts, *self.notes]:
            notes.clear()


@dataclass
class CartesiaOutlet:
    socket: CartesiaSocket
    context_id: str
    text: str

    async def sound(self, octets: bytes) -> None:
        await self.socket.chunk(self.context_id, octets)

    async def drop(self) -> None:
        self.socket.drop()
        await asyncio.Event().wait()


@dataclass
class ElevenLabsOutlet:
    request: web.Request
    text: str
    response: web.StreamResponse | None = None

    async def begin(self) -> web.StreamResponse:
        if self.response is None:
            self.response = await begin(self.request, "audio/pcm")
        return self.response

    async def sound(self, octets: bytes) -> None:
        await (await self.begin()).write(octets)

    async def drop(self) -> None:
        await hang_up(self.request)


def cartesia(say: Say, told: Told) -> Any:
    async def speak(socket: CartesiaSocket, message: dict[str, Any]) -> None:
        told.texts.append(message["transcript"].rstrip())
        await say(CartesiaOutlet(socket, message["context_id"], told.texts[-1]))

    class Stopped(asyncio.Queue[str]):
        def put_nowait(self, context_id: str) -> None:
            told.stopped.put_nowait(None)

    told.cartesia = vendor = CartesiaVendor(speak, canceled=Stopped())
    told.notes = [vendor.asked, vendor.received, vendor.ended]
    return vendor.handle


def elevenlabs(say: Say, told: Told) -> Any:
    async def script(request: web.Request) -> web.StreamResponse:
        outlet = ElevenLabsOutlet(request, (await request.json())["text"])
        told.texts.append(outlet.text)
        try:
            await say(outlet)
            return await outlet.begin()
        except (asyncio.CancelledError, ConnectionError):
            told.stopped.put_nowait(None)
            raise

    vendor = HttpVendor(script)
    told.notes = [vendor.asked]
    return vendor.handle


VENDORS = {"cartesia": cartesia, "elevenlabs": elevenlabs}
each = pytest.mark.parametrize("name", sorted(VENDORS))


def access(name: str, url: str = "") -> dict[str, str]:
    """Return the settings that lead there."""
    return {f"{name.upper()}_API_KEY": KEY, **({f"{name.upper()}_BASE_URL": url} if url else {})}


def timeout(name: str, timeout_s: float) -> dict[str, str]:
    return {f"VOCAL_{name.upper()}_TIMEOUT_S": str(timeout_s)}


@asynccontextmanager
async def voice(name: str, say: Say, settings: Mapping[str, str] = {}) -> AsyncIterator[tuple[Any, Told]]:
    """Yield the engine and what its vendor, which speaks with ``say``, is told."""
    told = Told()
    handle = VENDORS[name](say, told)

    async def noting(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        told.peers.add(request.transport.get_extra_info("peername"))
        return await handle(request)  # type: ignore[no-any-return]

    async with serving(noting) as url:
        engine = await created("tts", name, {**access(name, url), **settings})
        try:
            yield engine, told
        finally:
            await aclose(engine)
    if told.cartesia is not None:
        assert told.cartesia.wrong == [] and told.cartesia.contexts == {}


async def collect(sound: AsyncIterator[Pcm]) -> Pcm:
    async with closing(sound):
        chunks = [pcm async for pcm in sound]
    assert all(pcm.dtype == np.int16 and pcm.ndim == 1 and len(pcm) for pcm in chunks)
    return np.concatenate([np.zeros(0, np.int16), *chunks])


async def speech(engine: Any, clause: str = CLAUSE, named: str | None = None) -> Pcm:
    return await collect(engine.synthesize(clause, named, "en-GB", 1.0))


async def complaint(speaking: Awaitable[Any]) -> str:
    """Return what a user is told when it fails."""
    with pytest.raises(EngineError) as caught:
        await speaking
    told = str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert KEY not in told and "canary" not in told
    return told


def samples_of(text: str) -> int:
    return len(spoken(text, 1.0)) // 2


async def speaks(outlet: Outlet) -> None:
    """Speak the text, in pieces that cut through samples."""
    octets = spoken(outlet.text, 1.0)
    for i in range(0, len(octets), 4097):
        await outlet.sound(octets[i : i + 4097])


async def begins(outlet: Outlet) -> None:
    """Speak for 60 ms, then nothing more."""
    await outlet.sound(FRAME * 3)
    await asyncio.Event().wait()


async def says_nothing(outlet: Outlet) -> None:
    await asyncio.Event().wait()


# --- the sound


@each
@pytest.mark.parametrize("cut", [1, 2, 3, 959, 961, 4097, 100_000])
def test_a_sine_comes_out_as_it_went_in_however_it_is_cut(name: str, cut: int) -> None:
    sine = tone(3_000, 997.0)

    async def say(outlet: Outlet) -> None:
        octets = sine.astype("<i2").tobytes()
        for i in range(0, len(octets), cut):
            await outlet.sound(octets[i : i + cut])

    async def main() -> None:
        async with voice(name, say) as (engine, _):
            assert engine.rate_hz == RATE_HZ
            assert np.array_equal(await speech(engine), sine)

    run(main())


@each
def test_the_first_sound_comes_before_the_next_is_sent(name: str) -> None:
    async def main() -> None:
        heard = asyncio.Event()

        async def say(outlet: Outlet) -> None:
            await outlet.sound(FRAME)
            await heard.wait()
            await outlet.sound(FRAME + FRAME[:100])

        async with voice(name, say) as (engine, _), closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
            assert len(await anext(sound)) == 480
            heard.set()
            assert sum([len(pcm) async for pcm in sound]) == 530

    run(main())


@each
def test_nothing_is_not_asked_for_and_much_is_asked_for_in_pieces(name: str) -> None:
    words = ["word"] * 2_000

    async def say(outlet: Outlet) -> None:
        await outlet.sound(FRAME)

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            assert len(await speech(engine, " \n")) == len(told.texts) == 0
            samples = len(await speech(engine, " ".join(words)))
            assert " ".join(told.texts).split() == words
            assert len(told.texts) > 1 and max(map(len, told.texts)) <= 2_500
            assert samples == 480 * len(told.texts)

    run(main())


@each
@pytest.mark.parametrize("named", ["", "../../v1/user", "a/b", "a?b=c", "x" * 65, "\u00fc", "a\n"])
def test_a_voice_that_can_be_no_id_is_never_asked_for(name: str, named: str) -> None:
    async def main() -> None:
        async with voice(name, speaks) as (engine, told):
            words = await complaint(speech(engine, named=named))
            assert f"is no voice's id at {TITLES[name]}" in words and len(words) < 200
            with pytest.raises(NotOffered):
                await speech(engine, named=named)
            with pytest.raises(NotOffered):
                engine.open(named, "en", 1.0)
            assert told.texts == []

    run(main())


# --- stopping


@each
def test_closing_stops_it_and_leaves_nothing(name: str) -> None:
    async def main() -> None:
        async with voice(name, begins) as (engine, told):
            for _ in range(20):
                async with closing(engine.synthesize(CLAUSE, None, "en", 1.0)) as sound:
                    assert len(await anext(sound))
                await told.stopped.get()
            assert len(told.peers) == 1 or name == "elevenlabs"
            await nothing_is_ended_by_the_garbage_collector()

    run(main())


@each
def test_canceling_while_it_waits_stops_it(name: str) -> None:
    async def main() -> None:
        async with voice(name, says_nothing) as (engine, told):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(speech(engine), 0.2)
            await told.stopped.get()

    run(main())


@each
def test_several_speak_at_once_and_one_that_leaves_harms_nobody(name: str) -> None:
    async def say(outlet: Outlet) -> None:
        await (begins if outlet.text == "On and on" else speaks)(outlet)

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            async with closing(engine.synthesize("On and on", None, "en", 1.0)) as leaving:
                await anext(leaving)
                others = [asyncio.create_task(speech(engine, CLAUSE * n)) for n in range(1, 6)]
                await others[0]
            lengths = [len(pcm) for pcm in await asyncio.gather(*others)]
            assert lengths == [samples_of(CLAUSE * n) for n in range(1, 6)]
            connections = len(told.peers)
            assert connections == (1 if name == "cartesia" else 6)
            for _ in range(3):
                await speech(engine)
            assert len(told.peers) == connections, "later ones find a warm one"

    run(main())


# --- the clauses of a reply


@each
def test_the_clauses_of_a_reply_are_spoken_in_turn_each_to_its_end(name: str) -> None:
    async def main() -> None:
        async with voice(name, speaks) as (engine, told):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                for clause in REPLY:
                    assert np.array_equal(await collect(reply.speak(clause)), tone(samples_of(clause)))
            await reply.aclose()
            assert told.texts == REPLY and told.stopped.empty()

    run(main())


async def tell(engine: Any, clauses: list[str]) -> list[int]:
    """Speak a reply; return the clauses' lengths."""
    async with aclosing(engine.open(None, "en", 1.0)) as reply:
        return [len(await collect(reply.speak(clause))) for clause in clauses]


@each
def test_replies_at_once_do_not_mix(name: str) -> None:
    async def main() -> None:
        async with voice(name, speaks) as (engine, told):
            replies = [[clause * n for clause in REPLY] for n in range(1, 6)]
            told_lengths = await asyncio.gather(*(tell(engine, reply) for reply in replies))
            assert told_lengths == [[samples_of(clause) for clause in reply] for reply in replies]
            assert len(told.peers) == (1 if name == "cartesia" else 5)
            for reply in replies:
                assert [text for text in told.texts if text in reply] == reply, "in turn"

    run(main())


@each
def test_a_reply_that_is_cut_off_tells_the_vendor_at_once_and_the_next_one_is_spoken(name: str) -> None:
    async def say(outlet: Outlet) -> None:
        await (begins if outlet.text == REPLY[1] else speaks)(outlet)

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            took_s = []
            for _ in range(10):
                async with aclosing(engine.open(None, "en", 1.0)) as reply:
                    await collect(reply.speak(REPLY[0]))
                    async with closing(reply.speak(REPLY[1])) as sound:
                        await anext(sound)
                        began_s = time.perf_counter()
                await told.stopped.get()
                took_s.append(time.perf_counter() - began_s)
            assert min(took_s) < STOPPED_S, took_s
            assert await tell(engine, REPLY[:1]) == [samples_of(REPLY[0])]

    run(main())


@each
def test_barge_in_stops_the_vendor_within_50_ms(name: str) -> None:
    """The whole way: a session whose voice is speaking its second clause when the caller takes the floor."""

    async def say(outlet: Outlet) -> None:
        if outlet.text == REPLY[0]:
            return await speaks(outlet)
        second.set()
        return await begins(outlet)

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            engines = Engines(LoudnessDetector(), FakeStt(), FakeLlm(" ".join(REPLY)), engine)
            events: list[Any] = []
            async with Session(Agent("a", "A"), engines, Playout(AudioFormat(24_000))) as session:
                session.subscribe(events.append)
                took_s = []
                for _ in range(3):
                    second.clear()
                    session.push_text("Hello?")
                    await second.wait()
                    began_s = time.perf_counter()
                    session.interrupt()
                    await told.stopped.get()
                    took_s.append(time.perf_counter() - began_s)
                assert min(took_s) < STOPPED_S, took_s
            assert any(isinstance(event, ReplyInterrupted) for event in events)

    second = asyncio.Event()
    run(main())


@each
def test_a_hundred_replies_half_of_them_cut_off_leave_nothing(name: str) -> None:
    async def say(outlet: Outlet) -> None:
        await outlet.sound(FRAME)
        if outlet.text == CLAUSE:
            await asyncio.Event().wait()

    async def one(engine: Any, told: Told, number: int) -> None:
        async with aclosing(engine.open(None, "en", 1.0)) as reply:
            assert len(await collect(reply.speak("One."))) == 480
            if number % 2:
                async with closing(reply.speak(CLAUSE)) as sound:
                    await anext(sound)
            else:
                assert len(await collect(reply.speak("Two."))) == 480
        if number % 2:
            await told.stopped.get()

    async def blocks(told: Told) -> int:
        await told.forget()
        await nothing_is_ended_by_the_garbage_collector()
        return sys.getallocatedblocks()

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            for number in range(30):
                await one(engine, told, number)
            before = await blocks(told)
            tasks = len(asyncio.all_tasks())
            for number in range(100):
                await one(engine, told, number)
            assert told.peers == set() or name == "elevenlabs", "no connection was made anew"
            assert (await blocks(told) - before) / 100 < 5.0, "objects that a reply leaves behind"
            assert len(asyncio.all_tasks()) == tasks

    run(main())


# --- what goes wrong, in words


@each
def test_a_lost_connection_is_tried_once_more_and_only_before_the_first_sound(name: str) -> None:
    async def drop_first(outlet: Outlet) -> None:
        await (outlet.drop() if drops.pop(0) else speaks(outlet))

    async def main() -> None:
        async with voice(name, drop_first) as (engine, told):
            assert len(await speech(engine)) == samples_of(CLAUSE)
            assert f"the connection to {TITLES[name]} was lost" in await complaint(speech(engine))
            assert (len(told.texts), drops) == (4, [])

    drops = [True, False, True, True]
    run(main())


@each
def test_a_clause_whose_connection_is_lost_before_its_sound_is_said_once_more_within_its_reply(name: str) -> None:
    async def drop_second(outlet: Outlet) -> None:
        await (outlet.drop() if drops.pop(0) else speaks(outlet))

    async def main() -> None:
        async with voice(name, drop_second) as (engine, told):
            assert await tell(engine, REPLY) == [samples_of(clause) for clause in REPLY]
            assert told.texts == [REPLY[0], REPLY[1], REPLY[1], REPLY[2]]

    drops = [False, True, False, False]
    run(main())


async def break_off(reply: Speech, clause: str, title: str) -> None:
    async with closing(reply.speak(clause)) as sound:
        assert len(await anext(sound)) == 480
        with pytest.raises(EngineError, match=f"the connection to {title} was lost"):
            await anext(sound)


@each
def test_a_clause_that_breaks_off_is_never_spoken_twice_and_the_next_one_is_spoken(name: str) -> None:
    async def say(outlet: Outlet) -> None:
        if outlet.text != REPLY[1]:
            return await speaks(outlet)
        await outlet.sound(FRAME)
        return await outlet.drop()

    async def main() -> None:
        async with voice(name, say) as (engine, told):
            async with aclosing(engine.open(None, "en", 1.0)) as reply:
                await collect(reply.speak(REPLY[0]))
                await break_off(reply, REPLY[1], TITLES[name])
                assert len(await collect(reply.speak(REPLY[2]))) == samples_of(REPLY[2])
            assert told.texts == REPLY
            assert len(await speech(engine)) == samples_of(CLAUSE)

    run(main())


@each
@pytest.mark.parametrize("say", [says_nothing, begins])
def test_silence_is_told_after_the_time_that_was_set(name: str, say: Say) -> None:
    async def second(outlet: Outlet) -> None:
        await (speaks if outlet.text == REPLY[0] else say)(outlet)

    async def main() -> None:
        words = f"tts {name}: {TITLES[name]} sent nothing for 0.3 s; try again later"
        async with voice(name, say, timeout(name, 0.3)) as (engine, told):
            assert await complaint(speech(engine)) == words
            await told.stopped.get()
        async with voice(name, second, timeout(name, 0.3)) as (engine, told):
            assert await complaint(tell(engine, REPLY)) == words
            await told.stopped.get()
            assert told.texts == REPLY[:2]

    run(main())


@each
def test_a_host_that_is_not_there_is_named(name: str) -> None:
    async def main() -> None:
        async with serving(stall) as url:
            pass
        engine = await created("tts", name, access(name, url))
        words = await complaint(speech(engine))
        assert "cannot be reached at 127.0.0.1; " in words
        assert words.endswith(f"{name.upper()}_BASE_URL")
        await aclose(engine)
        await aclose(engine)

    run(main())


@each
@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_the_log_has_no_key_and_above_debug_no_words(name: str, level: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with voice(name, speaks) as (engine, _):
            await tell(engine, REPLY)

    caplog.set_level(level)
    run(main())
    ours = [r for r in caplog.records if r.name.split(".")[0] not in ("aiohttp", "asyncio")]
    assert not [r for r in ours if KEY in r.getMessage()]
    assert not [r for r in ours if "canary" in r.getMessage() and r.levelno > logging.DEBUG]


# --- what they need


@each
def test_it_says_what_it_lacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = module("tts", name).describe
    assert describe({}).lacks == f"{name.upper()}_API_KEY"
    assert describe(access(name)).lacks is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert describe(access(name)).lacks == "pip install vocal-node[cloud]"
    with pytest.raises(EngineUnavailable, match=r"pip install vocal-node\[cloud\]"):
        load("tts", name, access(name))


@each
def test_a_key_is_reason_enough_to_take_it(name: str) -> None:
    model = {"cartesia": "sonic-3.5", "elevenlabs": "eleven_flash_v2_5"}[name]
    assert usable("tts", access(name))[0][0] == name
    chosen = choose("tts", "auto", access(name))
    assert chosen.why.startswith(f"tts {name}: {TITLES[name]}, {model} in the cloud")
    run(aclose(chosen.engine))


@each
@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("{}_API_KEY", "a key", "a usable {}_API_KEY"),
        ("{}_BASE_URL", "wss://x", "a usable {}_BASE_URL"),
        ("VOCAL_{}_TIMEOUT_S", "soon", "VOCAL_{}_TIMEOUT_S must be"),
        ("VOCAL_{}_VOICE", "Katie Smith", "VOCAL_{}_VOICE"),
        ("VOCAL_{}_VOICE", "../user", "VOCAL_{}_VOICE"),
    ],
)
def test_a_setting_that_cannot_be_is_named(name: str, setting: str, value: str, words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words.format(name.upper())):
        load("tts", name, {**access(name), setting.format(name.upper()): value})
