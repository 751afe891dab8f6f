"""Four processes, one conversation: a raw-PCM client against ``launcher.py``, and against ``vocal-node serve``."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from pipeline.audio import SPEECH_RATE_HZ, silence
from tests.processes import ROOT, Printing, printing
from tests.raw_pcm import Caller, sound, types
from tests.recordings import recording

LISTENING = {
    "VOCAL_VAD": "silero",
    "VOCAL_STT": "pocketsphinx",
    "VOCAL_LLM": "echo",
    "VOCAL_ECHO_TEXT": "{text}",
    "VOCAL_TTS": "tone",
    "VOCAL_TONE_CHARACTER_MS": "10",
}
"""The agent says what it heard, a tone of 10 ms for each letter: the length of the answer tells the transcript's."""
SLOW = {"VOCAL_TONE_RTF": "1", "VOCAL_TONE_CHARACTER_MS": "60", "VOCAL_STT": "scripted", "VOCAL_VAD": "energy"}
"""A voice that makes its speech as it is spoken, so that it can die in the middle of a reply."""
PIECES_BYTES = {"20 ms": 640, "256 ms": 8192, "7 bytes": 7}


@contextmanager
def launched(folder: Path, **settings: str) -> Iterator[tuple[str, Printing]]:
    """Run the four services; yield the server's address and what they print."""
    command = [str(ROOT / "launcher.py"), "--combined-logs"]
    with printing(command, folder, {**LISTENING, **settings}) as running:
        yield running.line(r"launcher \| Vocal Node is ready: (\S+)")[1], running
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0


@contextmanager
def served(folder: Path, **settings: str) -> Iterator[tuple[str, Printing]]:
    """Run the one process that has everything."""
    with printing(
        ["-m", "media_server", "serve"], folder, {**LISTENING, "PYTHONPATH": str(ROOT), **settings}
    ) as running:
        yield running.line(r"Vocal Node is ready: (\S+)")[1], running
        running.process.send_signal(signal.SIGINT)
        assert running.end() == 0


async def answered(url: str, piece_bytes: int) -> list[dict[str, Any]]:
    """Say the recording in pieces of this size; return what the server says until it has answered."""
    spoken = np.concatenate([recording("austen-0880.wav"), silence(SPEECH_RATE_HZ)])
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws/one") as connection:
        caller = Caller(connection)
        await caller.configure()
        speaking = asyncio.create_task(caller.say(spoken, piece_bytes, burst_ms=20))
        came = await caller.until("tts_stream_end")
        await speaking
        return came


def is_late(message: dict[str, Any]) -> bool:
    """Tell whether it only says that the machine is too busy to judge silences in time."""
    return str(message.get("error", "")).startswith("turn: no judgment within")


@pytest.mark.parametrize("started", [launched, served])
def test_the_same_words_get_the_same_answer_however_they_are_cut(tmp_path: Path, started: Any) -> None:
    with started(tmp_path) as (url, _):

        async def main() -> None:
            lengths = {}
            for name, piece_bytes in PIECES_BYTES.items():
                came = [message for message in await answered(url, piece_bytes) if not is_late(message)]
                assert types(came) == ["tts_stream", "tts_stream_end"], [m.get("error") for m in came]
                lengths[name] = len(np.trim_zeros(sound(came)))
            assert len(set(lengths.values())) == 1, lengths
            assert min(lengths.values()) > 24 * 10 * len("he was not"), "some of it was understood"

        asyncio.run(main())


def test_a_voice_that_dies_in_the_middle_of_a_reply_costs_that_reply_alone(tmp_path: Path) -> None:
    text = "This is a long answer, which takes some three seconds to say."
    with launched(tmp_path, **SLOW, VOCAL_ECHO_TEXT=text) as (url, running):
        first_life = int(re.search(r"tts runs as process (\d+)", "\n".join(running.lines))[1])  # type: ignore[index]

        async def main() -> None:
            async with aiohttp.ClientSession() as http, http.ws_connect(f"{url}/ws/two") as connection:
                caller = Caller(connection)
                await caller.configure()
                await caller.tell("transcript", text="Tell me.")
                while len(sound(caller.messages)) < 24_000:
                    await caller.next()
                os.kill(first_life, signal.SIGKILL)
                came = await caller.until("tts_stream_end")
                error = next(message["error"] for message in came if message["type"] == "error")
                assert error.startswith("tts: ")
                assert await asyncio.to_thread(running.line, r"tts runs as process (\d+)")
                await caller.tell("transcript", text="Again, please.")
                came = await caller.until("tts_stream_end")
                assert types(came) == ["tts_stream", "tts_stream_end"]
                assert len(sound(came)) >= 24 * 60 * len(text), "the whole of it"

        asyncio.run(main())
