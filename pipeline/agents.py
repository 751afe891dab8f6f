"""Agents: who answers. A personality, a language and a voice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from .errors import ProtocolError
from .speech_detector import DetectorSettings

SYSTEM_PROMPT = (
    "You are a friendly companion on a voice call. Answer in one or two short spoken sentences, "
    "at most thirty words, without lists, markup or emoji."
)


SAMPLE_PREFIX = "sample:"
"""A voice given to an engine that clones: this and the SHA-256 of a sample that `pipeline.voices` keeps."""


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


class InlineAgent(BaseModel):
    """An agent described by the client itself, in the field names of the raw-PCM configuration."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    agent_id: str | None = Field(None, alias="agentId", pattern=r"^[A-Za-z0-9_-]{1,64}$")
    name: str = Field("Agent", max_length=200, validation_alias=AliasChoices("agentName", "name"))
    system_prompt: str = Field(
        SYSTEM_PROMPT, max_length=16_384, validation_alias=AliasChoices("systemPrompt", "system_prompt")
    )
    greeting: str = Field("", max_length=1_000)
    language: str = Field("en", pattern=r"^[a-z]{2}(-[A-Za-z]{2,4})?$")
    speed: float = Field(1.0, ge=0.25, le=4.0, validation_alias=AliasChoices("speed", "rate"))
    voice: str | None = Field(None, max_length=200)
    allow_interruptions: bool = Field(True, validation_alias=AliasChoices("allowInterruptions", "allow_interruptions"))

    def agent(self) -> Agent:
        """Return it as an agent of its own."""
        return Agent(
            id=self.agent_id or "inline",
            name=self.name,
            system_prompt=self.system_prompt,
            greeting=self.greeting,
            language=self.language,
            speed=self.speed,
            voice=self.voice,
            allow_interruptions=self.allow_interruptions,
        )


_DESCRIBES = frozenset(
    key
    for name, field in InlineAgent.model_fields.items()
    if name != "agent_id"
    for key in (name, *(field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else ()))
)
"""Every key that makes a request an agent's description; an id alone describes nothing."""


class Agents:
    """The agents this server knows by id; the first is the one who answers when none is named."""

    def __init__(self, *agents: Agent) -> None:
        self._agents = {agent.id: agent for agent in agents or (Agent("default", "Ada"),)}

    def find(self, request: Mapping[str, Any]) -> Agent:
        """Return the agent a client asked for: by id (``agent``), or described inline.

        Raises ProtocolError (param ``agent``) for an id nobody has and for fields that are out of bounds.
        """
        wanted = request.get("agent")
        if isinstance(wanted, Mapping):
            return self._inline(wanted)
        if wanted is not None:
            return self._named(wanted)
        return self._inline(request) if _DESCRIBES & request.keys() else next(iter(self._agents.values()))

    def _named(self, wanted: object) -> Agent:
        agent = self._agents.get(wanted) if isinstance(wanted, str) else None
        if agent is None:
            known = ", ".join(sorted(self._agents))
            raise ProtocolError(f"there is no agent {str(wanted)[:64]!r}; known: {known}", param="agent")
        return agent

    def _inline(self, fields: Mapping[str, Any]) -> Agent:
        try:
            return InlineAgent.model_validate(dict(fields)).agent()
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "agent"
            raise ProtocolError(f"agent field {field}: {first['msg']}", param=field) from error
