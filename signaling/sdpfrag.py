"""Trickle ICE SDP fragments (RFC 8840 section 9), bounded, as WHIP sends them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ProtocolError
from signaling.calls import Candidate

MAX_LINES = 256
MAX_LINE = 1024
MAX_CANDIDATES = 64

_LINE = re.compile(r"[a-z]=[ -~]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """What names one ICE session; None where the text has none."""

    ufrag: str | None = None
    pwd: str | None = None


@dataclass(frozen=True, slots=True)
class SdpFragment:
    """Candidates, each under the section it belongs to (an empty line ends that section's), and whose they are."""

    credentials: IceCredentials
    candidates: tuple[Candidate, ...]


def parse_sdpfrag(text: str) -> SdpFragment:
    """Read a fragment. Raises ProtocolError naming the line at fault."""
    candidates: list[Candidate] = []
    mid: str | None = None
    for kind, name, value in attributes(text):
        if kind == "m":
            mid = None
        elif name == "mid":
            mid = value
        elif name == "candidate":
            candidates.append(Candidate(f"candidate:{value}", mid, None if mid else 0))
        elif name == "end-of-candidates":
            candidates.append(Candidate("", mid, None if mid else 0))
        if len(candidates) > MAX_CANDIDATES:
            raise ProtocolError(f"more than {MAX_CANDIDATES} candidates in one fragment")
    return SdpFragment(ice_credentials(text), tuple(candidates))


def attributes(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each line's letter, and the name and value of what follows. Raises ProtocolError."""
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise ProtocolError(f"{len(lines)} lines: an SDP fragment has at most {MAX_LINES}")
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE or not _LINE.fullmatch(line):
            raise ProtocolError(f"line {number} of the SDP fragment is not like a=candidate:...")
        name, _, value = line[2:].partition(":")
        yield line[0], name, value


def ice_credentials(sdp: str) -> IceCredentials:
    """Return the first ICE credentials of an SDP or a fragment of one; with BUNDLE they are everybody's."""
    return IceCredentials(_first(sdp, "ice-ufrag"), _first(sdp, "ice-pwd"))


def _first(sdp: str, name: str) -> str | None:
    match = re.search(rf"^a={name}:([!-~]{{1,256}})[ ]*\r?$", sdp, re.MULTILINE | re.ASCII)
    return match[1] if match else None
