"""The XTTS engine through the real library, on a checkpoint of random weights: speech, voices, languages, errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.xtts_checkpoint import (  # skips this file without the extra
    LANGUAGES,
    MAX_TOKENS,
    narrow_vocoder,
    write_checkpoint,
    write_sample,
)

# isort: split
from pipeline.audio import Pcm
from pipeline.cloning import clones
from pipeline.engines import TextToSpeech
from pipeline.errors import EngineError, EngineUnavailable, NotOffered
from pipeline.tasks import closing
from pipeline.tts import _xtts_model as model
from pipeline.tts import xtts
from pipeline.tts._xtts_gpt import Gpt, Sampling
from pipeline.tts._xtts_text import Texts

WHOLE_SAMPLES = int(MAX_TOKENS * 4 * 24_000 / 22_050) * 256

Make = Callable[..., xtts.XttsTextToSpeech]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[model.Checkpoint]:
    with pytest.MonkeyPatch.context() as patch:
        narrow_vocoder(patch)
        yield model.load(write_checkpoint(tmp_path_factory.mktemp("xtts")), "cpu")


@pytest.fixture
def make(checkpoint: model.Checkpoint, tmp_path: Path) -> Iterator[Make]:
    """Make engines on one loaded checkpoint."""
    made: list[xtts.XttsTextToSpeech] = []

    def one(loaded: model.Checkpoint = checkpoint, **settings: str) -> xtts.XttsTextToSpeech:
        made.append(xtts.assemble(loaded, {"VOCAL_DATA_DIR": str(tmp_path), "VOCAL_XTTS_SEED": "1", **settings}))
        return made[-1]

    yield one
    for engine in made:
        engine.close()


@pytest.fixture(scope="module")
def texts(checkpoint: model.Checkpoint) -> Texts:
    loaded = checkpoint.xtts
    return Texts(loaded.tokenizer, checkpoint.config.languages, Gpt(loaded.gpt).max_text_tokens)


async def speech(
    tts: xtts.XttsTextToSpeech,
    text: str = "Hello there.",
    voice: str | None = None,
    language: str = "en",
    speed: float = 1.0,
) -> Pcm:
    return np.concatenate([pcm async for pcm in tts.synthesize(text, voice, language, speed)])


def test_it_streams_whole_sentences_at_its_rate(make: Make) -> None:
    tts = make()

    async def main() -> None:
        assert isinstance(tts, TextToSpeech) and clones(tts) and tts.rate_hz == 24_000
        pieces = [pcm async for pcm in tts.synthesize("Hello there.", None, "en", 1.0)]
        assert all(pcm.dtype == np.int16 and pcm.flags.owndata and len(pcm) for pcm in pieces)
        assert sum(map(len, pieces)) == WHOLE_SAMPLES
        assert len(pieces) > 5 and len(pieces[0]) < 0.03 * tts.rate_hz

    asyncio.run(main())


def test_a_seed_makes_speech_repeatable_and_none_does_not(make: Make) -> None:
    seeded, other, free = make(), make(VOCAL_XTTS_SEED="2"), make(VOCAL_XTTS_SEED="")

    async def main() -> None:
        assert np.array_equal(await speech(seeded), await speech(seeded))
        assert not np.array_equal(await speech(seeded), await speech(other))
        assert not np.array_equal(await speech(free), await speech(free))

    asyncio.run(main())


def test_voices_are_speakers_of_the_checkpoint_or_samples(make: Make, tmp_path: Path) -> None:
    tts = make()
    sample = f"sample:{write_sample(tmp_path)}"
    by_name, by_sample = make(VOCAL_XTTS_VOICE="Beta Tester"), make(VOCAL_XTTS_VOICE=sample)

    async def main() -> None:
        alpha, beta, cloned = await speech(tts), await speech(tts, voice="beta tester"), await speech(tts, voice=sample)
        assert not np.array_equal(alpha, beta) and not np.array_equal(alpha, cloned)
        assert np.array_equal(beta, await speech(by_name))
        assert np.array_equal(cloned, await speech(by_sample))

    asyncio.run(main())


def test_a_checkpoint_without_speakers_needs_a_sample(make: Make, checkpoint: model.Checkpoint, tmp_path: Path) -> None:
    tts, sample = make(replace(checkpoint, speakers={})), write_sample(tmp_path)

    async def main() -> None:
        with pytest.raises(NotOffered, match="without speakers_xtts"):
            await speech(tts)
        assert len(await speech(tts, voice=f"sample:{sample}")) == WHOLE_SAMPLES

    asyncio.run(main())


@pytest.mark.parametrize(
    ("voice", "error", "words"),
    [
        ("nobody", NotOffered, "no voice 'nobody'.*Alpha Tester"),
        ("sample:" + "0" * 64, EngineError, "no voice sample"),
        ("sample:../../etc/passwd", EngineError, "no voice sample"),
    ],
)
def test_voices_that_are_not_there_are_an_error(make: Make, voice: str, error: type[EngineError], words: str) -> None:
    tts = make()

    async def main() -> None:
        with pytest.raises(error, match=words):
            await speech(tts, voice=voice)
        assert len(await speech(tts)) == WHOLE_SAMPLES

    asyncio.run(main())


SENTENCES = {
    "en": "Dr. Smith paid $20 on the 1st.",
    "es": "Hola, son 20 euros.",
    "fr": "Bonjour, il est 8 heures.",
    "de": "Guten Tag, es ist 8 Uhr.",
    "it": "Buongiorno, sono 20 euro.",
    "pt": "Bom dia, são 20 euros.",
    "pl": "Dzień dobry, jest 8.",
    "tr": "Merhaba, saat 8.",
    "ru": "Добрый день, сейчас 8 часов.",
    "nl": "Goedendag, het is 8 uur.",
    "cs": "Dobrý den, je 8 hodin.",
    "ar": "مرحبا",
    "zh-cn": "你好，现在8点。",
    "hu": "Jó napot, 8 óra van.",
    "ko": "안녕하세요, 8시입니다.",
    "ja": "こんにちは。",
    "hi": "नमस्ते",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_of_its_languages_is_read(texts: Texts, language: str) -> None:
    plain = language.partition("-")[0]
    for asked in (language, plain, f"{plain}-XX", language.upper()):
        (tokens,) = texts.pieces(SENTENCES[language], asked)
        assert tokens[0] == texts._tokenizer.tokenizer.token_to_id(f"[{language}]")
        assert len(tokens) > 3


def test_numbers_and_abbreviations_are_read_as_the_model_s_own_cleaner_reads_them(texts: Texts) -> None:
    (tokens,) = texts.pieces("Dr. Smith paid $20.", "en")
    assert "".join(texts._tokenizer.decode(tokens).split("]")[-1:]) == "doctor smith paid twenty dollars."


@pytest.mark.parametrize(
    ("text", "language", "words"),
    [
        ("", "en", "knows none of the characters"),
        ("  \n", "en", "knows none of the characters"),
        ("😀🎉👍", "en", "knows none of the characters"),
        ("...!?", "en", "knows none of the characters"),
        ("สวัสดี", "en", "knows none of the characters"),
        ("Hello.", "sv", "does not speak 'sv', but ar, cs"),
        ("Hello.", "", "does not speak ''"),
        ("Hello. " * 1_500, "en", "at most 8000 characters at once, not 10500"),
    ],
)
def test_what_cannot_be_spoken_is_the_caller_s_error(make: Make, text: str, language: str, words: str) -> None:
    tts = make()

    async def main() -> None:
        with pytest.raises(NotOffered, match=words) as raised:
            await speech(tts, text, language=language)
        assert len(str(raised.value)) < 300
        assert len(await speech(tts)) == WHOLE_SAMPLES

    asyncio.run(main())


def test_emoji_among_words_and_special_tokens_are_no_matter(texts: Texts) -> None:
    assert texts.pieces("Hello 😀 there.", "en")
    (tokens,) = texts.pieces("hello [STOP] there [de]", "en")
    assert texts._tokenizer.tokenizer.token_to_id("[STOP]") not in tokens


def test_long_texts_are_cut_at_sentences_into_what_the_model_speaks_well(texts: Texts) -> None:
    limit = texts._tokenizer.char_limits["en"]
    text = "The quick brown fox jumps over the lazy dog! " * 20 + "word " * 100 + "x" * 600
    pieces = list(texts._cut(text, "en"))
    assert max(map(len, pieces)) <= limit and len(pieces) >= len(text) / limit
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert pieces[0].rstrip().endswith("!")
    numbers = texts.pieces("7" * 500 + " 123456 " * 90, "en")  # a short text, long when it is read
    assert max(map(len, numbers)) <= texts._max_tokens


def test_a_long_text_is_spoken_piece_after_piece(make: Make) -> None:
    text = "The quick brown fox jumps over the lazy dog. " * 10
    assert len(asyncio.run(speech(make(), text))) == 2 * WHOLE_SAMPLES


@pytest.mark.parametrize(("asked", "spoken"), [(0.8, 0.8), (1.5, 1.5), (0.1, 0.5), (9.0, 2.0)])
def test_speed_shortens_speech_within_its_limits(make: Make, asked: float, spoken: float) -> None:
    length = len(asyncio.run(speech(make(), speed=asked)))
    assert length == pytest.approx(WHOLE_SAMPLES / spoken, rel=0.04)


def test_tokens_are_drawn_as_the_checkpoint_says_but_for_the_temperature_that_is_set(make: Make) -> None:
    as_it_says = Sampling(temperature=0.75, top_k=50, top_p=0.85, repetition=5.0)
    assert make()._speech._sampling == as_it_says
    assert make(VOCAL_XTTS_TEMPERATURE="0.3")._speech._sampling == replace(as_it_says, temperature=0.3)


def test_closing_stops_after_the_step_it_is_at(make: Make) -> None:
    tts = make()

    async def main() -> None:
        async with closing(tts.synthesize("Hello there.", None, "en", 1.0)) as pieces:
            await anext(pieces)
            (row,) = tts._speech._rows
        said = len(row.sentence.tokens)
        await speech(tts, "how")
        assert len(row.sentence.tokens) <= said + 1 < MAX_TOKENS

    asyncio.run(main())


def test_canceling_one_of_two_in_the_middle_of_a_step_leaves_the_other_alone(make: Make) -> None:
    tts = make()

    async def main() -> None:
        alone = await speech(tts, "how are you")
        canceled = asyncio.create_task(speech(tts, "the quick brown fox"))
        async with closing(tts.synthesize("how are you", None, "en", 1.0)) as pieces:
            begun = await anext(pieces)
            assert tts._speech.speaking == 2
            canceled.cancel()
            rest = [pcm async for pcm in pieces]
        assert canceled.cancelled()
        assert np.abs(np.concatenate([begun, *rest]) - alone.astype(int)).max() <= 1
        assert tts._speech.speaking == tts._speech.gpt.rows <= 1

    asyncio.run(main())


def test_calls_speak_at_the_same_time_and_none_waits_for_another_s_end(make: Make) -> None:
    tts = make()

    async def main() -> None:
        begun: list[str] = []
        ended: list[str] = []

        async def say(name: str, text: str) -> None:
            async with closing(tts.synthesize(text, None, "en", 1.0)) as pieces:
                begun.append(name + str(len(await anext(pieces))))
                async for _ in pieces:
                    await asyncio.sleep(0)
            ended.append(name)

        await asyncio.gather(*(say(name, "hello " * n) for n, name in enumerate("abc", 1)))
        assert sorted(begun) == ["a582", "b582", "c582"] and len(ended) == 3

    asyncio.run(main())


def test_nothing_is_left_of_a_hundred_that_were_opened_and_closed(make: Make) -> None:
    tts = make()

    async def main() -> None:
        for i in range(100):
            async with closing(tts.synthesize("how are you", None, "en", 1.0)) as pieces:
                if i % 3:
                    await anext(pieces)
        await speech(tts)
        await asyncio.wrap_future(tts._threads.submit(tts._speech.step))
        assert (tts._speech.speaking, tts._speech.gpt.rows, len(tts._speech._waiting)) == (0, 0, 0)

    asyncio.run(main())


def test_closing_the_engine_ends_what_it_says(make: Make) -> None:
    tts = make()

    async def main() -> None:
        async with closing(tts.synthesize("Hello there.", None, "en", 1.0)) as pieces:
            await anext(pieces)
            tts.close()
            with pytest.raises(EngineError, match="closed"):
                await anext(pieces)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"VOCAL_XTTS_TEMPERATURE": "hot"}, "VOCAL_XTTS_TEMPERATURE must be a number"),
        ({"VOCAL_XTTS_TEMPERATURE": "0"}, "at least 0.01"),
        ({"VOCAL_XTTS_STREAMS": "0"}, "VOCAL_XTTS_STREAMS must be at least 1"),
        ({"VOCAL_XTTS_SEED": "x"}, "VOCAL_XTTS_SEED must be a number"),
        ({"VOCAL_XTTS_VOICE": "nobody"}, "VOCAL_XTTS_VOICE: .*no voice 'nobody'"),
        ({"VOCAL_XTTS_VOICE": "sample:" + "0" * 64}, "VOCAL_XTTS_VOICE: .*no voice sample"),
    ],
)
def test_settings_that_cannot_be_are_named(make: Make, settings: dict[str, str], words: str) -> None:
    with pytest.raises(EngineUnavailable, match=words):
        make(**settings)


def test_describing_it_imports_nothing_heavy(tmp_path: Path) -> None:
    """It is asked by the media process, too."""
    program = (
        "import sys; from pipeline.tts import xtts; usable = xtts.describe({'XTTS_MODEL_PATH': sys.argv[1]})\n"
        "assert usable.heavy and usable.lacks, usable\n"
        "assert not {'torch', 'torchaudio', 'TTS', 'transformers', 'safetensors'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)
