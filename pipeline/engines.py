"""The engine contracts, and how an engine is found by name.

An engine is one file ``pipeline/<kind>/<name>.py`` with two functions:

- ``create(settings) -> engine``: build it, or raise ``EngineUnavailable`` naming the one thing it lacks. May load
  models and may block: it is called once, off the event loop, at start.
- ``describe(settings) -> Usable``: say cheaply whether ``create`` would succeed, and why ``auto`` should (not) take it.

It may say where it runs, for operators: a ``url`` if elsewhere, a ``device`` (``cuda:0``) where there are several.

An instance is shared by all sessions and keeps no session state. Closing an iterator stops output at once; a
worker thread may finish its current step, whose result is thrown away.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

from .audio import AudioFrame, Pcm
from .errors import EngineUnavailable
from .events import Message, Transcript

Kind = Literal["vad", "stt", "llm", "tts", "turn"]

Settings = Mapping[str, str]
"""An engine's settings: the process's environment (``GROQ_API_KEY``, ``VOCAL_...``); every engine documents its own."""


@dataclass(frozen=True, slots=True)
class Usable:
    """What ``vocal-node doctor`` prints of an engine.

    ``lacks`` is the one thing that is missing ("pip install vocal-node[xtts]", "GROQ_API_KEY"), None if usable.
    ``rank`` orders the usable ones for ``auto``: the highest wins; below 0 is never chosen by itself.
    ``note`` says what it is or runs on, in a few words.
    ``heavy`` engines never run in the media process: they get a service process of their own.
    """

    rank: int
    note: str
    lacks: str | None = None
    heavy: bool = False


class SpeechProbability(Protocol):
    """One session's detector state. ``probability`` takes exactly ``window_samples`` and needs under 1 ms.

    One with an attribute ``lingers_ms`` may take so much of the silence after speech for speech; it is told apart.
    """

    window_samples: int

    def probability(self, window: Pcm) -> float:
        """Return the probability (0..1) that these 16 kHz samples hold speech. Blocks under 1 ms."""
        ...


@runtime_checkable
class VoiceActivityDetector(Protocol):
    """The shared part of a detector (the model); ``open`` gives one session its own state."""

    def open(self) -> SpeechProbability:
        """Return fresh state."""
        ...


@runtime_checkable
class SpeechToText(Protocol):
    """Turn one utterance into words."""

    def transcribe(
        self, frames: AsyncIterator[AudioFrame], language: str | None, prompt: str = ""
    ) -> AsyncIterator[Transcript]:
        """Yield cumulative transcripts; the end of ``frames`` (16 kHz) is the end of the utterance.

        The last one yielded is final; behind the end of ``frames`` a final one is the last, and the iterator is closed.
        An utterance without words yields a final empty text. ``language`` is an ISO 639-1 code, or None to detect.
        ``prompt`` holds words that are likely, names above all; an engine that cannot be told ignores it.

        To an engine with an attribute ``hears_pauses = True`` a frame without samples says that the caller has fallen
        silent, maybe for good. It yields all words up to there, with the frame's pts as ``pause_samples`` and as good
        as final, as soon as it can, unless another pause comes first. If nothing more is said they are the
        utterance's words, and the iterator is closed.
        """
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """Answer a conversation."""

    def complete(self, messages: Sequence[Message]) -> AsyncIterator[str]:
        """Yield text deltas; ``messages`` begin with the system prompt and end with the user's words."""
        ...


@runtime_checkable
class TextToSpeech(Protocol):
    """Speak a clause. ``rate_hz`` is the rate of what ``synthesize`` yields.

    An engine that clones voices says so with an attribute ``clones = True``, its module with ``CLONES``: it takes
    ``sample:`` and the SHA-256 of a sample (`pipeline.voices`) as a voice. Others are never given one. What a vendor
    needs to make a voice is in `pipeline.cloning`.

    An engine that can join the clauses of a reply has a method ``open`` (see `pipeline.reply_speech`).
    """

    rate_hz: int

    def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield int16 mono arrays at ``rate_hz`` as they are made. ``voice`` None is the engine's default.

        Each array is kept until it is played: its memory must not be used again.
        ``speed`` 1.0 is the voice's own tempo. Voices and languages it does not have raise NotOffered.
        """
        ...


@runtime_checkable
class EndOfTurn(Protocol):
    """Judge whether the caller has finished; by the sound alone, if it has an attribute ``reads_words = False``."""

    async def is_complete(self, audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        """Return the probability (0..1) that the turn is over; 0.5 is no opinion (`pipeline.endpointing`).

        ``audio_tail`` is up to 8 s of the turn at 16 kHz, ``transcript`` its words, ``language`` an ISO 639-1 code.
        An answer that takes more than 250 ms (`Patience.turn_s`) is not heard. Canceling is safe.
        """
        ...


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines a session uses, shared with all others."""

    vad: VoiceActivityDetector
    stt: SpeechToText
    llm: LanguageModel
    tts: TextToSpeech
    turn: EndOfTurn | None = None


CONTRACTS: dict[Kind, type[Any]] = {
    "vad": VoiceActivityDetector,
    "stt": SpeechToText,
    "llm": LanguageModel,
    "tts": TextToSpeech,
    "turn": EndOfTurn,
}


def module(kind: Kind, name: str) -> ModuleType:
    """Import the engine's module; a dotted ``name`` is a third party's. Unknown names raise EngineUnavailable."""
    path = name if "." in name else f"pipeline.{kind}.{name}"
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not path.startswith(error.name):
            raise EngineUnavailable(f"{kind} engine {name!r} needs the Python package {error.name!r}") from error
        raise EngineUnavailable(f"there is no {kind} engine named {name!r}; known: {', '.join(names(kind))}") from error


def load(kind: Kind, name: str, settings: Settings) -> Any:
    """Create the engine ``name``. May block. Raises EngineUnavailable, which names what is missing."""
    engine = module(kind, name).create(settings)
    if not isinstance(engine, CONTRACTS[kind]):
        raise EngineUnavailable(f"{kind} engine {name!r} does not fulfil {CONTRACTS[kind].__name__}")
    return engine


def names(kind: Kind) -> list[str]:
    """Return the names of the engines of this kind that ship with Vocal Node, sorted."""
    import pkgutil

    package = importlib.import_module(f"pipeline.{kind}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


@dataclass(frozen=True, slots=True)
class Chosen:
    """An engine in use; ``why`` is one line for the start-up log."""

    name: str
    engine: Any
    why: str


def usable(kind: Kind, settings: Settings) -> list[tuple[str, Usable]]:
    """Describe every engine of this kind that ships, the best first. Cheap: loads no model, asks no network."""
    described = [(name, module(kind, name).describe(settings)) for name in names(kind)]
    return sorted(described, key=lambda item: (item[1].lacks is not None, -item[1].rank, item[0]))


Load = Callable[[Kind, str, Settings], Any]


def choose(kind: Kind, wanted: str, settings: Settings, load: Load = load) -> Chosen:
    """Create the engine ``wanted``, or for ``auto`` the best that can be created here. May block.

    ``auto`` takes the next one where one turns out unusable, and says so. Raises EngineUnavailable. ``load`` creates
    an engine by name.
    """
    if wanted != "auto":
        return Chosen(wanted, load(kind, wanted, settings), f"{kind} {wanted}: as configured")
    passed_over: list[str] = []
    for name, found in sorted(usable(kind, settings), key=lambda item: -item[1].rank):
        if found.rank < 0:
            continue
        try:
            engine = _load_described(kind, name, found, settings, load)
        except EngineUnavailable as error:
            passed_over.append(f"{name} (needs {error})")
        else:
            instead = f"; passed over: {', '.join(passed_over)}" if passed_over else ""
            return Chosen(name, engine, f"{kind} {name}: {found.note}{instead}")
    raise EngineUnavailable(f"no {kind} engine is usable here: {', '.join(passed_over)}")


def _load_described(kind: Kind, name: str, found: Usable, settings: Settings, load: Load) -> Any:
    if found.lacks is not None:
        raise EngineUnavailable(found.lacks)
    return load(kind, name, settings)


def is_heavy(kind: Kind, name: str, settings: Settings) -> bool:
    """Tell whether an engine needs a process of its own. May import its module.

    Raises EngineUnavailable, also for a heavy one that lacks something: no process has to be started to find that out.
    """
    describe = getattr(module(kind, name), "describe", None)
    found: Usable | None = describe(settings) if describe is not None else None
    if found is None or not found.heavy:
        return False
    if found.lacks is not None:
        raise EngineUnavailable(found.lacks)
    return True


def hears_pauses(stt: object) -> bool:
    """Tell whether a speech-to-text engine is told of pauses."""
    return bool(getattr(stt, "hears_pauses", False))


def prepare(engine: object) -> None:
    """Let an engine that asks others (its ``prepare``) connect before it is asked. Does not block, raises nothing."""
    getattr(engine, "prepare", lambda: None)()


def close(engine: object) -> None:
    """Join the threads an engine owns, if any; blocks while they finish their current step. Idempotent."""
    getattr(engine, "close", lambda: None)()


async def aclose(engine: object) -> None:
    """Close the connections an engine owns (its ``aclose``), if any, then its threads as `close` does."""
    closer = getattr(engine, "aclose", None)
    if closer is not None:
        await closer()
    close(engine)


def number(settings: Settings, name: str, default: float, *, least: float = 0.0) -> float:
    """Read a number from the settings. Raises EngineUnavailable where it is none or below ``least``."""
    text = settings.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise EngineUnavailable(f"{name} must be a number, not {text!r}") from error
    if not least <= value < float("inf"):
        raise EngineUnavailable(f"{name} must be at least {least:g}, not {text}")
    return value
