"""Speeches that wait for their next clause: lent to one request at a time, bounded in time and number."""

from __future__ import annotations

import asyncio

import pytest

from compat_ws.speech_contexts import KEPT_S, SpeechContexts

from .fakes import FakeSpeech, JoiningTts
from .virtual_time import run


def speech_of(tts: JoiningTts) -> FakeSpeech:
    return tts.open(None, "en", 1.0)


async def use(contexts: SpeechContexts, tts: JoiningTts, name: str, seconds: float = 0.0) -> FakeSpeech:
    """Have a request for this context, which takes a while; return its speech."""
    async with contexts.lend(name, lambda: speech_of(tts)) as speech:
        await asyncio.sleep(seconds)
    assert isinstance(speech, FakeSpeech)
    return speech


def test_a_context_is_kept_for_its_next_request_and_closed_when_none_comes() -> None:
    async def main() -> None:
        contexts, tts = SpeechContexts(), JoiningTts()
        first = await use(contexts, tts, "a")
        for _ in range(3):
            await asyncio.sleep(KEPT_S - 0.1)
            assert await use(contexts, tts, "a", 2 * KEPT_S) is first, "the time of a request does not count"
        assert await use(contexts, tts, "b") is not first and len(contexts) == 2
        await asyncio.sleep(KEPT_S + 0.1)
        assert [speech.closed for speech in tts.speeches] == [1, 1] and len(contexts) == 0
        assert await use(contexts, tts, "a") is not first
        await contexts.aclose()

    run(main())


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, GeneratorExit])
def test_a_request_that_is_cut_off_or_fails_ends_it(error: type[BaseException]) -> None:
    async def main() -> None:
        contexts, tts = SpeechContexts(), JoiningTts()
        await use(contexts, tts, "a")
        with pytest.raises(error):
            async with contexts.lend("a", lambda: speech_of(tts)):
                raise error
        assert [speech.closed for speech in tts.speeches] == [1] and len(contexts) == 0

    run(main())


def test_requests_of_one_context_at_once_have_a_speech_each_and_one_is_kept() -> None:
    async def main() -> None:
        contexts, tts = SpeechContexts(), JoiningTts()
        both = await asyncio.gather(use(contexts, tts, "a", 0.1), use(contexts, tts, "a", 0.2))
        await asyncio.sleep(0)
        assert both[0] is not both[1] and [speech.closed for speech in both] == [1, 0]
        assert await use(contexts, tts, "a") is both[1]
        await contexts.aclose()

    run(main())


def test_the_oldest_goes_where_there_are_too_many() -> None:
    async def main() -> None:
        contexts, tts = SpeechContexts(kept=3), JoiningTts()
        for name in "abcad":
            await use(contexts, tts, name)
        await asyncio.sleep(0)
        assert [speech.closed for speech in tts.speeches] == [0, 1, 0, 0] and len(contexts) == 3
        await contexts.aclose()

    run(main())


def test_the_end_closes_all_also_those_that_are_lent() -> None:
    async def main() -> None:
        contexts, tts = SpeechContexts(), JoiningTts()
        await use(contexts, tts, "a")
        lent = asyncio.create_task(use(contexts, tts, "b", 1.0))
        await asyncio.sleep(0.5)
        await contexts.aclose()
        assert [speech.closed for speech in tts.speeches] == [1, 0]
        await lent
        await contexts.aclose()
        assert [speech.closed for speech in tts.speeches] == [1, 1] and len(contexts) == 0

    run(main())
