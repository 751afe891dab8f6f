"""Write the offer that the WebRTC library reads, and the answer that the caller reads.

Sections that are not taken (video, a second audio) are rejected in the answer with port 0 (RFC 8829 section 5.3.1); the
library never hears of them.
"""

from __future__ import annotations

import re

from .sdp import PROFILES, Codec, Section, Transport, VettedOffer

_EXTENSIONS = ("urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:ssrc-audio-level")
_EXTMAP = re.compile(r"(\d{1,2})(?:/[a-z]+)? (\S+)(?: .*)?", re.ASCII)


def write_offer(offer: VettedOffer) -> str:
    """Return what the library may parse: the audio, first, and the data channel."""
    data = None if offer.data is None else offer.sections[offer.data]
    mids = [offer.mid] if data is None else [offer.mid, str(data.mid)]
    lines = ["v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0", f"a=group:BUNDLE {' '.join(mids)}"]
    lines += _audio_lines(offer.sections[offer.audio], offer.mid, offer.codec)
    lines += [f"a={offer.direction}", *_transport_lines(offer.transport)]
    lines += [f"a=candidate:{candidate.line}" for candidate in offer.transport.candidates]
    if data is not None:
        lines += [*_data_lines(data), *_transport_lines(offer.transport)]
    return "\r\n".join(lines) + "\r\n"


def write_answer(offer: VettedOffer, sdp: str) -> str:
    """Return the library's answer ``sdp`` with every offered section in its place."""
    session, *answered = re.split(r"(?m)^(?=m=)", sdp.replace("\r\n", "\n"))
    taken = [offer.audio] if offer.data is None else [offer.audio, offer.data]
    texts = dict(zip(taken, answered, strict=True))
    sections = [
        _accepted(section, texts[i]) if i in texts else _rejected(section) for i, section in enumerate(offer.sections)
    ]
    mids = [mid for i in taken if (mid := offer.sections[i].mid) is not None and mid in offer.bundle]
    group = f"a=group:BUNDLE {' '.join(mids)}\n" if mids else ""
    head = re.sub(r"(?m)^a=group:.*\n", lambda _: group, session)
    return (head + "".join(sections)).replace("\n", "\r\n")


def _audio_lines(audio: Section, mid: str, codec: Codec) -> list[str]:
    channels = "/2" if codec.channels == 2 else ""
    lines = [f"m=audio 9 {PROFILES[0]} {codec.payload_type}", "c=IN IP4 0.0.0.0", f"a=mid:{mid}", "a=rtcp-mux"]
    lines.append(f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.rate_hz}{channels}")
    numbers = set()
    for match in filter(None, map(_EXTMAP.fullmatch, audio.attributes.get("extmap", ()))):
        if match[2] in _EXTENSIONS and 1 <= int(match[1]) <= 14 and int(match[1]) not in numbers:
            numbers.add(int(match[1]))
            lines.append(f"a=extmap:{int(match[1])} {match[2]}")
    return lines


def _data_lines(data: Section) -> list[str]:
    return [
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{data.mid}",
        f"a=sctp-port:{data.first('sctp-port') or '5000'}",
        f"a=max-message-size:{data.first('max-message-size') or '65536'}",
    ]


def _transport_lines(transport: Transport) -> list[str]:
    lines = [f"a=ice-ufrag:{transport.ufrag}", f"a=ice-pwd:{transport.password}", f"a=setup:{transport.setup}"]
    return lines + [f"a=fingerprint:{algorithm} {digest}" for algorithm, digest in transport.fingerprints]


def _accepted(section: Section, text: str) -> str:
    text = text.replace(f" {PROFILES[0]} ", f" {section.profile} ", 1) if section.kind == "audio" else text
    return text if section.mid is not None else re.sub(r"(?m)^a=mid:.*\n", "", text)


def _rejected(section: Section) -> str:
    mid = f"a=mid:{section.mid}\n" if section.mid is not None else ""
    formats = " ".join(section.formats)
    return f"m={section.kind} 0 {section.profile} {formats}\nc=IN IP4 0.0.0.0\n{mid}a=inactive\n"
