"""Fifty raw-PCM sessions at once in one server process, of which two misbehave: they are cut, the others untouched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
from yarl import URL

from pipeline.audio import SPEECH_RATE_HZ, silence

from .browser import Server
from .browser import serving as process
from .raw_pcm import CHARACTER_MS, STAND_INS, Caller, calling_stubbornly, sound, types
from .recordings import recording

SESSIONS = 50
WORDS = recording("austen-0880.wav")[2_400:16_000]
PIECE = 2048
"""Samples: 128 ms."""
ANSWER_SAMPLES = len("You said: This is what you said.") * CHARACTER_MS * 24
MEMORY_BYTES = 64 * 1024 * 1024
"""Three times what fifty sessions take."""
MEMORY = "process_resident_memory_bytes"
TOO_SLOW = 'vocal_sessions_ended_total{reason="too slow"}'
TOO_FAST = 'vocal_sessions_ended_total{reason="too fast"}'


@asynccontextmanager
async def calling(http: aiohttp.ClientSession, path: str) -> AsyncIterator[Caller]:
    """Connect and configure a call."""
    async with http.ws_connect(path) as connection:
        caller = Caller(connection)
        await caller.configure()
        yield caller


async def converse(caller: Caller, delay_s: float) -> None:
    """Speak and be answered, three times; every sample of each answer arrives, and nothing else."""
    await asyncio.sleep(delay_s)
    for _ in range(3):
        await caller.say(WORDS, PIECE * 2)
        came = await caller.until("tts_stream_end")
        assert types(came) == ["tts_stream", "tts_stream_end"]
        assert np.count_nonzero(np.abs(sound(came)) > 1e-4) > ANSWER_SAMPLES * 0.9


async def hurry(caller: Caller) -> int | None:
    """Send silence at ten times real time until that is ended; return the close code."""
    piece = silence(PIECE).tobytes()

    async def send() -> None:
        while not caller.connection.closed:
            await caller.connection.send_bytes(piece)
            await asyncio.sleep(PIECE / SPEECH_RATE_HZ / 10)

    sending = asyncio.create_task(send())
    try:
        assert "ahead of time" in await caller.error()
        return await caller.closed()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def ignore(http: aiohttp.ClientSession, server: Server) -> int:
    """Have minutes of speech answered and read none of it until that is ended; return how many bytes had come."""
    url = URL(server.url)
    async with calling_stubbornly(str(url.host), url.port or 0) as caller:
        await caller.tell({"type": "transcript", "text": "go on and on " * 1_250})
        for _ in range(100):
            if await metric(http, TOO_SLOW):
                break
            await asyncio.sleep(0.2)
        return len(await caller.read_all())


async def metric(http: aiohttp.ClientSession, name: str) -> float:
    """Return one line of /metrics; 0 if it is not there."""
    async with http.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_two_bad_ones_among_fifty_are_cut_and_the_others_untouched(tmp_path: Path) -> None:
    async def main(server: Server) -> None:
        async with aiohttp.ClientSession(server.url) as http, AsyncExitStack() as stack:
            before_bytes = await metric(http, MEMORY)
            callers = [await stack.enter_async_context(calling(http, f"/ws/s{n}")) for n in range(SESSIONS - 1)]
            async with asyncio.TaskGroup() as group:
                ignoring = group.create_task(ignore(http, server))
                hurrying = group.create_task(hurry(callers[0]))
                for n, caller in enumerate(callers[1:]):
                    group.create_task(converse(caller, n / SESSIONS))
            assert hurrying.result() == 1008
            assert ignoring.result() < 100_000, "less than a second of sound"
            assert await metric(http, MEMORY) - before_bytes < MEMORY_BYTES
            assert await metric(http, "vocal_sessions_active") == SESSIONS - 2
            assert await metric(http, TOO_FAST) == 1

    with process(tmp_path, **STAND_INS, VOCAL_MAX_LOOP_LAG_MS="10000") as server:
        asyncio.run(main(server))
