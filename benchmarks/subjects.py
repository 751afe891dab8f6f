"""Engines set up to be measured: with the models that the settings name, or stand-ins of random weights in their place.

How fast a model is depends on its shape and on how long its answers are, not on what its weights are; so a stand-in has
the shape of a model that people run, and what it says is as long as is asked for.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.audio import Pcm
from pipeline.engines import Kind, Settings, load

from . import questions, random_whisper
from .questions import Ask, Case
from .random_whisper import Script

CALLS, CALLS_GPU, CALLS_CPU = (1, 4, 16), (1, 4, 16, 32), (1, 4)
"""Asked at once by default: of most engines; of XTTS on a GPU; of what is slow without one."""

SAID = "I would like to know what the weather will be like in the mountains tomorrow"
"""15 tokens and the end, as four seconds of speech have."""

SENTENCE = (
    "The train to the coast leaves at half past nine from the second platform, and if you would rather travel in the "
    "afternoon, there is another one at three that takes a little longer but has more room."
)
"""Ten seconds of speech."""

SPEECH, WORDS = "s of speech", "deltas"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says; ``calls`` empty is each engine's own."""

    engines: Sequence[str]
    calls: Sequence[int]
    rounds: int
    settle_s: float
    utterance_s: float
    prompt_tokens: int
    answer_tokens: int
    sound_s: float
    device: str
    small: bool
    cache: Path

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to use."""
        return self.device.startswith("cuda")


@dataclass(frozen=True, slots=True)
class Subjects:
    """One engine, maybe in several variants, which are asked in turns; ``what`` is in it, ``first`` is waited for."""

    name: str
    what: str
    first: str
    engines: list[Any] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)

    def add(self, engine: Any, ask: Ask, how: str, calls: Sequence[int], unit: str = "", spread_s: float = 0.0) -> None:
        """Have an engine asked in one way."""
        if engine not in self.engines:
            self.engines.append(engine)
        self.cases.extend(Case(how, each, ask, unit, spread_s) for each in calls)


def subjects(name: str, options: Options, settings: Settings, pcm: Pcm) -> Subjects:
    """Set up an engine, named as ``kind/name``. Blocks, with stand-ins to be made for minutes.

    Raises EngineUnavailable for what it lacks.
    """
    if name in STAND_INS:
        return STAND_INS[name](options, settings, pcm)
    kind, _, plain = name.partition("/")
    engine = load(kind, plain, settings)  # type: ignore[arg-type]
    return KINDS[kind](name, engine, options, pcm)


def _whisper(options: Options, settings: Settings, pcm: Pcm) -> Subjects:
    own = settings.get("VOCAL_WHISPER_MODEL", "")
    shape = "tiny.en" if options.small else "small.en" if options.cuda else "base.en"
    stored = "float16" if options.cuda else "int8"
    folder = own or _made(options, f"whisper-{shape}", partial(_write_whisper, shape=shape))
    what = own or f"{shape}'s shape, random weights that say {len(SAID.split())} tokens"
    named = {
        "VOCAL_WHISPER_COMPUTE_TYPE": stored,
        **settings,
        "VOCAL_WHISPER_MODEL": str(folder),
        "VOCAL_WHISPER_DEVICE": options.device,
    }
    found = Subjects("stt/faster_whisper", f"{what}, {named['VOCAL_WHISPER_COMPUTE_TYPE']}", "final words")
    calls = options.calls or CALLS
    plain = load("stt", "faster_whisper", {**named, "VOCAL_WHISPER_PARTIAL_MS": "0"})
    _heard(found, plain, "", calls, pcm)
    looking = load("stt", "faster_whisper", named)
    found.add(looking, lambda _: questions.hear(looking, pcm, in_real_time=True), "in real time, partial words", calls)
    return found


def _write_whisper(folder: Path, shape: str) -> None:
    random_whisper.write(folder, random_whisper.SHAPES[shape], [f" {SAID}"] * 8, Script(f" {SAID}"), stored="float16")


def _heard(found: Subjects, stt: Any, variant: str, calls: Sequence[int], pcm: Pcm) -> None:
    found.add(stt, lambda _: questions.hear(stt, pcm, in_real_time=False), f"{variant}at once", calls, SPEECH)
    found.add(stt, lambda _: questions.hear(stt, pcm, in_real_time=True), f"{variant}in real time", calls)


def _transformers(options: Options, settings: Settings, pcm: Pcm) -> Subjects:
    own = settings.get("VOCAL_TRANSFORMERS_MODEL", "")
    shape = "Llama 3.1 8B" if options.cuda and not options.small else "SmolLM2 135M"
    dtype = settings.get("VOCAL_TRANSFORMERS_DTYPE", "") or ("bfloat16" if options.cuda else "float32")
    folder = own or _made(
        options, f"{shape} {dtype}", partial(_write_llama, shape=shape, dtype=dtype, device=options.device)
    )
    what = own or f"{shape}'s shape, random weights"
    named = {
        **settings,
        "VOCAL_TRANSFORMERS_MODEL": str(folder),
        "VOCAL_TRANSFORMERS_DTYPE": dtype,
        "VOCAL_TRANSFORMERS_DEVICE": options.device,
        "VOCAL_TRANSFORMERS_MAX_TOKENS": str(options.answer_tokens),
    }
    engine = load("llm", "transformers", named)
    return _answering(
        "llm/transformers", engine, options, pcm, f"{what}, {dtype}", CALLS if options.cuda else CALLS_CPU
    )


def _write_llama(folder: Path, shape: str, dtype: str, device: str) -> None:
    from . import random_llama

    random_llama.write(folder, random_llama.SHAPES[shape], dtype, device)


def _xtts(options: Options, settings: Settings, pcm: Pcm) -> Subjects:
    own = settings.get("XTTS_MODEL_PATH", "")
    folder = Path(own or _made(options, "xtts-v2", _write_xtts))
    found = Subjects("tts/xtts", f"{own or 'its shape, random weights'}, float32", "first sound")
    named = {
        "VOCAL_DATA_DIR": str(options.cache),
        **settings,
        "XTTS_MODEL_PATH": str(folder),
        "VOCAL_XTTS_DEVICE": options.device,
    }
    calls = options.calls or (CALLS_GPU if options.cuda else CALLS_CPU)
    deepspeed = options.cuda and find_spec("deepspeed") is not None
    for variant, setting in (("", "0"), ("DeepSpeed, ", "1"))[: 1 + deepspeed]:
        _spoken(found, load("tts", "xtts", {**named, "VOCAL_XTTS_DEEPSPEED": setting}), variant, calls, options)
    if 1 in calls:
        from .stock_xtts import StockXtts

        stock = StockXtts(folder, options.device)
        found.add(
            stock, lambda _: questions.speak(stock, SENTENCE, options.sound_s), "the library's stream", (1,), SPEECH
        )
    return found


def _write_xtts(folder: Path) -> None:
    from . import random_xtts

    random_xtts.write(folder, random_xtts.RELEASED)


def _made(options: Options, name: str, write: Callable[[Path], object]) -> str:
    """Return the folder of a stand-in, made once for each cache."""
    folder = options.cache / name.lower().replace(" ", "-")
    if not folder.is_dir():
        print(f"making {folder}", file=sys.stderr)
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished)
        unfinished.rename(folder)
    return str(folder)


def _hearing(name: str, engine: Any, options: Options, pcm: Pcm) -> Subjects:
    found = Subjects(name, "", "final words")
    _heard(found, engine, "", options.calls or CALLS, pcm)
    return found


def _answering(
    name: str, engine: Any, options: Options, pcm: Pcm, what: str = "", calls: Sequence[int] = CALLS
) -> Subjects:
    from .random_llama import prompt

    size = options.prompt_tokens
    found = Subjects(name, what, "first delta")
    how = f"{size} tokens asked, none seen before"
    found.add(engine, lambda n: questions.answer(engine, prompt(size, n)), how, options.calls or calls, WORDS)
    return found


def _speaking(name: str, engine: Any, options: Options, pcm: Pcm) -> Subjects:
    found = Subjects(name, "", "first sound")
    _spoken(found, engine, "", options.calls or CALLS, options)
    return found


def _spoken(found: Subjects, tts: Any, variant: str, calls: Sequence[int], options: Options) -> None:
    def ask(_: int) -> Any:
        return questions.speak(tts, SENTENCE, options.sound_s)

    found.add(tts, ask, f"{variant}begun together", calls, SPEECH)
    several = [each for each in calls if each > 1]
    found.add(tts, ask, f"{variant}begun within {options.sound_s:g} s", several, "", options.sound_s)


STAND_INS: Mapping[str, Callable[[Options, Settings, Pcm], Subjects]] = {
    "stt/faster_whisper": _whisper,
    "llm/transformers": _transformers,
    "tts/xtts": _xtts,
}
KINDS: Mapping[Kind | str, Callable[[str, Any, Options, Pcm], Subjects]] = {
    "stt": _hearing,
    "llm": _answering,
    "tts": _speaking,
}
