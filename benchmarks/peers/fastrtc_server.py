"""FastRTC with the same rules and stand-ins, as its documentation does it.

``python -m benchmarks.peers.fastrtc_server PORT HANDLER RULES...``, in the environment that ``benchmarks.peers`` made.
HANDLER is one of two that FastRTC has:

- ``stream``: an ``AsyncStreamHandler``, its fast way. Sound goes to ``receive`` as it comes, what ``emit`` returns is
  sent, and speech clears what is queued.
- ``pause``: ``ReplyOnPause``. It judges chunks of sound: one without speech, after speech, ends a turn. The chunk has
  the length of the silence rule, so that a turn ends after one to two of them; and the answer is short, because it is
  interrupted not by speech but by the pause after it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastrtc import AlgoOptions, AsyncStreamHandler, ReplyOnPause, Stream, wait_for_item
from fastrtc.utils import AudioChunk
from numpy.typing import NDArray

from benchmarks.stand_ins import LOUD, WINDOW_MS, Hearing, Rules, answer

IN_HZ = 48_000
OUT_HZ = 24_000
SHORT_ANSWER_S = 0.4


class Conversation(AsyncStreamHandler):
    """Answers after silence, stops for speech."""

    def __init__(self, rules: Rules) -> None:
        super().__init__("mono", output_sample_rate=OUT_HZ, input_sample_rate=IN_HZ)
        self._rules = rules
        self._hearing = Hearing(rules, IN_HZ)
        self._sound: asyncio.Queue[tuple[int, NDArray[np.int16]]] = asyncio.Queue()
        self._answering: asyncio.Task[None] | None = None

    def copy(self) -> Conversation:
        """Return one for the next call."""
        return Conversation(self._rules)

    async def start_up(self) -> None:
        """Do nothing: there is nothing to load."""

    async def receive(self, frame: tuple[int, NDArray[np.int16]]) -> None:
        """Hear the caller."""
        for became in self._hearing.push(frame[1].reshape(-1)):
            if became in ("speech", "over"):
                self._stop()
            if became == "over":
                self._answering = asyncio.create_task(self._answer())

    async def emit(self) -> tuple[int, NDArray[np.int16]] | None:
        """Return the next piece of the answer; None if there is none for a while."""
        piece: tuple[int, NDArray[np.int16]] | None = await wait_for_item(self._sound)
        return piece

    async def shutdown(self) -> None:
        """End with the call."""
        self._stop()

    def _stop(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
        while not self._sound.empty():
            self._sound.get_nowait()
        self.clear_queue()

    async def _answer(self) -> None:
        await asyncio.sleep(self._rules.models_ms / 1000)
        for pcm in answer(OUT_HZ):
            self._sound.put_nowait((OUT_HZ, pcm[None, :]))


class LoudnessModel:
    """Speech is what is loud, in windows of 10 ms."""

    def vad(self, audio: tuple[int, NDArray[np.int16]], options: None) -> tuple[float, list[AudioChunk]]:
        """Return how many seconds of a chunk are speech."""
        rate_hz, pcm = audio
        samples = rate_hz * WINDOW_MS // 1000
        windows = np.abs(pcm[: len(pcm) // samples * samples].reshape(-1, samples).astype(np.int32)).max(axis=1)
        return float((windows > LOUD * 32768).sum()) * WINDOW_MS / 1000, []

    def warmup(self) -> None:
        """Do nothing."""


def reply_on_pause(rules: Rules) -> ReplyOnPause:
    """Return a handler that answers pauses."""

    async def reply(audio: tuple[int, NDArray[np.int16]]) -> AsyncGenerator[tuple[int, NDArray[np.int16]], None]:
        await asyncio.sleep(rules.models_ms / 1000)
        for pcm in answer(OUT_HZ, SHORT_ANSWER_S):
            yield OUT_HZ, pcm[None, :]

    options = AlgoOptions(
        audio_chunk_duration=rules.silence_ms / 1000,
        started_talking_threshold=rules.speech_ms / 1000,
        speech_threshold=WINDOW_MS / 1000,
    )
    return ReplyOnPause(reply, algo_options=options, model=LoudnessModel(), output_sample_rate=OUT_HZ)


def app(handler: AsyncStreamHandler | ReplyOnPause) -> FastAPI:
    """Return a server with FastRTC's routes."""
    server = FastAPI()
    stream = Stream(
        handler,
        modality="audio",
        mode="send-receive",
        concurrency_limit=10,
        server_rtc_configuration={"iceServers": []},
    )
    stream.mount(server)
    return server


if __name__ == "__main__":
    rules = Rules.of(sys.argv[3:])
    handler = reply_on_pause(rules) if sys.argv[2] == "pause" else Conversation(rules)
    uvicorn.run(app(handler), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
