"""What every engine promises, held against each one that can be created here; and how one is chosen."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest

from pipeline import engines
from pipeline.audio import SPEECH_RATE_HZ, Pcm, silence
from pipeline.engines import Kind, Settings, Usable, choose, load, names, usable
from pipeline.errors import EngineError, EngineUnavailable
from pipeline.events import Message, Transcript
from pipeline.reply_speech import open_speech
from pipeline.tasks import closing

from . import tiny_smart_turn, tiny_whisper, virtual_time
from .browser import serving
from .recordings import in_frames, recording
from .vendors import all_vendors, nothing_is_ended_by_the_garbage_collector

KINDS: tuple[Kind, ...] = get_args(Kind)
ASKED = [Message("system", "Be kind."), Message("user", "I need a cup of tea.")]
LIMIT_S = 60.0
SETTINGS: dict[str, str] = {}
"""With which engines that ask others find somebody to ask."""


@pytest.fixture(scope="module", autouse=True)
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Serve on this machine what vendors serve elsewhere, and a server of our own with the embedded engines.

    Make the models that are loaded from disk.
    """
    whisper = tiny_whisper.build(tmp_path_factory.mktemp("models") / "whisper", tiny_whisper.Script(" Thank you."))
    turn = tiny_smart_turn.build(tmp_path_factory.mktemp("models") / "turn.onnx")
    embedded = {"VOCAL_STT": "pocketsphinx", "VOCAL_LLM": "eliza", "VOCAL_TTS": "espeak"}
    with all_vendors() as settings, serving(tmp_path_factory.mktemp("served"), **embedded) as ours:
        SETTINGS.update(settings, VOCAL_WHISPER_MODEL=str(whisper), VOCAL_SMART_TURN_MODEL=str(turn))
        SETTINGS.update(dict.fromkeys(("VOCAL_STT_URL", "VOCAL_LLM_URL", "VOCAL_TTS_URL"), ours.url))
        if find_spec("torch") and find_spec("transformers"):
            from .tiny_llm import build

            model = build(tmp_path_factory.mktemp("llm"), "I would love a cup of tea, thanks.")
            SETTINGS["VOCAL_TRANSFORMERS_MODEL"] = str(model)
        yield
        SETTINGS.clear()


@contextmanager
def engine(kind: Kind, name: str) -> Iterator[Any]:
    """Create an engine; skip where it lacks something, and say what. On the way out no thread of it is left."""
    found = engines.module(kind, name).describe(SETTINGS)
    if found.lacks is not None:
        pytest.skip(f"{kind} {name} lacks {found.lacks}")
    before = set(threading.enumerate())
    created = load(kind, name, SETTINGS)
    try:
        yield created
    finally:
        engines.close(created)
        engines.close(created)  # idempotent
    assert set(threading.enumerate()) <= before


def run(main: Coroutine[Any, Any, None], created: object) -> None:
    """Run and close; tasks left over and a default executor are errors."""

    async def tidy() -> None:
        async with asyncio.timeout(LIMIT_S):
            await main
        await engines.aclose(created)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert getattr(asyncio.get_running_loop(), "_default_executor", None) is None

    asyncio.run(tidy())


def descriptors() -> int:
    """Count open files and sockets; those of tests' own servers are among them."""
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


async def a_hundred_leave_nothing(use: Callable[[], AsyncIterator[Any]], within_s: float | None = None) -> None:
    """Open and close an engine's iterator a hundred times: at once, before its first item, and after it.

    The latter for as long as ``within_s`` if that is given: who listens may have nothing to say yet.
    """

    async def open_and_close(n: int) -> None:
        async with closing(use()) as items:
            if n % 3:
                with suppress(TimeoutError):
                    assert (await asyncio.wait_for(anext(items), 0.001 if n % 3 == 1 else within_s)) is not None

    for n in range(6):
        await open_and_close(n)
    tasks, before = len(asyncio.all_tasks()), descriptors()
    for n in range(100):
        await open_and_close(n)
    for _ in range(100):  # the other end of a connection closes it a moment later
        if len(asyncio.all_tasks()) <= tasks and descriptors() <= before + 4:
            break
        await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) <= tasks
    assert descriptors() <= before + 4
    await nothing_is_ended_by_the_garbage_collector()


ELSEWHERE = {"xtts": "tests/test_xtts.py: random weights say nothing of any length"}
"""Engines that are held to the contract in a file of their own, and why."""


def each(kind: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", [name for name in names(kind) if name not in ELSEWHERE])


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in names(kind)])
def test_every_engine_says_what_it_is_and_what_it_lacks(kind: Kind, name: str) -> None:
    nothing = {"VOCAL_OFFLINE": "1"}
    found = engines.module(kind, name).describe(nothing)
    assert found.note
    if found.lacks is None:
        with engine(kind, name) as created:
            assert isinstance(created, engines.CONTRACTS[kind])
    else:
        with pytest.raises(EngineUnavailable):
            load(kind, name, nothing)


# --- vad


@each("vad")
def test_vad_probabilities_are_probabilities_and_states_are_separate(name: str) -> None:
    with engine("vad", name) as vad:
        first, second = vad.open(), vad.open()
        windows = [recording("austen-0880.wav")[i : i + first.window_samples] for i in range(0, 30_000, 512)]
        windows = [w for w in windows if len(w) == first.window_samples]
        alone = [first.probability(w) for w in windows]
        assert all(type(p) is float and 0.0 <= p <= 1.0 for p in alone)
        third = vad.open()
        mixed = []
        for window in windows:
            second.probability(silence(second.window_samples))
            mixed.append(third.probability(window))
        assert mixed == pytest.approx(alone)


@each("vad")
def test_vad_hears_speech_and_not_silence(name: str) -> None:
    with engine("vad", name) as vad:
        state = vad.open()
        size = state.window_samples

        def share(pcm: Pcm) -> float:
            heard = [bool(state.probability(pcm[i : i + size]) >= 0.5) for i in range(0, len(pcm) - size, size)]
            return sum(heard) / len(heard)

        assert share(silence(SPEECH_RATE_HZ)) == 0.0
        assert share(recording("lj001-0008.wav")) > 0.6


# --- stt


async def transcripts(stt: Any, pcm: Pcm, language: str | None = "en") -> list[Transcript]:
    return [t async for t in stt.transcribe(in_frames(pcm), language)]


@each("stt")
def test_stt_ends_with_one_final_transcript(name: str) -> None:
    async def main(stt: Any) -> None:
        heard = await transcripts(stt, recording("go-forward.wav"))
        assert [t.final for t in heard] == [False] * (len(heard) - 1) + [True]
        assert heard[-1].text

    with engine("stt", name) as stt:
        run(main(stt), stt)


@each("stt")
def test_stt_of_nothing_is_a_final_empty_text(name: str) -> None:
    async def main(stt: Any) -> None:
        heard = await transcripts(stt, silence(0))
        assert [(t.text, t.final) for t in heard] == [("", True)]

    with engine("stt", name) as stt:
        run(main(stt), stt)


@each("stt")
def test_stt_serves_several_callers_at_once(name: str) -> None:
    async def main(stt: Any) -> None:
        together = await asyncio.gather(*(transcripts(stt, recording("lj001-0008.wav")) for _ in range(3)))
        assert len({heard[-1] for heard in together}) == 1
        assert together[0][-1].text

    with engine("stt", name) as stt:
        run(main(stt), stt)


@each("stt")
def test_stt_that_is_closed_while_the_caller_speaks_leaves_nothing(name: str) -> None:
    async def main(stt: Any) -> None:
        async def then_nothing() -> AsyncIterator[Any]:
            async for frame in in_frames(recording("lj001-0008.wav")):
                yield frame
            await asyncio.Event().wait()

        async def listen() -> None:
            async with closing(stt.transcribe(then_nothing(), "en")) as heard:
                async for transcript in heard:
                    assert not transcript.final

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(listen(), 0.3)
        assert (await transcripts(stt, recording("lj001-0008.wav")))[-1].text

    with engine("stt", name) as stt:
        run(main(stt), stt)


@each("stt")
def test_stt_passes_on_what_its_input_raises(name: str) -> None:
    async def broken() -> AsyncIterator[Any]:
        async for frame in in_frames(silence(3200)):
            yield frame
        raise LookupError("the microphone is gone")

    async def main(stt: Any) -> None:
        with pytest.raises(LookupError):
            _ = [t async for t in stt.transcribe(broken(), "en")]

    with engine("stt", name) as stt:
        run(main(stt), stt)


@each("stt")
def test_stt_leaves_nothing_of_a_hundred_callers_who_hang_up(name: str) -> None:
    async def then_nothing() -> AsyncIterator[Any]:
        async for frame in in_frames(recording("go-forward.wav")[:8_000]):
            yield frame
        await asyncio.Event().wait()

    async def main(stt: Any) -> None:
        await a_hundred_leave_nothing(lambda: stt.transcribe(then_nothing(), "en"), within_s=0.02)
        assert (await transcripts(stt, recording("go-forward.wav")))[-1].text

    with engine("stt", name) as stt:
        run(main(stt), stt)


# --- llm


async def answer(llm: Any, messages: list[Message] = ASKED) -> str:
    return "".join([delta async for delta in llm.complete(messages)])


@each("llm")
def test_llm_streams_an_answer_that_can_be_spoken(name: str) -> None:
    async def main(llm: Any) -> None:
        deltas = [delta async for delta in llm.complete(ASKED)]
        assert len(deltas) > 1
        assert "".join(deltas).rstrip().endswith((".", "!", "?"))

    with engine("llm", name) as llm:
        run(main(llm), llm)


@each("llm")
@pytest.mark.parametrize("words", ["", " ", "%", "100 % of %1 and %9", "?!", "x" * 100_000, "\U0001f600", "quit"])
def test_llm_never_answers_nothing(name: str, words: str) -> None:
    asks_a_server = name == "openai_compatible"

    async def main(llm: Any) -> None:
        for message, too_much in (
            (Message("user", words), not words.strip() or len(words) > 16_384),
            (Message("system", "Be kind."), True),
        ):
            if asks_a_server and too_much:
                with pytest.raises(EngineError, match=r"refused|takes no"):
                    await answer(llm, [message])
            else:
                assert (await answer(llm, [message])).strip()

    with engine("llm", name) as llm:
        run(main(llm), llm)


@each("llm")
def test_llm_stops_when_closed_and_serves_several_at_once(name: str) -> None:
    async def main(llm: Any) -> None:
        async with closing(llm.complete(ASKED)) as deltas:
            assert await anext(deltas)
        answers = await asyncio.gather(*(answer(llm) for _ in range(5)))
        assert all(answers)

    with engine("llm", name) as llm:
        run(main(llm), llm)


@each("llm")
def test_llm_leaves_nothing_of_a_hundred_answers_that_are_cut_off(name: str) -> None:
    async def main(llm: Any) -> None:
        await a_hundred_leave_nothing(lambda: llm.complete(ASKED))
        assert await answer(llm)

    with engine("llm", name) as llm:
        run(main(llm), llm)


# --- tts


async def speech(tts: Any, clause: str, voice: str | None = None, speed: float = 1.0) -> Pcm:
    chunks = [chunk async for chunk in tts.synthesize(clause, voice, "en", speed)]
    assert all(chunk.dtype == np.int16 and chunk.ndim == 1 for chunk in chunks)
    return np.concatenate([silence(0), *chunks])


@each("tts")
def test_tts_speaks_at_its_rate_and_faster_when_asked(name: str) -> None:
    async def main(tts: Any) -> None:
        clause = "Please tell me more about it."
        pcm = await speech(tts, clause)
        assert 1.0 < len(pcm) / tts.rate_hz < 4.0
        assert np.abs(pcm).max() > 3000
        assert len(await speech(tts, clause, speed=1.5)) < len(pcm) * 0.85

    with engine("tts", name) as tts:
        assert 8_000 <= tts.rate_hz <= 48_000
        run(main(tts), tts)


@each("tts")
def test_tts_of_nothing_is_nothing(name: str) -> None:
    async def main(tts: Any) -> None:
        assert len(await speech(tts, "")) == len(await speech(tts, " \n")) == 0

    with engine("tts", name) as tts:
        run(main(tts), tts)


@each("tts")
@pytest.mark.parametrize("voice", ["nobody", "../../../etc/passwd", ""])
def test_tts_refuses_an_unknown_voice(name: str, voice: str) -> None:
    async def main(tts: Any) -> None:
        if name == "openai_compatible" and not voice:
            assert len(await speech(tts, "Hello.", voice)), "to a server, no name is no choice"
            return
        with pytest.raises(EngineError, match="voice"):
            await speech(tts, "Hello.", voice)

    with engine("tts", name) as tts:
        run(main(tts), tts)


@each("tts")
def test_tts_stops_when_closed_and_speaks_on_for_others(name: str) -> None:
    async def main(tts: Any) -> None:
        alone = await speech(tts, "Hello there.")
        async with closing(tts.synthesize("A very long story. " * 200, None, "en", 1.0)) as chunks:
            assert len(await anext(chunks))
        together = await asyncio.gather(*(speech(tts, "Hello there.") for _ in range(5)))
        assert [len(pcm) for pcm in together] == pytest.approx([len(alone)] * 5, rel=0.01)
        assert [np.abs(pcm).max() for pcm in together] == pytest.approx([np.abs(alone).max()] * 5, rel=0.2)

    with engine("tts", name) as tts:
        run(main(tts), tts)


@each("tts")
def test_tts_leaves_nothing_of_a_hundred_sentences_that_are_cut_off(name: str) -> None:
    async def main(tts: Any) -> None:
        await a_hundred_leave_nothing(lambda: tts.synthesize("A long story. " * 20, None, "en", 1.0))
        assert len(await speech(tts, "Hello there."))

    with engine("tts", name) as tts:
        run(main(tts), tts)


async def tell(tts: Any, *clauses: str, voice: str | None = None) -> list[int]:
    """Speak a reply; return the samples of each clause. It is closed twice."""
    lengths: list[int] = []
    async with aclosing(open_speech(tts, voice, "en", 1.0)) as reply:
        for clause in clauses:
            async with closing(reply.speak(clause)) as chunks:
                lengths.append(sum([len(chunk) async for chunk in chunks]))
    await reply.aclose()
    return lengths


@each("tts")
def test_tts_speaks_the_clauses_of_a_reply_in_turn_each_to_its_end(name: str) -> None:
    async def main(tts: Any) -> None:
        clauses = ["Hello there.", "This is a longer clause, as it happens.", "Good bye."]
        alone = [len(await speech(tts, clause)) for clause in clauses]
        replies = await asyncio.gather(*(tell(tts, *clauses) for _ in range(5)))
        assert replies == [pytest.approx(alone, rel=0.01)] * 5
        assert await tell(tts) == [] and await tell(tts, " \n", clauses[0]) == [0, pytest.approx(alone[0], rel=0.01)]

    with engine("tts", name) as tts:
        run(main(tts), tts)


@each("tts")
def test_tts_closes_a_reply_in_the_middle_and_speaks_the_next_one(name: str) -> None:
    async def main(tts: Any) -> None:
        [alone] = await tell(tts, "Hello there.")
        for _ in range(5):
            async with aclosing(open_speech(tts, None, "en", 1.0)) as reply:
                async with closing(reply.speak("Hello there.")) as chunks:
                    assert sum([len(chunk) async for chunk in chunks]) == pytest.approx(alone, rel=0.01)
                async with closing(reply.speak("A very long story. " * 200)) as chunks:
                    assert len(await anext(chunks))
        assert await tell(tts, "Hello there.") == [pytest.approx(alone, rel=0.01)]

    with engine("tts", name) as tts:
        run(main(tts), tts)


@each("tts")
def test_tts_refuses_a_voice_for_a_reply_as_for_a_clause(name: str) -> None:
    async def main(tts: Any) -> None:
        with pytest.raises(EngineError, match="voice"):
            await tell(tts, "Hello.", voice="../../../etc/passwd")

    with engine("tts", name) as tts:
        run(main(tts), tts)


# --- turn


SAID = recording("austen-0880.wav")


@each("turn")
@pytest.mark.parametrize("language", ["en", "de", None])
def test_turn_judges_with_a_probability(name: str, language: str | None) -> None:
    async def main(turn: Any) -> None:
        for tail, words in (
            (silence(0), ""),
            (SAID, ""),
            (SAID, "he was not"),
            (SAID[:100], "\0 🙂 ..."),
            (SAID, "x" * 9_999),
        ):
            assert 0.0 <= await turn.is_complete(tail, words, language) <= 1.0

    with engine("turn", name) as turn:
        run(main(turn), turn)


@each("turn")
def test_turn_keeps_nothing_of_a_session(name: str) -> None:
    async def main(turn: Any) -> None:
        tails = [SAID, SAID[:16_000], silence(16_000)]
        alone = [await turn.is_complete(tail, "and", "de") for tail in tails]
        assert await asyncio.gather(*(turn.is_complete(tail, "and", "de") for tail in tails * 4)) == alone * 4

    with engine("turn", name) as turn:
        run(main(turn), turn)


@each("turn")
def test_turn_is_left_at_once(name: str) -> None:
    async def main(turn: Any) -> None:
        took_s = []
        for _ in range(5):
            asked = [asyncio.create_task(turn.is_complete(SAID, "", None)) for _ in range(20)]
            await asyncio.sleep(0)
            for task in asked:
                task.cancel()
            began_s = asyncio.get_running_loop().time()
            await asyncio.gather(*asked, return_exceptions=True)
            took_s.append(asyncio.get_running_loop().time() - began_s)
        assert min(took_s) < 0.05, took_s
        assert 0.0 <= await turn.is_complete(SAID, "", None) <= 1.0, "and is there for the next one"

    with engine("turn", name) as turn:
        run(main(turn), turn)


# --- the stand-ins' pace, in virtual time


async def times(items: AsyncIterator[Any]) -> list[float]:
    """Return when each item came, in milliseconds from now."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    return [round((loop.time() - begin_s) * 1000, 3) async for _ in items]


def paced(kind: Kind, name: str, settings: Mapping[str, str], use: Callable[[Any], AsyncIterator[Any]]) -> list[float]:
    created = load(kind, name, settings)

    async def main() -> list[float]:
        return await times(use(created))

    return virtual_time.run(main())


def test_stand_ins_keep_the_pace_they_are_set_to() -> None:
    scripted = {"VOCAL_SCRIPTED_DELAY_MS": "70"}
    assert paced("stt", "scripted", scripted, lambda e: e.transcribe(in_frames(silence(640)), None)) == [70]
    echo = {"VOCAL_ECHO_TTFT_MS": "120", "VOCAL_ECHO_TOKEN_MS": "10", "VOCAL_ECHO_TEXT": "So, {text}!"}
    assert paced("llm", "echo", echo, lambda e: e.complete([Message("user", "it works.")])) == [120, 130, 140]
    tone = {"VOCAL_TONE_TTFB_MS": "90", "VOCAL_TONE_RTF": "0.5", "VOCAL_TONE_CHARACTER_MS": "20"}
    assert paced("tts", "tone", tone, lambda e: e.synthesize("hello", None, "en", 1.0)) == [110, 130, 140]


def test_stand_ins_without_delays_take_no_time() -> None:
    assert set(paced("stt", "scripted", {}, lambda e: e.transcribe(in_frames(silence(640)), None))) == {0}
    assert set(paced("llm", "echo", {}, lambda e: e.complete(ASKED))) == {0}
    assert set(paced("tts", "tone", {}, lambda e: e.synthesize("hello", None, "en", 1.0))) == {0}


def test_scripted_texts_come_in_turn() -> None:
    async def main() -> list[str]:
        stt = load("stt", "scripted", {"VOCAL_SCRIPTED_TEXT": "one|two"})
        return [(await transcripts(stt, silence(320)))[-1].text for _ in range(3)]

    assert asyncio.run(main()) == ["one", "two", "one"]


def test_echo_repeats_what_was_said_without_taking_it_for_a_template() -> None:
    async def main() -> str:
        return await answer(load("llm", "echo", {}), [Message("user", "use {text} and {0}.")])

    assert asyncio.run(main()) == "You said: use {text} and {0}."


# --- choosing


def fake(rank: int, lacks: str | None = None, fails: str | None = None) -> ModuleType:
    """Return an end-of-turn engine's module."""

    async def is_complete(audio_tail: Pcm, transcript: str, language: str | None = None) -> float:
        return 0.5

    def create(settings: Settings) -> object:
        if fails is not None:
            raise EngineUnavailable(fails)
        return SimpleNamespace(is_complete=is_complete)

    module = ModuleType("fake")
    module.describe = lambda settings: Usable(rank, f"rank {rank}", lacks)  # type: ignore[attr-defined]
    module.create = create  # type: ignore[attr-defined]
    return module


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Replace what ships by what a test puts here."""
    modules: dict[str, ModuleType] = {}
    monkeypatch.setattr(engines, "names", lambda kind: sorted(modules))
    monkeypatch.setattr(engines, "module", lambda kind, name: modules[name])
    return modules


def test_auto_takes_the_best_usable_and_says_why_not_the_better_ones(shelf: dict[str, ModuleType]) -> None:
    shelf |= {"best": fake(9, lacks="A_KEY"), "good": fake(8, fails="a GPU"), "plain": fake(1), "worst": fake(0)}
    chosen = choose("turn", "auto", {})
    assert (chosen.name, chosen.engine is not None) == ("plain", True)
    assert chosen.why == "turn plain: rank 1; passed over: best (needs A_KEY), good (needs a GPU)"


def test_usable_lists_the_best_first_and_what_lacks_something_last(shelf: dict[str, ModuleType]) -> None:
    shelf |= {"a": fake(1), "b": fake(9, lacks="A_KEY"), "c": fake(-1), "d": fake(5)}
    assert [name for name, _ in usable("turn", {})] == ["d", "a", "c", "b"]


def test_auto_never_takes_a_stand_in(shelf: dict[str, ModuleType]) -> None:
    shelf |= {"standin": fake(-1), "broken": fake(3, fails="a library")}
    with pytest.raises(EngineUnavailable, match=r"no turn engine is usable here: broken \(needs a library\)"):
        choose("turn", "auto", {})


def test_a_name_is_taken_at_its_word(shelf: dict[str, ModuleType]) -> None:
    shelf |= {"standin": fake(-1), "broken": fake(3, fails="a library")}
    assert choose("turn", "standin", {}).why == "turn standin: as configured"
    with pytest.raises(EngineUnavailable, match="a library"):
        choose("turn", "broken", {})


def test_auto_without_models_keys_and_network_takes_the_embedded_engines(tmp_path: Path) -> None:
    bare = {"VOCAL_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    expected = {"vad": "silero", "stt": "pocketsphinx", "llm": "eliza", "tts": "espeak", "turn": "heuristic"}
    assert {kind: usable(kind, bare)[0][0] for kind in KINDS} == expected


def test_an_unknown_engine_is_told_which_there_are() -> None:
    with pytest.raises(EngineUnavailable, match=r"no tts engine named 'nonesuch'; known: .*espeak.*, tone\b"):
        choose("tts", "nonesuch", {})


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_a_setting_that_is_no_number_is_named(value: str) -> None:
    with pytest.raises(EngineUnavailable, match="VOCAL_ECHO_TTFT_MS must be"):
        load("llm", "echo", {"VOCAL_ECHO_TTFT_MS": value})
