"""Whisper through the real library on models of our own making, offline; and what surrounds it, step by step."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import memory, model_hub
from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm, silence, to_float32
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.events import Transcript
from pipeline.stt import _whisper, _whisper_settings, faster_whisper, pocketsphinx
from pipeline.stt._batches import Batches
from pipeline.stt._growing import HELD_MAX_SAMPLES, Growing, quietest
from pipeline.stt._whisper import FRAMES_PER_S, Decoded, Heard, Speech, Whisper, is_speech
from pipeline.stt._whisper_files import REPOSITORIES
from pipeline.stt._whisper_settings import WhisperSettings, ways
from pipeline.stt._whisper_utterance import PIECE_SAMPLES, WhisperUtterance
from pipeline.tasks import closing

from .hub_server import Hub, serving_in_thread
from .recordings import in_frames, recording
from .tiny_whisper import Script, build

SPOKEN = "go-forward.wav"
Stt = faster_whisper.FasterWhisperSpeechToText


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build each kind of model once."""
    folder, built = tmp_path_factory.mktemp("whisper"), dict[Any, Path]()

    def model(script: Script | None = None, *, multilingual: bool = False) -> Path:
        key = (script, multilingual)
        if key not in built:
            built[key] = build(folder / str(len(built)), script, multilingual=multilingual)
        return built[key]

    return model


THANKS = Script(" Thank you.")


def on(model: Path, **more: str) -> dict[str, str]:
    return {"VOCAL_WHISPER_MODEL": str(model), **{f"VOCAL_WHISPER_{name}": value for name, value in more.items()}}


def whisper(model: Path, **more: str) -> Whisper:
    return Whisper(model, ways(on(model, **more))[0])


@contextmanager
def engine(settings: Mapping[str, str]) -> Iterator[Stt]:
    created = faster_whisper.create(settings)
    try:
        yield created
    finally:
        created.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run; tasks left over are errors."""

    async def tidy() -> None:
        async with asyncio.timeout(60):
            await main
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(tidy())


async def transcripts(stt: Stt, pcm: Pcm, language: str | None = None) -> list[Transcript]:
    return [t async for t in stt.transcribe(in_frames(pcm), language)]


# --- hearing, with the real library


def test_the_words_are_final_and_politeness_is_no_noise(models: Callable[..., Path]) -> None:
    async def main(stt: Stt) -> None:
        assert (await transcripts(stt, recording(SPOKEN)))[-1] == Transcript("Thank you.", True, "en")
        assert (await transcripts(stt, recording(SPOKEN), "en-US"))[-1] == Transcript("Thank you.", True, "en")

    with engine(on(models(THANKS))) as stt:
        run(main(stt))


def test_words_come_while_the_caller_speaks(models: Callable[..., Path]) -> None:
    """The utterance goes on only once its first words were heard: a batch engine would wait for ever."""
    first_words = asyncio.Event()

    async def spoken() -> AsyncIterator[AudioFrame]:
        pcm = recording(SPOKEN)
        async for frame in in_frames(pcm[: len(pcm) // 2]):
            yield frame
        await first_words.wait()
        async for frame in in_frames(pcm[len(pcm) // 2 :]):
            yield frame

    async def main(stt: Stt) -> None:
        heard = []
        async for transcript in stt.transcribe(spoken(), None):
            heard.append(transcript)
            first_words.set()
        assert heard == [Transcript("Thank you.", False, "en"), Transcript("Thank you.", True, "en")]

    with engine(on(models(THANKS))) as stt:
        run(main(stt))


def test_without_partial_words_there_are_final_ones(models: Callable[..., Path]) -> None:
    with engine(on(models(THANKS), PARTIAL_MS="0")) as stt:
        assert asyncio.run(transcripts(stt, recording(SPOKEN))) == [Transcript("Thank you.", True, "en")]


@pytest.mark.parametrize("samples", [0, 1, 1599])
def test_in_next_to_no_audio_nobody_speaks(models: Callable[..., Path], samples: int) -> None:
    with engine(on(models(THANKS))) as stt:
        assert asyncio.run(transcripts(stt, silence(samples))) == [Transcript("", True, "en")]


def test_what_the_model_takes_for_silence_is_a_final_empty_text(models: Callable[..., Path]) -> None:
    """It is sure that nobody spoke, and as sure that they said "you"."""
    with engine(on(models(Script(" you", "<|nospeech|>")))) as stt:
        assert asyncio.run(transcripts(stt, silence(SPEECH_RATE_HZ))) == [Transcript("", True, "en")]


@pytest.mark.parametrize(
    ("no_speech", "mean_log_probability", "spoken"),
    [
        (0.95, -0.40, False),  # "you", tiny.en on digital silence
        (0.95, -1.95, False),  # on noise
        (0.72, -1.67, False),  # on a hum
        (0.52, -0.64, True),  # "No.", spoken at a hundredth of full scale
        (0.61, -1.05, True),  # "art.", half a second out of a sentence
        (0.10, -2.50, True),  # badly understood, but speech
    ],
)
def test_speech_is_told_from_silence_by_both_doubts(
    no_speech: float, mean_log_probability: float, spoken: bool
) -> None:
    assert is_speech(no_speech, mean_log_probability) is spoken


def test_a_text_that_loops_is_heard_again_with_all_silence_and_without_repetition(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, windows = whisper(models(Script(" no," * 100))), list[int]()
    speech = [Speech(recording(SPOKEN), None)]
    first = model._decode(speech, lambda: True)[0]
    assert first.loops
    mel = model._mel

    def noted(pcm: Pcm, frames: int) -> Any:
        windows.append(frames // FRAMES_PER_S)
        return mel(pcm, frames)

    monkeypatch.setattr(model, "_mel", noted)
    again = model.hear(speech)[0].text
    assert windows == [10, 30]
    assert "no, no, no, no" in first.text
    assert "no, no, no, no" not in again


@pytest.mark.parametrize(
    ("text", "loops"),
    [("", False), ("No, no, no, no, no!", False), ("thank you " * 20, True), ("a sentence like any other", False)],
)
def test_a_loop_is_told_by_how_small_it_packs(text: str, loops: bool) -> None:
    assert Decoded(text, "en", 0.0, 0.0).loops is loops


def test_utterances_in_a_batch_are_heard_as_alone(models: Callable[..., Path]) -> None:
    model = whisper(models())
    speech = [Speech(recording(name)[:32_000], None) for name in (SPOKEN, "lj001-0008.wav", "austen-0880.wav")]
    together = model.hear(speech)
    assert len(set(together)) == 3
    assert together == [model.hear([one])[0] for one in speech]


def test_a_beam_is_a_setting(models: Callable[..., Path]) -> None:
    assert whisper(models(THANKS), BEAM_SIZE="5").hear([Speech(recording(SPOKEN), None)])[0].text == "Thank you."


def test_a_batch_that_nobody_wants_ends_after_its_step(models: Callable[..., Path]) -> None:
    assert whisper(models(THANKS)).hear([Speech(recording(SPOKEN), None)], lambda: False) == []


def test_the_spectrogram_is_the_one_of_audio_padded_with_silence(models: Callable[..., Path]) -> None:
    model, pcm = whisper(models(THANKS)), recording(SPOKEN)
    padded = model._features(np.pad(to_float32(pcm), (0, 30 * SPEECH_RATE_HZ - len(pcm))), padding=0)
    ours = model._mel(pcm, 3000)
    assert ours.shape == padded.shape == (80, 3000)
    assert np.abs(ours - padded).max() < 1e-3
    # log10 rounds its last bit as the processor likes it
    assert np.abs(model._mel(silence(1600), 3000) + 1.5).max() < 1e-6


@pytest.mark.parametrize(("spoken_s", "window_s"), [(0.5, 10), (4.9, 10), (5.1, 15), (24.0, 30), (30.0, 30)])
def test_the_window_leaves_silence_after_the_utterance(
    models: Callable[..., Path], spoken_s: float, window_s: int
) -> None:
    assert whisper(models(THANKS))._window_s(spoken_s) == window_s


def test_a_prompt_of_any_length_stands_before_the_words(models: Callable[..., Path]) -> None:
    model = whisper(models(THANKS), PROMPT="Thank you")
    encode = model._tokenizer("en").encode
    assert model._before("") == encode(" Thank you")
    assert model._before("Ada") == encode(" Thank you") + encode(" Ada")
    long = whisper(models(THANKS), PROMPT="Thank you. " * 500)
    assert len(long._prompt("en", long._before("Ada"))) < 230
    assert long.hear([Speech(recording(SPOKEN), None)])[0].language == "en"


def test_of_many_names_the_last_ones_count_and_few_lengths_occur(models: Callable[..., Path]) -> None:
    model = whisper(models())
    names = [f"Ada{'x' * n}" for n in range(30)]
    lengths = {len(model._before(", ".join(names[:n]))) for n in range(30)}
    assert lengths <= {*range(8), 8, 16, 24, 32} and max(lengths) == 32
    whole = model._tokenizer("en").encode(" " + ", ".join(names))
    assert model._before(", ".join(names)) == whole[-32:]


def test_names_change_what_is_heard_and_nobody_else_s_words(models: Callable[..., Path]) -> None:
    model = whisper(models())
    prompts = ("", "Ada", "", "Grace Hopper, Ada Lovelace, Alan Turing", "Ada")
    speech = [Speech(recording(SPOKEN)[:32_000], "en", prompt) for prompt in prompts]
    together = model.hear(speech)
    assert together == [model.hear([one])[0] for one in speech]
    assert together[0] == together[2] and together[1] == together[4]
    assert len(set(together)) == 3


def test_what_loops_is_heard_again_without_the_names(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = whisper(models(THANKS)), list[list[int]]()
    prompt = model._prompt

    def noted(language: str, before: list[int]) -> list[int]:
        asked.append(before)
        return prompt(language, before)

    monkeypatch.setattr(model, "_prompt", noted)
    monkeypatch.setattr(Decoded, "loops", property(lambda self: len(asked) == 1))
    assert model.hear([Speech(recording(SPOKEN), "en", "Ada")])[0].text == "Thank you."
    assert asked == [model._before("Ada"), []]


# --- languages


def test_a_language_is_taken_or_detected(models: Callable[..., Path]) -> None:
    german = Script(" Danke.", "<|de|>")

    async def main(stt: Stt) -> None:
        assert (await transcripts(stt, recording(SPOKEN)))[-1] == Transcript("Danke.", True, "de")
        assert (await transcripts(stt, recording(SPOKEN), "es-MX"))[-1] == Transcript("Danke.", True, "es")

    with engine(on(models(german, multilingual=True))) as stt:
        run(main(stt))


def test_a_language_it_does_not_know_is_refused(models: Callable[..., Path]) -> None:
    english, other = whisper(models(THANKS)), whisper(models(Script(" Danke.", "<|de|>"), multilingual=True))
    with pytest.raises(NotOffered, match=r"not 'de': it knows English only; VOCAL_WHISPER_MODEL names another"):
        english.language("de")
    with pytest.raises(NotOffered, match=r"not 'tlh': it does not know"):
        other.language("tlh")
    assert [other.language(code) for code in (None, "de-CH", "NB", "zh")] == [None, "de", "no", "zh"]


# --- what it needs


def test_a_directory_will_do_and_ranks_above_pocketsphinx(models: Callable[..., Path]) -> None:
    found = faster_whisper.describe(on(models(THANKS)))
    assert found.lacks is None
    assert not found.heavy
    assert found.rank > pocketsphinx.describe({}).rank
    assert found.note == f"Whisper {models(THANKS)} on cpu"


def cache(home: Path, size: str, model: Path) -> None:
    """Lay a model into the hub's cache as its library does."""
    cached = home / "hub" / f"models--Systran--faster-whisper-{size}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0123abc")
    (cached / "snapshots").mkdir()
    (cached / "snapshots" / "0123abc").symlink_to(model)


def test_the_hub_s_cache_is_looked_into_and_used(models: Callable[..., Path], tmp_path: Path) -> None:
    settings = {"HF_HOME": str(tmp_path), "VOCAL_WHISPER_DEVICE": "cpu", "VOCAL_OFFLINE": "1"}
    assert faster_whisper.describe(settings).lacks == (
        "a model: base.en is not here; `vocal-node models fetch faster_whisper` brings it, "
        "VOCAL_WHISPER_MODEL names another"
    )
    cache(tmp_path, "base.en", models(THANKS))
    assert faster_whisper.describe(settings).lacks is None
    with engine(settings) as stt:
        assert asyncio.run(transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."


def test_looking_imports_nothing_heavy(models: Callable[..., Path]) -> None:
    code = (
        "import sys; from pipeline.stt import faster_whisper as engine;"
        f"assert engine.describe({on(models(THANKS))!r}).lacks is None;"
        "print([name for name in ('faster_whisper', 'ctranslate2', 'huggingface_hub') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sizes_are_the_library_s() -> None:
    assert importlib.import_module("faster_whisper.utils")._MODELS == REPOSITORIES
    assert all(faster_whisper.model({}, size).known for size in REPOSITORIES)


def test_a_model_that_is_not_here_is_downloaded_unless_that_is_forbidden(
    models: Callable[..., Path], tmp_path: Path
) -> None:
    hub = Hub.of("Systran/faster-whisper-tiny", models(THANKS))
    with serving_in_thread(hub) as url:
        settings = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path), "VOCAL_WHISPER_MODEL": "tiny"}
        for forbids in ("VOCAL_OFFLINE", "HF_HUB_OFFLINE"):
            assert "models fetch faster_whisper" in str(faster_whisper.describe(settings | {forbids: "1"}).lacks)
            with pytest.raises(EngineUnavailable, match="tiny is not here; `vocal-node models fetch faster_whisper`"):
                faster_whisper.create(settings | {forbids: "1"})
        found = faster_whisper.describe(settings)
        assert (found.lacks, found.note) == (None, "Whisper tiny on cpu, downloaded when first used (78 MB)")
        assert hub.asked == []
        with pytest.raises(EngineUnavailable, match="the hub has no Systran/faster-whisper-medium"):
            faster_whisper.create(settings | {"VOCAL_WHISPER_MODEL": "medium"})
        with engine(settings) as stt:
            assert asyncio.run(transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."
    assert faster_whisper.describe(settings).note == "Whisper tiny on cpu"
    with engine(settings | {"VOCAL_OFFLINE": "1"}):
        pass  # it is in the cache now


def test_a_hub_that_did_not_answer_is_not_asked_for_the_next_best(
    models: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_whisper_settings, "_has_gpu", lambda: True)
    settings = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    reason = r"the hub, .* reached for Systran/faster-whisper-small\.en \(\w+\)"
    asked = list[str]()
    ask = model_hub.ask

    def noting(model: str, files: Sequence[str], own: Mapping[str, str]) -> model_hub.Offer:
        asked.append(model)
        return ask(model, files, own)

    monkeypatch.setattr(model_hub, "ask", noting)
    with pytest.raises(EngineUnavailable, match=reason):
        faster_whisper.create(settings)
    assert asked == ["Systran/faster-whisper-small.en"]
    cache(tmp_path, "base.en", models(THANKS))
    with engine(settings) as stt:
        assert asyncio.run(transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."


def test_a_model_that_does_not_fit_says_what_it_needs_and_what_there_is(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda: memory.GIB / 10)
    with pytest.raises(EngineUnavailable, match=r"memory: .* needs 0\.2 GiB on the CPU, 0\.1 GiB are free; .*_MODEL"):
        faster_whisper.create(on(models(THANKS)))


def test_a_gpu_that_is_full_is_told_with_the_size_of_the_model(
    models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path, settings: WhisperSettings) -> object:
        raise RuntimeError("CUDA failed with error out of memory")

    monkeypatch.setattr(_whisper, "_load", full)
    with pytest.raises(EngineUnavailable, match=r"memory: the weights of .* on cuda as float16 are 0\.0 GiB and did"):
        faster_whisper.create(on(models(THANKS), DEVICE="cuda"))


def broken(models: Callable[..., Path], tmp_path: Path, **files: bytes | None) -> dict[str, str]:
    """Return settings for a copy of a model in which files are replaced, or missing."""
    for file in models(THANKS).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name, content in files.items():
        path = tmp_path / name.replace("__", ".")
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    return on(tmp_path)


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ({"tokenizer__json": None}, "the whole model: .* has no tokenizer.json"),
        ({"model__bin": None}, "the whole model: .* has no model.bin"),
        ({"model__bin": None, "model__safetensors": b""}, "in CTranslate2's format: ct2-transformers-converter"),
    ],
)
def test_an_incomplete_model_says_what_it_lacks(
    models: Callable[..., Path], tmp_path: Path, files: dict[str, bytes | None], lacks: str
) -> None:
    settings = broken(models, tmp_path, **files)
    with pytest.raises(EngineUnavailable, match=lacks) as refusal:
        faster_whisper.create(settings)
    assert faster_whisper.describe(settings).lacks == str(refusal.value)


@pytest.mark.parametrize("file", ["model__bin", "config__json", "tokenizer__json", "vocabulary__json"])
def test_a_damaged_model_is_refused(models: Callable[..., Path], tmp_path: Path, file: str) -> None:
    whole = (models(THANKS) / file.replace("__", ".")).read_bytes()
    for content in (b"", b"x" * 1000, whole[: len(whole) // 2]):
        with pytest.raises(EngineUnavailable, match=r"a model that runs here: .* on cpu as int8: "):
            faster_whisper.create(broken(models, tmp_path, **{file: content}))


@pytest.mark.parametrize(
    ("settings", "lacks"),
    [
        ({"VOCAL_WHISPER_MODEL": "/no/such/directory"}, "VOCAL_WHISPER_MODEL that is a directory, a hub id, or a size"),
        ({"VOCAL_WHISPER_MODEL": "enormous"}, "not 'enormous'"),
        ({"VOCAL_WHISPER_MODEL": "somebody/whisper", "VOCAL_OFFLINE": "1"}, "somebody/whisper is not here"),
        ({"VOCAL_WHISPER_DEVICE": "tpu"}, "VOCAL_WHISPER_DEVICE that is auto, cpu, cuda or cuda:N, not 'tpu'"),
        ({"VOCAL_WHISPER_BEAM_SIZE": "0"}, "VOCAL_WHISPER_BEAM_SIZE must be at least 1"),
        ({"VOCAL_WHISPER_PARTIAL_MS": "often"}, "VOCAL_WHISPER_PARTIAL_MS must be a number"),
    ],
)
def test_a_setting_that_cannot_be_is_named(settings: dict[str, str], lacks: str) -> None:
    with pytest.raises(EngineUnavailable, match=lacks) as refusal:
        faster_whisper.create(settings)
    assert faster_whisper.describe(settings).lacks == str(refusal.value)


def test_numbers_that_the_library_does_not_know_are_named(models: Callable[..., Path]) -> None:
    with pytest.raises(EngineUnavailable, match="on cpu as int3: Invalid compute type"):
        faster_whisper.create(on(models(THANKS), COMPUTE_TYPE="int3"))


def test_where_cuda_does_not_work_the_cpu_does(models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whisper_settings, "_has_gpu", lambda: True)
    settings = on(models(THANKS))
    assert [way.device for way in ways(settings)] == ["cuda", "cpu"]
    assert [way.device for way in ways(settings | {"CUDA_VISIBLE_DEVICES": ""})] == ["cpu"]
    with engine(settings) as stt:
        assert asyncio.run(transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."


def test_defaults_suit_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_whisper_settings, "_has_gpu", lambda: True)
    cuda, cpu = ways({})
    assert (cuda.model, cuda.compute_type, cuda.window_s, cuda.beam_size) == ("small.en", "float16", 30, 1)
    assert (cpu.model, cpu.compute_type, cpu.window_s, cpu.beam_size) == ("base.en", "int8", 10, 1)


# --- batches


class Gate:
    """Work that waits in its thread to be let through, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.open = threading.Semaphore(0)
        self.wanted: Callable[[], bool] = lambda: True
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Semaphore(0)

    def __call__(self, batch: Sequence[Any], wanted: Callable[[], bool]) -> list[Any]:
        self.batches.append(list(batch))
        self.wanted = wanted
        self._loop.call_soon_threadsafe(self._begun.release)
        self.open.acquire(timeout=20)
        return [Heard(f"{len(item.pcm)}", "en") if isinstance(item, Speech) else item for item in batch]

    async def has_begun(self) -> None:
        """Wait until it is given the next batch."""
        await self._begun.acquire()


@asynccontextmanager
async def gated(most: int) -> AsyncIterator[tuple[Gate, Batches[Any, Any]]]:
    gate = Gate()
    batches: Batches[Any, Any] = Batches("test", gate, most)
    try:
        yield gate, batches
    finally:
        gate.open.release(100)
        batches.close()


def test_what_waits_meanwhile_is_one_batch() -> None:
    async def main() -> None:
        async with gated(most=3) as (gate, batches):
            first = batches.ask(0)
            await gate.has_begun()
            others = [batches.ask(item) for item in range(1, 6)]
            others[1].cancel()
            gate.open.release(10)
            assert await first == 0
            assert [await answer for answer in others if not answer.cancelled()] == [1, 3, 4, 5]
            assert gate.batches == [[0], [1, 3, 4], [5]]

    run(main())


def test_a_batch_is_wanted_while_anybody_waits_for_it() -> None:
    async def main() -> None:
        async with gated(most=3) as (gate, batches):
            batches.ask(0)
            await gate.has_begun()
            asked = [batches.ask(1), batches.ask(2)]
            gate.open.release()
            await gate.has_begun()
            asked[0].cancel()
            assert gate.wanted()
            asked[1].cancel()
            assert not gate.wanted()
            gate.open.release(2)
            assert await batches.ask(3) == 3

    run(main())


def test_a_failure_is_everybody_s_and_a_closed_one_says_so() -> None:
    def fail(batch: Sequence[int], wanted: Callable[[], bool]) -> list[int]:
        raise EngineError("out of memory")

    async def main() -> None:
        failing: Batches[int, int] = Batches("test", fail, most=2)
        for asked in (failing.ask(1), failing.ask(2)):
            with pytest.raises(EngineError, match="out of memory"):
                await asked
        failing.close()
        with pytest.raises(EngineError, match="test is closed"):
            await failing.ask(3)

    run(main())


def test_a_loop_that_ended_leaves_its_batch_behind() -> None:
    """The batch runs until its gate opens, long after nobody can be told of it."""
    opened = threading.Event()

    def work(batch: Sequence[int], wanted: Callable[[], bool]) -> Sequence[int]:
        opened.wait(20)
        return batch

    batches: Batches[int, int] = Batches("test", work, most=2)

    async def leave() -> None:
        batches.ask(1)

    async def come() -> None:
        answer = batches.ask(2)
        opened.set()
        assert await answer == 2

    asyncio.run(leave())
    run(come())
    batches.close()


# --- one utterance


@asynccontextmanager
async def lanes(partial_ms: int = 100) -> AsyncIterator[tuple[Gate, Gate, WhisperUtterance]]:
    """Yield the work of final and of partial words, and an utterance that asks for both."""
    async with gated(4) as (final, finals), gated(4) as (partial, partials):
        yield final, partial, WhisperUtterance(finals, partials, partial_ms, "en")


def test_final_words_do_not_wait_for_partial_ones() -> None:
    async def main() -> None:
        async with lanes() as (final, partial, utterance):

            async def spoken() -> AsyncIterator[AudioFrame]:
                async for frame in in_frames(silence(4800)):
                    yield frame
                await partial.has_begun()

            final.open.release()
            heard = [t async for t in utterance.transcripts(spoken())]
            assert heard == [Transcript("4800", True, "en")]
            assert len(partial.batches) == 1
            assert not partial.wanted()

    run(main())


def test_one_look_at_a_time_and_each_at_all_there_is() -> None:
    async def main() -> None:
        async with lanes() as (final, partial, utterance):

            async def spoken() -> AsyncIterator[AudioFrame]:
                async for frame in in_frames(silence(1600)):
                    yield frame
                await partial.has_begun()
                async for frame in in_frames(silence(160_000)):
                    yield frame
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(partial.batches) == 1
                partial.open.release(10)
                final.open.release(10)
                await partial.has_begun()

            heard = [t async for t in utterance.transcripts(spoken())]
            assert heard[0] == Transcript("1600", False, "en")
            assert heard[-1] == Transcript("161600", True, "en")
            assert [len(batch[0].pcm) for batch in partial.batches] == [1600, 161_600]

    run(main())


def test_a_long_utterance_is_cut_where_nobody_speaks() -> None:
    speech = np.random.default_rng(1).normal(0, 3000, 70 * SPEECH_RATE_HZ).astype(np.int16)
    pauses = [26 * SPEECH_RATE_HZ, 51 * SPEECH_RATE_HZ]
    for pause in pauses:
        speech[pause - 2400 : pause + 2400] = 0

    async def main() -> None:
        async with lanes(partial_ms=0) as (final, _, utterance):
            final.open.release(10)
            heard = [t async for t in utterance.transcripts(in_frames(speech))]
            pieces = [piece.pcm for batch in final.batches for piece in batch]
            assert np.abs(np.cumsum([len(piece) for piece in pieces])[:2] - pauses).max() < 1600
            assert np.array_equal(np.concatenate(pieces), speech)
            assert heard == [Transcript(" ".join(str(len(piece)) for piece in pieces), True, "en")]

    run(main())


def test_words_of_earlier_pieces_stand_before_those_of_the_last() -> None:
    async def main() -> None:
        first_words = asyncio.Event()

        async def spoken() -> AsyncIterator[AudioFrame]:
            yield AudioFrame(silence(32 * SPEECH_RATE_HZ), SPEECH_RATE_HZ, 0)
            await first_words.wait()

        async with lanes() as (final, partial, utterance):
            final.open.release(10)
            partial.open.release(10)
            heard = []
            async for transcript in utterance.transcripts(spoken()):
                heard.append(transcript.text)
                first_words.set()
            pieces = [len(piece.pcm) for batch in final.batches for piece in batch]
            assert sum(pieces) == 32 * SPEECH_RATE_HZ
            assert heard[-1] == f"{pieces[0]} {pieces[1]}"

    run(main())


def test_speech_without_a_pause_is_cut_all_the_same() -> None:
    speech = np.full(PIECE_SAMPLES, 1000, np.int16)
    assert 22 * SPEECH_RATE_HZ <= quietest(speech, 22 * SPEECH_RATE_HZ) < PIECE_SAMPLES


def test_no_more_is_read_than_may_wait() -> None:
    async def endless() -> AsyncIterator[AudioFrame]:
        while True:
            yield AudioFrame(silence(16_000), SPEECH_RATE_HZ, 0)

    async def main() -> None:
        audio = Growing()
        holding = asyncio.create_task(audio.hold(endless()))
        assert await audio.reaches(HELD_MAX_SAMPLES)
        for _ in range(10):
            await asyncio.sleep(0)
        assert audio.samples == HELD_MAX_SAMPLES + 16_000
        assert len(audio.take(32_000)) == 32_000
        for _ in range(10):
            await asyncio.sleep(0)
        assert audio.samples == HELD_MAX_SAMPLES + 16_000
        holding.cancel()
        await asyncio.wait({holding})

    run(main())


# --- pauses


def pause(at_samples: int) -> AudioFrame:
    return AudioFrame(silence(0), SPEECH_RATE_HZ, at_samples)


async def moved(frames: AsyncIterator[AudioFrame], by_samples: int) -> AsyncIterator[AudioFrame]:
    """Yield them later on the caller's axis."""
    async for frame in frames:
        yield AudioFrame(frame.pcm, frame.rate_hz, frame.pts + by_samples)


@pytest.mark.parametrize("partial_ms", ["500", "0"])
def test_a_pause_is_answered_at_once_with_all_words_and_its_pts(models: Callable[..., Path], partial_ms: str) -> None:
    """The caller goes on only when it was: twice, and then ends."""
    pcm, at_samples = recording(SPOKEN), 7_000
    answered = asyncio.Queue[int]()

    async def spoken() -> AsyncIterator[AudioFrame]:
        for begin, end in ((0, 16_000), (16_000, 24_000)):
            async for frame in moved(in_frames(pcm[begin:end]), at_samples + begin):
                yield frame
            yield pause(at_samples + end)
            assert await answered.get() == at_samples + end
        async for frame in moved(in_frames(pcm[24_000:]), at_samples + 24_000):
            yield frame

    async def main(stt: Stt) -> None:
        assert stt.hears_pauses
        heard = []
        async for transcript in stt.transcribe(spoken(), None):
            heard.append(transcript)
            if transcript.pause_samples is not None:
                answered.put_nowait(transcript.pause_samples)
        of_pauses = [Transcript("Thank you.", False, "en", at_samples + end) for end in (16_000, 24_000)]
        assert [t for t in heard if t.pause_samples is not None] == of_pauses
        assert heard[-1] == Transcript("Thank you.", True, "en")

    with engine(on(models(THANKS), PARTIAL_MS=partial_ms)) as stt:
        run(main(stt))


def test_if_nothing_follows_a_pause_the_iterator_is_closed_and_nothing_is_left(models: Callable[..., Path]) -> None:
    async def spoken() -> AsyncIterator[AudioFrame]:
        async for frame in in_frames(recording(SPOKEN)):
            yield frame
        yield pause(len(recording(SPOKEN)))
        await asyncio.Event().wait()

    async def main(stt: Stt) -> None:
        async with closing(stt.transcribe(spoken(), None)) as heard:
            async for transcript in heard:
                if transcript.pause_samples is not None:
                    assert transcript.text == "Thank you."
                    break
        assert stt._partials._waiting == stt._finals._waiting == []

    with engine(on(models(THANKS))) as stt:
        run(main(stt))


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_pause_before_anything_was_said_has_no_words(models: Callable[..., Path], pauses: int) -> None:
    """Two at one place are one question, or two with one answer."""

    async def spoken() -> AsyncIterator[AudioFrame]:
        for _ in range(pauses):
            yield pause(0)
        await first_answer.wait()
        async for frame in in_frames(recording(SPOKEN)):
            yield frame
        for _ in range(pauses):
            yield pause(len(recording(SPOKEN)))

    async def main(stt: Stt) -> None:
        heard = []
        async for transcript in stt.transcribe(spoken(), None):
            heard.append(transcript)
            first_answer.set()
        assert heard[0] == Transcript("", False, "en", 0)
        assert heard[-1] == Transcript("Thank you.", True, "en")
        assert {t.pause_samples for t in heard} <= {0, None, len(recording(SPOKEN))}

    first_answer = asyncio.Event()
    with engine(on(models(THANKS))) as stt:
        run(main(stt))


def test_a_pause_lets_go_of_a_look_at_less_and_is_answered_by_the_lane_of_final_words() -> None:
    async def main() -> None:
        async with lanes() as (final, partial, utterance):

            async def spoken() -> AsyncIterator[AudioFrame]:
                async for frame in in_frames(silence(3200)):
                    yield frame
                await partial.has_begun()
                yield pause(3200)
                await final.has_begun()
                assert not partial.wanted(), "words of less are not worth waiting for"
                final.open.release(10)
                await answered.wait()

            answered = asyncio.Event()
            heard = []
            async for transcript in utterance.transcripts(spoken()):
                heard.append(transcript)
                answered.set()
            assert heard == [Transcript("3200", False, "en", 3200), Transcript("3200", True, "en")]

    run(main())


@pytest.mark.parametrize("then", ["another pause", "the end"])
def test_what_follows_while_a_pause_is_looked_at_lets_go_of_it(then: str) -> None:
    """The older pause is never answered: its words are no longer all."""

    async def main() -> None:
        async with lanes(partial_ms=0) as (final, _, utterance):

            async def spoken() -> AsyncIterator[AudioFrame]:
                async for frame in in_frames(silence(3200)):
                    yield frame
                yield pause(3200)
                await final.has_begun()
                yield AudioFrame(silence(1600), SPEECH_RATE_HZ, 3200)
                if then == "another pause":
                    yield pause(4800)
                    final.open.release(10)
                    await answered.wait()
                final.open.release(10)

            answered = asyncio.Event()
            heard = []
            async for transcript in utterance.transcripts(spoken()):
                heard.append(transcript)
                answered.set()
            of_pauses = [Transcript("4800", False, "en", 4800)] if then == "another pause" else []
            assert heard == [*of_pauses, Transcript("4800", True, "en")]

    run(main())


def test_a_pause_in_a_long_utterance_has_the_words_of_all_pieces() -> None:
    async def main() -> None:
        async with lanes() as (final, partial, utterance):
            partial.open.release(100)
            final.open.release(100)

            async def spoken() -> AsyncIterator[AudioFrame]:
                yield AudioFrame(silence(32 * SPEECH_RATE_HZ), SPEECH_RATE_HZ, 100)
                yield pause(32 * SPEECH_RATE_HZ + 100)
                await answered.wait()

            answered = asyncio.Event()
            of_pauses = []
            async for transcript in utterance.transcripts(spoken()):
                if transcript.pause_samples is not None:
                    of_pauses.append(transcript)
                    answered.set()
            [heard] = of_pauses
            assert heard.pause_samples == 32 * SPEECH_RATE_HZ + 100 and not heard.final
            pieces = [int(samples) for samples in heard.text.split()]
            assert len(pieces) == 2 and sum(pieces) == 32 * SPEECH_RATE_HZ

    run(main())


def test_what_its_input_raises_is_raised(models: Callable[..., Path]) -> None:
    async def wrong_rate() -> AsyncIterator[AudioFrame]:
        yield AudioFrame(silence(480), 24_000, 0)

    async def main(stt: Stt) -> None:
        with pytest.raises(EngineError, match="16000 Hz, not 24000"):
            _ = [t async for t in stt.transcribe(wrong_rate(), None)]
        assert (await transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."

    with engine(on(models(THANKS))) as stt:
        run(main(stt))


def test_a_hundred_callers_who_leave_half_way_leave_nothing(models: Callable[..., Path]) -> None:
    async def then_nothing() -> AsyncIterator[AudioFrame]:
        async for frame in in_frames(recording(SPOKEN)[:16_000]):
            yield frame
        await asyncio.Event().wait()

    async def leave(stt: Stt) -> None:
        async with closing(stt.transcribe(then_nothing(), None)) as heard:
            assert not (await anext(heard)).final

    async def main(stt: Stt) -> None:
        await asyncio.gather(*(leave(stt) for _ in range(100)))
        assert stt._partials._waiting == stt._finals._waiting == []
        assert (await transcripts(stt, recording(SPOKEN)))[-1].text == "Thank you."

    with engine(on(models(THANKS))) as stt:
        run(main(stt))


def test_a_closed_engine_says_so(models: Callable[..., Path]) -> None:
    async def main(stt: Stt) -> None:
        stt.close()
        with pytest.raises(EngineError, match="whisper is closed"):
            await transcripts(stt, recording(SPOKEN))

    with engine(on(models(THANKS), PARTIAL_MS="0")) as stt:
        run(main(stt))


def test_models_are_what_the_library_would_convert(models: Callable[..., Path]) -> None:
    """Our own making has the files and the settings that a converted model has."""
    files = {file.name for file in models(THANKS).iterdir()}
    assert files == {"model.bin", "config.json", "vocabulary.json", "tokenizer.json"}
    config = json.loads((models(THANKS) / "config.json").read_text())
    assert set(config) >= {"suppress_ids", "suppress_ids_begin", "lang_ids", "alignment_heads"}
