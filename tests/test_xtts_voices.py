"""An uploaded voice, spoken by XTTS in a service of its own: the first sentence waits for its latents, once, ever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.xtts_checkpoint import narrow_vocoder, write_checkpoint  # skips this file without the extra

# isort: split
from pipeline.audio import Pcm
from pipeline.catalogue import Catalogue
from pipeline.cloning import clones
from pipeline.engines import aclose, load
from pipeline.tts import _xtts_model as model
from pipeline.tts import xtts
from pipeline.voices import VoiceSamples
from tests.service_server import serving, shelf
from tests.test_catalogue import SPEECH


async def spoken(engine: xtts.XttsTextToSpeech, voice: str | None) -> Pcm:
    """Speak through a service that has this engine, as another process does."""
    async with serving(shelf({"tts": engine})) as service:
        remote: Any = load("tts", "openai_compatible", {"VOCAL_TTS_URL": service.url})
        try:
            assert clones(remote)
            return np.concatenate([pcm async for pcm in remote.synthesize("Hello there.", voice, "en", 1.0)])
        finally:
            await aclose(remote)


def test_a_voice_is_computed_at_its_first_sentence_and_never_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow_vocoder(monkeypatch)
    checkpoint = model.load(write_checkpoint(tmp_path / "checkpoint"), "cpu")

    async def uploaded() -> str | None:
        async with Catalogue(f"sqlite:///{tmp_path}/vocal.db", VoiceSamples(tmp_path / "voices")) as catalogue:
            anna = await catalogue.add_voice("Anna", SPEECH)
            return (await catalogue.find({"agent": {"voice": anna.id}})).voice_for("openai_compatible", clones=True)

    voice = asyncio.run(uploaded())
    heard: list[Pcm] = []
    computed: list[int] = []
    for _ in range(2):  # the second engine is the first one after a restart
        engine = xtts.assemble(checkpoint, {"VOCAL_DATA_DIR": str(tmp_path), "VOCAL_XTTS_SEED": "1"})
        for _ in range(2):
            heard.append(asyncio.run(spoken(engine, voice)))
            computed.append(engine._voices._latents.computed)
        own = asyncio.run(spoken(engine, None))
        engine.close()
    assert computed == [1, 1, 0, 0]
    assert all(np.array_equal(one, heard[0]) for one in heard)
    assert not np.array_equal(own, heard[0])
