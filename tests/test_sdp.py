"""What is accepted as an offer, what is refused and why, and that nothing else ever comes out."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from media_server import hardening
from media_server.candidates import MAX_CANDIDATES, is_reachable, parse_candidate
from media_server.sdp import MAX_SDP_BYTES, Codec, VettedOffer, vet
from media_server.sdp_writer import write_answer, write_offer
from pipeline.errors import ProtocolError

FIXTURES = Path(__file__).parent / "fixtures" / "sdp"
NAMES = sorted(path.stem for path in FIXTURES.glob("*.sdp"))
STRANGER = "198.51.100.23"


def offer(name: str) -> str:
    return (FIXTURES / f"{name}.sdp").read_text().replace("\n", "\r\n")


async def answered(vetted: VettedOffer) -> str:
    """Let the library answer; gathering is left out, so no socket is opened."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        await connection.setRemoteDescription(RTCSessionDescription(write_offer(vetted), "offer"))
        return write_answer(vetted, (await connection.createAnswer()).sdp)
    finally:
        await connection.close()


def answer_to(sdp: str) -> str:
    hardening.apply()
    return asyncio.run(answered(vet(sdp, STRANGER)))


def media_lines(sdp: str) -> list[str]:
    return [line for line in sdp.split("\r\n") if line.startswith("m=")]


@pytest.mark.parametrize("name", NAMES)
def test_an_offer_of_each_kind_of_client_is_understood_and_answered(name: str) -> None:
    vetted = vet(offer(name), STRANGER)
    assert vetted.codec.name == "opus"
    answer = answer_to(offer(name))
    assert len(media_lines(answer)) == len(media_lines(offer(name)))
    assert f"a=fmtp:{vetted.codec.payload_type} minptime=10;useinbandfec=1;maxaveragebitrate=40000\r\n" in answer


def test_a_browser_offer_is_read_as_it_is_meant() -> None:
    vetted = vet(offer("chrome"), STRANGER)
    assert vetted.codec == Codec("opus", 111, 48000, 2)
    assert (vetted.direction, vetted.mid, vetted.audio, vetted.data) == ("sendrecv", "0", 0, 1)
    assert [c.address for c in vetted.transport.candidates] == ["192.168.1.23", "198.51.100.23"]
    assert vetted.concerns("0", None)
    assert vetted.concerns("1", None)
    assert vetted.concerns(None, 1)
    assert not vetted.concerns("7", 0)
    assert not vetted.concerns(None, 5)


def test_what_a_whip_client_sends_only_is_received_only() -> None:
    assert vet(offer("gstreamer_whip"), STRANGER).direction == "sendonly"
    assert "a=recvonly" in answer_to(offer("gstreamer_whip"))


def test_video_is_rejected_in_its_place_and_audio_and_data_are_answered() -> None:
    answer = answer_to(offer("chrome_video"))
    assert [line.split()[1] == "0" for line in media_lines(answer)] == [True, False, False]
    assert media_lines(answer)[0] == "m=video 0 UDP/TLS/RTP/SAVPF 96 97 102 103"
    assert "a=group:BUNDLE 1 2\r\n" in answer
    assert re.findall(r"a=mid:(.*)\r\n", answer) == ["0", "1", "2"]


def test_candidates_of_a_rejected_section_serve_the_audio_bundled_with_it() -> None:
    assert [c.port for c in vet(offer("chrome_video"), STRANGER).transport.candidates] == [40001]


def test_the_answer_keeps_the_profile_and_leaves_out_a_mid_nobody_offered() -> None:
    plain = re.sub(r"a=(mid|group):.*\r\n", "", offer("gstreamer_whip")).replace("SAVPF", "SAVP")
    answer = answer_to(plain)
    assert media_lines(answer)[0].split()[2] == "UDP/TLS/RTP/SAVP"
    assert "a=mid" not in answer
    assert "BUNDLE" not in answer


def test_a_data_channel_outside_the_bundle_is_rejected_and_audio_works() -> None:
    apart = offer("chrome").replace("BUNDLE 0 1", "BUNDLE 0")
    assert vet(apart, STRANGER).data is None
    assert media_lines(answer_to(apart))[1].startswith("m=application 0 ")


def test_the_best_codec_is_taken_whatever_the_order_and_an_old_one_needs_no_rtpmap() -> None:
    assert vet(offer("chrome").replace(" 111 63 9 0 8", " 0 8 9 63 111"), STRANGER).codec.name == "opus"
    old = offer("chrome").replace("111 63 9 0 8 13 110 126", "0 8").replace("a=rtpmap:0 PCMU/8000\r\n", "")
    assert vet(old, STRANGER).codec == Codec("PCMU", 0, 8000, 1)
    assert "a=rtpmap:0 PCMU/8000" in answer_to(old)


def replaced(pattern: str, by: str, name: str = "chrome") -> str:
    changed = re.sub(pattern, lambda _: by, offer(name))
    assert changed != offer(name)
    return changed


REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "empty": (lambda: "", "not SDP"),
    "rubbish": (lambda: "\x00\ud800 hello", "not SDP"),
    "json": (lambda: '{"sdp": 1}', "not SDP"),
    "too long": (lambda: offer("chrome") + "a=x\r\n" * (MAX_SDP_BYTES // 5), "longer than"),
    "no media": (lambda: offer("chrome").split("m=")[0], "no audio"),
    "video only": (lambda: replaced("m=audio", "m=video", "gstreamer_whip"), "no audio"),
    "audio given up": (lambda: replaced("m=audio 53922", "m=audio 0"), "no audio"),
    "nine sections": (lambda: offer("chrome") + "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n" * 7, "media sections"),
    "plain RTP": (lambda: replaced("UDP/TLS/RTP/SAVPF", "RTP/AVP"), "profile is RTP/AVP"),
    "SDES": (lambda: replaced("UDP/TLS/RTP/SAVPF", "RTP/SAVP"), "profile is RTP/SAVP"),
    "no fingerprint": (lambda: replaced("a=fingerprint.*\r\n", ""), "no a=fingerprint"),
    "old fingerprint": (lambda: replaced("sha-256", "sha-1"), "no a=fingerprint"),
    "short fingerprint": (lambda: replaced(":A4:60:A8:8E", ""), "not 32 bytes"),
    "no ufrag": (lambda: replaced("a=ice-ufrag.*\r\n", ""), "ice-ufrag"),
    "no password": (lambda: replaced("a=ice-pwd.*\r\n", ""), "ice-pwd"),
    "short password": (lambda: replaced("a=ice-pwd.*\r\n", "a=ice-pwd:short\r\n"), "ice-pwd"),
    "no rtcp-mux": (lambda: replaced("a=rtcp-mux\r\n", ""), "rtcp-mux"),
    "unknown role": (lambda: replaced("setup:actpass", "setup:holdconn"), "setup"),
    "unknown codecs": (lambda: replaced("SAVPF 111 .*\r\n", "SAVPF 13\r\n"), "none of opus"),
    "inactive": (lambda: replaced("a=sendrecv", "a=inactive"), "inactive"),
    "media line": (lambda: replaced("m=audio 53922", "m=audio many"), "media line"),
    "port": (lambda: replaced("m=audio 53922", "m=audio 99999"), "media line"),
    "mid twice": (lambda: replaced("a=mid:1", "a=mid:0"), "a=mid"),
    "candidate rubbish": (lambda: replaced("a=candidate:1467250027 1 udp", "a=candidate:x"), "not an ICE candidate"),
    "sctp port": (lambda: replaced("sctp-port:5000", "sctp-port:ssh"), "sctp-port"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_offer_is_refused_with_what_was_wrong(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(ProtocolError, match=said) as caught:
        vet(make(), STRANGER)
    assert (caught.value.param, caught.value.status) in {("sdp", 400), ("candidate", 400)}


def with_candidates(count: int) -> str:
    lines = "".join(f"a=candidate:{i} 1 udp 2122260223 203.0.113.7 {5000 + i} typ host\r\n" for i in range(count))
    return offer("gstreamer_whip") + lines


def test_thirty_candidates_are_taken_and_one_more_is_refused() -> None:
    assert len(vet(with_candidates(MAX_CANDIDATES), STRANGER).transport.candidates) == MAX_CANDIDATES
    with pytest.raises(ProtocolError, match="more than 30 ICE candidates"):
        vet(with_candidates(MAX_CANDIDATES + 1), STRANGER)


NO_BUSINESS = """
127.0.0.1 ::1 169.254.169.254 fe80::1 224.0.0.251 ff02::1 0.0.0.0 :: 255.255.255.255 ::ffff:127.0.0.1
::ffff:169.254.169.254 64:ff9b::7f00:1 2002:7f00:1:: fd00:ec2::254 100.100.100.200 fe80::1%eth0 db.internal 8fd2.local
"""


@pytest.mark.parametrize("address", NO_BUSINESS.split())
def test_an_address_no_caller_has_any_business_to_name_is_not_tried(address: str) -> None:
    assert not is_reachable(address, STRANGER)
    assert parse_candidate(f"candidate:1 1 udp 2122260223 {address} 5000 typ host", STRANGER) is None


def test_a_caller_on_this_machine_may_name_loopback_but_no_name_is_ever_looked_up() -> None:
    assert is_reachable("127.0.0.1", "127.0.0.1")
    assert is_reachable("::1", "::ffff:127.0.0.1")
    assert not is_reachable("printer.local", "127.0.0.1")
    assert is_reachable("192.168.1.23", STRANGER)


@pytest.mark.parametrize("line", ["", "candidate:", "hello", "candidate:1 1 udp 99999999999 1.2.3.4 5 typ host"])
def test_what_is_no_candidate_is_refused(line: str) -> None:
    with pytest.raises(ProtocolError, match="not an ICE candidate"):
        parse_candidate(line, STRANGER)


@pytest.mark.parametrize(
    "line",
    [
        "candidate:1 1 tcp 1518280447 192.168.1.23 9 typ host tcptype active",
        "candidate:1 2 udp 2122260223 192.168.1.23 5000 typ host",
        "candidate:1 1 udp 2122260223 192.168.1.23 0 typ host",
        "candidate:1 1 udp 2122260223 192.168.1.23 5000 typ prflx",
    ],
)
def test_a_candidate_we_cannot_use_is_passed_over(line: str) -> None:
    assert parse_candidate(line, STRANGER) is None


TOKENS = ("0", "-1", "9" * 20, "", " ", "/", ":", "\x00", "\u0661", "\ud800", "IN IP4", "a=", "m=audio", "%s")


def mutated(text: str, rng: random.Random) -> str:
    lines = text.split("\r\n")
    for _ in range(rng.randint(1, 4)):
        i = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                del lines[i]
            case 1:
                lines.insert(i, lines[rng.randrange(len(lines))])
            case 2:
                at = rng.randrange(len(lines[i]) + 1)
                lines[i] = lines[i][:at] + rng.choice(TOKENS) + lines[i][at + rng.randint(0, 3) :]
            case 3:
                words = lines[i].split(" ")
                words[rng.randrange(len(words))] = rng.choice(TOKENS)
                lines[i] = " ".join(words)
            case 4:
                lines[i] = "".join(chr(rng.randrange(0x250)) for _ in range(rng.randrange(40)))
            case _:
                lines[i] = lines[i] * rng.randint(2, 30)
        lines = lines or [""]
    return "\r\n".join(lines)


@pytest.mark.parametrize("name", NAMES)
def test_random_mutations_are_accepted_or_refused_and_nothing_else(name: str) -> None:
    rng = random.Random(name)
    accepted = 0
    for _ in range(1500):
        try:
            vetted = vet(mutated(offer(name), rng), rng.choice((STRANGER, "127.0.0.1", "::1", "")))
        except ProtocolError:
            continue
        accepted += 1
        assert write_offer(vetted).isascii()
    assert accepted > 100


def test_what_is_accepted_the_library_can_answer() -> None:
    hardening.apply()
    rng = random.Random(7)

    async def main() -> int:
        answers = 0
        while answers < 60:
            mutation = mutated(offer(rng.choice(NAMES)), rng)
            try:
                vetted = vet(mutation, STRANGER)
            except ProtocolError:
                continue
            assert len(media_lines(await answered(vetted))) == len(vetted.sections)
            answers += 1
        return answers

    assert asyncio.run(main()) == 60
