"""Agents: who answers. A personality, a language and a voice; and how a client describes one."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from .engines import names
from .errors import ProtocolError
from .speech_detector import DetectorSettings

log = logging.getLogger(__name__)

SYSTEM_PROMPT = (
    "You are a friendly companion on a voice call. Answer in one or two short spoken sentences, "
    "at most thirty words, without lists, markup or emoji."
)


SAMPLE_PREFIX = "sample:"
"""A voice given to an engine that clones: this and the SHA-256 of a sample that `pipeline.voices` keeps."""

TEMPORARY_ID = "inline"
"""The id of an agent that a client describes without one."""


@dataclass(frozen=True, slots=True)
class Agent:
    """``voice`` None is the speech engine's default; ``speed`` 1.0 its own tempo; ``language`` ISO 639-1.

    ``voices`` are voices by the name of the speech engine they belong to; ``sample`` is the SHA-256 of the voice to
    clone. ``stt``, ``llm`` and ``tts`` name engines, None being the server's choice. ``detector`` replaces speech
    detection by loudness with these numbers.
    """

    id: str
    name: str
    system_prompt: str = SYSTEM_PROMPT
    greeting: str = ""
    language: str = "en"
    speed: float = 1.0
    voice: str | None = None
    allow_interruptions: bool = True
    voices: Mapping[str, str] = field(default_factory=dict)
    sample: str | None = None
    stt: str | None = None
    llm: str | None = None
    tts: str | None = None
    detector: DetectorSettings | None = None

    def voice_for(self, tts: str, *, clones: bool) -> str | None:
        """Return the voice to ask the speech engine ``tts`` for: its own, else the sample if it clones, else ours."""
        if tts in self.voices:
            return self.voices[tts]
        return f"{SAMPLE_PREFIX}{self.sample}" if self.sample and clones else self.voice


BUILT_IN = Agent("default", "Ada")
"""Who answers where the default agent was deleted."""

EngineKind = Literal["stt", "llm", "tts"]

ENGINE_NAMES: Mapping[EngineKind, frozenset[str]] = {
    "stt": frozenset(names("stt")),
    "llm": frozenset(names("llm")),
    "tts": frozenset(names("tts")),
}
"""What an agent may choose among."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

PRINTED = r"^[^\x00-\x1f\x7f]*$"

Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Checked with Rust's regex: ``$`` is the very end."""
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=PRINTED)]
SystemPrompt = Annotated[str, StringConstraints(max_length=16_384, pattern=r"^[^\x00]*$")]
Greeting = Annotated[str, StringConstraints(max_length=1_000, pattern=r"^[^\x00]*$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[A-Za-z]{2,4})?$")]
Speed = Annotated[float, Field(ge=0.25, le=4.0)]
VoiceName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTED)]
ModelName = Annotated[str, StringConstraints(max_length=200)]


def _spelled(camel: str, *others: str) -> Any:
    """Return a field that may be left out, under several names; the first one given counts."""
    return Field(None, validation_alias=AliasChoices(camel, *others))


_DETECTOR = DetectorSettings()


class DetectorFields(BaseModel):
    """``speechDetectorConfig``: a fraction of full scale, and seconds."""

    energy_threshold: float = Field(_DETECTOR.energy_threshold, ge=0, le=1)
    min_speech_duration: float = Field(_DETECTOR.min_speech_duration, ge=0, le=10)
    max_silence_duration: float = Field(_DETECTOR.max_silence_duration, ge=0.05, le=10)
    max_recording_duration: float = Field(_DETECTOR.max_recording_duration, ge=0.1, le=300)


class AgentFields(BaseModel):
    """What a client says of an agent, in the fields of the raw-PCM configuration; None is not given.

    Of ``null`` and blank text nothing is taken, but for an empty ``greeting``, which silences an agent's own.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    agent_id: Id | None = _spelled("agentId", "agent_id")
    config_id: Id | None = _spelled("configId", "config_id")
    name: Name | None = _spelled("agentName", "name")
    system_prompt: SystemPrompt | None = _spelled("systemPrompt", "system_prompt")
    greeting: Greeting | None = None
    language: Language | None = None
    speed: Speed | None = _spelled("speed", "rate")
    voice: VoiceName | None = None
    allow_interruptions: bool | None = _spelled("allowInterruptions", "allow_interruptions")
    sample_url: Annotated[str, StringConstraints(max_length=2_048)] | None = _spelled("voiceSampleUrl")
    cartesia: Id | None = _spelled("cartesiaVoiceId")
    elevenlabs: Id | None = _spelled("elevenLabsVoiceId", "elevenlabsVoiceId")
    stt: ModelName | None = _spelled("sttModel", "stt")
    llm: ModelName | None = _spelled("llmModel", "llm")
    tts: ModelName | None = _spelled("ttsModel", "tts")
    detector: DetectorFields | None = _spelled("speechDetectorConfig")

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, fields: Any) -> Any:
        return {key: value for key, value in fields.items() if not _is_blank(value) or (key, value) == ("greeting", "")}

    def ids(self) -> list[str]:
        """Return the ids that may be an agent's, in the order in which they are tried."""
        return [given for given in (self.agent_id, self.config_id) if given is not None]

    def over(self, known: Agent) -> Agent:
        """Return ``known`` with the fields that are given; a name is not one of them."""
        given = {name: value for name in _REPLACED if (value := getattr(self, name)) is not None}
        given |= {kind: name for kind in ENGINE_NAMES if (name := self._engine(kind)) is not None}
        if self.detector is not None:
            given["detector"] = DetectorSettings(**self.detector.model_dump())
        voices = {"cartesia": self.cartesia, "elevenlabs": self.elevenlabs}
        given["voices"] = {**known.voices, **{tts: voice for tts, voice in voices.items() if voice is not None}}
        return replace(known, **given)

    def alone(self, default: Agent) -> Agent:
        """Return a temporary agent; what is not given is the default agent's.

        With a system prompt of its own it is somebody else, who does not greet with the default's words.
        """
        if not self.model_fields_set:
            return default
        greeting = default.greeting if self.system_prompt is None else ""
        agent_id = next(iter(self.ids()), TEMPORARY_ID)
        return self.over(replace(default, id=agent_id, name=self.name or default.name, greeting=greeting))

    def _engine(self, kind: EngineKind) -> str | None:
        """Return the engine that is asked for. Clients of other servers send models' names, which choose none."""
        wanted: str | None = getattr(self, kind)
        if wanted is None or wanted in ENGINE_NAMES[kind]:
            return wanted
        log.debug("%s model %.64r names no engine: it is left to the server", kind, wanted)
        return None


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


_REPLACED = ("system_prompt", "greeting", "language", "speed", "voice", "allow_interruptions")


def is_id(text: str) -> bool:
    """Tell whether ``text`` can be an agent's or a voice's id."""
    return _ID.fullmatch(text) is not None


def read_request(request: Mapping[str, Any]) -> tuple[str | None, AgentFields]:
    """Return the id that a request names as its ``agent``, if it does, and what it says of an agent.

    Raises ProtocolError, whose ``param`` is the first wrong field.
    """
    match request.get("agent"):
        case None | "":
            return None, read_fields(request)
        case Mapping() as described:
            return None, read_fields(described)
        case str(agent_id):
            return agent_id, read_fields(request)
    raise ProtocolError("agent must be an agent's id, or an object with an agent's fields", param="agent")


def read_fields(fields: Mapping[str, Any]) -> AgentFields:
    """Check what a client says of an agent. Raises ProtocolError, whose ``param`` is the first wrong field."""
    try:
        return AgentFields.model_validate(dict(fields))
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or "agent"
        raise ProtocolError(f"agent field {param}: {first['msg']}", param=param) from None
