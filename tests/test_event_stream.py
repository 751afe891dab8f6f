"""Server-sent events come out alike however they are cut, and never grow without bound."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import EngineError
from pipeline.event_stream import EVENT_MAX_BYTES, EventStream

STREAMS = {
    "data: one\n\ndata: two\n\n": ["one", "two"],
    "data: one\r\n\r\ndata: two\r\n\r\n": ["one", "two"],
    "data: one\r\rdata: two\r\r": ["one", "two"],
    "data: one\r\n\ndata: two\n\r\n": ["one", "two"],
    "data:no space\n\ndata:  two spaces\n\n": ["no space", " two spaces"],
    ": a comment\n\n: another\ndata: one\n: in between\n\n": ["one"],
    "event: message\nid: 7\nretry: 10\ndata: one\nunknown: field\n\n": ["one"],
    "data: first\ndata: second\ndata\ndata:\n\n": ["first\nsecond\n\n"],
    "\ufeffdata: after a byte order mark\n\n": ["after a byte order mark"],
    "data: \u00e4\u4f60\U0001f600\n\n": ["\u00e4\u4f60\U0001f600"],
    "\n\n\n\ndata: one\n\n\n\n": ["one"],
    "data: unfinished": ["unfinished"],
    "data: unfinished\n": ["unfinished"],
    "data: [DONE]\n\n": ["[DONE]"],
    "<html><body>502</body></html>\n\n": [],
    "": [],
}


def events(chunks: list[bytes]) -> list[str]:
    stream = EventStream()
    return [event for chunk in chunks for event in stream.push(chunk)] + stream.end()


@pytest.mark.parametrize("text", STREAMS)
def test_every_kind_of_line_is_understood(text: str) -> None:
    octets = text.encode()
    assert events([octets]) == STREAMS[text]
    assert events([octets[i : i + 1] for i in range(len(octets))]) == STREAMS[text]


@given(st.sampled_from(sorted(STREAMS)), st.lists(st.integers(0, 60)))
def test_chunks_change_nothing(text: str, cuts: list[int]) -> None:
    octets = text.encode()
    places = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    assert events([octets[a:b] for a, b in pairwise(places)]) == STREAMS[text]


@given(st.lists(st.text("\r\nd:x", max_size=4).map(str.encode)) | st.lists(st.binary(max_size=40)))
def test_any_bytes_are_read_as_they_would_be_at_once(chunks: list[bytes]) -> None:
    assert events(chunks) == events([b"".join(chunks)])


def test_an_event_is_complete_with_its_last_line_end() -> None:
    """Not only when the next byte shows that no line feed follows a carriage return."""
    stream = EventStream()
    assert stream.push(b"data: one\r\n\r") == ["one"]
    assert stream.push(b"\ndata: two\r\r") == ["two"]


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: " + b"x" * 1000, b"data: " + b"x" * 1000 + b"\n"])
def test_no_event_is_kept_beyond_the_bound(piece: bytes) -> None:
    with pytest.raises(EngineError, match="longer than"):
        events([piece] * (EVENT_MAX_BYTES // 900))


def test_comments_without_end_are_no_event() -> None:
    stream = EventStream()
    assert [event for _ in range(1000) for event in stream.push(b": waiting" + b"." * 1000 + b"\n")] == []
    assert stream.push(b"data: at last\n\n") == ["at last"]


def test_a_decoding_error_spoils_one_character() -> None:
    assert events([b"data: a\xffb\n\n"]) == ["a\ufffdb"]
