"""Recorded speech for tests, and how wrong its words came out."""

from __future__ import annotations

import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from pipeline.audio import SPEECH_RATE_HZ, AudioFrame, Pcm

AUDIO = Path(__file__).parent / "fixtures" / "audio"

SHORT = ("austen-0880.wav", "go-forward.wav", "lj001-0008.wav")
_SAID = dict(line.split("\t") for line in (AUDIO / "words.tsv").read_text().splitlines())
WORDS = {name: _SAID[name] for name in SHORT}
"""File name to what is said in it, of the recordings that are short; one by each of three people."""


def recording(name: str) -> Pcm:
    """Read a fixture, 16 kHz mono."""
    with wave.open(str(AUDIO / name)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SPEECH_RATE_HZ, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


async def in_frames(pcm: Pcm, samples: int = 320) -> AsyncIterator[AudioFrame]:
    """Yield frames of 20 ms, the last one as short as it is."""
    for begin in range(0, len(pcm), samples):
        yield AudioFrame(pcm[begin : begin + samples], SPEECH_RATE_HZ, begin)


def wrong_words(said: str, heard: str) -> int:
    """Count the substitutions, insertions and deletions that lie between two texts."""
    said_words, heard_words = said.split(), heard.split()
    row = list(range(len(heard_words) + 1))
    for i, word in enumerate(said_words, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard_words, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]
