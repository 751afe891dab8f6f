"""What a raw-PCM client is sent, and when, in virtual time: how far ahead, in which order, and what not any more."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from compat_ws.client_socket import Ending
from compat_ws.dialect import Message
from compat_ws.outgoing import MAX_WAITING, Outgoing
from compat_ws.vocal import LEAD_MS, Vocal
from pipeline.agents import Agent
from pipeline.engines import Engines
from pipeline.session import Session
from pipeline.tasks import cancel_and_wait

from .fakes import LOUD, FakeLlm, FakeTts, engines
from .virtual_time import run

FRAME_MS = 20
REPLY_MS = 12 * 250
"""Twelve words of the fakes' model, as long as their voice takes for one."""


@dataclass
class Sent:
    """What was sent, in order, with when it was, in ms."""

    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)

    def of(self, kind: str) -> list[float]:
        """Return when messages of a type were sent."""
        return [ms for ms, message in self.messages if message["type"] == kind]

    def types(self) -> list[str]:
        """Return the types in order, a run of sound as one."""
        types = [message["type"] for _, message in self.messages]
        return [kind for n, kind in enumerate(types) if not n or kind != types[n - 1] or kind != "tts_stream"]

    def loud_ms(self) -> float:
        """Return how much of the sound is the voice's, in ms."""
        chunks = [message["data"]["chunk"] for _, message in self.messages if message["type"] == "tts_stream"]
        sound = [np.frombuffer(base64.b64decode(chunk), "<f4") for chunk in chunks]
        return sum(int((np.abs(pcm - LOUD / 32_768) < 1e-6).sum()) for pcm in sound) / 24


async def conversation(
    until_ms: float,
    *at: tuple[float, Callable[[Session], None]],
    parts: Engines | None = None,
    send_s: Callable[[float], float] = lambda _: 0.0,
    wants: Mapping[str, Any] = MappingProxyType({}),
) -> Sent:
    """Run a session, doing what is to be done at its time. ``send_s``: how long a send takes at that ms.

    ``wants`` is in the configuration.
    """
    sent, loop = Sent(), asyncio.get_running_loop()
    start_s = loop.time()
    dialect = Vocal("s")
    dialect.receive(json.dumps({"agentId": "a", "userId": "u", "agentName": "A", **wants}))
    outgoing = Outgoing(dialect)

    def now_ms() -> float:
        return round((loop.time() - start_s) * 1000, 3)

    async def send(message: Message) -> None:
        sent.messages.append((now_ms(), json.loads(message)))
        await asyncio.sleep(send_s(now_ms()))

    async with Session(Agent("a", "A"), parts or engines(), outgoing.playout) as session:
        session.subscribe(outgoing.tell)
        tasks = [asyncio.create_task(outgoing.take_frames()), asyncio.create_task(outgoing.write(send))]
        for ms, act in at:
            loop.call_at(start_s + ms / 1000, act, session)
        await asyncio.sleep(until_ms / 1000)
    await asyncio.sleep(0)
    await cancel_and_wait(*tasks)
    for message in outgoing.rest():
        await send(message)
    return sent


def ask(session: Session) -> None:
    """Have something answered."""
    session.push_text("tell me")


def test_sound_is_at_most_the_lead_ahead_of_the_clock() -> None:
    sent = run(conversation(5_000, (105, ask)))
    times = sent.of("tts_stream")
    ahead = [n * FRAME_MS - (ms - times[0]) for n, ms in enumerate(times, 1)]
    assert times[:4] == [times[0]] * 4, "the first of it leaves at once"
    assert LEAD_MS - FRAME_MS < max(ahead) <= LEAD_MS
    assert sent.types() == ["tts_stream", "tts_stream_end"]
    assert sent.loud_ms() == REPLY_MS


def test_the_end_of_a_stream_comes_after_its_last_sound_even_if_it_is_its_first() -> None:
    short = engines(llm=FakeLlm("Hi."), tts=FakeTts(s_per_word=0.01))
    sent = run(conversation(1_000, (105, ask), (505, ask), parts=short))
    assert sent.types() == ["tts_stream", "tts_stream_end"] * 2
    assert sent.loud_ms() == 20


def test_what_follows_from_the_end_of_a_reply_is_told_after_it() -> None:
    """The turn's account is given in the moment in which the last frame is taken, and that has not been sent yet."""
    sent = run(conversation(4_000, (100, ask), wants={"rtvi": True}))
    last_sound = max(n for n, (_, m) in enumerate(sent.messages) if m["type"] == "tts_stream")
    assert [m["type"] for _, m in sent.messages[last_sound + 1 :]] == [
        "tts_stream_end",
        "bot-output",
        "bot-tts-stopped",
        "bot-stopped-speaking",
        "server-message",
        "metrics",
    ]


@pytest.mark.parametrize("at_ms", range(100, 3_400, 50))
def test_an_interruption_takes_back_all_but_the_lead(at_ms: int) -> None:
    """At any moment of a reply: what was sent until then is at most the lead ahead, and nothing of it follows."""
    slow = engines(llm=FakeLlm(ttft_s=0.05, per_word_s=0.02), tts=FakeTts(ttfb_s=0.05, rtf=0.3))
    sent = run(conversation(at_ms + 500, (100, ask), (at_ms + 1, Session.interrupt), parts=slow))
    audible = sent.of("tts_stream")
    if sent.of("new_conversation_turn"):
        assert (
            sent.types() == ["tts_stream", "new_conversation_turn", "tts_stream_end"][not audible : 2 + bool(audible)]
        )
        assert max(audible, default=0) <= at_ms + 1 == sent.of("new_conversation_turn")[0]
        assert len(audible) * FRAME_MS <= at_ms + 1 - min(audible, default=at_ms) + LEAD_MS
    else:
        assert sent.types() == ["tts_stream", "tts_stream_end"]


def test_typing_over_a_reply_ends_its_stream_before_the_next_one() -> None:
    sent = run(conversation(6_000, (100, ask), (1_000, ask), (1_001, ask)))
    cut = ["new_conversation_turn", "tts_stream_end"]
    assert sent.types() == ["tts_stream", *cut, "tts_stream", *cut, "tts_stream", "tts_stream_end"]


def test_an_engine_that_fails_ends_the_stream_and_the_next_reply_has_its_own() -> None:
    sent = run(conversation(4_000, (100, ask), (2_000, ask), parts=engines(tts=FakeTts(fail_after_s=0.5))))
    assert sent.types() == ["tts_stream", "error", "tts_stream_end"] * 2
    assert [m["error"] for _, m in sent.messages if m["type"] == "error"] == ["tts: RuntimeError: the voice broke"] * 2


def test_a_session_that_closes_ends_its_stream() -> None:
    sent = run(conversation(1_000, (100, ask)))
    assert sent.types() == ["tts_stream", "new_conversation_turn", "tts_stream_end"]


def test_while_a_client_does_not_read_the_playout_stands_still_and_nothing_is_lost() -> None:
    def stalled(ms: float) -> float:
        return 2.0 if 500 <= ms < 520 else 0.0

    sent = run(conversation(8_000, (100, ask), send_s=stalled))
    times = sent.of("tts_stream")
    assert sent.loud_ms() == REPLY_MS
    assert not any(520 < ms < 2_500 for ms in times)
    after = [ms for ms in times if ms >= 2_500]
    assert len([ms for ms in after if ms < 2_600]) * FRAME_MS <= 100 + LEAD_MS, "no burst of what is late"


def test_an_interruption_during_a_stall_leaves_one_frame_behind_it() -> None:
    def stalled(ms: float) -> float:
        return 2.0 if 500 <= ms < 520 else 0.0

    sent = run(conversation(4_000, (100, ask), (1_500, Session.interrupt), send_s=stalled))
    assert sent.types() == ["tts_stream", "new_conversation_turn", "tts_stream_end"]
    assert len([ms for ms in sent.of("tts_stream") if ms > 520]) <= 1


def test_too_much_to_tell_ends_the_call() -> None:
    async def main() -> None:
        outgoing, blocked = Outgoing(Vocal("s")), asyncio.Event()

        async def send(message: Message) -> None:
            await blocked.wait()

        writing = asyncio.create_task(outgoing.write(send))
        await asyncio.sleep(0)
        outgoing.put(*(str(n) for n in range(MAX_WAITING)), None)
        await asyncio.sleep(0)
        assert outgoing.dropped == 0
        outgoing.put("one", "and another")
        assert outgoing.dropped == 1
        blocked.set()
        with pytest.raises(Ending) as ended:
            await writing
        assert (ended.value.reason, ended.value.code) == ("too slow", 1008)

    run(main())
