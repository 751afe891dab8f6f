"""PocketSphinx on recorded speech: most words right, while the caller speaks, and the loop never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from pipeline.audio import SAMPLES_PER_MS, SPEECH_RATE_HZ, AudioFrame, Pcm, silence
from pipeline.errors import EngineError
from pipeline.events import Transcript
from pipeline.stt import pocketsphinx
from pipeline.stt._cepstrum import PRIOR, CepstralMean

from .recordings import WORDS, in_frames, recording, wrong_words


@pytest.fixture
def stt() -> Iterator[pocketsphinx.PocketSphinxSpeechToText]:
    engine = pocketsphinx.create({"VOCAL_POCKETSPHINX_DECODERS": "2"})
    yield engine
    engine.close()


async def transcripts(stt: pocketsphinx.PocketSphinxSpeechToText, pcm: Pcm) -> list[Transcript]:
    return [t async for t in stt.transcribe(in_frames(pcm), "en")]


def test_most_words_are_right_whoever_speaks(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    async def main() -> None:
        heard = {name: (await transcripts(stt, recording(name)))[-1].text for name in WORDS}
        assert heard["go-forward.wav"] == "go forward ten meters"
        wrong = sum(wrong_words(said, heard[name]) for name, said in WORDS.items())
        assert wrong <= 0.35 * sum(len(said.split()) for said in WORDS.values()), heard
        assert all(text == " ".join(text.lower().split()) for text in heard.values())
        assert not set("".join(heard.values())) & set("<>[]+()")

    asyncio.run(main())


def test_words_come_while_the_caller_speaks(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    """The utterance goes on only once its first words were heard: a batch decoder would wait for ever."""
    first_words = asyncio.Event()

    async def spoken() -> AsyncIterator[AudioFrame]:
        pcm = recording("go-forward.wav")
        half = len(pcm) * 3 // 4
        async for frame in in_frames(pcm[:half]):
            yield frame
        await first_words.wait()
        async for frame in in_frames(pcm[half:]):
            yield frame

    async def main() -> None:
        heard: list[Transcript] = []
        async with asyncio.timeout(60):
            async for transcript in stt.transcribe(spoken(), None):
                heard.append(transcript)
                if "go" in transcript.text:
                    first_words.set()
        texts = [t.text for t in heard]
        assert len(texts) == len(set(texts)) or texts[-1] == texts[-2]
        assert heard[-1] == Transcript("go forward ten meters", True, "en")

    asyncio.run(main())


def test_at_a_pause_the_words_are_known_and_what_goes_on_is_heard_as_well(
    stt: pocketsphinx.PocketSphinxSpeechToText,
) -> None:
    """Asked twice within the utterance and after its last sound: these words, and the final ones, are as good."""
    told: dict[str, list[Transcript]] = {}

    async def spoken(pcm: Pcm) -> AsyncIterator[AudioFrame]:
        ends = [len(pcm) // 3, len(pcm) * 2 // 3, len(pcm)]
        async for frame in in_frames(np.concatenate([pcm, silence(SPEECH_RATE_HZ * 3 // 10)])):
            yield frame
            at_samples = frame.pts + len(frame.pcm)
            if ends and at_samples >= ends[0] + 70 * SAMPLES_PER_MS:
                ends.pop(0)
                yield AudioFrame(silence(0), SPEECH_RATE_HZ, at_samples)

    async def main() -> None:
        for name in WORDS:
            told[name] = [t async for t in stt.transcribe(spoken(recording(name)), "en")]

    asyncio.run(main())
    at_pauses = {name: [t for t in heard if t.pause_samples is not None] for name, heard in told.items()}
    for name, pauses in at_pauses.items():
        assert [t.final for t in pauses] == [False] * 3 and told[name][-1].final
        assert [t.pause_samples for t in pauses] == sorted(t.pause_samples or 0 for t in pauses)
        assert 0 < len(pauses[0].text.split()) < len(pauses[2].text.split())
    allowed = 0.35 * sum(len(said.split()) for said in WORDS.values())
    assert sum(wrong_words(said, told[name][-1].text) for name, said in WORDS.items()) <= allowed, told
    assert sum(wrong_words(said, at_pauses[name][-1].text) for name, said in WORDS.items()) <= allowed, at_pauses


def test_the_loop_turns_while_a_long_step_is_decoded(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    """With the package's own binding, which holds the interpreter, the loop would turn once or twice."""

    async def one_frame() -> AsyncIterator[AudioFrame]:
        yield AudioFrame(np.concatenate([recording("austen-0880.wav")] * 2), SPEECH_RATE_HZ, 0)

    async def main() -> None:
        async def listen() -> None:
            async for _ in stt.transcribe(one_frame(), "en"):
                pass

        listening, turns = asyncio.create_task(listen()), 0
        while not listening.done():
            await asyncio.sleep(0.01)
            turns += 1
        await listening
        assert turns > 20

    asyncio.run(main())


def test_a_microphone_s_colour_is_taken_away_within_the_utterance(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    """A thin microphone: 20 dB from bass to treble. With a mean that stands still every word of it is wrong."""
    spoken = recording("lj001-0008.wav").astype(float)
    thin = np.append(spoken[:1], spoken[1:] - 0.95 * spoken[:-1])
    pcm = (thin * (np.abs(spoken).max() / np.abs(thin).max())).astype(np.int16)
    assert wrong_words(WORDS["lj001-0008.wav"], asyncio.run(transcripts(stt, pcm))[-1].text) <= 2


def test_the_cepstral_mean_moves_to_the_voice_and_not_to_its_pauses() -> None:
    mean = CepstralMean()
    voice, pause = np.full((10, 13), 60, np.float32), np.full((10, 13), 10, np.float32)

    def estimate(cepstra: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> float:
        return float(mean.push(cepstra).split(",")[0])

    assert PRIOR[0] < estimate(voice) < 60
    for _ in range(100):
        settled = estimate(voice)
    assert settled == pytest.approx(60, abs=1)
    assert estimate(pause) == settled
    assert CepstralMean().push(np.empty((0, 13), np.float32)) == ",".join(f"{value:.3f}" for value in PRIOR)


@pytest.mark.parametrize("level", [0, 30, 300, 3000])
def test_silence_and_noise_have_no_words(stt: pocketsphinx.PocketSphinxSpeechToText, level: int) -> None:
    noise = np.random.default_rng(level).normal(0, level, 2 * SPEECH_RATE_HZ).astype(np.int16)
    assert asyncio.run(transcripts(stt, noise))[-1] == Transcript("", True, "en")


def test_an_utterance_leaves_no_trace_in_the_next(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    async def main() -> None:
        alone = (await transcripts(stt, recording("lj001-0008.wav")))[-1]
        await transcripts(stt, np.random.default_rng(3).normal(0, 3000, SPEECH_RATE_HZ).astype(np.int16))
        await transcripts(stt, recording("go-forward.wav"))
        assert (await transcripts(stt, recording("lj001-0008.wav")))[-1] == alone

    asyncio.run(main())


def test_more_callers_than_decoders_wait_and_are_served(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    async def main() -> None:
        heard = await asyncio.gather(*(transcripts(stt, recording("lj001-0008.wav")) for _ in range(4)))
        assert len({h[-1] for h in heard}) == 1
        assert len(stt._idle) == 2

    asyncio.run(main())


def test_what_it_cannot_hear_is_refused(stt: pocketsphinx.PocketSphinxSpeechToText) -> None:
    async def wrong_rate() -> AsyncIterator[AudioFrame]:
        yield AudioFrame(silence(480), 24_000, 0)

    async def main() -> None:
        with pytest.raises(EngineError, match="English only, not 'de'"):
            _ = [t async for t in stt.transcribe(in_frames(silence(320)), "de")]
        with pytest.raises(EngineError, match="16000 Hz, not 24000"):
            _ = [t async for t in stt.transcribe(wrong_rate(), "en")]
        assert (await transcripts(stt, recording("go-forward.wav")))[-1].text == "go forward ten meters"

    asyncio.run(main())
