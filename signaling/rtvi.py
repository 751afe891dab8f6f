"""RTVI on the data channel and, outwards, on WebSockets, sans-IO: events to messages, messages to typed inputs.

The protocol is Pipecat's (docs.pipecat.ai, RTVI standard); names and shapes are those of its version 2.1.0, so its
client SDKs connect unmodified. One ``Rtvi`` speaks for one session, over however many data channels that has in turn.

Nothing waits for ``client-ready``. As Pipecat does, events are translated from the first on: the SDKs hand every
message to the application whatever the handshake's state, and a client that never says ``client-ready`` (a recorder,
a script) would otherwise see nothing while a queue grew. Until a client names a 1.x version it is spoken to in 2.x.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, assert_never

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
from signaling.rtvi_messages import LABEL, ClientMessage, ClientReady, Input, Refusal, parse

PROTOCOL_VERSION = "2.1.0"
MAJOR, LEGACY_MAJOR = 2, 1
ABOUT = {"library": "vocal-node"}

LLM, TTS, SPEAKING = "bot-llm", "bot-tts", "bot-speaking"
STARTED = {LLM: "bot-llm-started", TTS: "bot-tts-started", SPEAKING: "bot-started-speaking"}
STOPPED = {LLM: "bot-llm-stopped", TTS: "bot-tts-stopped", SPEAKING: "bot-stopped-speaking"}


@dataclass(frozen=True, slots=True)
class Received:
    """What one incoming message came to: at most one ``input``, and ``replies`` to send at once, in order."""

    input: Input | None = None
    replies: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Segment:
    """A clause being heard."""

    id: int
    text: str


class Rtvi:
    """Translate one session to and from RTVI. Never blocks, never raises on anything a client sends."""

    def __init__(
        self,
        about: Mapping[str, str] = ABOUT,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``about`` goes into ``bot-ready``; ``utc_now`` dates transcripts."""
        self._about = dict(about)
        self._utc_now = utc_now
        self._client_version = (0, 0, 0)
        self._sent = 0
        self._segments = 0
        self._segment: Segment | None = None
        self._open: list[str] = []

    # Out

    def send(self, event: Event) -> list[str]:
        """Translate one event into the messages to send, in order; each is one JSON text. Call it for every event."""
        match event:
            case SpeechStarted():
                return [self._message("user-started-speaking")]
            case SpeechEnded():
                return [self._message("user-stopped-speaking")]
            case TranscriptUpdated():
                return [self._transcription(event)]
            case TurnEnded():
                return [self._message("user-llm-text", {"text": event.text})]
            case ReplyStarted():
                return self._begin(LLM)
            case ReplyText():
                return self._reply_text(event)
            case ReplyAudioStarted():
                return [*self._begin(TTS), *self._begin(SPEAKING)]
            case ReplyClauseStarted():
                return self._clause(event.text)
            case ReplyFinished():
                return [*self._complete_segment(), *self._end_all()]
            case ReplyInterrupted():
                self._segment = None
                return [self._message("bot-interrupted"), *self._end_all()]
            case EngineFailed():
                return self._failed(event)
            case TurnMeasured():
                return self._measured(event)
            case SessionClosed(reason):
                return [peer_left(reason)]
            case _:
                assert_never(event)

    def ready(self) -> str:
        """Tell a client that cannot ask (``client-ready``) that the agent is there."""
        return self._bot_ready(PROTOCOL_VERSION)

    def respond(self, request: ClientMessage, data: Any) -> str:
        """Answer an application's message."""
        return self._message("server-response", {"t": request.name, "d": data}, request.id)

    def reject(self, request: ClientMessage, error: str) -> str:
        """Refuse an application's message."""
        return self._error_response(request.id, error)

    def error(self, error: str, *, fatal: bool = False) -> str:
        """Tell of a failure that answers no request; ``fatal``: the session ends with it."""
        return self._message("error", {"error": error, "message": error, "fatal": fatal})

    def _message(self, kind: str, data: Any = None, message_id: str | None = None) -> str:
        self._sent += 1
        message: dict[str, Any] = {"label": LABEL, "type": kind}
        message["id"] = str(self._sent) if message_id is None else message_id
        if data is not None:
            message["data"] = data
        return json.dumps(message)

    def _bot_ready(self, version: str, message_id: str | None = None) -> str:
        return self._message("bot-ready", {"version": version, "about": self._about}, message_id)

    def _error_response(self, message_id: str, error: str) -> str:
        return self._message("error-response", {"error": error}, message_id)

    def _begin(self, span: str) -> list[str]:
        if span in self._open:
            return []
        self._open.append(span)
        return [self._message(STARTED[span])]

    def _end(self, span: str) -> list[str]:
        if span not in self._open:
            return []
        self._open.remove(span)
        return [self._message(STOPPED[span])]

    def _end_all(self) -> list[str]:
        return [message for span in tuple(self._open) for message in self._end(span)]

    def _transcription(self, event: TranscriptUpdated) -> str:
        timestamp = self._utc_now().isoformat(timespec="milliseconds")
        data = {"text": event.text, "user_id": "", "timestamp": timestamp, "final": event.final}
        return self._message("user-transcription", data)

    def _reply_text(self, event: ReplyText) -> list[str]:
        messages = [self._message("bot-llm-text", {"text": event.text})] if event.text else []
        return [*messages, *self._end(LLM)] if event.final else messages

    def _clause(self, text: str) -> list[str]:
        messages = [*self._complete_segment(), *self._begin(TTS)]
        self._segments += 1
        self._segment = Segment(self._segments, text)
        messages.append(self._bot_output(self._segment, "new"))
        messages.append(self._message("bot-tts-text", {"text": text}))
        messages.append(self._message("bot-transcription", {"text": text}))
        return messages

    def _complete_segment(self) -> list[str]:
        segment, self._segment = self._segment, None
        if segment is None or self._is_legacy_client:
            return []
        return [self._bot_output(segment, "completed")]

    @property
    def _is_legacy_client(self) -> bool:
        return self._client_version[0] == LEGACY_MAJOR

    def _bot_output(self, segment: Segment, status: str) -> str:
        data: dict[str, Any] = {"text": segment.text, "aggregated_by": "sentence", "segment_id": segment.id}
        if self._is_legacy_client:
            return self._message("bot-output", data | {"spoken": True})
        spoken, unspoken = ("", segment.text) if status == "new" else (segment.text, "")
        progress = {"accumulated_text": spoken, "remaining_text": unspoken}
        return self._message(
            "bot-output", data | {"will_be_spoken": True, "spoken_status": status, "spoken_progress": progress}
        )

    def _failed(self, event: EngineFailed) -> list[str]:
        message = self.error(f"{event.stage}: {event.error}")
        if event.reply is None:
            return [message]
        self._segment = None
        return [message, *self._end_all()]

    def _measured(self, event: TurnMeasured) -> list[str]:
        messages = [self._message("server-message", {"t": "turn", "speech_end_ms": 0, **asdict(event)})]
        ttfb = ttfb_metrics(event)
        return [*messages, self._message("metrics", {"ttfb": ttfb})] if ttfb else messages

    # In

    def receive(self, message: str | bytes) -> Received:
        """Read one data-channel message. Rubbish comes back as an ``error-response``, a keep-alive as nothing."""
        match parse(message):
            case Refusal(message_id, error):
                return Received(replies=[self._error_response(message_id, error)])
            case ClientReady() as ready:
                return Received(ready, self._handshake(ready))
            case other:
                return Received(other)

    def _handshake(self, ready: ClientReady) -> list[str]:
        self._client_version = ready.version
        ours = ".".join(map(str, ready.version)) if self._is_legacy_client else PROTOCOL_VERSION
        bot_ready = self._bot_ready(ours, ready.id)
        if not ready.named_version or ready.version[0] in (LEGACY_MAJOR, MAJOR):
            return [bot_ready]
        warning = f"RTVI version '{ready.named_version}' is not known here (ours is {PROTOCOL_VERSION}): expect trouble"
        return [self._error_response(ready.id, warning), bot_ready]


def peer_left(reason: str) -> str:
    """SmallWebRTC's farewell: the client's ``onBotDisconnected`` fires at once, not when ICE notices.

    ``reason`` is our addition: after "server closed" another server may carry on.
    """
    return json.dumps({"type": "signalling", "message": {"type": "peerLeft", "reason": reason}})


def ttfb_metrics(event: TurnMeasured) -> list[dict[str, Any]]:
    """Each stage's own time to first byte in seconds, as Pipecat's ``metrics`` has it, from the turn's one axis."""
    stages = (
        ("stt", 0.0, event.stt_ms),
        ("llm", event.stt_ms, event.ttft_ms),
        ("tts", event.first_clause_ms, event.ttfb_ms),
    )
    return [
        {"processor": name, "value": round(max(0.0, end_ms - start_ms) / 1000, 4)}
        for name, start_ms, end_ms in stages
        if start_ms is not None and end_ms is not None
    ]
