"""The spec's raw-PCM dialect, ``/ws/{session_id}``; see docs/protocol.md.

The first message is the configuration, a JSON object with ``agentId``, ``userId`` and ``agentName``. Then come binary
messages, s16le at 16 kHz cut anywhere, and texts ``{"type": "speech_start" | "speech_end" | "transcript" | "ping"}``.
Ids may be numbers. ``userId`` is the client's own and names nothing here, so it may be an e-mail address, but no path.
``ping`` is what clients send to keep proxies from closing the connection: it is answered by ``pong``, at any time.

With ``"rtvi": true`` in the configuration the client is also told what a data channel would tell it, between the
dialect's own messages: they have no ``label``, RTVI's do.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, assert_never

import numpy as np

from pipeline.audio import VOICE_RATE_HZ, AudioFormat, AudioFrame
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
from signaling.rtvi import Rtvi
from signaling.schema import is_id

from .asking import require_text
from .audio_chunk import audio_chunk
from .dialect import Answer, Audio, Configured, Input, Message, PressEnded, PressStarted, Typed

LEAD_MS = 100
TEXT_MAX_CHARS = 262_144
"""Of a text message: an agent's longest system prompt, written in JSON's longest way, fits."""
REQUIRED = ("agentId", "userId", "agentName")
USER_ID = re.compile(r"(?!.*\.\.)[^\x00-\x1f\x7f/\\]{1,256}")


class Vocal:
    """``now_s`` tells the seconds since 1970 that ``audio_chunk`` messages carry."""

    output = AudioFormat(VOICE_RATE_HZ)
    lead_ms = LEAD_MS

    def __init__(self, session_id: str, now_s: Callable[[], float] = time.time) -> None:
        self._session_id = session_id
        self._now_s = now_s
        self._configured = False
        self._half_sample = b""
        self._streaming = False
        self._rtvi: Rtvi | None = None

    # --- in

    def receive(self, message: Message) -> Sequence[Input]:
        """See ``Dialect.receive``."""
        if isinstance(message, str):
            return [self._read(_read_object(message))]
        if not self._configured:
            raise ProtocolError("sound came before the configuration: send that first, as a text message")
        return self._sound(message)

    def _sound(self, octets: bytes) -> Sequence[Input]:
        octets = self._half_sample + octets
        samples, odd = divmod(len(octets), 2)
        self._half_sample = octets[-1:] if odd else b""
        return [Audio(np.frombuffer(octets, "<i2", samples).astype(np.int16, copy=False))] if samples else []

    def _read(self, fields: Mapping[str, Any]) -> Input:
        match fields.get("type"):
            case "ping":
                return Answer(self._message("pong"))
            case _ if not self._configured:
                request = _configuration(fields)
                self._configured = True
                self._rtvi = Rtvi() if request.get("rtvi") else None
                return Configured(request)
            case "speech_start":
                return PressStarted()
            case "speech_end":
                return PressEnded()
            case "transcript":
                return Typed(_typed(fields))
            case _:
                raise ProtocolError("type must be speech_start, speech_end, transcript or ping", param="type")

    # --- out

    def ready(self) -> Sequence[Message]:
        """See ``Dialect.ready``."""
        return [self._message("call_ready"), *([self._rtvi.ready()] if self._rtvi is not None else [])]

    def audio(self, frame: AudioFrame) -> Message | None:
        """See ``Dialect.audio``. The fade after an interruption is left out: its stream has ended."""
        if not self._streaming:
            return None
        return self._message("tts_stream", data=audio_chunk(frame.pcm, self._now_s()))

    def event(self, event: Event) -> Sequence[Message]:
        """See ``Dialect.event``. A stream begins with a reply's first sound and ends once, whatever ends the reply.

        The dialect's own messages come first: sound is thrown away before anybody is told why.
        """
        return [*self._tell(event), *self._tell_rtvi(event)]

    def _tell(self, event: Event) -> Sequence[Message]:
        match event:
            case ReplyAudioStarted():
                self._streaming = True
                return []
            case ReplyFinished():
                return self._end_stream()
            case ReplyInterrupted():
                return [self._message("new_conversation_turn"), *self._end_stream()]
            case EngineFailed():
                ended = self._end_stream() if event.reply is not None else []
                return [self.error(f"{event.stage}: {event.error}"), *ended]
            case SpeechStarted() | SpeechEnded() | TranscriptUpdated() | TurnEnded() | TurnMeasured():
                return []
            case ReplyStarted() | ReplyText() | ReplyClauseStarted() | SessionClosed():
                return []
            case _:
                assert_never(event)

    def _tell_rtvi(self, event: Event) -> Sequence[Message]:
        if self._rtvi is None or isinstance(event, SessionClosed):  # the close code tells that, and why
            return []
        return self._rtvi.send(event)

    def error(self, message: str) -> Message:
        """See ``Dialect.error``."""
        return self._message("error", error=message)

    def _end_stream(self) -> Sequence[Message]:
        if not self._streaming:
            return []
        self._streaming = False
        return [self._message("tts_stream_end")]

    def _message(self, kind: str, **fields: Any) -> str:
        return json.dumps({"type": kind, **fields, "session_id": self._session_id})


def _read_object(text: str) -> Mapping[str, Any]:
    if len(text) > TEXT_MAX_CHARS:
        raise ProtocolError(f"a text message may have {TEXT_MAX_CHARS} characters, not {len(text)}", status=413)
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("a text message must be JSON") from None
    if not isinstance(fields, dict):
        raise ProtocolError("a text message must be a JSON object")
    return fields


def _configuration(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check who asks; what is asked for is the catalogue's to judge."""
    lacking = [name for name in REQUIRED if fields.get(name) in (None, "")]
    if lacking:
        raise ProtocolError(f"the configuration lacks {', '.join(lacking)}", param=lacking[0])
    agent_id, user_id = _as_text(fields["agentId"]), _as_text(fields["userId"])
    if not is_id(agent_id):
        raise ProtocolError("agentId must be 1 to 64 letters, digits, - or _", param="agentId")
    if USER_ID.fullmatch(user_id) is None:
        raise ProtocolError("userId must be 1 to 256 characters, and no path", param="userId")
    if not isinstance(fields.get("rtvi"), bool | None):
        raise ProtocolError("rtvi must be true or false", param="rtvi")
    return {**fields, "agentId": agent_id, "userId": user_id}


def _as_text(value: object) -> str:
    """Return an id as text; what is neither text nor a number becomes one that nobody has."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**64 else ""
    return value if isinstance(value, str) else ""


def _typed(fields: Mapping[str, Any]) -> str:
    text = fields.get("text")
    if not isinstance(text, str):
        raise ProtocolError("a transcript needs its words as text", param="text")
    require_text(text, "text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ProtocolError("text holds half of a character (a lone surrogate)", param="text")
    return text
