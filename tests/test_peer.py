"""One peer and its session over a real connection: the conversation, and every way in which it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from aiortc.rtcsctptransport import WEBRTC_STRING

from media_server.hub import Call, Hub, HubListener, Limits
from media_server.peer import PeerLimits, rtc_servers
from media_server.rtc_calls import CallLimits, MakeSession, RtcCalls
from media_server.rtvi_link import BURST, MESSAGES_PER_S
from pipeline.errors import Overloaded, ProtocolError
from pipeline.history import History
from pipeline.playout import Playout
from pipeline.session import Session, SessionSettings
from pipeline.turn_settings import TurnSettings
from signaling.calls import Candidate, Offer
from tests.fakes import FakeStt
from tests.rtc import complaints, until
from tests.rtc_caller import Caller, find_agent, stand_ins

QUICK = SessionSettings(turns=TurnSettings(endpoint_ms=200))


async def make_session(agent: Any, playout: Playout, history: History | None) -> Session:
    return Session(agent, stand_ins(), playout, QUICK, history)


class Ends:
    """Why calls closed, in order."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def closed(self, call: Call, reason: str) -> None:
        self.reasons.append(reason)


@asynccontextmanager
async def listened(
    listener: HubListener, servers: Any = tuple, make: MakeSession = make_session, **limits: Any
) -> AsyncIterator[RtcCalls]:
    async with Hub(Limits(max_lag_ms=10_000), listener) as hub:
        yield RtcCalls(hub, make, find_agent, servers, CallLimits(peer=PeerLimits(**limits)))


@asynccontextmanager
async def hub(ends: Ends | None = None, **limits: Any) -> AsyncIterator[RtcCalls]:
    async with listened(HubListener(closed=(ends or Ends()).closed), **limits) as opened:
        yield opened


@asynccontextmanager
async def called(calls: RtcCalls, *callers: Caller, **offer: Any) -> AsyncIterator[Caller]:
    caller = callers[0] if callers else Caller()
    try:
        await caller.call(calls, **offer)
        yield caller
    finally:
        await caller.close()


def run(main: Callable[[], Any]) -> None:
    async def quietly() -> None:
        with complaints() as found:
            await main()
        assert found == []

    asyncio.run(quietly())


def test_a_caller_speaks_is_answered_interrupts_and_goes_on() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller:
            await caller.say()
            assert (await caller.hears("user-transcription"))["data"]["text"] == "hello there"
            await caller.hears("bot-started-speaking")
            await until(lambda: caller.loud_samples > 4_000)
            await caller.say()
            await caller.hears("bot-interrupted")
            assert (await caller.hears("server-message"))["data"]["interrupted"]
            caller.messages.clear()
            await caller.hears("bot-started-speaking")

    run(main)


def test_typed_words_are_answered_and_a_client_is_told_that_the_bot_is_ready() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller:
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.send("client-ready", version="2.1.0")
            await caller.hears("bot-ready")
            caller.send("send-text", content="hello")
            await caller.hears("bot-tts-text")
            await until(lambda: caller.loud_samples > 2_000)
            caller.send("client-message", t="weather")
            await caller.hears("error-response")

    run(main)


def test_push_to_talk_over_the_data_channel_cuts_off_nothing_of_what_was_said() -> None:
    """A release overtakes the last 100 ms of sound, as it does where a microphone and an encoder hold them back."""

    async def main() -> None:
        stt = FakeStt(("first part", "and last"))
        ears = replace(stand_ins(), stt=stt)

        async def make(agent: Any, playout: Playout, history: History | None) -> Session:
            return Session(agent, ears, playout, QUICK, history)

        async with hub(make=make) as calls, called(calls) as caller:
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.send("client-message", t="speech_start", d=None)
            await caller.hears("user-started-speaking")
            assert (await caller.hears("server-response"))["data"] == {"t": "speech_start", "d": None}
            await caller.say(0.5)
            await asyncio.sleep(0.6)
            assert "user-llm-text" not in caller.kinds(), "a pause three times as long as one that ends a turn"
            caller.mouth.speaking = True
            await asyncio.sleep(0.5)
            caller.send("client-message", t="speech_end")
            await asyncio.sleep(0.05)
            caller.mouth.speaking = False
            await caller.hears("user-llm-text")
            [turn] = [m for m in caller.messages if m["type"] == "user-llm-text"]
            assert turn["data"]["text"] == "first part" and stt.calls == 1
            heard = np.concatenate([frame.pcm for frame in stt.frames]).astype(float)
            loud = [np.sqrt(np.mean(window**2)) > 3_000 for window in np.array_split(heard, len(heard) // 320)]
            assert sum(loud) == pytest.approx(caller.mouth.spoken_frames, abs=2)
            assert not any(loud[-2:]), "the turn ends after its last sound"
            await caller.hears("bot-started-speaking")

    run(main)


def test_who_only_listens_has_no_button() -> None:
    async def main() -> None:
        speaker, listener = Caller("sendonly", data=False), Caller("recvonly")
        async with hub() as calls, called(calls, speaker), called(calls, listener, listen_to=speaker.call_id):
            await until(lambda: listener.channel is not None and listener.channel.readyState == "open")
            for button in ("speech_start", "speech_end"):
                listener.messages.clear()
                listener.send("client-message", t=button)
                assert "only listens" in (await listener.hears("error-response"))["data"]["error"]
            assert listener.kinds() == ["error-response"]

    run(main)


def test_the_greeting_is_spoken_once_and_its_words_wait_for_the_data_channel() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls, request={"greeting": "Good morning to you"}) as caller:
            assert "morning" in (await caller.hears("bot-tts-text"))["data"]["text"]
            await until(lambda: caller.loud_samples > 2_000)

    run(main)


def test_a_client_hangs_up_over_the_data_channel() -> None:
    async def main() -> None:
        ends = Ends()
        async with hub(ends) as calls, called(calls) as caller:
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.send("disconnect-bot")
            await until(lambda: ends.reasons == ["hung up"])
            await caller.hears("signalling")

    run(main)


def test_a_caller_who_leaves_is_noticed_at_once() -> None:
    async def main() -> None:
        ends = Ends()
        async with hub(ends) as calls:
            async with called(calls):
                pass
            await until(lambda: ends.reasons == ["caller left"], 20)

    run(main)


def test_a_caller_who_vanishes_is_noticed_within_seconds_in_the_middle_of_a_reply() -> None:
    async def main() -> None:
        ends = Ends()
        async with hub(ends) as calls, called(calls) as caller:
            await caller.say()
            await caller.hears("bot-started-speaking")
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            caller.vanish()
            await until(lambda: ends.reasons, 25)
            assert ends.reasons == ["vanished"]
            assert 2.5 < loop.time() - began_s < 15

    run(main)


def test_a_muted_caller_who_only_answers_consent_stays() -> None:
    async def main() -> None:
        ends = Ends()
        async with hub(ends) as calls, called(calls) as caller:
            caller.connection.getSenders()[0].replaceTrack(None)
            caller.ice()._query_consent_task.cancel()
            for sender in (*caller.connection.getSenders(), *caller.connection.getReceivers()):
                for name, task in vars(sender).items():
                    if name.endswith("rtcp_task"):
                        task.cancel()
            await asyncio.sleep(4.5)
            assert ends.reasons == []

    run(main)


def test_an_ice_that_never_finishes_is_given_up() -> None:
    async def main() -> None:
        ends = Ends()
        async with hub(ends, connect_s=0.3) as calls:
            caller = Caller()
            await calls.accept(Offer(await caller.offer(), "127.0.0.1", {}))
            await until(lambda: ends.reasons == ["never connected"], 20)
            await caller.close()

    run(main)


def test_noise_on_the_port_changes_nothing() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller:
            remote = [c for c in caller.ice().remote_candidates if ":" not in c.host]
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for n in range(500):
                    for candidate in remote:
                        stranger.sendto(bytes([128, 96]) + os.urandom(n % 200), (candidate.host, candidate.port))
                    await asyncio.sleep(0)
            await caller.say()
            await caller.hears("bot-started-speaking")

    run(main)


@pytest.mark.parametrize("rubbish", ["", "{", "[]", "null", '{"type": 1}', "\x00" * 10, "x" * 60_000, b"\xff\xfe"])
def test_rubbish_on_the_data_channel_changes_nothing(rubbish: str | bytes) -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller:
            assert caller.channel is not None
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            caller.channel.send(rubbish)
            caller.send("send-text", content="hello")
            await caller.hears("bot-started-speaking")

    run(main)


def test_a_message_of_a_megabyte_costs_the_caller_the_data_channel_and_not_the_voice() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller, called(calls) as other:
            assert caller.channel is not None
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            sctp = caller.connection.sctp
            assert sctp is not None
            await sctp._send(caller.channel.id or 0, WEBRTC_STRING, b"x" * 1_000_000)
            await until(lambda: caller.channel is not None and caller.channel.readyState == "closed")
            await caller.say()
            await until(lambda: caller.loud_samples > 2_000)
            await other.say()
            await other.hears("bot-started-speaking")

    run(main)


def test_a_flood_of_messages_is_cut_to_what_a_person_could_mean() -> None:
    async def main() -> None:
        opened: list[Call] = []
        listener = HubListener(opened=opened.append)
        async with listened(listener) as calls, called(calls) as caller:
            await until(lambda: caller.channel is not None and caller.channel.readyState == "open")
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            while opened[0].transport.counts()["dropped_messages"] < 500:
                for _ in range(100):
                    caller.send("client-message", t="again")
                await asyncio.sleep(0.02)
            meant = BURST + MESSAGES_PER_S * (loop.time() - began_s)
            assert len([k for k in caller.kinds() if k == "error-response"]) <= meant

    run(main)


def test_candidates_trickled_late_connect_a_call_offered_without_any() -> None:
    async def main() -> None:
        async with hub() as calls:
            caller = Caller()
            lines = (await caller.offer()).split("\r\n")
            bare = "\r\n".join(line for line in lines if not line.startswith(("a=candidate", "a=end-of")))
            answer = await calls.accept(Offer(bare, "127.0.0.1", {}))
            trickled = dict.fromkeys(line[2:] for line in lines if line.startswith("a=candidate"))
            found = [Candidate(line, "0", 0) for line in trickled]
            await calls.add_candidates(answer.call_id, [*found, Candidate("", "0", 0)])
            await caller.take("".join(line for line in answer.sdp.splitlines(True) if "candidate" not in line))
            await until(lambda: caller.connection.connectionState == "connected")
            await caller.close()

    run(main)


def host(port: int, address: str = "192.0.2.99") -> Candidate:
    return Candidate(f"candidate:1 1 udp 2122260223 {address} {port} typ host", "0", 0)


def test_candidates_are_vetted_and_counted() -> None:
    async def main() -> None:
        async with hub() as calls, called(calls) as caller:
            with pytest.raises(ProtocolError, match="not an ICE candidate"):
                await calls.add_candidates(caller.call_id, [Candidate("rubbish", "0", 0)])
            unusable = [host(1, "box.local"), Candidate(host(1).line, "nowhere", 9), host(1, "db.internal")]
            await calls.add_candidates(caller.call_id, unusable * 40)
            await calls.add_candidates(caller.call_id, [host(1)] * 40)
            with pytest.raises(ProtocolError, match="more than 30"):
                await calls.add_candidates(caller.call_id, [host(n) for n in range(1, 40)])
            with pytest.raises(ProtocolError) as caught:
                await calls.add_candidates("nobody", [host(1)])
            assert caught.value.status == 404

    run(main)


def test_an_offer_the_library_rejects_is_the_callers_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with hub() as calls:
            caller = Caller()
            sdp = await caller.offer()
            with monkeypatch.context() as patch:
                patch.setattr("media_server.peer.write_offer", lambda _: "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF x\r\n")
                with pytest.raises(ProtocolError, match="could not be applied") as caught:
                    await calls.accept(Offer(sdp, "127.0.0.1", {}))
            assert (caught.value.status, caught.value.param) == (400, "sdp")
            assert calls.hub.sessions == 0
            await caller.close()

    run(main)


def test_a_machine_without_a_socket_left_is_overloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with hub() as calls:
            caller = Caller()
            sdp = await caller.offer()

            async def refuse(*_: object, **__: object) -> None:
                raise OSError(24, "Too many open files")

            monkeypatch.setattr(asyncio.get_running_loop(), "create_datagram_endpoint", refuse)
            with pytest.raises(Overloaded, match="socket"):
                await calls.accept(Offer(sdp, "127.0.0.1", {}))
            await caller.close()

    run(main)


def test_a_server_that_only_callers_can_use_is_left_out() -> None:
    servers = rtc_servers(
        [("stun:192.0.2.1:3478", None, None), ("turn:[::1]:3478", "u", "p"), ("nonsense", None, None)]
    )
    assert [server.urls for server in servers] == ["stun:192.0.2.1:3478"]


def test_a_dead_stun_server_delays_an_answer_by_half_a_second() -> None:
    async def main() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            servers = [(f"stun:127.0.0.1:{silent.getsockname()[1]}", None, None)]
            async with listened(HubListener(), lambda: servers) as calls:
                caller = Caller()
                sdp = await caller.offer()
                began_s = asyncio.get_running_loop().time()
                await calls.accept(Offer(sdp, "127.0.0.1", {}))
                assert 0.4 < asyncio.get_running_loop().time() - began_s < 4
                await caller.close()

    run(main)


def test_a_session_that_closes_by_itself_closes_the_peer() -> None:
    async def main() -> None:
        opened: list[Call] = []
        ends = Ends()
        listener = HubListener(opened=opened.append, closed=ends.closed)
        async with listened(listener) as calls, called(calls):
            await opened[0].session.__aexit__(None, None, None)
            await until(lambda: ends.reasons == ["session closed"], 20)

    run(main)


def test_closing_many_times_at_once_closes_once_and_a_canceled_wait_does_not_stop_it() -> None:
    async def main() -> None:
        opened: list[Call] = []
        ends = Ends()
        listener = HubListener(opened=opened.append, closed=ends.closed)
        async with listened(listener) as calls, called(calls):
            peer = opened[0].transport
            impatient = asyncio.create_task(peer.close("first"))
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.gather(*(peer.close(f"again {n}") for n in range(5)), impatient, return_exceptions=True)
            assert ends.reasons == ["first"]

    run(main)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def resident_kb() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def cycle(calls: RtcCalls, n: int) -> None:
    """Come and go: by hanging up, by leaving, by vanishing, or before anything was connected."""
    caller = Caller()
    answer = await calls.accept(Offer(await caller.offer(), "127.0.0.1", {}))
    if n % 5:
        await caller.take(answer.sdp)
    if n % 5 > 1:
        await until(lambda: caller.connection.connectionState == "connected")
    if n % 5 == 2:
        caller.vanish()
    if n % 5 != 3:
        await calls.hang_up(answer.call_id)
    await caller.close()


def test_fifty_calls_leave_no_task_no_socket_and_no_memory() -> None:
    async def main() -> None:
        async with hub() as calls:
            for n in range(10):
                await cycle(calls, n)
            await until(lambda: calls.hub.sessions == 0)
            gc.collect()
            tasks, files, memory_kb = len(asyncio.all_tasks()), descriptors(), resident_kb()
            for n in range(50):
                await cycle(calls, n)
            await until(lambda: calls.hub.sessions == 0)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
            gc.collect()
            assert descriptors() <= files
            assert resident_kb() - memory_kb < 16_384

    run(main)
