"""Who is let in and who is not, what outlives a call, and that calls do not know of each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from media_server.hub import Call, Hub, HubListener, Limits
from media_server.loop_lag import LoopLag
from media_server.peer import PeerLimits
from media_server.rtc_calls import CallLimits, FindAgent, MakeSession, RtcCalls
from pipeline.agents import Agent
from pipeline.audio import Pcm
from pipeline.errors import Overloaded, ProtocolError
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session, SessionSettings
from pipeline.turn_settings import TurnSettings
from signaling.calls import Offer
from tests.rtc import complaints, until
from tests.rtc_caller import Caller, find_agent, stand_ins

QUICK = SessionSettings(turns=TurnSettings(endpoint_ms=200))
NOT_SDP = Offer("this is not looked at", "127.0.0.1", {})


async def make_session(agent: Agent, playout: Playout, history: History | None) -> Session:
    return Session(agent, stand_ins(), playout, QUICK, history)


class Counts:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.opened: list[Call] = []
        self.closed: list[str] = []

    def listener(self) -> HubListener:
        return HubListener(self.opened.append, lambda _, reason: self.closed.append(reason), self.refused.append)


@asynccontextmanager
async def new_calls(
    counts: Counts | None = None,
    make: MakeSession = make_session,
    find: FindAgent = find_agent,
    max_kept: int = 256,
    kept_s: float = 60.0,
    peer: PeerLimits | None = None,
    **limits: Any,
) -> AsyncIterator[RtcCalls]:
    limit = Limits(**{"max_lag_ms": 10_000, **limits})
    async with Hub(limit, (counts or Counts()).listener()) as hub:
        yield RtcCalls(hub, make, find, limits=CallLimits(kept_s, max_kept, peer or PeerLimits()))


def run(main: Any) -> None:
    async def quietly() -> None:
        with complaints() as found:
            await main()
        assert found == []

    asyncio.run(quietly())


@asynccontextmanager
async def calling(*callers: Caller) -> Any:
    try:
        yield
    finally:
        for caller in callers:
            await caller.close()


def test_over_capacity_is_said_before_the_offer_is_looked_at() -> None:
    async def main() -> None:
        counts = Counts()
        caller = Caller()
        async with new_calls(counts, max_sessions=1) as calls, calling(caller):
            with pytest.raises(ProtocolError, match="not SDP"):
                await calls.accept(NOT_SDP)
            await caller.call(calls)
            with pytest.raises(Overloaded, match="all 1 places") as caught:
                await calls.accept(NOT_SDP)
            assert caught.value.retry_after_s > 0
            await calls.hang_up(caller.call_id)
            with pytest.raises(ProtocolError, match="not SDP"):
                await calls.accept(NOT_SDP)
            assert counts.refused == ["offer", "full", "offer"]

    run(main)


def test_places_are_taken_while_an_answer_is_being_made() -> None:
    async def main() -> None:
        callers = Caller(), Caller()
        async with new_calls(max_sessions=1) as calls, calling(*callers):
            offers = [Offer(await caller.offer(), "127.0.0.1", {}) for caller in callers]
            results = await asyncio.gather(*map(calls.accept, offers), return_exceptions=True)
            assert sorted(type(result).__name__ for result in results) == ["Answer", "Overloaded"]

    run(main)


def test_a_loop_that_lags_lets_nobody_in_until_it_has_recovered() -> None:
    async def main() -> None:
        async with new_calls(max_lag_ms=50) as calls:
            for _ in range(8):
                time.sleep(0.2)  # noqa: ASYNC251 - the loop is to lag
                await asyncio.sleep(0.01)
            assert calls.hub.why_not() == "lag"
            with pytest.raises(Overloaded, match="too busy"):
                await calls.accept(NOT_SDP)
            await until(lambda: calls.hub.why_not() is None)

    run(main)


def test_one_hiccup_is_no_overload() -> None:
    async def main() -> None:
        measured: list[float] = []
        lag = LoopLag(measured.append)
        lag.start()
        await asyncio.sleep(0.5)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is to lag
        await asyncio.sleep(0.3)
        lag.stop()
        assert max(measured) > 150
        assert lag.ms < 100
        count = len(measured)
        await asyncio.sleep(0.2)
        assert len(measured) == count

    run(main)


def test_draining_lets_nobody_in_and_waits_for_those_who_are_there() -> None:
    async def main() -> None:
        counts, caller = Counts(), Caller()
        async with new_calls(counts) as calls, calling(caller):
            await caller.call(calls)
            draining = asyncio.create_task(calls.hub.drain(30))
            await asyncio.sleep(0.1)
            assert not draining.done()
            with pytest.raises(Overloaded, match="about to end"):
                await calls.accept(NOT_SDP)
            await caller.close()
            await asyncio.wait_for(draining, 20)
            assert counts.closed == ["caller left"]

    run(main)


def test_draining_ends_after_its_time_and_closing_ends_the_rest() -> None:
    async def main() -> None:
        counts, caller = Counts(), Caller()
        async with new_calls(counts) as calls, calling(caller):
            await caller.call(calls)
            await calls.hub.drain(0.1)
            assert counts.closed == []
            await calls.hub.close_all("server closed")
            assert counts.closed == ["server closed"]
            assert calls.hub.sessions == 0

    run(main)


def test_ids_cannot_be_guessed_and_unknown_ones_are_404() -> None:
    async def main() -> None:
        callers = Caller(), Caller()
        async with new_calls() as calls, calling(*callers):
            for caller in callers:
                await caller.call(calls)
            assert len({caller.call_id for caller in callers}) == 2
            assert all(len(caller.call_id) >= 22 for caller in callers)
            for attempt in (
                calls.hang_up("nobody"),
                calls.add_candidates("nobody", []),
                calls.accept(Offer("", "127.0.0.1", {}, restart_of="nobody")),
                calls.accept(Offer("", "127.0.0.1", {}, listen_to="nobody")),
            ):
                with pytest.raises(ProtocolError) as caught:
                    await attempt
                assert caught.value.status == 404

    run(main)


def test_an_unknown_agent_is_refused_before_the_offer_is_looked_at() -> None:
    async def main() -> None:
        counts = Counts()
        async with new_calls(counts) as calls:
            with pytest.raises(ProtocolError) as caught:
                await calls.accept(Offer("", "127.0.0.1", {"agent": "nobody"}))
            assert caught.value.param == "agent"
            assert counts.refused == ["agent"]

    run(main)


def words(history: History) -> list[str]:
    return [message.text for message in history.messages if message.role == "user"]


def test_a_live_call_is_taken_over_by_a_new_connection_with_its_conversation() -> None:
    async def main() -> None:
        counts, first, second = Counts(), Caller(), Caller()
        async with new_calls(counts, max_sessions=1) as calls, calling(first, second):
            await first.call(calls, request={"agentName": "Grace"})
            await first.say()
            await until(lambda: first.loud_samples > 16_000)
            await second.call(calls, restart_of=first.call_id)
            assert counts.closed == ["restarted"]
            old, new = counts.opened
            assert new.session.history is old.session.history
            assert new.session.agent.name == "Grace"
            await second.say()
            await second.hears("bot-started-speaking")
            assert len(words(new.session.history)) == 2
            await calls.hang_up(second.call_id)
            with pytest.raises(ProtocolError):
                await calls.accept(Offer("", "127.0.0.1", {}, restart_of=first.call_id))

    run(main)


def test_a_bad_offer_to_go_on_leaves_the_live_call_alone() -> None:
    async def main() -> None:
        counts, caller = Counts(), Caller()
        async with new_calls(counts) as calls, calling(caller):
            await caller.call(calls)
            with pytest.raises(ProtocolError, match="not SDP"):
                await calls.accept(Offer("rubbish", "127.0.0.1", {}, restart_of=caller.call_id))
            assert counts.closed == []
            await caller.say()
            await caller.hears("bot-started-speaking")

    run(main)


def test_a_call_that_vanished_goes_on_where_it_broke_off() -> None:
    async def main() -> None:
        counts, first, second = Counts(), Caller(), Caller()
        async with new_calls(counts, peer=PeerLimits(silence_s=1.5)) as calls, calling(first, second):
            await first.call(calls)
            await first.say()
            await first.hears("bot-started-speaking")
            first.vanish()
            await until(lambda: counts.closed == ["vanished"])
            await second.call(calls, restart_of=first.call_id)
            assert words(counts.opened[1].session.history) == ["hello there"]

    run(main)


def test_what_was_hung_up_or_is_too_old_or_one_too_many_is_forgotten() -> None:
    async def main() -> None:
        callers = [Caller() for _ in range(4)]
        async with new_calls(kept_s=0.5, max_kept=2) as calls, calling(*callers):
            for caller in callers:
                await caller.call(calls)
            await calls.hang_up(callers[0].call_id)
            for caller in callers[1:]:
                await caller.close()
            await until(lambda: calls.hub.sessions == 0)
            assert list(calls._kept) == [caller.call_id for caller in callers[2:]]
            await asyncio.sleep(0.6)
            for caller in callers:
                with pytest.raises(ProtocolError) as caught:
                    await calls.accept(Offer("", "127.0.0.1", {}, restart_of=caller.call_id))
                assert caught.value.status == 404

    run(main)


def test_one_connection_speaks_and_another_listens() -> None:
    async def main() -> None:
        counts, speaker, listener = Counts(), Caller("sendonly", data=False), Caller("recvonly")
        async with new_calls(counts, max_sessions=1) as calls, calling(speaker, listener):
            await speaker.call(calls)
            await listener.call(calls, listen_to=speaker.call_id)
            await speaker.say()
            await until(lambda: listener.loud_samples > 4_000)
            await listener.hears("user-transcription")
            assert calls.hub.sessions == 1
            await calls.hang_up(speaker.call_id)
            await until(lambda: sorted(counts.closed) == ["hung up", "session closed"])

    run(main)


def test_a_listener_comes_back_and_the_speaker_never_notices() -> None:
    async def main() -> None:
        counts, speaker = Counts(), Caller("sendonly", data=False)
        listeners = Caller("recvonly"), Caller("recvonly"), Caller("recvonly")
        async with new_calls(counts) as calls, calling(speaker, *listeners):
            await speaker.call(calls)
            await listeners[0].call(calls, listen_to=speaker.call_id)
            await listeners[1].call(calls, listen_to=speaker.call_id)
            assert counts.closed == ["replaced"]
            await listeners[1].close()
            await until(lambda: len(counts.closed) == 2)
            await listeners[2].call(calls, listen_to=speaker.call_id)
            await speaker.say()
            await until(lambda: listeners[2].loud_samples > 4_000)

    run(main)


def test_of_listeners_who_come_at_once_one_stays() -> None:
    async def main() -> None:
        counts, speaker = Counts(), Caller("sendonly", data=False)
        listeners = [Caller("recvonly") for _ in range(3)]
        async with new_calls(counts, max_sessions=1) as calls, calling(speaker, *listeners):
            await speaker.call(calls)
            sdps = [await listener.offer() for listener in listeners]
            await asyncio.gather(*(calls.accept(Offer(sdp, "", {}, listen_to=speaker.call_id)) for sdp in sdps))
            assert sum(call.listens_to is not None for call in calls.hub.calls.values()) == 1
            assert counts.closed == ["replaced", "replaced"]

    run(main)


def test_whose_voice_comes_over_its_own_connection_cannot_be_listened_to() -> None:
    async def main() -> None:
        caller, listener, talker = Caller(), Caller("recvonly"), Caller("sendonly")
        async with new_calls() as calls, calling(caller, listener, talker):
            await caller.call(calls)
            with pytest.raises(ProtocolError) as caught:
                await calls.accept(Offer(await listener.offer(), "127.0.0.1", {}, listen_to=caller.call_id))
            assert caught.value.status == 409
            await talker.call(calls)
            with pytest.raises(ProtocolError, match="recvonly"):
                await calls.accept(Offer(talker.connection.localDescription.sdp, "", {}, listen_to=talker.call_id))

    run(main)


def test_a_call_that_only_receives_is_answered_in_writing() -> None:
    async def main() -> None:
        caller = Caller("recvonly")
        async with new_calls() as calls, calling(caller):
            await caller.call(calls)
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.send("send-text", content="hello")
            await until(lambda: caller.loud_samples > 4_000)

    run(main)


class Broken(Session):
    """A session that raises on everything a caller does."""

    def push_audio(self, pcm: Pcm) -> None:
        raise RuntimeError("cannot hear")

    def push_text(self, text: str) -> None:
        raise RuntimeError("cannot read")

    def greet(self) -> None:
        raise RuntimeError("cannot greet")


def test_what_one_session_raises_reaches_no_other() -> None:
    async def make(agent: Agent, playout: Playout, history: History | None) -> Session:
        kind = Broken if agent.name == "Broken" else Session
        return kind(agent, stand_ins(), playout, QUICK, history)

    async def main() -> None:
        counts, unlucky, lucky = Counts(), Caller(), Caller()
        async with new_calls(counts, make) as calls, calling(unlucky, lucky):
            await lucky.call(calls)
            answer = await calls.accept(Offer(await unlucky.offer(), "127.0.0.1", {"agentName": "Broken"}))
            await unlucky.take(answer.sdp)
            await until(lambda: counts.closed == ["failed"])
            await lucky.say()
            await lucky.hears("bot-started-speaking")

    run(main)


def test_a_session_that_cannot_be_made_leaves_nothing() -> None:
    async def fail(agent: Agent, playout: Playout, history: History | None) -> Session:
        raise RuntimeError("no engine")

    async def main() -> None:
        caller = Caller()
        async with new_calls(make=fail) as calls, calling(caller):
            with pytest.raises(RuntimeError, match="no engine"):
                await calls.accept(Offer(await caller.offer(), "127.0.0.1", {}))
            assert calls.hub.sessions == 0
        await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_accepting_can_be_canceled_at_any_moment() -> None:
    async def main() -> None:
        async with new_calls() as calls:
            for step in range(12):
                caller = Caller()
                accepting = asyncio.create_task(calls.accept(Offer(await caller.offer(), "127.0.0.1", {})))
                for _ in range(step):
                    await asyncio.sleep(0)
                if accepting.cancel():
                    await asyncio.wait([accepting])
                if not accepting.cancelled():
                    await calls.hang_up(accepting.result().call_id)
                await caller.close()
            assert calls.hub.sessions == 0
            await until(lambda: len(asyncio.all_tasks()) == 1)

    run(main)


def test_the_request_reaches_the_agent_catalogue() -> None:
    async def main() -> None:
        seen: list[Mapping[str, Any]] = []

        async def find(request: Mapping[str, Any]) -> Agent:
            seen.append(request)
            return Agent("a", "A")

        caller = Caller()
        async with new_calls(find=find) as calls, calling(caller):
            await caller.call(calls, request={"agent": "a"})
            assert seen == [{"agent": "a"}]

    run(main)
