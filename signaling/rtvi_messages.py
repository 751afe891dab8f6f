"""What an RTVI client says, as data: the envelope checked once, then one typed input a message.

RTVI 2.1.0 as spoken by ``@pipecat-ai/client-js`` 1.13 and its ``small-webrtc-transport`` 1.10, and 1.x before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import StringConstraints, ValidationError

from signaling.schema import Wire, explain

LABEL = "rtvi-ai"
MESSAGE_MAX_BYTES = 64 * 1024

ID_MAX = 128
TYPE_MAX = 128
VERSION_MAX = 32

ShortText = Annotated[str, StringConstraints(max_length=TYPE_MAX)]


class Envelope(Wire):
    """What every message has. ``signalling`` messages of SmallWebRTC have neither ``label`` nor ``id``."""

    type: ShortText
    label: ShortText = ""
    id: Annotated[str, StringConstraints(max_length=ID_MAX)] = ""
    data: Any = None
    message: Any = None


class ClientReadyData(Wire):
    """``client-ready``: the client's protocol version and what it is built of."""

    version: Annotated[str, StringConstraints(max_length=VERSION_MAX)] | None = None
    about: dict[str, Any] | None = None


class SendTextOptions(Wire):
    """``options`` of ``send-text``."""

    run_immediately: bool = True
    audio_response: bool = True


class SendTextData(Wire):
    """``send-text``: words the caller typed."""

    content: Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
    options: SendTextOptions | None = None


class ClientMessageData(Wire):
    """``client-message``: an application's own message ``t`` with whatever data ``d``."""

    t: ShortText
    d: Any = None


class TrackStatusData(Wire):
    """SmallWebRTC's ``trackStatus``: the client muted (``enabled`` false) or unmuted one of its tracks."""

    receiver_index: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class ClientReady:
    """The client can hear us. ``version`` is its protocol's, (0, 0, 0) when it named none that can be read."""

    id: str
    version: tuple[int, int, int]
    named_version: str | None = None


@dataclass(frozen=True, slots=True)
class SendText:
    """The caller typed ``text``. ``run_immediately``: interrupt and answer now; else keep it for the next answer.
    ``audio_response``: speak the answer."""

    id: str
    text: str
    run_immediately: bool = True
    audio_response: bool = True


@dataclass(frozen=True, slots=True)
class ClientMessage:
    """An application's own message; answer it with ``Rtvi.respond`` or ``Rtvi.reject``, or the client waits 10 s."""

    id: str
    name: str
    data: Any


@dataclass(frozen=True, slots=True)
class TrackStatus:
    """The client (un)muted its track: 0 is the microphone, 1 the camera, 2 the screen."""

    receiver_index: int
    enabled: bool


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Hang up."""


Input = ClientReady | SendText | ClientMessage | TrackStatus | Disconnect


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message that cannot be taken: ``id`` is its own where one could be read, else empty."""

    id: str
    error: str


def parse(message: str | bytes) -> Input | Refusal | None:
    """Read one data-channel message; None for a keep-alive or a signalling message that concerns nobody here."""
    raw = message.encode(errors="replace") if isinstance(message, str) else message
    if len(raw) > MESSAGE_MAX_BYTES:
        return Refusal("", f"message of {len(raw)} bytes: at most {MESSAGE_MAX_BYTES} are read")
    if raw.startswith(b"ping"):
        return None
    try:
        envelope = Envelope.model_validate_json(raw)
    except ValidationError as error:
        return Refusal("", explain(error))
    try:
        return open_envelope(envelope)
    except ValidationError as error:
        return Refusal(envelope.id, f"{envelope.type}: {explain(error)}")


def open_envelope(envelope: Envelope) -> Input | Refusal | None:
    """Read what an envelope holds. Raises ValidationError."""
    if envelope.type == "signalling":
        return track_status(envelope.message)
    if envelope.label != LABEL:
        return Refusal(envelope.id, f"label must be '{LABEL}'")
    match envelope.type:
        case "client-ready":
            version = ClientReadyData.model_validate(envelope.data or {}).version
            return ClientReady(envelope.id, parse_version(version), version)
        case "send-text":
            return typed_text(envelope.id, SendTextData.model_validate(envelope.data))
        case "client-message":
            data = ClientMessageData.model_validate(envelope.data)
            return ClientMessage(envelope.id, data.t, data.d)
        case "disconnect-bot":
            return Disconnect()
        case _:
            return Refusal(envelope.id, f"unsupported type '{envelope.type}'")


def track_status(message: Any) -> TrackStatus | None:
    """Read a SmallWebRTC signalling message; None for a kind that concerns nobody here."""
    if not isinstance(message, dict) or message.get("type") != "trackStatus":
        return None
    data = TrackStatusData.model_validate(message)
    return TrackStatus(data.receiver_index, data.enabled)


def typed_text(message_id: str, data: SendTextData) -> SendText:
    """Read ``send-text`` with its options' defaults."""
    options = data.options or SendTextOptions()
    return SendText(message_id, data.content, options.run_immediately, options.audio_response)


def parse_version(version: str | None) -> tuple[int, int, int]:
    """Read ``major.minor.patch``; (0, 0, 0) for anything else."""
    parts = (version or "").split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        return (0, 0, 0)
    return (int(parts[0]), int(parts[1]), int(parts[2]))
