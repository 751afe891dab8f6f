"""RTVI on the data channel: every event out, every message in, and rubbish."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.events import (
    EngineFailed,
    Event,
    ReplyAudioStarted,
    ReplyClauseStarted,
    ReplyFinished,
    ReplyInterrupted,
    ReplyStarted,
    ReplyText,
    SessionClosed,
    SpeechEnded,
    SpeechStarted,
    TranscriptUpdated,
    TurnEnded,
    TurnMeasured,
)
from signaling.rtvi import Rtvi
from signaling.rtvi_messages import (
    MESSAGE_MAX_BYTES,
    ClientMessage,
    ClientReady,
    Disconnect,
    SendText,
    TrackStatus,
)

NOON = datetime(2026, 1, 2, 12, 0, 0, 250_000, tzinfo=UTC)
REPLY = (
    ReplyStarted(1),
    ReplyText(1, "Good day. "),
    ReplyText(1, "Come in.", final=True),
    ReplyClauseStarted(1, "Good day."),
    ReplyAudioStarted(1),
    ReplyClauseStarted(1, "Come in."),
)


def rtvi() -> Rtvi:
    """A dialect at noon."""
    return Rtvi({"library": "vocal-node", "library_version": "1"}, lambda: NOON)


def sent(dialect: Rtvi, *events: Event) -> list[dict[str, Any]]:
    """All messages of some events, read."""
    return [json.loads(text) for event in events for text in dialect.send(event)]


def kinds(dialect: Rtvi, *events: Event) -> list[str]:
    """The types of all messages of some events."""
    return [message["type"] for message in sent(dialect, *events)]


def rtvi_text(kind: str, data: Any = None, **more: Any) -> str:
    """A client's message."""
    return json.dumps({"label": "rtvi-ai", "type": kind, "id": "m1", "data": data} | more)


def replies(dialect: Rtvi, message: str | bytes) -> list[dict[str, Any]]:
    """What is answered to a message, read."""
    return [json.loads(text) for text in dialect.receive(message).replies]


def make_ready(dialect: Rtvi, version: str) -> list[dict[str, Any]]:
    """What is answered to a client of some protocol version."""
    return replies(dialect, rtvi_text("client-ready", {"version": version, "about": {"library": "x"}}))


# Out


@pytest.mark.parametrize(
    ("event", "kind", "data"),
    [
        (SpeechStarted(160), "user-started-speaking", None),
        (SpeechEnded(320), "user-stopped-speaking", None),
        (
            TranscriptUpdated("Good da", final=False),
            "user-transcription",
            {"text": "Good da", "user_id": "", "timestamp": "2026-01-02T12:00:00.250+00:00", "final": False},
        ),
        (
            TranscriptUpdated("Good day.", final=True, language="en"),
            "user-transcription",
            {"text": "Good day.", "user_id": "", "timestamp": "2026-01-02T12:00:00.250+00:00", "final": True},
        ),
        (TurnEnded(1, "Good day."), "user-llm-text", {"text": "Good day."}),
        (ReplyStarted(1), "bot-llm-started", None),
        (ReplyText(1, "Well, "), "bot-llm-text", {"text": "Well, "}),
        (
            EngineFailed("stt", "no model"),
            "error",
            {"error": "stt: no model", "message": "stt: no model", "fatal": False},
        ),
    ],
)
def test_an_event_is_one_message(event: Event, kind: str, data: Any) -> None:
    (message,) = sent(rtvi(), event)
    assert message["label"] == "rtvi-ai"
    assert message["type"] == kind
    assert message.get("data") == data
    assert isinstance(message["id"], str)


def test_a_reply_opens_and_closes_everything_once() -> None:
    assert kinds(rtvi(), *REPLY, ReplyFinished(1, "Good day. Come in.")) == [
        "bot-llm-started",
        "bot-llm-text",
        "bot-llm-text",
        "bot-llm-stopped",
        "bot-tts-started",
        "bot-output",
        "bot-tts-text",
        "bot-transcription",
        "bot-started-speaking",
        "bot-output",
        "bot-output",
        "bot-tts-text",
        "bot-transcription",
        "bot-output",
        "bot-tts-stopped",
        "bot-stopped-speaking",
    ]


@pytest.mark.parametrize("end", [ReplyInterrupted(1, "Good"), EngineFailed("tts", "gone", 1), ReplyFinished(1, "")])
@pytest.mark.parametrize("length", range(1, len(REPLY) + 1))
def test_what_a_reply_opened_is_closed_however_it_ends(length: int, end: Event) -> None:
    dialect = rtvi()
    names = kinds(dialect, *REPLY[:length], end)
    for span in ("bot-llm-{}", "bot-tts-{}"):
        assert names.count(span.format("started")) == names.count(span.format("stopped"))
    assert names.count("bot-started-speaking") == names.count("bot-stopped-speaking")
    assert kinds(dialect, ReplyStarted(2)) == ["bot-llm-started"]


def test_an_interruption_is_told_before_the_stops() -> None:
    dialect = rtvi()
    sent(dialect, *REPLY)
    assert kinds(dialect, ReplyInterrupted(1, "Good day.")) == [
        "bot-interrupted",
        "bot-tts-stopped",
        "bot-stopped-speaking",
    ]


def test_a_failure_outside_a_reply_leaves_the_reply_open() -> None:
    dialect = rtvi()
    sent(dialect, *REPLY)
    assert kinds(dialect, EngineFailed("stt", "broke")) == ["error"]
    assert kinds(dialect, ReplyFinished(1, ""))[-1] == "bot-stopped-speaking"


def test_a_final_empty_delta_only_stops() -> None:
    dialect = rtvi()
    sent(dialect, ReplyStarted(1))
    assert kinds(dialect, ReplyText(1, "", final=True)) == ["bot-llm-stopped"]


def test_bot_output_follows_each_clause_in_2_x() -> None:
    dialect = rtvi()
    make_ready(dialect, "2.1.0")
    outputs = [m["data"] for m in sent(dialect, *REPLY, ReplyFinished(1, "")) if m["type"] == "bot-output"]
    assert [(o["segment_id"], o["text"], o["spoken_status"]) for o in outputs] == [
        (1, "Good day.", "new"),
        (1, "Good day.", "completed"),
        (2, "Come in.", "new"),
        (2, "Come in.", "completed"),
    ]
    assert outputs[0] == {
        "text": "Good day.",
        "aggregated_by": "sentence",
        "segment_id": 1,
        "will_be_spoken": True,
        "spoken_status": "new",
        "spoken_progress": {"accumulated_text": "", "remaining_text": "Good day."},
    }


def test_bot_output_of_1_x_has_no_progress() -> None:
    dialect = rtvi()
    make_ready(dialect, "1.4.0")
    outputs = [m["data"] for m in sent(dialect, *REPLY, ReplyFinished(1, "")) if m["type"] == "bot-output"]
    assert outputs == [
        {"text": "Good day.", "aggregated_by": "sentence", "segment_id": 1, "spoken": True},
        {"text": "Come in.", "aggregated_by": "sentence", "segment_id": 2, "spoken": True},
    ]


def test_an_interrupted_clause_is_not_called_completed() -> None:
    dialect = rtvi()
    sent(dialect, *REPLY, ReplyInterrupted(1, "Good day."))
    names = kinds(dialect, ReplyStarted(2), ReplyClauseStarted(2, "Sorry."))
    assert names.count("bot-output") == 1


def test_a_turn_is_one_server_message_and_its_metrics() -> None:
    event = TurnMeasured(3, False, "Hello?", "Hi.", 200.0, 230.0, 240.5, 241.0, 260.0, 270.0)
    message, metrics = sent(rtvi(), event)
    assert message["type"] == "server-message"
    assert message["data"] == {
        "t": "turn",
        "turn": 3,
        "interrupted": False,
        "user": "Hello?",
        "agent": "Hi.",
        "speech_end_ms": 0,
        "endpoint_ms": 200.0,
        "stt_ms": 230.0,
        "ttft_ms": 240.5,
        "first_clause_ms": 241.0,
        "ttfb_ms": 260.0,
        "first_audio_ms": 270.0,
    }
    assert metrics["type"] == "metrics"
    assert metrics["data"] == {
        "ttfb": [
            {"processor": "stt", "value": 0.23},
            {"processor": "llm", "value": 0.0105},
            {"processor": "tts", "value": 0.019},
        ]
    }


def test_a_turn_without_stages_has_no_metrics() -> None:
    (message,) = sent(rtvi(), TurnMeasured(1, True, "a", ""))
    assert message["data"]["first_audio_ms"] is None


def test_the_end_of_a_session_is_smallwebrtcs_farewell() -> None:
    assert sent(rtvi(), SessionClosed("hung up")) == [
        {"type": "signalling", "message": {"type": "peerLeft", "reason": "hung up"}}
    ]


# In


def test_client_ready_is_answered_with_the_same_id() -> None:
    dialect = rtvi()
    message = rtvi_text("client-ready", {"version": "2.1.0", "about": {"library": "@pipecat-ai/client-js"}}, id="8f3a")
    received = dialect.receive(message)
    assert received.input == ClientReady("8f3a", (2, 1, 0), "2.1.0")
    assert [json.loads(reply) for reply in received.replies] == [
        {
            "label": "rtvi-ai",
            "type": "bot-ready",
            "id": "8f3a",
            "data": {"version": "2.1.0", "about": {"library": "vocal-node", "library_version": "1"}},
        }
    ]


@pytest.mark.parametrize(("version", "answer"), [("1.4.2", "1.4.2"), ("2.0.0", "2.1.0"), ("2.9.0", "2.1.0")])
def test_the_version_answered_is_one_the_client_reads(version: str, answer: str) -> None:
    (ready,) = make_ready(rtvi(), version)
    assert ready["data"]["version"] == answer


@pytest.mark.parametrize("version", ["3.0.0", "0.9.1", "two", "2", "2.1.0.0", "-1.0.0", "٢.١.٠"])
def test_an_unknown_version_is_warned_about_and_served(version: str) -> None:
    warning, ready = make_ready(rtvi(), version)
    assert (warning["type"], warning["id"]) == ("error-response", "m1")
    assert ready["type"] == "bot-ready"
    assert ready["data"]["version"] == "2.1.0"


@pytest.mark.parametrize("data", [None, {}, {"version": None}, {"about": {"library": "x"}}])
def test_a_client_that_names_no_version_is_served(data: Any) -> None:
    (ready,) = replies(rtvi(), rtvi_text("client-ready", data))
    assert ready["type"] == "bot-ready"


def test_events_before_client_ready_are_sent_in_2_x() -> None:
    assert kinds(rtvi(), SpeechStarted(0)) == ["user-started-speaking"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (rtvi_text("send-text", {"content": " Hi there "}), SendText("m1", "Hi there", True, True)),
        (
            rtvi_text("send-text", {"content": "Hi", "options": {"run_immediately": False, "audio_response": False}}),
            SendText("m1", "Hi", False, False),
        ),
        (rtvi_text("send-text", {"content": "Hi", "options": {}}), SendText("m1", "Hi", True, True)),
        (rtvi_text("client-message", {"t": "go", "d": [1, None]}), ClientMessage("m1", "go", [1, None])),
        (rtvi_text("client-message", {"t": "go"}), ClientMessage("m1", "go", None)),
        (rtvi_text("disconnect-bot", {}), Disconnect()),
        (rtvi_text("disconnect-bot"), Disconnect()),
        (
            json.dumps(
                {"type": "signalling", "message": {"type": "trackStatus", "receiver_index": 0, "enabled": False}}
            ),
            TrackStatus(0, False),
        ),
        (json.dumps({"type": "signalling", "message": {"type": "somethingNew"}}), None),
        ("ping: 1767355200000", None),
        ("ping", None),
    ],
)
def test_a_message_is_one_input(message: str, expected: object) -> None:
    for form in (message, message.encode()):
        received = rtvi().receive(form)
        assert received.input == expected
        assert not received.replies


@pytest.mark.parametrize(
    ("message", "message_id", "words"),
    [
        ("", "", "JSON"),
        ("hello", "", "JSON"),
        ("[]", "", "object"),
        ("null", "", "object"),
        ("{}", "", "type"),
        ('{"type": 5}', "", "type"),
        ("[" * 60_000, "", "JSON"),
        ('{"type": "x", "data": ' + "9" * 50_000 + "}", "", ""),
        (b"\xff\xfe\x00", "", "JSON"),
        ("\ud800", "", "JSON"),
        (json.dumps({"type": "send-text", "id": "m1", "data": {"content": "Hi"}}), "m1", "label"),
        (rtvi_text("send-text"), "m1", "send-text"),
        (rtvi_text("send-text", {"content": "   "}), "m1", "content"),
        (rtvi_text("send-text", {"content": 5}), "m1", "content"),
        (rtvi_text("send-text", {"text": "Hi"}), "m1", "content"),
        (rtvi_text("send-text", {"content": "Hi", "options": {"run_immediately": "no"}}), "m1", "run_immediately"),
        (rtvi_text("client-message", {"d": 1}), "m1", "t:"),
        (rtvi_text("client-message", "x"), "m1", "client-message"),
        (rtvi_text("client-ready", [1]), "m1", "client-ready"),
        (rtvi_text("raw-audio", {"base64Audio": ""}), "m1", "unsupported type 'raw-audio'"),
        (rtvi_text("send-text", {"content": "Hi"}, id=7), "", "id"),
        (rtvi_text("send-text", {"content": "Hi"}, id="x" * 1000), "", "id"),
        ('{"type": "signalling", "message": {"type": "trackStatus"}}', "", "receiver_index"),
        (rtvi_text("send-text", {"content": "x" * MESSAGE_MAX_BYTES}), "", "65536"),
        ("x" * 1_000_000, "", "1000000 bytes"),
        (b"ping" * 20_000, "", "80000 bytes"),
    ],
)
def test_rubbish_is_answered_and_has_no_effect(message: str | bytes, message_id: str, words: str) -> None:
    received = rtvi().receive(message)
    assert received.input is None
    (reply,) = (json.loads(text) for text in received.replies)
    assert reply["type"] == "error-response"
    assert reply["id"] == message_id
    assert words in reply["data"]["error"]
    assert len(received.replies[0]) < 400


def test_a_refusal_does_not_repeat_what_was_typed() -> None:
    (reply,) = replies(rtvi(), rtvi_text("send-text", {"content": ["my password"]}))
    assert "password" not in reply["data"]["error"]


def test_requests_of_an_application_are_answered_by_id() -> None:
    dialect = rtvi()
    request = ClientMessage("q1", "volume", None)
    answer = json.loads(dialect.respond(request, {"is": 11}))
    assert answer == {
        "label": "rtvi-ai",
        "type": "server-response",
        "id": "q1",
        "data": {"t": "volume", "d": {"is": 11}},
    }
    refusal = json.loads(dialect.reject(request, "no such thing"))
    assert refusal == {"label": "rtvi-ai", "type": "error-response", "id": "q1", "data": {"error": "no such thing"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
TYPES = st.sampled_from(
    ["client-ready", "send-text", "client-message", "disconnect-bot", "signalling", "raw-audio", "trackStatus"]
)
ENVELOPES = st.fixed_dictionaries(
    {"type": TYPES | JSON},
    optional={
        "label": st.just("rtvi-ai") | JSON,
        "id": st.text(max_size=8) | JSON,
        "data": JSON
        | st.dictionaries(st.sampled_from(["version", "about", "content", "options", "t", "d"]), JSON, max_size=4),
        "message": JSON | st.fixed_dictionaries({"type": TYPES}, optional={"receiver_index": JSON, "enabled": JSON}),
    },
)


@settings(max_examples=400, deadline=None)
@given(st.binary() | st.text(st.characters()) | JSON.map(json.dumps) | ENVELOPES.map(json.dumps))
def test_nothing_a_client_sends_raises(message: str | bytes) -> None:
    dialect = rtvi()
    for text in dialect.receive(message).replies:
        assert json.loads(text)["type"] in ("error-response", "bot-ready")
    assert kinds(dialect, SpeechStarted(0)) == ["user-started-speaking"]


EVENTS = st.sampled_from(
    [*REPLY, ReplyFinished(1, ""), ReplyInterrupted(1, ""), EngineFailed("llm", "x", 1), EngineFailed("vad", "x")]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=30))
def test_starts_and_stops_alternate_in_any_order_of_events(events: list[Event]) -> None:
    names = kinds(rtvi(), *events)
    for start, stop in (
        ("bot-llm-started", "bot-llm-stopped"),
        ("bot-tts-started", "bot-tts-stopped"),
        ("bot-started-speaking", "bot-stopped-speaking"),
    ):
        span = [name for name in names if name in (start, stop)]
        assert span == [start, stop] * (len(span) // 2) + [start] * (len(span) % 2)
