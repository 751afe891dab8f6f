"""How fast the engines are: to their first output, and in all, at 1, 4 and 16 calls at once.

    python -m benchmarks.engines [--engines stt/faster_whisper llm/transformers tts/xtts] [--calls 1 4 16] [--rounds 10]

- stt: an utterance of 4 s, from its end to the final words; handed over at once, or frame by frame as it is spoken.
- llm: a prompt of 512 tokens of which none was seen before, until the first delta; 64 tokens are answered.
- tts: a sentence, until the first sound; 10 s are taken of it. "Stutter" is how long playing would have had to wait for
  sound after the first.

Engines are those of the product, through their contract, with its defaults, in this process; a service process adds its
hop (`benchmarks.service_hop`). Models are those that the settings name (VOCAL_WHISPER_MODEL, VOCAL_TRANSFORMERS_MODEL,
XTTS_MODEL_PATH). Where they name none, a model of random weights stands in, which has the very shape of one that people
run (Whisper small.en, Llama 3.1 8B, XTTS-v2) and says something of a given length: it is as fast. Without a GPU, and
with --small, the first two are smaller. XTTS is compared with the library's own stream, and with DeepSpeed's kernels
where there is a GPU. Variants and numbers of calls take turns in one run, of which a first round counts nothing; the
interval is where the median lies in 95 % of runs drawn from this one. Cloud engines cost money: they are measured only
if named (--engines llm/groq tts/elevenlabs tts/cartesia), with their keys in the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import importlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.audio import Pcm
from pipeline.engines import Settings, aclose
from pipeline.errors import EngineUnavailable

from .questions import Case, measure, utterance
from .servers import machine
from .subjects import KINDS, Options, Subjects, subjects

ENGINES = ("stt/pocketsphinx", "llm/eliza", "tts/espeak", "stt/faster_whisper", "llm/transformers", "tts/xtts")
VERSIONS = ("torch", "transformers", "ctranslate2", "faster-whisper", "coqui-tts", "deepspeed")


def run(options: Options, settings: Settings) -> Iterator[str]:
    """Measure one engine after the other; yield a table for each. Blocks for minutes."""
    pcm = utterance(options.utterance_s)
    for name in options.engines:
        print(f"{name} ...", file=sys.stderr)
        yield _table(name, options, settings, pcm)
        _give_back()


def _table(name: str, options: Options, settings: Settings, pcm: Pcm) -> str:
    with _remarks() as remarks:
        try:
            found = subjects(name, options, settings, pcm)
        except EngineUnavailable as error:
            return f"**{name}** was not measured: it needs {error}\n"
    asyncio.run(_measured(found, options))
    return report(found, remarks)


def _give_back() -> None:
    """Free what the last engine had, of a GPU too, before the next one looks how much there is."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None:
        torch.cuda.empty_cache()


async def _measured(found: Subjects, options: Options) -> None:
    try:
        await measure(found.cases, options.rounds, options.settle_s)
    finally:
        for engine in found.engines:
            await aclose(engine)


@contextmanager
def _remarks() -> Iterator[list[str]]:
    """Collect what engines say about themselves while they are made."""
    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    log = logging.getLogger("pipeline")
    handler, level = logging.Handler(), log.level
    handler.addFilter(keep)
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield said
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def report(found: Subjects, remarks: Sequence[str] = ()) -> str:
    """Return a table in Markdown, under a line that says what was measured."""
    units = {case.unit for case in found.cases} - {""}
    wait = f"{found.first}, ms: median"
    columns = ["", "calls", "n", wait, "95 %", "p95", f"{next(iter(units), '')} a second, all calls"]
    speaks = found.name.startswith("tts/")
    if speaks:
        columns.append("stutter, ms: p95")
    rows = [columns, ["---"] * len(columns), *(_row(case)[: len(columns)] for case in found.cases)]
    lines = [f"**{found.name}**" + f": {found.what}" * bool(found.what), ""]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {remark}" for remark in remarks), ""])


def _row(case: Case) -> list[str]:
    middle, high = case.first_ms()
    interval = case.interval_ms()
    between = f"{interval[0]:.1f} to {interval[1]:.1f}" if interval else "too few rounds"
    asked = str(sum(len(one.answers) for one in case.rounds))
    through = f"{case.throughput():.2f}" if case.unit else ""
    return [
        case.how,
        str(case.calls),
        asked,
        f"{middle:.1f}",
        between,
        f"{high:.1f}",
        through,
        f"{case.stutter_ms():.0f}",
    ]


def gpu() -> str:
    """Return the GPU's name and driver; empty without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return ""
    asked = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    return found.stdout.splitlines()[0] if found.returncode == 0 and found.stdout.strip() else ""


def _versions() -> str:
    found = []
    for name in VERSIONS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def share() -> str:
    """Say how much of the machine was ours."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"cores allowed {cores}, niceness {os.nice(0)}, load {os.getloadavg()[0]:.1f}"


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", default=ENGINES, metavar="KIND/NAME")
    parser.add_argument("--calls", nargs="+", type=int, default=(), help="1 4 16; of XTTS on a GPU 32, too")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--settle-s", type=float, default=0.5, help="pause between two questions")
    parser.add_argument("--utterance-s", type=float, default=4.0)
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--answer-tokens", type=int, default=64)
    parser.add_argument("--sound-s", type=float, default=10.0)
    parser.add_argument("--device", default="", help="cpu or cuda; the GPU if there is one")
    parser.add_argument("--small", action="store_true", help="smaller stand-ins: Whisper tiny.en, SmolLM2 135M")
    parser.add_argument("--cache", type=Path, help="where stand-ins are kept (17 GB with Llama 3.1 8B); else made anew")
    chosen = parser.parse_args(arguments)
    for name in chosen.engines:
        if name.partition("/")[0] not in KINDS:
            parser.error(f"--engines: {name!r} must be a kind and a name, as in {ENGINES[0]}")
    return chosen


def _device() -> str:
    return "cuda" if importlib.import_module("ctranslate2").get_cuda_device_count() else "cpu"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    chosen = _parsed(arguments)
    with ExitStack() as stack:
        cache = chosen.cache or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = Options(**{**vars(chosen), "device": chosen.device or _device(), "cache": cache})
        print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}, {gpu() or 'no GPU'}; on {options.device}")
        print(f"{_versions()}; {share()}\n")
        for table in run(options, os.environ):
            print(table, flush=True)
        print(share())


if __name__ == "__main__":
    main()
