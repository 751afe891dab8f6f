"""An utterance's audio is bounded, and its samples are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np

from pipeline.audio import AudioFrame, silence
from pipeline.events import Transcript
from pipeline.tasks import cancel_and_wait
from pipeline.utterance import QUEUE_FRAMES, Utterance

from .fakes import FakeStt
from .virtual_time import run


class Stuck:
    """An engine that takes no audio."""

    async def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        await asyncio.Event().wait()
        yield Transcript("", True)


def test_an_engine_that_falls_behind_is_told_once_and_its_audio_is_bounded() -> None:
    failures: list[str] = []

    async def main() -> int:
        utterance = Utterance(0, 1.0, lambda: None, failures.append)
        running = asyncio.create_task(utterance.run(Stuck(), None))
        for _ in range(QUEUE_FRAMES + 100):
            utterance.feed(silence(320))
        utterance.end()
        await cancel_and_wait(running)
        return utterance.dropped_frames

    assert run(main()) == 101
    assert len(failures) == 1 and "behind" in failures[0]


def test_frames_carry_their_place_in_the_session() -> None:
    stt = FakeStt()

    async def main() -> None:
        utterance = Utterance(1_000, 1.0, lambda: None, lambda message: None)
        piece = np.full(500, 7, np.int16)
        utterance.feed(piece)
        piece[:] = 0  # the memory is the caller's
        utterance.feed(silence(320))
        utterance.end()
        await utterance.run(stt, None)
        assert utterance.transcript == Transcript("hello there", True, None)

    run(main())
    assert [(frame.pts, len(frame.pcm)) for frame in stt.frames] == [(1_000, 320), (1_320, 320), (1_640, 180)]
    assert np.concatenate([frame.pcm for frame in stt.frames]).tolist() == [7] * 500 + [0] * 320
