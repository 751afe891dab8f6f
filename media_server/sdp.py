"""Vet an SDP offer before the WebRTC library parses it.

What is taken is one audio section with one codec, and the data channel that is bundled with it. The library only ever
sees an offer written anew from what was understood here (``sdp_writer``).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ProtocolError

from .candidates import MAX_CANDIDATES, IceCandidate, parse_candidate

MAX_SDP_BYTES = 32_768
MAX_SECTIONS = 8

Direction = Literal["sendrecv", "sendonly", "recvonly", "inactive"]

PROFILES = ("UDP/TLS/RTP/SAVPF", "UDP/TLS/RTP/SAVP")

_DIGEST_BYTES = {"sha-256": 32, "sha-384": 48, "sha-512": 64}
_SETUP = ("actpass", "active", "passive")
_MEDIA = re.compile(
    r"m=([a-z]{1,32}) (\d{1,5})(?:/\d{1,5})? ([A-Z/]{1,32}) ([!-~]{1,64}(?: [!-~]{1,64}){0,127})", re.ASCII
)
_ICE_UFRAG = re.compile(r"[A-Za-z0-9+/=_-]{4,256}", re.ASCII)
_ICE_PWD = re.compile(r"[A-Za-z0-9+/=_-]{22,256}", re.ASCII)
_MID = re.compile(r"[!-~]{1,64}", re.ASCII)
_RTPMAP = re.compile(r"(\d{1,3}) ([A-Za-z0-9_.-]{1,32})/(\d{1,6})(?:/(\d{1,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Codec:
    """The one codec of a call; ``rate_hz`` is RTP's clock (8000 for G.722, whatever it samples)."""

    name: Literal["opus", "G722", "PCMU", "PCMA"]
    payload_type: int
    rate_hz: int
    channels: int


CODECS = (Codec("opus", 111, 48000, 2), Codec("G722", 9, 8000, 1), Codec("PCMU", 0, 8000, 1), Codec("PCMA", 8, 8000, 1))
"""What we speak, best first; the three old ones have payload types of their own (RFC 3551 section 6)."""


@dataclass(frozen=True, slots=True)
class Section:
    """One media section as it was offered: ``attributes`` are the values of its ``a=`` lines by name."""

    kind: str
    port: int
    profile: str
    formats: tuple[str, ...]
    attributes: dict[str, list[str]]

    def first(self, name: str) -> str | None:
        """Return the first value of an attribute, None if there is none."""
        values = self.attributes.get(name)
        return values[0] if values else None

    @property
    def mid(self) -> str | None:
        """The section's identification (RFC 5888), None if it has none."""
        return self.first("mid")

    @property
    def rejected(self) -> bool:
        """True where the caller itself does not want this section."""
        return self.port == 0 and "bundle-only" not in self.attributes


@dataclass(frozen=True, slots=True)
class Transport:
    """How the caller is reached: ICE credentials, DTLS fingerprints and role, candidates."""

    ufrag: str
    password: str
    fingerprints: tuple[tuple[str, str], ...]
    setup: str
    candidates: tuple[IceCandidate, ...]


@dataclass(frozen=True, slots=True)
class VettedOffer:
    """An offer we can answer.

    ``direction`` is the caller's. ``audio`` and ``data`` are the indices of the sections we take, ``bundle`` the mids
    that share the audio's transport.
    """

    direction: Direction
    codec: Codec
    transport: Transport
    sections: tuple[Section, ...]
    audio: int
    data: int | None
    bundle: tuple[str, ...]

    @property
    def mid(self) -> str:
        """The audio section's identification, "0" where it has none."""
        return self.sections[self.audio].mid or "0"

    def concerns(self, mid: str | None, index: int | None) -> bool:
        """Tell whether a candidate trickled for this section is for the one transport there is."""
        if mid is not None:
            return mid == self.mid or mid in self.bundle
        return index is None or (index < len(self.sections) and self.concerns(self.sections[index].mid or "", None))


def vet(sdp: str, remote: str) -> VettedOffer:
    """Check an offer by a caller at ``remote``. Raises ProtocolError (param ``sdp``) that says what to change."""
    session, sections = _parse(sdp)
    index = _audio_index(sections)
    audio = sections[index]
    bundle = _bundle_of(session, audio)
    bundled = [s for s in sections if s is audio or (s.mid is not None and s.mid in bundle)]
    transport = _transport(session, audio, bundled, remote)
    if not any("rtcp-mux" in s.attributes for s in (audio, bundled[0])):
        raise _bad("the audio section has no a=rtcp-mux; RTP and RTCP have to share a port: add it")
    return VettedOffer(
        _direction(audio, session),
        _codec(audio),
        transport,
        tuple(sections),
        index,
        _data_index(sections, bundled),
        bundle,
    )


def _bad(message: str) -> ProtocolError:
    return ProtocolError(message, param="sdp")


def _parse(sdp: str) -> tuple[Section, list[Section]]:
    if len(sdp.encode("utf-8", "surrogatepass")) > MAX_SDP_BYTES:
        raise _bad(f"the offer is longer than {MAX_SDP_BYTES} bytes; leave out codecs, candidates or tracks")
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", sdp)]
    if not lines[0].startswith("v=0"):
        raise _bad("this is not SDP: it has to begin with 'v=0'; send what createOffer() gave, as it is")
    starts = [i for i, line in enumerate(lines) if line.startswith("m=")]
    if len(starts) > MAX_SECTIONS:
        raise _bad(f"the offer has {len(starts)} media sections, more than {MAX_SECTIONS}; offer one audio track")
    bounds = [*starts, len(lines)]
    session = Section("session", 0, "", (), _attributes(lines[: bounds[0]]))
    sections = [_section(lines[start:end]) for start, end in itertools.pairwise(bounds)]
    mids = [s.mid for s in sections if s.mid is not None]
    if len(set(mids)) != len(mids) or not all(_MID.fullmatch(mid) for mid in mids):
        raise _bad("each a=mid has to be a short token of its own (RFC 5888)")
    return session, sections


def _section(lines: list[str]) -> Section:
    match = _MEDIA.fullmatch(lines[0])
    if match is None or int(match[2]) > 65535:
        raise _bad(f"cannot read the media line {lines[0][:80]!r} (RFC 8866 section 5.14)")
    return Section(match[1], int(match[2]), match[3], tuple(match[4].split(" ")), _attributes(lines[1:]))


def _attributes(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("a="):
            name, _, value = line[2:].partition(":")
            found.setdefault(name, []).append(value)
    return found


def _audio_index(sections: list[Section]) -> int:
    offered = [i for i, s in enumerate(sections) if s.kind == "audio" and not s.rejected]
    if not offered:
        raise _bad("the offer has no audio; add an audio track (or an audio transceiver) and offer again")
    speakable = [i for i in offered if sections[i].profile in PROFILES]
    if not speakable:
        profile = sections[offered[0]].profile
        raise _bad(f"the audio section's profile is {profile}; only {' or '.join(PROFILES)} is spoken")
    return next((i for i in speakable if _codecs(sections[i])), speakable[0])


def _codecs(audio: Section) -> list[Codec]:
    maps = {m[1]: m for m in map(_RTPMAP.fullmatch, audio.attributes.get("rtpmap", ())) if m}
    return [
        Codec(codec.name, int(format_), codec.rate_hz, codec.channels)
        for codec in CODECS
        for format_ in audio.formats
        if _is(codec, format_, maps.get(format_))
    ]


def _is(codec: Codec, format_: str, rtpmap: re.Match[str] | None) -> bool:
    if rtpmap is None:
        return codec.name != "opus" and format_ == str(codec.payload_type)
    name, rate, channels = rtpmap[2].lower(), int(rtpmap[3]), int(rtpmap[4] or 1)
    dynamic = 96 <= int(format_) <= 127
    return (name, rate, channels) == (codec.name.lower(), codec.rate_hz, codec.channels) and (
        dynamic or format_ == str(codec.payload_type)
    )


def _codec(audio: Section) -> Codec:
    for codec in _codecs(audio):
        return codec
    raise _bad("the audio section offers none of opus/48000/2, G722, PCMU and PCMA; offer one of them, best Opus")


def _direction(audio: Section, session: Section) -> Direction:
    for section in (audio, session):
        for direction in ("sendrecv", "sendonly", "recvonly", "inactive"):
            if direction in section.attributes:
                if direction == "inactive":
                    raise _bad("the audio section is inactive; offer it sendrecv, sendonly or recvonly")
                return direction
    return "sendrecv"


def _bundle_of(session: Section, audio: Section) -> tuple[str, ...]:
    for group in session.attributes.get("group", ()):
        kind, *mids = group.split()
        if kind == "BUNDLE" and audio.mid in mids:
            return tuple(mids)
    return ()


def _data_index(sections: list[Section], bundled: list[Section]) -> int | None:
    for i, section in enumerate(sections):
        known = (section.profile, section.formats) == ("UDP/DTLS/SCTP", ("webrtc-datachannel",))
        if section.kind == "application" and known and section in bundled and not section.rejected:
            for name in ("sctp-port", "max-message-size"):
                if not re.fullmatch(r"\d{1,19}", section.first(name) or "0", re.ASCII):
                    raise _bad(f"the data channel's a={name} is not a number (RFC 8841 section 5)")
            return i
    return None


def _transport(session: Section, audio: Section, bundled: list[Section], remote: str) -> Transport:
    # RFC 9143 section 7.1.3: a bundle-only section may leave all this to the bundle's first section
    sources = (audio, session, bundled[0])
    return Transport(
        _matching(sources, "ice-ufrag", _ICE_UFRAG),
        _matching(sources, "ice-pwd", _ICE_PWD),
        _fingerprints(sources),
        _setup(sources),
        _candidates(bundled, remote),
    )


def _matching(sources: tuple[Section, ...], name: str, pattern: re.Pattern[str]) -> str:
    value = next((s.attributes[name][0] for s in sources if name in s.attributes), None)
    if value is None or not pattern.fullmatch(value):
        raise _bad(f"the audio section has no valid a={name} (RFC 8839 section 5.4); WebRTC needs ICE: send it")
    return value


def _fingerprints(sources: tuple[Section, ...]) -> tuple[tuple[str, str], ...]:
    offered = next((s.attributes["fingerprint"] for s in sources if "fingerprint" in s.attributes), [])
    known = []
    for value in offered[:8]:
        algorithm, _, digest = value.partition(" ")
        size = _DIGEST_BYTES.get(algorithm.lower())
        if size is not None:
            if not re.fullmatch(rf"(?:[0-9A-Fa-f]{{2}}:){{{size - 1}}}[0-9A-Fa-f]{{2}}", digest):
                raise _bad(f"the {algorithm} fingerprint is not {size} bytes in hexadecimal (RFC 8122 section 5)")
            known.append((algorithm.lower(), digest.upper()))
    if not known:
        raise _bad("the offer has no a=fingerprint of sha-256, sha-384 or sha-512; WebRTC needs DTLS: send one")
    return tuple(known)


def _setup(sources: tuple[Section, ...]) -> str:
    value = next((s.attributes["setup"][0] for s in sources if "setup" in s.attributes), "actpass")
    if value not in _SETUP:
        raise _bad(f"a=setup:{value[:20]} cannot be answered; offer a=setup:actpass (RFC 8842 section 5.2)")
    return value


def _candidates(bundled: list[Section], remote: str) -> tuple[IceCandidate, ...]:
    lines = dict.fromkeys(value for section in bundled for value in section.attributes.get("candidate", ()))
    found: dict[IceCandidate, None] = {}
    for line in lines:
        candidate = parse_candidate(line, remote)
        if candidate is not None:
            found[candidate] = None
        if len(found) > MAX_CANDIDATES:
            raise _bad(f"the offer has more than {MAX_CANDIDATES} ICE candidates; send fewer")
    return tuple(found)
