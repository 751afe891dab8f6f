"""The peer to compare with: XTTS as its library streams it, one call at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.audio import VOICE_RATE_HZ, Pcm, to_int16
from pipeline.tasks import closing
from pipeline.threads import EngineThreads, iterate_in_thread, run_in_thread
from pipeline.torch_audio import import_torchaudio

# ruff: noqa: E402 - before anything imports transformers, which breaks on a broken torchaudio
import_torchaudio()

from TTS.tts.configs.xtts_config import XttsConfig
from TTS.tts.models.xtts import Xtts


class StockXtts:
    """``Xtts.inference_stream`` with its defaults, in a thread."""

    rate_hz = VOICE_RATE_HZ

    def __init__(self, folder: Path, device: str) -> None:
        """Load a checkpoint as the library's documentation says. Blocks for seconds."""
        config = XttsConfig()
        config.load_json(str(folder / "config.json"))
        self._xtts: Any = Xtts(config)
        self._xtts.load_checkpoint(config, checkpoint_dir=str(folder))
        self._xtts.to(device)
        speaker = next(iter(self._xtts.speaker_manager.speakers.values()))
        self._voice = speaker["gpt_cond_latent"].to(device), speaker["speaker_embedding"].to(device)
        self._threads = EngineThreads("stock xtts")

    def close(self) -> None:
        """Join the thread. Idempotent."""
        self._threads.close()

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Yield the library's pieces, 20 tokens each, in the first voice.

        Closing waits for the piece that is being made, which would take its time from whoever is measured next.
        """

        def pieces() -> Iterator[Pcm]:
            with torch.inference_mode():
                for piece in self._xtts.inference_stream(clause, language, *self._voice, speed=speed):
                    yield to_int16(piece.cpu().numpy())

        try:
            async with closing(iterate_in_thread(self._threads, pieces, depth=4)) as made:
                async for piece in made:
                    yield piece
        finally:
            await run_in_thread(self._threads, lambda: None)
