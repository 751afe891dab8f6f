"""The engines' benchmark, from stand-ins to tables, with models so small that it takes seconds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.xtts_checkpoint import TINY as TINY_XTTS  # skips this file without the extra
from tests.xtts_checkpoint import narrow_vocoder

# isort: split
from benchmarks import random_llama, random_whisper, random_xtts, subjects
from benchmarks.engines import ENGINES, run
from benchmarks.questions import Answer, Case, Round
from benchmarks.random_whisper import Script
from benchmarks.subjects import Options
from pipeline.audio import silence
from pipeline.engines import close
from pipeline.events import Message

from .recordings import in_frames
from .tiny_whisper import TINY as TINY_WHISPER

TINY_LLAMA = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
}
OPTIONS = Options(
    engines=ENGINES,
    calls=(1, 2),
    rounds=1,
    settle_s=0.0,
    utterance_s=0.5,
    prompt_tokens=40,
    answer_tokens=6,
    sound_s=0.4,
    device="cpu",
    small=True,
    cache=Path(),
)


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Let the stand-ins be tiny."""
    narrow_vocoder(monkeypatch)
    monkeypatch.setattr(random_whisper, "SHAPES", {"tiny.en": replace(TINY_WHISPER, vocabulary=2500)})
    monkeypatch.setattr(random_llama, "SHAPES", {"SmolLM2 135M": TINY_LLAMA})
    monkeypatch.setattr(random_xtts, "RELEASED", TINY_XTTS)
    return replace(OPTIONS, cache=tmp_path)


def rows(table: str) -> list[dict[str, str]]:
    """Read a table in Markdown."""
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines() if line.startswith("|")]
    assert {len(row) for row in cells} == {len(cells[0])} and cells[1] == ["---"] * len(cells[0])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def hold(found: Sequence[Mapping[str, str]], rounds: int) -> None:
    """Hold the figures to their kind, whatever their size."""
    for row in found:
        middle, high = (float(next(v for k, v in row.items() if k.endswith(name))) for name in ("median", "p95"))
        assert middle > 0 and int(row["n"]) == rounds * int(row["calls"])
        through = next(v for k, v in row.items() if k.endswith("a second, all calls"))
        assert (through == "") == ("real time" in row[""] or "within" in row[""])
        assert through == "" or float(through) > 0
        assert high >= (0 if "stutter, ms: p95" in row else middle)


def test_every_engine_that_runs_here_gets_a_table(options: Options) -> None:
    tables = list(run(options, {}))
    assert [re.match(r"\*\*(\S+)\*\*", table)[1] for table in tables] == list(ENGINES)  # type: ignore[index]
    for table in tables:
        found = rows(table)
        hold(found, options.rounds)
        assert {row["calls"] for row in found} == {"1", "2"}
    whisper, llama, xtts = tables[3:]
    assert "tiny.en's shape, random weights that say 15 tokens, int8" in whisper
    assert {row[""] for row in rows(whisper)} == {"at once", "in real time", "in real time, partial words"}
    assert "SmolLM2 135M's shape, random weights, float32" in llama
    assert {row[""] for row in rows(xtts)} == {"begun together", "begun within 0.4 s", "the library's stream"}
    assert "- tts xtts decodes without DeepSpeed: VOCAL_XTTS_DEEPSPEED says so" in xtts
    assert sorted(path.name for path in options.cache.iterdir() if path.name != "latents") == [
        "smollm2-135m-float32",
        "whisper-tiny.en",
        "xtts-v2",
    ]


def test_a_model_of_ones_own_is_measured_instead(options: Options, tmp_path: Path) -> None:
    own = random_whisper.write(tmp_path / "own", TINY_WHISPER, ["hello there"] * 8, Script("hello there"))
    named = {"VOCAL_WHISPER_MODEL": str(own), "VOCAL_WHISPER_COMPUTE_TYPE": "float32"}
    (table,) = run(replace(options, engines=["stt/faster_whisper"], calls=(1,), rounds=1), named)
    assert table.startswith(f"**stt/faster_whisper**: {own}, float32\n")
    hold(rows(table), 1)


def test_what_cannot_be_created_says_why_and_the_others_go_on(options: Options) -> None:
    tables = list(run(replace(options, engines=["llm/groq", "llm/eliza"], rounds=1), {}))
    assert re.search(r"llm/groq.*was not measured: it needs GROQ_API_KEY", tables[0])
    hold(rows(tables[1]), 1)


def test_stand_ins_say_as_much_as_is_said_of_them(options: Options) -> None:
    found = [subjects.subjects(name, options, {}, silence(0)) for name in ("stt/faster_whisper", "llm/transformers")]
    whisper, llama = (one.engines[0] for one in found)

    async def ask() -> tuple[list[str], int]:
        heard = [t.text async for t in whisper.transcribe(in_frames(silence(12_800)), "en")]
        return heard, len([delta async for delta in llama.complete([Message("user", "how are you")])])

    try:
        assert asyncio.run(ask()) == ([subjects.SAID], options.answer_tokens)
    finally:
        for engine in [engine for one in found for engine in one.engines]:
            close(engine)


def test_a_prompt_is_as_long_as_asked_for_and_new_from_its_first_word() -> None:
    words = random_llama.tokenizer(400)
    prompts = [random_llama.prompt(512, seed) for seed in range(3)]
    for messages in prompts:
        said = [{"role": message.role, "content": message.text} for message in messages]
        text = words.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        tokens = words(text, add_special_tokens=False)["input_ids"]
        assert len(tokens) == 512 and words.convert_tokens_to_ids("<|pad|>") not in tokens
    assert len({messages[0].text.split()[0] for messages in prompts}) == 3


def test_figures_are_of_all_calls_of_all_rounds() -> None:
    case = Case("asked", 2, cast(Any, None), "s of speech")
    case.rounds.extend(Round([Answer(i, 3.0, 0.0), Answer(i + 100, 5.0, i)], 2.0) for i in range(1, 21))
    assert np.allclose(case.first_ms(), (60.5, 118.05))
    low, high = case.interval_ms() or (0.0, 0.0)
    assert 1 < low < 60.5 < high < 120
    assert case.throughput() == 4.0 and 10 < case.stutter_ms() <= 20
    del case.rounds[3:]
    assert case.interval_ms() is None
