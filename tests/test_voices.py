"""Voice samples: which are taken, how they are kept, and when they go."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import wave
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import voices
from pipeline.audio import SPEECH_RATE_HZ, Pcm, to_int16
from pipeline.errors import EngineError, Overloaded, ProtocolError
from pipeline.voices import Sample, VoiceSamples
from tests.music import music
from tests.recordings import recording
from tests.sound_files import encoded, wav

SPEECH = np.concatenate([recording("austen-0880.wav"), recording("go-forward.wav")])
KEPT_S = 5.20
"""Of 5.78: the silence at both ends goes, but for 0.15 s."""
NOBODY = "0" * 64
DAY_S = 86_400.0


def run(folder: Path, main: Callable[[VoiceSamples], Coroutine[Any, Any, None]]) -> None:
    samples = VoiceSamples(folder)
    try:
        asyncio.run(main(samples))
    finally:
        samples.close()


def added(folder: Path, source: bytes, *, trim: bool = False) -> Sample:
    kept: list[Sample] = []

    async def main(samples: VoiceSamples) -> None:
        kept.append(await samples.add(source, param="file", trim=trim))

    run(folder, main)
    return kept[0]


def test_a_sample_is_a_wav_named_by_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "voices"
    sample = added(folder, encoded(SPEECH, "ogg"))
    assert sample.duration_s == pytest.approx(KEPT_S, abs=0.05)
    (path,) = folder.iterdir()
    assert path.name == f"{sample.sha256}.wav"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sample.sha256
    with wave.open(io.BytesIO(path.read_bytes())) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (24_000, 1, 2)
        assert file.getnframes() == round(sample.duration_s * 24_000)


def test_the_same_sound_is_one_sample_whatever_it_came_in(tmp_path: Path) -> None:
    assert added(tmp_path, wav(SPEECH)) == added(tmp_path, encoded(SPEECH, "flac"))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_sample_is_found_by_its_hash_and_forgotten(tmp_path: Path) -> None:
    sample = added(tmp_path, wav(SPEECH))
    samples = VoiceSamples(tmp_path)
    assert samples.path(sample.sha256) == tmp_path / f"{sample.sha256}.wav"
    asyncio.run(samples.remove(sample.sha256))
    asyncio.run(samples.remove(sample.sha256))
    with pytest.raises(EngineError):
        samples.path(sample.sha256)
    samples.close()


@pytest.mark.parametrize("name", ["", NOBODY, "../../etc/passwd", "0" * 63, NOBODY + "\n", "A" * 64, "/" * 64])
def test_what_is_no_sample_is_never_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    samples = VoiceSamples(tmp_path / "x")
    with pytest.raises(EngineError):
        samples.path(name)
    asyncio.run(samples.remove(name))
    samples.close()


def seconds(count: float) -> Pcm:
    return np.resize(SPEECH, round(count * SPEECH_RATE_HZ))


def test_from_a_url_only_the_beginning_is_taken(tmp_path: Path) -> None:
    kept_s = added(tmp_path, wav(seconds(45)), trim=True).duration_s
    assert kept_s == added(tmp_path, wav(seconds(30))).duration_s
    assert 29.8 < kept_s < 30.0


@pytest.mark.parametrize("count", [3.0, 30.0])
def test_an_upload_may_have_from_3_to_30_s(count: float, tmp_path: Path) -> None:
    assert count - 0.2 < added(tmp_path, wav(seconds(count))).duration_s <= count


TIME_S = np.arange(5 * SPEECH_RATE_HZ) / SPEECH_RATE_HZ
NOISE = np.random.default_rng(7).standard_normal(len(TIME_S))


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        pytest.param(wav(seconds(2.9)), 422, "has 2.90 s: send at least 3 s", id="short"),
        pytest.param(wav(seconds(30.1)), 413, "longer than 30 s", id="long"),
        pytest.param(wav(np.zeros(80_000, np.int16)), 422, "is silent", id="silence"),
        pytest.param(wav(to_int16(0.001 * NOISE)), 422, "is silent", id="the room alone"),
        pytest.param(wav(to_int16(40 * seconds(5) / 32_768.0)), 422, "is overdriven", id="overdriven"),
        pytest.param(wav(to_int16(0.3 * np.sin(440 * 2 * np.pi * TIME_S))), 422, "no speech", id="tone"),
        pytest.param(wav(to_int16(0.1 * NOISE)), 422, "no speech", id="noise"),
        pytest.param(
            wav(np.concatenate([seconds(1), np.zeros(80_000, np.int16)])), 422, "loud enough for 0.", id="a word"
        ),
        pytest.param(wav(music("band")), 422, "music, noise or other sound, but no speech", id="music"),
        pytest.param(
            wav(np.concatenate([seconds(2), np.zeros(80_000, np.int16)])),
            422,
            "s of speech: send 3 to 30 s",
            id="two seconds",
        ),
        pytest.param(
            wav(np.concatenate([SPEECH, recording("lj001-0004.wav")])), 422, "has two voices", id="a man and a woman"
        ),
        pytest.param(b"no sound at all", 415, "no sound", id="no sound"),
    ],
)
def test_a_sample_that_no_voice_can_be_cloned_from_is_refused(
    source: bytes, status: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(ProtocolError) as refused:
        added(tmp_path / "voices", source)
    assert (refused.value.status, refused.value.param) == (status, "file")
    assert words in str(refused.value)
    assert not (tmp_path / "voices").exists()


def test_quiet_speech_is_taken(tmp_path: Path) -> None:
    assert added(tmp_path, wav(to_int16(0.2 * SPEECH / 32_768.0)))


def test_many_may_add_the_same_at_once(tmp_path: Path) -> None:
    async def main(samples: VoiceSamples) -> None:
        every = await asyncio.gather(*(samples.add(wav(SPEECH), param="file", trim=False) for _ in range(4)))
        assert len(set(every)) == 1

    run(tmp_path, main)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "voices").write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="cannot be kept") as failed:
        added(tmp_path / "voices", wav(SPEECH))
    assert str(tmp_path) not in str(failed.value)


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left"):
        added(tmp_path, wav(SPEECH))
    assert list(tmp_path.iterdir()) == []


def test_the_store_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "MAX_SAMPLES", 1)
    first = added(tmp_path, wav(SPEECH))
    with pytest.raises(Overloaded):
        added(tmp_path, wav(seconds(4)))
    assert added(tmp_path, wav(SPEECH)) == first


def test_sweeping_takes_what_nobody_keeps_and_nobody_added_lately(tmp_path: Path) -> None:
    kept, stale, fresh = (tmp_path / f"{digit * 64}.wav" for digit in "0ab")
    again = tmp_path / f"{added(tmp_path, wav(SPEECH)).sha256}.wav"
    unfinished, foreign = tmp_path / ".unfinished-x", tmp_path / "notes.txt"
    two_days_ago_s = again.stat().st_mtime - 2 * DAY_S
    for path in (kept, stale, fresh, again, unfinished, foreign):
        path.touch()
        if path is not fresh:
            os.utime(path, (two_days_ago_s, two_days_ago_s))

    async def main(samples: VoiceSamples) -> None:
        await samples.add(wav(SPEECH), param="file", trim=False)
        assert await samples.sweep([kept.stem], DAY_S) == 2
        assert await samples.sweep([kept.stem], DAY_S) == 0

    run(tmp_path, main)
    assert set(tmp_path.iterdir()) == {kept, fresh, again, foreign}


def test_there_may_be_nothing_to_sweep(tmp_path: Path) -> None:
    async def main(samples: VoiceSamples) -> None:
        assert await samples.sweep([], 0.0) == 0

    run(tmp_path / "nothing yet", main)
