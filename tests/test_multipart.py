"""Forms, byte by byte: how they are cut changes nothing, and of rubbish comes nothing but ProtocolError."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest
from aiohttp import FormData, MultipartWriter
from hypothesis import example, given
from hypothesis import strategies as st

from compat_ws.multipart import HEAD_MAX_BYTES, FormParser, Part, PartEnded, PartEvent, boundary_of
from pipeline.errors import ProtocolError

BOUNDARY = "b0undary"


def form(*parts: tuple[str, bytes], preamble: bytes = b"", end: bytes = b"--\r\n") -> bytes:
    """Put a form together: of each part its headers and its content."""
    body = b"".join(b"--b0undary\r\n%b\r\n\r\n%b\r\n" % (head.encode(), content) for head, content in parts)
    return preamble + body + b"--b0undary" + end


def named(name: str, more: str = "") -> str:
    """Return the header of a field."""
    return f'Content-Disposition: form-data; name="{name}"{more}'


def parse(body: bytes, *cuts: int) -> list[PartEvent]:
    """Parse a form cut in these places, its content joined again."""
    parser = FormParser(BOUNDARY)
    places = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    events: list[PartEvent] = []
    for begin, end in pairwise(places):
        for event in parser.push(body[begin:end]):
            if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                events[-1] += event
            else:
                events.append(event)
    parser.end()
    return events


FILE = named("file", '; filename="a b.pcm"') + "\r\nContent-Type: audio/pcm;rate=16000"
SAMPLE = form((named("language"), b"en"), (FILE, b"\r\n--b0undar\r\n--b0\r\r\n\n"), (named("empty"), b""))
EVENTS = [
    *(Part("language"), b"en", PartEnded()),
    *(Part("file", "a b.pcm", "audio/pcm", "16000"), b"\r\n--b0undar\r\n--b0\r\r\n\n", PartEnded()),
    *(Part("empty"), PartEnded()),
]


def test_a_form_is_read() -> None:
    assert parse(SAMPLE) == EVENTS


@given(st.lists(st.integers(1, len(SAMPLE)), max_size=20))
@example(list(range(1, len(SAMPLE))))
def test_where_it_is_cut_changes_nothing(cuts: list[int]) -> None:
    assert parse(SAMPLE, *cuts) == EVENTS


@given(st.binary(max_size=200), st.lists(st.integers(1, 400), max_size=8))
def test_any_content_comes_out_as_it_went_in(content: bytes, cuts: list[int]) -> None:
    events = parse(form((named("file"), content)), *cuts)
    assert b"".join(event for event in events if isinstance(event, bytes)) == content


def test_content_is_passed_on_but_for_what_may_be_a_delimiter() -> None:
    parser = FormParser(BOUNDARY)
    parser.push(form((named("file"), b""), end=b"")[: -len(b"\r\n--b0undary")])
    assert parser.push(b"sound") == [b"sound"]
    assert parser.push(b"more\r\n--b0un") == [b"more"]
    assert parser.push(b"ded") == [b"\r\n--b0unded"]
    assert parser.push(b"\r") == []
    assert parser.push(b"\r") == [b"\r"]
    assert parser.push(b"\n--b0undary--") == [PartEnded()]
    assert parser.push(b"an epilogue") == []
    parser.end()


def test_what_stands_before_and_behind_is_not_content() -> None:
    body = form((named("a"), b"1"), preamble=b"This is a form.\r\n", end=b"--  \r\nThat was it.")
    assert parse(body) == [Part("a"), b"1", PartEnded()]
    assert parse(body.replace(b"--b0undary\r\n", b"--b0undary \t\r\n")) == [Part("a"), b"1", PartEnded()]


def test_names_come_as_clients_write_them() -> None:
    heads = [
        "content-disposition:form-data;name=file;filename=x.raw",
        named("file", "; filename*=UTF-8''x.raw"),
        'Content-Disposition: form-data;\r\n name="file"; filename="x.raw"',
        named("file", '; filename="x.raw"; more'),
    ]
    assert [parse(form((head, b"")))[0] for head in heads] == [Part("file", "x.raw")] * 4
    assert parse(form((named("file", '; filename="größe.raw"'), b"")))[0] == Part("file", "größe.raw")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        form((named("a"), b"1"), end=b""),
        form((named("a"), b"1"), end=b"-"),
        form((named("a"), b"1"))[:-8],
        form(("Content-Type: text/plain", b"1")),
        form(("Content-Disposition: form-data", b"1")),
        form((named(""), b"1")),
        form((named("a") + "\r\nX: " + "y" * HEAD_MAX_BYTES, b"1")),
        b"--b0undary\r\n" + b"X: y\r\n" * HEAD_MAX_BYTES,
        b"--b0undary rubbish\r\n",
        b"--b0undary" + b" " * 100,
        b"--b0undary\r\n\r\n\r\n--b0undary--",
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^the form "):
        parse(body)


@given(st.binary(max_size=300))
def test_rubbish_is_refused_or_read_and_breaks_nothing(rubbish: bytes) -> None:
    if b"--b0undary" not in rubbish:
        with pytest.raises(ProtocolError):
            parse(rubbish, 5, 17)
    for body in (rubbish, b"--b0undary\r\n" + rubbish, form((named("a"), b"1"))[:-4] + rubbish):
        with suppress(ProtocolError):
            parse(body, 5, 17)


@given(st.text(max_size=100))
def test_any_header_of_a_part_has_a_name_or_is_refused(head: str) -> None:
    try:
        events = parse(form((head.replace("\r\n\r\n", ""), b"1")))
    except ProtocolError:
        return
    assert all(event.name for event in events if isinstance(event, Part))


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=größe", 400),
        ("multipart/form-data; boundary=x; \u00e9\udcff", 400),
        ("multipart/form-data; boundary*=:idna''x", 400),
        (f"multipart/form-data; boundary={'x' * 71}", 400),
    ],
)
def test_a_request_that_is_no_form_is_refused(content_type: str, status: int) -> None:
    with pytest.raises(ProtocolError) as refused:
        boundary_of(content_type)
    assert refused.value.status == status


@given(st.text(max_size=60))
def test_any_content_type_has_a_boundary_or_is_refused(rubbish: str) -> None:
    for content_type in (rubbish, f"multipart/form-data; {rubbish}", f"multipart/form-data; boundary={rubbish}"):
        line = "".join(char for char in content_type if char not in "\r\n")
        with suppress(ProtocolError):
            assert boundary_of(line).isascii()


def test_a_name_in_a_charset_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="the charset it names"):
        parse(form(("Content-Disposition: form-data; name*=:idna''x", b"")))


def test_boundaries_come_quoted_and_plain() -> None:
    assert boundary_of('Multipart/Form-Data; charset=utf-8; boundary="a b:c"') == "a b:c"
    assert boundary_of("multipart/form-data; boundary=----WebKitFormBoundaryx7") == "----WebKitFormBoundaryx7"


def test_what_a_client_library_writes_is_read() -> None:
    data = FormData({"language": "en"})
    data.add_field("file", b"\0\1" * 5000, filename="audio.pcm", content_type="audio/pcm;rate=16000")
    writer = data()
    assert isinstance(writer, MultipartWriter)
    parser = FormParser(boundary_of(writer.content_type))
    events = parser.push(asyncio.run(writer.as_bytes()))
    parser.end()
    assert [event for event in events if isinstance(event, Part)] == [
        Part("language", "", "text/plain"),
        Part("file", "audio.pcm", "audio/pcm", "16000"),
    ]
