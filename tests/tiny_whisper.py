"""A Whisper of half a megabyte in CTranslate2's format: its weights are random, or it says a script."""

from __future__ import annotations

from pathlib import Path

from benchmarks.random_whisper import Script, Shape, write

__all__ = ["CORPUS", "TINY", "Script", "build"]

TINY = Shape(layers=1, width=64, heads=2, feed=128)
CORPUS = ["hello there how are you today", "what is the weather like", "thank you", "no, no, no"] * 4


def build(folder: Path, script: Script | None = None, *, multilingual: bool = False, seed: int = 0) -> Path:
    """Write a model into ``folder``; returns it."""
    return write(folder, TINY, CORPUS, script, multilingual=multilingual, seed=seed)
