"""Each remedy against what it cures: every test here fails, or hangs, when its remedy is left out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from struct import pack
from typing import Any, cast

import ifaddr
import pytest
from aioice import ice, stun
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, rtcsctptransport
from aiortc.mediastreams import AudioStreamTrack
from aiortc.rtcdtlstransport import RTCCertificate, RTCDtlsTransport, State, generate_certificate
from aiortc.rtcsctptransport import DataChunk, RTCSctpTransport, SackChunk
from cryptography.hazmat.primitives.asymmetric import rsa
from google_crc32c import value as crc32c

from media_server import consent, hardening, hardening_sctp, patching
from tests.rtc import complaints, negotiate, pair, peer_connection, until

HELLO_BUT_BROKEN = bytes([22, 254, 253]) + bytes(10) + b"\x01"
FATAL_ALERT = bytes([21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 40])
RTP_NOISE = bytes([128, 111]) + bytes(40)
STUN_NOISE = pack("!HHI12sHHH", 1, 6, stun.COOKIE, bytes(12), 0x0024, 2, 0)
NOISE = (b"", b"\x00", HELLO_BUT_BROKEN, FATAL_ALERT, RTP_NOISE, STUN_NOISE, bytes(1400), b"\xff" * 64)


@pytest.fixture(autouse=True)
def hardened() -> None:
    hardening.apply()


def transport_of(connection: RTCPeerConnection) -> RTCDtlsTransport:
    return connection.getTransceivers()[0].receiver.transport


def ports_of(connection: RTCPeerConnection) -> list[tuple[str, int]]:
    candidates = transport_of(connection).transport.iceGatherer.getLocalCandidates()
    return [(c.ip, c.port) for c in candidates if ":" not in c.ip]


def throw(noise: bytes, at: list[tuple[str, int]]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for address in at:
            stranger.sendto(noise, address)


async def message_arrives(caller: RTCPeerConnection, callee: RTCPeerConnection) -> bool:
    """Tell whether the data channel works, and so DTLS."""
    assert caller.sctp is not None
    assert callee.sctp is not None
    ours, theirs = callee.sctp._data_channels, caller.sctp._data_channels
    await until(lambda: ours and theirs and next(iter(theirs.values())).readyState == "open")
    got = asyncio.Event()
    next(iter(ours.values())).on("message", lambda _: got.set())
    next(iter(theirs.values())).send("hello")
    await asyncio.wait_for(got.wait(), 20)
    return True


def test_the_library_is_checked_before_it_is_changed() -> None:
    with pytest.raises(patching.LibraryChanged, match=r"written for 1\.15"):
        patching.require_versions({"aiortc": "1.15"})
    with pytest.raises(patching.LibraryChanged, match="takes"):
        patching.replace(ice.Connection, "check_incoming", "self other", lambda original: original)
    with pytest.raises(patching.LibraryChanged, match="no 'gone'"):
        patching.replace(ice.Connection, "gone", "self", lambda original: original)


def test_applying_twice_changes_nothing() -> None:
    before = ice.StunProtocol.datagram_received
    hardening.apply()
    assert ice.StunProtocol.datagram_received is before


def test_offers_and_answers_ask_for_opus_with_error_correction() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            for connection in (caller, callee):
                wanted = "a=fmtp:96 minptime=10;useinbandfec=1;maxaveragebitrate=40000"
                assert wanted in connection.localDescription.sdp

    asyncio.run(main())


def test_noise_from_strangers_does_not_end_a_call_nor_fill_the_log() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            with complaints() as found:
                for noise in NOISE * 3:
                    throw(noise, ports_of(callee))
                    await asyncio.sleep(0.01)
                assert await message_arrives(caller, callee)
            assert callee.connectionState == "connected"
            assert found == []

    asyncio.run(main())


def test_noise_from_strangers_does_not_end_a_call_in_set_up() -> None:
    async def main() -> None:
        caller, callee = peer_connection(), peer_connection()
        caller.addTrack(AudioStreamTrack())
        await caller.setLocalDescription(await caller.createOffer())
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        for noise in NOISE:
            throw(noise, ports_of(callee))
        await caller.setRemoteDescription(callee.localDescription)
        while callee.connectionState in ("new", "connecting"):
            throw(FATAL_ALERT, ports_of(callee))
            await asyncio.sleep(0.002)
        assert callee.connectionState == "connected"
        await caller.close()
        await callee.close()

    asyncio.run(main())


def binding_request(**attributes: Any) -> stun.Message:
    found = {name.replace("_", "-"): value for name, value in attributes.items()}
    return stun.Message(stun.Method.BINDING, stun.Class.REQUEST, attributes=found)


async def gathered(**options: Any) -> ice.Connection:
    connection = ice.Connection(ice_controlling=False, use_ipv6=False, **options)
    connection.remote_username, connection.remote_password = "user", "p" * 22
    await connection.gather_candidates()
    return connection


def test_checks_from_ever_new_addresses_create_a_bounded_number_of_pairs() -> None:
    async def main() -> None:
        connection = await gathered()
        for port in range(1, 1000):
            connection.check_incoming(binding_request(PRIORITY=1), ("192.0.2.77", port), connection._protocols[0])
        assert len(connection._check_list) == 100
        await connection.close()

    asyncio.run(main())


def test_a_check_without_priority_is_dropped() -> None:
    async def main() -> None:
        connection = await gathered()
        connection.check_incoming(binding_request(), ("192.0.2.77", 1), connection._protocols[0])
        assert connection._check_list == []
        await connection.close()

    asyncio.run(main())


async def connected_ice() -> tuple[ice.Connection, ice.Connection]:
    a = ice.Connection(ice_controlling=True, use_ipv6=False)
    b = ice.Connection(ice_controlling=False, use_ipv6=False)
    for one, other in ((a, b), (b, a)):
        await one.gather_candidates()
        one.remote_username, one.remote_password = other.local_username, other.local_password
    for one, other in ((a, b), (b, a)):
        for candidate in other.local_candidates:
            await one.add_remote_candidate(candidate)
        await one.add_remote_candidate(None)
    await asyncio.gather(a.connect(), b.connect())
    return a, b


def test_consent_expires_and_is_asked_often_enough_to_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "EXPIRY_S", 2.0)

    async def main() -> float:
        a, b = await connected_ice()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(3.5)
        assert not a._closed, "consent was given all along"
        for protocol in b._protocols:
            protocol.transport.abort()
        began_s = loop.time()
        await until(lambda: a._closed, 20)
        await b.close()
        return loop.time() - began_s

    assert asyncio.run(main()) < 10, "not the half minute that it would be without us"


def test_consent_survives_loss_and_answers_that_take_longer_than_half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "EXPIRY_S", 4.0)

    async def main() -> None:
        a, b = await connected_ice()
        loop = asyncio.get_running_loop()
        answers = 0

        def slowly(original: Callable[..., None]) -> Callable[..., None]:
            def send_stun(message: stun.Message, addr: tuple[str, int]) -> None:
                nonlocal answers
                answers += message.message_class is stun.Class.RESPONSE
                if answers % 2:
                    loop.call_later(0.8, original, message, addr)

            return send_stun

        for protocol in b._protocols:
            monkeypatch.setattr(protocol, "send_stun", slowly(protocol.send_stun))
        await asyncio.sleep(6)
        assert not a._closed
        await a.close()
        await b.close()
        assert all(not protocol.transactions for protocol in a._protocols)

    asyncio.run(main())


def test_nobody_without_the_key_renews_consent() -> None:
    async def main() -> None:
        a, b = await connected_ice()
        asked = consent.Consent(a)
        asked._ask(a._nominated[1])
        check = asked.checks[0]
        given_at = asked.given_at
        forged = stun.Message(stun.Method.BINDING, stun.Class.RESPONSE, check.transaction_id)
        forged.add_message_integrity(b"not the password at all")
        check.response_received(stun.parse_message(bytes(forged)), check.address)
        assert asked.given_at == given_at
        await a.close()
        await b.close()

    asyncio.run(main())


def bound_udp() -> socket.socket:
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    server.setblocking(False)
    return server


def test_a_stun_server_that_never_answers_costs_half_a_second() -> None:
    async def main() -> float:
        with bound_udp() as silent:
            servers = [RTCIceServer(f"stun:127.0.0.1:{silent.getsockname()[1]}")]
            connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
            connection.addTrack(AudioStreamTrack())
            began_s = asyncio.get_running_loop().time()
            await connection.setLocalDescription(await connection.createOffer())
            took_s = asyncio.get_running_loop().time() - began_s
            await connection.close()
        return took_s

    assert 0.4 < asyncio.run(main()) < 4


class AnsweringStun(asyncio.DatagramProtocol):
    """A STUN server that sees everybody at 203.0.113.5:1234."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        request = stun.parse_message(data)
        answer = stun.Message(request.message_method, stun.Class.RESPONSE, request.transaction_id)
        answer.attributes["XOR-MAPPED-ADDRESS"] = ("203.0.113.5", 1234)
        self.transport.sendto(bytes(answer), addr)


def test_a_stun_server_is_asked_without_the_default_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(AnsweringStun, sock=bound_udp())

        def refuse(*_: object) -> None:
            raise AssertionError("the default executor was used")

        monkeypatch.setattr(loop, "run_in_executor", refuse)
        port = transport.get_extra_info("sockname")[1]
        connection = await gathered(stun_server=("localhost", port))
        assert ("srflx", "203.0.113.5") in {(c.type, c.host) for c in connection.local_candidates}
        await connection.close()
        transport.close()

    asyncio.run(main())


def test_a_machine_without_a_network_calls_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifaddr, "get_adapters", list)

    async def main() -> None:
        async with pair() as (caller, callee):
            assert await message_arrives(caller, callee)

    asyncio.run(main())


def test_closing_while_two_transports_connect_complains_about_nothing() -> None:
    async def main() -> None:
        with complaints() as found:
            caller, callee = peer_connection(), peer_connection()
            caller.addTrack(AudioStreamTrack())
            caller.createDataChannel("test")
            await caller.setLocalDescription(await caller.createOffer())
            offer = caller.localDescription
            offer.sdp = offer.sdp.replace("a=group:BUNDLE 0 1\r\n", "").replace("a=end-of-candidates\r\n", "")
            await callee.setRemoteDescription(offer)
            await callee.setLocalDescription(await callee.createAnswer())
            await asyncio.sleep(0.05)
            await callee.close()
            await caller.close()
            await asyncio.sleep(0.05)
        assert found == []
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_closing_at_any_moment_of_the_handshake_leaves_no_task() -> None:
    async def main() -> None:
        with complaints() as found:
            for step in range(40):
                caller, callee = peer_connection(), peer_connection()
                caller.addTrack(AudioStreamTrack())
                await negotiate(caller, callee)
                for _ in range(step):
                    await asyncio.sleep(0.002)
                await callee.close()
                await caller.close()
            await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 20)
        assert found == []

    asyncio.run(main())


def test_a_peer_with_an_rsa_certificate_connects() -> None:
    async def main() -> None:
        key: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        caller = peer_connection()
        vars(caller)["_RTCPeerConnection__certificates"] = [RTCCertificate(key, generate_certificate(key))]
        async with pair(caller) as (_, callee):
            assert await message_arrives(caller, callee)

    asyncio.run(main())


async def send_rtcp(caller: RTCPeerConnection, packet: bytes) -> None:
    await transport_of(caller)._send_rtp(packet)


def test_a_report_cut_short_does_not_end_the_call() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            estimate_for_five_of_none = b"REMB" + bytes([5, 0, 0, 0])
            await send_rtcp(caller, pack("!BBHLL", 0x8F, 206, 4, 1, 0) + estimate_for_five_of_none)
            assert await message_arrives(caller, callee)

    asyncio.run(main())


def test_close_does_not_wait_for_reports_that_failed() -> None:
    async def main() -> None:
        async with pair() as (_, callee):
            receiver = callee.getReceivers()[0]
            streams = vars(receiver)["_RTCRtpReceiver__remote_streams"]
            await until(lambda: streams)
            next(iter(streams.values()))._jitter_q4 = 1 << 60
            await until(vars(receiver)["_RTCRtpReceiver__rtcp_task"].done, 20)
            await asyncio.wait_for(callee.close(), 20)

    asyncio.run(main())


def sctp_packet(chunk_type: int, body: bytes) -> bytes:
    chunk = pack("!BBH", chunk_type, 0, len(body) + 4) + body
    header = pack("!HHL", 5000, 5000, 0)
    return header + pack("<L", crc32c(header + bytes(4) + chunk)) + chunk


@pytest.mark.timeout(30)
@pytest.mark.parametrize("length", [0, 1, 3, 9, 65535])
@pytest.mark.parametrize("prefix", [b"", pack("!HH", 7, 4)])
def test_a_parameter_of_impossible_length_is_rejected(length: int, prefix: bytes) -> None:
    heartbeat = sctp_packet(4, prefix + pack("!HHL", 1, length, 0))
    with pytest.raises(ValueError, match="invalid length"):
        rtcsctptransport.parse_packet(heartbeat)


def test_a_parameter_with_a_value_is_read_as_before() -> None:
    body = rtcsctptransport.encode_params([(7, b"abcde"), (8, b""), (9, b"x")])
    assert rtcsctptransport.decode_params(body) == [(7, b"abcde"), (8, b""), (9, b"x")]


async def send_raw(caller: RTCPeerConnection, protocol: int, data: bytes) -> None:
    assert caller.sctp is not None
    await until(lambda: caller.sctp is not None and caller.sctp.state == "connected")
    await caller.sctp._send(next(iter(caller.sctp._data_channels), 0), protocol, data)


@pytest.mark.parametrize(
    ("protocol", "data"),
    [
        (rtcsctptransport.WEBRTC_STRING, b"\xff\xfe\xfd"),
        (rtcsctptransport.WEBRTC_DCEP, pack("!BBHLHH", 3, 0, 0, 0, 1, 0) + b"\xff"),
        (rtcsctptransport.WEBRTC_DCEP, b"\x02"),
        (12345, b"rubbish"),
    ],
)
def test_rubbish_on_the_data_channel_does_not_end_the_call(protocol: int, data: bytes) -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            assert await message_arrives(caller, callee)
            await send_raw(caller, protocol, data)
            assert await message_arrives(caller, callee)

    asyncio.run(main())


def test_a_chunk_cut_short_does_not_end_the_call() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            assert await message_arrives(caller, callee)
            for chunk_type in range(16):
                await transport_of(caller)._send_data(sctp_packet(chunk_type, b"\x01\x02"))
            assert await message_arrives(caller, callee)

    asyncio.run(main())


def unstarted() -> RTCSctpTransport:
    connection = peer_connection()
    connection.createDataChannel("test")
    assert connection.sctp is not None
    return connection.sctp


def test_acknowledgements_of_what_was_never_sent_cost_nothing() -> None:
    async def main() -> None:
        sack = SackChunk()
        transport = unstarted()
        transport._ssthresh = 0
        sack.cumulative_tsn = transport._last_sacked_tsn
        sack.gaps = [(1, 65535)] * 300
        await transport._receive_sack_chunk(sack)
        assert sack.gaps == []
        transport._set_state(transport.State.CLOSED)

    asyncio.run(main())


def test_a_message_of_a_megabyte_ends_the_data_channel_and_not_the_call() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            assert await message_arrives(caller, callee)
            assert callee.sctp is not None
            task = asyncio.ensure_future(send_raw(caller, rtcsctptransport.WEBRTC_STRING, b"x" * 1_000_000))
            await until(lambda: callee.sctp is not None and callee.sctp.state == "closed")
            assert not callee.sctp._inbound_streams
            await task
            assert callee.connectionState == "connected"
            assert transport_of(callee).state == "connected"

    asyncio.run(main())


def test_fragments_that_never_end_are_bounded_in_number() -> None:
    async def main() -> None:
        transport = unstarted()
        transport._last_received_tsn = 0
        aborted = asyncio.Event()

        async def abort() -> None:
            aborted.set()

        transport._abort = abort  # type: ignore[method-assign]
        for tsn in range(1, 2000):
            chunk = DataChunk(flags=rtcsctptransport.SCTP_DATA_FIRST_FRAG if tsn == 1 else 0)
            chunk.tsn, chunk.user_data = tsn, b"x"
            await transport._receive_data_chunk(chunk)
            if aborted.is_set():
                break
        assert tsn == hardening_sctp.MAX_PENDING_CHUNKS + 1

    asyncio.run(main())


def test_chunks_far_ahead_and_before_the_association_are_dropped() -> None:
    async def main() -> None:
        transport = unstarted()
        chunk = DataChunk()
        chunk.tsn, chunk.user_data = 1, b"x"
        await transport._receive_data_chunk(chunk)
        transport._last_received_tsn = 0
        for tsn in range(2, 5000):
            chunk = DataChunk(flags=3)
            chunk.tsn, chunk.user_data, chunk.stream_seq = tsn, b"x", tsn
            await transport._receive_data_chunk(chunk)
        assert len(transport._sack_misordered) == hardening_sctp.MAX_AHEAD - 1
        transport._set_state(transport.State.CLOSED)

    asyncio.run(main())


def test_a_caller_who_uses_every_stream_is_cut_off() -> None:
    async def main() -> None:
        async with pair() as (caller, callee):
            assert await message_arrives(caller, callee)
            assert caller.sctp is not None
            for stream_id in range(100, 200):
                await caller.sctp._send(stream_id, 99, b"x")
            await until(lambda: callee.sctp is not None and callee.sctp.state == "closed")

    asyncio.run(main())


def test_we_say_how_long_a_message_may_be() -> None:
    async def main() -> None:
        async with pair() as (_, callee):
            assert "a=max-message-size:65536" in callee.localDescription.sdp

    asyncio.run(main())


def test_a_message_sent_as_the_transport_closes_complains_about_nothing() -> None:
    async def main() -> None:
        with complaints() as found:
            async with pair() as (caller, callee):
                assert await message_arrives(caller, callee)
                assert callee.sctp is not None
                transport_of(callee)._state = State.CLOSED
                next(iter(callee.sctp._data_channels.values())).send("too late")
                await asyncio.sleep(0.05)
        assert found == []

    asyncio.run(main())
