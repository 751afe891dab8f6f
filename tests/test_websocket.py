"""The raw-PCM WebSocket over real sockets, in the whole application: conversations."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from aiohttp import ClientWebSocketResponse

from media_server.app import HUB
from pipeline.audio import SPEECH_RATE_HZ, silence
from pipeline.events import Message

from .raw_pcm import CHARACTER_MS, Http, calling, rtvi, serving, sound, types
from .recordings import recording
from .rtc import until

SPEECH = recording("austen-0880.wav")
WORDS = SPEECH[2_400:16_000]
"""Loud from the first to the last; nothing follows."""
LONG = "a word and " * 100
"""Ten seconds of the stand-in voice."""
ANSWER_MS = 30 * CHARACTER_MS
"""How long it takes for "You said: This is what you said."."""


def history(http: Http) -> list[Message]:
    """Return what was said in the one call there is."""
    [call] = http.app[HUB].calls.values()
    return list(call.session.history.messages)


async def until_nobody_is_left(http: Http) -> None:
    """Wait until the server knows of no call any more, and all places are free."""
    await until(lambda: not http.app[HUB].calls and not http.app[HUB].sessions)


async def ended(http: Http) -> str:
    """Return the metric of how sessions ended."""
    text = await (await http.get("/metrics")).text()
    return "\n".join(line for line in text.splitlines() if line.startswith("vocal_sessions_ended_total"))


def test_two_turns_of_speech_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            assert caller.messages == [{"type": "call_ready", "session_id": "s1"}]
            for _ in range(2):
                await caller.say(WORDS)
                came = await caller.until("tts_stream_end")
                assert types(came) == ["tts_stream", "tts_stream_end"]
                assert len(sound(came)) / 24 > ANSWER_MS
            assert [m.role for m in history(http)] == ["user", "assistant"] * 2

    asyncio.run(main())


def test_who_sends_only_what_is_spoken_is_answered_and_may_go_on(tmp_path: Path) -> None:
    """Nothing at all comes after the last word: the silence that ends the turn is the server's."""

    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            for _ in range(2):
                await caller.say(WORDS, 8192)
                assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]

    asyncio.run(main())


def test_barge_in_stops_the_voice_and_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, VOCAL_ECHO_TEXT=LONG) as http, calling(http) as caller:
            await caller.tell("transcript", text="tell me")
            await caller.until("tts_stream")
            speaking = asyncio.create_task(caller.say(WORDS))
            came = await caller.until("tts_stream_end")
            assert types(came) == ["tts_stream", "new_conversation_turn", "tts_stream_end"]
            assert len(sound(came)) / 24_000 < 3.0, "of ten seconds"
            await speaking
            assert types(await caller.until("tts_stream")) == ["tts_stream"]
            assert [m.role for m in history(http)] == ["user", "assistant", "user"]

    asyncio.run(main())


def test_typed_words_are_answered_and_interrupt(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, VOCAL_ECHO_TEXT="{text} " + LONG) as http, calling(http) as caller:
            await caller.tell("transcript", text="first")
            for _ in range(20):
                await caller.until("tts_stream")
            await caller.tell("transcript", text="second")
            assert types(await caller.until("tts_stream_end"))[-2:] == ["new_conversation_turn", "tts_stream_end"]
            await caller.until("tts_stream")
            assert [m.text for m in history(http) if m.role == "user"] == ["first", "second"]

    asyncio.run(main())


def test_push_to_talk_waits_for_the_button(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.tell("speech_start")
            await caller.say(np.concatenate([WORDS, silence(SPEECH_RATE_HZ), WORDS]))
            assert [m.role for m in history(http)] == []
            await caller.tell("speech_end")
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]
            assert [m.role for m in history(http)] == ["user", "assistant"]

    asyncio.run(main())


def test_who_may_not_interrupt_is_answered_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http, configured=False) as caller:
            await caller.configure(allowInterruptions=False)
            await caller.tell("transcript", text=LONG[:100])
            await caller.until("tts_stream")
            speaking = asyncio.create_task(caller.say(WORDS))
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]
            await speaking

    asyncio.run(main())


def test_the_detectors_numbers_are_the_clients(tmp_path: Path) -> None:
    """What is too quiet for its threshold is not heard; what is loud enough ends after its silence."""

    async def main() -> None:
        quiet = (WORDS // 4).astype(np.int16)
        assert 0.05 < np.abs(quiet).max() / 32_768 < 0.5
        async with serving(tmp_path) as http:
            async with calling(http, configured=False) as caller:
                await caller.configure(speechDetectorConfig={"energy_threshold": 0.5})
                await caller.say(quiet)
                await caller.tell("transcript", text="anybody there")
                await caller.until("tts_stream")
                assert [m.text for m in history(http)] == ["anybody there"]
            await until_nobody_is_left(http)
            async with calling(http, configured=False) as caller:
                await caller.configure(speechDetectorConfig={"energy_threshold": 0.02, "max_silence_duration": 0.3})
                await caller.say(quiet)
                await caller.until("tts_stream_end")
                assert history(http)[0].text.startswith("This is what you said.")

    asyncio.run(main())


def test_who_wants_rtvi_gets_the_words_and_the_account_of_a_spoken_turn(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http, configured=False) as caller:
            await caller.configure(rtvi=True)
            assert (await caller.next())["type"] == "bot-ready"
            await caller.say(WORDS)
            came = await caller.until("server-message")
            kinds = types(came)
            [final] = [m["data"] for m in rtvi(came) if m["type"] == "user-transcription" and m["data"]["final"]]
            assert final["text"] == history(http)[0].text
            assert kinds.index("user-started-speaking") < kinds.index("user-stopped-speaking")
            assert kinds.index("bot-started-speaking") < kinds.index("tts_stream")
            assert kinds[-5:] == ["tts_stream_end", "bot-output", "bot-tts-stopped", "bot-stopped-speaking", kinds[-1]]
            turn = came[-1]["data"]
            assert (turn["t"], turn["turn"], turn["interrupted"]) == ("turn", 1, False)
            assert turn["user"] == final["text"] and turn["first_audio_ms"] > 0

    asyncio.run(main())


def test_who_wants_rtvi_throws_sound_away_before_hearing_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, VOCAL_ECHO_TEXT=LONG) as http, calling(http, configured=False) as caller:
            await caller.configure(rtvi=True)
            await caller.tell("transcript", text="first")
            await caller.until("tts_stream")
            await caller.tell("transcript", text="second")
            kinds = types(await caller.until("bot-stopped-speaking"))
            begin = kinds.index("new_conversation_turn")
            assert kinds[begin : begin + 3] == ["new_conversation_turn", "tts_stream_end", "bot-interrupted"]
            assert kinds[-1] == "bot-stopped-speaking"
            await caller.connection.close()
            await until_nobody_is_left(http)

    asyncio.run(main())


def test_a_greeting_is_spoken_first(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http, configured=False) as caller:
            await caller.configure(greeting="Hello there.")
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]
            assert [m.text for m in history(http)] == ["Hello there."]

    asyncio.run(main())


def test_an_engine_that_fails_is_told_and_the_call_lives(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, VOCAL_TTS="tests.broken_voice") as http, calling(http) as caller:
            await caller.tell("transcript", text="please break in the middle of this")
            came = await caller.until("tts_stream_end")
            assert types(came) == ["tts_stream", "error", "tts_stream_end"]
            assert came[-2] == {"type": "error", "error": "tts: the voice broke", "session_id": "s1"}
            await caller.tell("transcript", text="and now")
            assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]

    asyncio.run(main())


def test_a_keep_alive_is_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.tell("ping")
            assert await caller.next() == {"type": "pong", "session_id": "s1"}

    asyncio.run(main())


def test_compression_is_not_agreed_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, http.ws_connect("/ws/s1", compress=15) as connection:
            assert not connection.compress

    asyncio.run(main())


@pytest.mark.parametrize("politely", [True, False])
def test_who_leaves_leaves_nothing_behind(tmp_path: Path, politely: bool) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http:
            async with calling(http) as caller:
                await caller.tell("transcript", text=LONG)
                await caller.until("tts_stream")
                if politely:
                    assert await caller.connection.close()
                    assert caller.connection.close_code == 1000
                else:
                    reset(caller.connection)
            await until_nobody_is_left(http)
            assert await ended(http) == 'vocal_sessions_ended_total{reason="caller left"} 1.0'

    asyncio.run(main())


def reset(connection: ClientWebSocketResponse) -> None:
    """Cut a connection without a word."""
    transport = connection.get_extra_info("socket") and connection._writer.transport
    assert isinstance(transport, asyncio.Transport)
    transport.abort()


def test_a_server_that_ends_says_so_and_ends_what_it_was_saying(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as caller:
            await caller.tell("transcript", text=LONG)
            await caller.until("tts_stream")
            closing = asyncio.create_task(http.app[HUB].close_all("server closed"))
            came = await caller.until("error")
            assert types(came)[-3:] == ["new_conversation_turn", "tts_stream_end", "error"]
            assert "about to end" in came[-1]["error"]
            assert await caller.closed() == 1001
            await closing
            assert not http.app[HUB].calls

    asyncio.run(main())


def test_who_comes_when_all_places_are_taken_is_told_to_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, VOCAL_MAX_SESSIONS="1") as http, calling(http):
            async with calling(http, configured=False) as second:
                assert "all 1 places are taken" in await second.error()
                assert await second.closed() == 1013
            http.app[HUB].set_draining(True)
            async with calling(http, configured=False) as third:
                assert "lets nobody in" in await third.error()
                assert await third.closed() == 1013

    asyncio.run(main())


def test_a_plain_request_is_told_to_upgrade(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http:
            answer = await http.get("/ws/s1")
            assert answer.status == 400
            assert (await answer.json())["error"]["type"] == "invalid_request_error"

    asyncio.run(main())


def test_two_calls_of_one_session_id_are_two_calls(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as http, calling(http) as one, calling(http) as other:
            for caller, words in ((one, "first"), (other, "second")):
                await caller.tell("transcript", text=words)
            for caller in (one, other):
                assert types(await caller.until("tts_stream_end")) == ["tts_stream", "tts_stream_end"]
            said = {call.session.history.messages[0].text for call in http.app[HUB].calls.values()}
            assert said == {"first", "second"}

    asyncio.run(main())
