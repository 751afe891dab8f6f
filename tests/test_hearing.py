"""The caller's sound on its way into the session, in virtual time."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import numpy as np
import pytest

from compat_ws.client_socket import Ending
from compat_ws.hearing import MAX_AHEAD_S, PIECE_SAMPLES, Hearing
from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence

from .virtual_time import run

SECOND = np.arange(SPEECH_RATE_HZ).astype(np.int16)


def test_a_large_piece_is_heard_whole_while_others_have_their_turn() -> None:
    async def main() -> None:
        pushed: list[tuple[int, Pcm]] = []
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        await Hearing(lambda pcm: pushed.append((turns, pcm))).sound(np.tile(SECOND, 30))
        beside.cancel()
        assert max(len(pcm) for _, pcm in pushed) == PIECE_SAMPLES
        assert all(a < b for (a, _), (b, _) in pairwise(pushed))
        assert np.array_equal(np.concatenate([pcm for _, pcm in pushed]), np.tile(SECOND, 30))
        await asyncio.gather(beside, return_exceptions=True)

    run(main())


def test_who_falls_silent_is_heard_as_silence_and_only_then() -> None:
    async def main() -> None:
        pushed: list[Pcm] = []
        hearing, loop = Hearing(pushed.append), asyncio.get_running_loop()
        await hearing.sound(SECOND[:4096])
        heard_s = loop.time()
        assert hearing.deadline_s is not None
        await hearing.wait_no_longer()
        assert len(pushed) == 3, "too early: nothing is missing"
        await asyncio.sleep(hearing.deadline_s - loop.time())
        await hearing.wait_no_longer()
        fed = np.concatenate(pushed[3:])
        assert not fed.any()
        assert len(fed) / SPEECH_RATE_HZ == pytest.approx(loop.time() - heard_s, abs=0.001)

    run(main())


def test_sound_may_be_a_minute_ahead_and_no_more() -> None:
    async def main() -> None:
        pushed: list[Pcm] = []
        hearing = Hearing(pushed.append)
        for _ in range(int(MAX_AHEAD_S)):
            await hearing.sound(SECOND)
        with pytest.raises(Ending) as ended:
            await hearing.sound(silence(1))
        assert (ended.value.reason, ended.value.code) == ("too fast", 1008)
        assert sum(len(pcm) for pcm in pushed) == MAX_AHEAD_S * SPEECH_RATE_HZ
        await asyncio.sleep(1.0)
        await hearing.sound(SECOND)

    run(main())
