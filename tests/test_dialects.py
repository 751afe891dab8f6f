"""The raw-PCM dialect, sans-IO: messages in, inputs out; events and frames in, messages out; no stray error."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compat_ws.dialect import Answer, Audio, Configured, Dialect, Input, Message, PressEnded, PressStarted, Typed
from compat_ws.vocal import TEXT_MAX_CHARS, Vocal
from pipeline.audio import AudioFrame, Pcm
from pipeline.errors import ProtocolError
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

CONFIG = {"agentId": "ada", "userId": "u-1", "agentName": "Ada"}


def configured() -> Vocal:
    """Return a dialect whose client has said whom it wants."""
    dialect: Dialect = Vocal("s1", now_s=lambda: 1_700_000_000.25)
    assert dialect.receive(json.dumps(CONFIG)) == [Configured(CONFIG)]
    assert isinstance(dialect, Vocal)
    return dialect


def refused(dialect: Vocal, message: Message) -> ProtocolError:
    """Return why a message is refused."""
    with pytest.raises(ProtocolError) as caught:
        dialect.receive(message)
    return caught.value


def sound(inputs: Sequence[Input]) -> list[int]:
    """Return the samples of inputs that are all sound."""
    assert all(isinstance(said, Audio) for said in inputs)
    return [int(sample) for said in inputs if isinstance(said, Audio) for sample in said.pcm]


def said(messages: Sequence[Message]) -> list[str]:
    """Return the types of outgoing messages, each of which names the session."""
    read = [json.loads(message) for message in messages]
    assert all(message["session_id"] == "s1" for message in read)
    return [message["type"] for message in read]


# --- the configuration


@pytest.mark.parametrize("lacking", ["agentId", "userId", "agentName"])
@pytest.mark.parametrize("value", [None, "", ...])
def test_a_configuration_that_lacks_who_asks_is_told_what_it_lacks(lacking: str, value: Any) -> None:
    config = {**CONFIG, lacking: value} if value is not ... else {k: v for k, v in CONFIG.items() if k != lacking}
    error = refused(Vocal("s1"), json.dumps(config))
    assert (error.param, str(error)) == (lacking, f"the configuration lacks {lacking}")


@pytest.mark.parametrize("agent_id", ["../../etc/passwd", "a/b", "a\\b", "a\0", "x" * 65, "a b", "é", True, 1.5, []])
def test_an_agent_id_is_no_path(agent_id: Any) -> None:
    assert refused(Vocal("s1"), json.dumps({**CONFIG, "agentId": agent_id})).param == "agentId"


@pytest.mark.parametrize("user_id", ["../x", "a/b", "a\\b", "a\0b", "a\nb", "..", "x" * 257, False, [1], 10**70])
def test_a_user_id_is_no_path(user_id: Any) -> None:
    assert refused(Vocal("s1"), json.dumps({**CONFIG, "userId": user_id})).param == "userId"


@pytest.mark.parametrize("user_id", ["ada@example.org", "auth0|5f7c", "+49 30 1234", "Ada Lovelace", "x" * 256, 42])
def test_a_user_id_may_be_what_clients_have(user_id: Any) -> None:
    [asked] = Vocal("s1").receive(json.dumps({**CONFIG, "userId": user_id}))
    assert isinstance(asked, Configured)
    assert asked.request["userId"] == str(user_id)


def test_all_else_of_a_configuration_is_passed_on_as_it_is() -> None:
    more = {"agentId": 7, "speed": 1.5, "speechDetectorConfig": {"energy_threshold": 0.2}, "newer": [None]}
    [asked] = Vocal("s1").receive(json.dumps({**CONFIG, **more}))
    assert asked == Configured({**CONFIG, **more, "agentId": "7"})


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("", "must be JSON"),
        ("hello", "must be JSON"),
        ('{"agentId": ', "must be JSON"),
        ("9" * 5_000, "must be JSON"),
        ("[" * 100_000, "must be JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("NaN", "must be a JSON object"),
        (" " * (TEXT_MAX_CHARS + 1), "may have"),
        (b"\0\0", "before the configuration"),
        (b"", "before the configuration"),
    ],
)
def test_what_is_no_configuration_is_refused_and_one_may_follow(message: Message, why: str) -> None:
    dialect = Vocal("s1")
    error = refused(dialect, message)
    assert why in str(error)
    assert len(str(error)) < 200, "what was sent is not sent back"
    assert dialect.receive(json.dumps(CONFIG)) == [Configured(CONFIG)]


# --- what the client says


@pytest.mark.parametrize(
    ("message", "means"),
    [
        ({"type": "speech_start"}, PressStarted()),
        ({"type": "speech_end", "more": 1}, PressEnded()),
        ({"type": "transcript", "text": "hello there"}, Typed("hello there")),
        ({"type": "ping"}, Answer('{"type": "pong", "session_id": "s1"}')),
    ],
)
def test_texts(message: dict[str, Any], means: Input) -> None:
    assert configured().receive(json.dumps(message)) == [means]


def test_a_keep_alive_may_come_before_the_configuration() -> None:
    dialect = Vocal("s1")
    assert dialect.receive('{"type": "ping"}') == [Answer('{"type": "pong", "session_id": "s1"}')]
    assert dialect.receive(json.dumps(CONFIG)) == [Configured(CONFIG)]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({}, "type"),
        ({"type": None}, "type"),
        ({"type": "dance"}, "type"),
        (CONFIG, "type"),
        ({"type": "transcript"}, "text"),
        ({"type": "transcript", "text": 5}, "text"),
        ({"type": "transcript", "text": " \n"}, "text"),
        ({"type": "transcript", "text": "x" * 100_000}, "text"),
        ({"type": "transcript", "text": "\ud83d alone"}, "text"),
    ],
)
def test_texts_that_mean_nothing(message: dict[str, Any], param: str) -> None:
    dialect = configured()
    assert refused(dialect, json.dumps(message)).param == param
    assert sound(dialect.receive(b"\1\0")) == [1]


@given(st.lists(st.binary(max_size=9)))
def test_sound_may_be_cut_anywhere(pieces: list[bytes]) -> None:
    dialect, joined = configured(), b"".join(pieces)
    heard = [sample for piece in pieces for sample in sound(dialect.receive(piece))]
    assert heard == np.frombuffer(joined[: len(joined) // 2 * 2], "<i2").tolist()


def test_sound_is_what_a_session_takes() -> None:
    [heard] = configured().receive(np.array([0, -1, 32_767, -32_768], "<i2").tobytes())
    assert isinstance(heard, Audio)
    assert heard.pcm.dtype == np.int16
    assert heard.pcm.tolist() == [0, -1, 32_767, -32_768]


# --- what the client is told


def frame(pcm: Pcm) -> AudioFrame:
    """Return a frame of the agent's voice."""
    return AudioFrame(pcm, 24_000, 0)


def test_the_call_is_ready() -> None:
    assert [json.loads(m) for m in configured().ready()] == [{"type": "call_ready", "session_id": "s1"}]


def test_a_frame_is_a_chunk_of_float32() -> None:
    dialect = configured()
    assert dialect.event(ReplyAudioStarted(1)) == []
    message = dialect.audio(frame(np.array([0, 16_384, -32_768, 32_767], np.int16)))
    assert message is not None
    told = json.loads(message)
    chunk = base64.b64decode(told["data"].pop("chunk"))
    assert np.frombuffer(chunk, "<f4").tolist() == [0.0, 0.5, -1.0, 32_767 / 32_768]
    assert told == {
        "type": "tts_stream",
        "data": {
            "type": "audio_chunk",
            "format": "pcm_f32le",
            "sample_rate": 24_000,
            "timestamp": 1_700_000_000.25,
        },
        "session_id": "s1",
    }


def test_a_stream_ends_when_its_reply_does_and_not_without_having_begun() -> None:
    dialect = configured()
    assert dialect.event(ReplyStarted(1)) == []
    assert dialect.event(ReplyFinished(1, "")) == []
    dialect.event(ReplyAudioStarted(2))
    assert said(dialect.event(ReplyFinished(2, "Hello."))) == ["tts_stream_end"]
    assert said(dialect.event(ReplyInterrupted(3, ""))) == ["new_conversation_turn"]
    dialect.event(ReplyAudioStarted(4))
    assert said(dialect.event(ReplyInterrupted(4, "He"))) == ["new_conversation_turn", "tts_stream_end"]
    assert dialect.audio(frame(np.ones(480, np.int16))) is None, "the fade belongs to no stream"


def test_an_engine_that_fails_is_told_and_ends_its_replys_stream_alone() -> None:
    dialect = configured()
    dialect.event(ReplyAudioStarted(1))
    [told] = dialect.event(EngineFailed("stt", "it is gone"))
    assert json.loads(told) == {"type": "error", "error": "stt: it is gone", "session_id": "s1"}
    assert dialect.audio(frame(np.ones(480, np.int16))) is not None
    assert said(dialect.event(EngineFailed("tts", "it broke", 1))) == ["error", "tts_stream_end"]
    assert said(dialect.event(EngineFailed("llm", "it is gone", 2))) == ["error"]


def test_the_rest_of_what_happens_is_not_told() -> None:
    dialect = configured()
    untold: list[Event] = [
        SpeechStarted(0),
        SpeechEnded(0),
        TranscriptUpdated("a", False),
        TurnEnded(1, "a"),
        ReplyText(1, "b"),
        ReplyClauseStarted(1, "b"),
        TurnMeasured(1, False, "a", "b"),
        SessionClosed("closed"),
    ]
    assert [message for event in untold for message in dialect.event(event)] == []


# --- RTVI beside it


def told(dialect: Vocal, *events: Event) -> list[str]:
    """Return the types of what events come to, RTVI's in parentheses."""
    messages = [json.loads(message) for event in events for message in dialect.event(event)]
    return [f"({m['type']})" if m.get("label") == "rtvi-ai" else m["type"] for m in messages]


def captioned() -> Vocal:
    """Return a dialect whose client wants RTVI, too."""
    dialect = Vocal("s1")
    dialect.receive(json.dumps({**CONFIG, "rtvi": True}))
    return dialect


def test_who_wants_rtvi_is_told_at_once_that_the_agent_is_there() -> None:
    ours, theirs = (json.loads(message) for message in captioned().ready())
    assert ours == {"type": "call_ready", "session_id": "s1"}
    assert (theirs["label"], theirs["type"], theirs["data"]["version"]) == ("rtvi-ai", "bot-ready", "2.1.0")


def test_rtvi_follows_the_dialects_own_words_about_the_same() -> None:
    dialect = captioned()
    assert told(dialect, SpeechStarted(0), TranscriptUpdated("a", True), SpeechEnded(9)) == [
        "(user-started-speaking)",
        "(user-transcription)",
        "(user-stopped-speaking)",
    ]
    begun = told(dialect, TurnEnded(1, "a"), ReplyStarted(1), ReplyAudioStarted(1), ReplyClauseStarted(1, "b"))
    assert begun[:4] == ["(user-llm-text)", "(bot-llm-started)", "(bot-tts-started)", "(bot-started-speaking)"]
    assert told(dialect, ReplyInterrupted(1, ""))[:3] == [
        "new_conversation_turn",
        "tts_stream_end",
        "(bot-interrupted)",
    ]
    assert told(dialect, EngineFailed("stt", "it is gone")) == ["error", "(error)"]
    assert told(dialect, TurnMeasured(1, True, "a", "b")) == ["(server-message)"]
    assert told(dialect, SessionClosed("closed")) == [], "the close code tells"


@pytest.mark.parametrize("wanted", [False, None])
def test_who_does_not_want_rtvi_hears_nothing_of_it(wanted: Any) -> None:
    dialect = Vocal("s1")
    dialect.receive(json.dumps({**CONFIG, "rtvi": wanted}))
    assert [json.loads(m)["type"] for m in dialect.ready()] == ["call_ready"]
    assert told(dialect, SpeechStarted(0), ReplyStarted(1), ReplyText(1, "a"), TurnMeasured(1, False, "a", "b")) == []


@pytest.mark.parametrize("wanted", ["yes", 1, 0, [], {}, "true"])
def test_wanting_rtvi_is_true_or_false(wanted: Any) -> None:
    error = refused(Vocal("s1"), json.dumps({**CONFIG, "rtvi": wanted}))
    assert (error.param, str(error)) == ("rtvi", "rtvi must be true or false")


# --- whatever comes

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
KNOWN = st.sampled_from(["speech_start", "speech_end", "transcript", "ping", "audio", "config"])
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "type": KNOWN | ANY_JSON,
        "text": st.text() | ANY_JSON,
        "agentId": st.just("a") | ANY_JSON,
        "userId": st.just("u") | ANY_JSON,
        "agentName": st.just("n") | ANY_JSON,
        "rtvi": ANY_JSON,
    },
)
MESSAGES = st.binary() | st.text() | (ANY_JSON | NEARLY).map(json.dumps)


@settings(max_examples=100, deadline=None)
@given(st.booleans(), st.lists(MESSAGES, max_size=5))
def test_whatever_comes_is_accepted_or_a_protocol_error(begun: bool, messages: list[Message]) -> None:
    dialect = configured() if begun else Vocal("s1")
    for message in messages:
        with contextlib.suppress(ProtocolError):
            inputs = dialect.receive(message)
            assert begun or isinstance(inputs[0], Configured | Answer), "the configuration is the first"
            begun = begun or isinstance(inputs[0], Configured)
