"""Smart Turn's engine: what its network is given to hear, on which threads, and how its model is found."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from pipeline import engines
from pipeline.audio import Pcm, silence, to_float32
from pipeline.engines import choose, load
from pipeline.errors import EngineUnavailable
from pipeline.model_hub import cached
from pipeline.threads import EngineThreads
from pipeline.turn._log_mel import log_mel
from pipeline.turn.smart_turn import FILE, SAMPLES, SmartTurnEndOfTurn, describe, features

from .hub_server import Hub, serving_in_thread
from .recordings import recording
from .tiny_smart_turn import SHAPE, build

SPEECH = recording("lj001-0004.wav")


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return build(tmp_path / "networks" / "tiny.onnx")


def judged(settings: dict[str, str], *tails: Pcm) -> list[float]:
    """Create the engine, and have it judge."""

    async def ask(turn: Any) -> list[float]:
        return [await turn.is_complete(tail, "") for tail in tails]

    turn = load("turn", "smart_turn", settings)
    try:
        return asyncio.run(ask(turn))
    finally:
        engines.close(turn)


# --- what it hears


def test_log_mel_is_whispers() -> None:
    for sound in (to_float32(SPEECH), np.random.default_rng(1).normal(0, 1, SAMPLES).astype(np.float32)):
        theirs = FeatureExtractor(feature_size=80)(sound, padding=0)
        np.testing.assert_allclose(log_mel(sound), theirs[:, : len(sound) // 160], atol=2e-4)


@pytest.mark.parametrize("seconds", [0.5, 3.0, 8.0, 11.0])
def test_features_are_those_that_it_was_trained_with(seconds: float) -> None:
    """The last 8 s, padded on the left, and normalized with the padding, as `WhisperFeatureExtractor` does it."""
    sound = np.tile(SPEECH, 4)[: round(16_000 * seconds)]
    padded = np.pad(to_float32(sound), (SAMPLES, 0))[-SAMPLES:]
    theirs = FeatureExtractor()((padded - padded.mean()) / np.sqrt(padded.var() + 1e-7), padding=0)
    assert features(sound).shape == SHAPE
    np.testing.assert_allclose(features(sound), theirs[:, :800], atol=2e-3)


def test_the_sound_is_at_the_end_and_silence_before_it() -> None:
    heard = features(SPEECH[:16_000])
    assert heard.dtype == np.float32
    assert np.ptp(heard[:, :690]) < 0.6 < np.ptp(heard[:, 700:]), "a second of speech in the last hundred frames"
    np.testing.assert_array_equal(
        features(np.concatenate([SPEECH] * 4)), features(np.concatenate([SPEECH] * 4)[-SAMPLES:])
    )
    assert np.isfinite(features(silence(0))).all()


def test_every_moment_reaches_the_network_at_its_place(tmp_path: Path) -> None:
    weights = np.zeros(SHAPE, np.float32)
    weights[10, 650] = 1.0
    build(tmp_path / FILE, weights)
    expected = 1.0 / (1.0 + np.exp(-features(SPEECH)[10, 650]))
    [probability] = judged({"VOCAL_SMART_TURN_MODEL": str(tmp_path)}, SPEECH)
    assert probability == pytest.approx(expected, abs=1e-5)


def test_it_judges_as_one_who_hears(network: Path) -> None:
    whole, cut, none, again = judged(
        {"VOCAL_SMART_TURN_MODEL": str(network)}, SPEECH, SPEECH[:20_000], silence(0), SPEECH
    )
    assert all(0.0 <= one <= 1.0 for one in (whole, cut, none))
    assert len({whole, cut, none}) == 3 and whole == again


# --- threads


class Slow:
    """A network that takes its time, and notes where it ran and how many ran at once."""

    def __init__(self, takes_s: float) -> None:
        self.takes_s = takes_s
        self.threads: list[str] = []
        self.running = self.most = 0

    def run(self, outputs: None, feeds: dict[str, Any]) -> list[Any]:
        self.threads.append(threading.current_thread().name)
        self.running += 1
        self.most = max(self.most, self.running)
        time.sleep(self.takes_s)
        self.running -= 1
        return [np.array([[0.7]], np.float32)]


def test_it_thinks_on_threads_of_its_own_and_waits_for_nobody_who_has_gone() -> None:
    async def main(network: Slow, turn: SmartTurnEndOfTurn) -> None:
        asked = [asyncio.create_task(turn.is_complete(SPEECH, "")) for _ in range(6)]
        await asyncio.sleep(0.15)
        for task in asked[2:]:
            task.cancel()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert results[:2] == [pytest.approx(0.7)] * 2
        assert all(isinstance(result, asyncio.CancelledError) for result in results[2:])
        assert len(network.threads) == network.most == 2, "what waited was never asked"
        assert all(name.startswith("smart turn") for name in network.threads)

    network = Slow(0.3)
    turn = SmartTurnEndOfTurn(network, EngineThreads("smart turn", 2))
    asyncio.run(main(network, turn))
    turn.close()


# --- its model


def test_auto_takes_it_where_its_model_is_and_the_heuristic_elsewhere(network: Path, tmp_path: Path) -> None:
    bare = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for settings in (bare, {**bare, "VOCAL_OFFLINE": "1"}):
        chosen = choose("turn", "auto", settings)
        engines.close(chosen.engine)
        assert chosen.name == "heuristic"
    chosen = choose("turn", "auto", {**bare, "VOCAL_SMART_TURN_MODEL": str(network)})
    engines.close(chosen.engine)
    assert (chosen.name, chosen.why) == ("smart_turn", f"turn smart_turn: Smart Turn, {network}")


def test_it_is_downloaded_where_it_is_named_and_taken_by_itself_from_then_on(network: Path, tmp_path: Path) -> None:
    name = "pipecat-ai/smart-turn-v3"
    hub = Hub(name, {FILE: network.read_bytes(), "smart-turn-v3.2-gpu.onnx": b"not asked for"}, "bsd-2-clause")
    settings = {"HF_HOME": str(tmp_path)}
    assert describe(settings).note == f"Smart Turn, {name}, downloaded when first used (9 MB)"
    assert describe(settings).rank < 0
    assert "`vocal-node models fetch smart_turn` brings it" in str(describe({**settings, "VOCAL_OFFLINE": "1"}).lacks)
    with serving_in_thread(hub) as url:
        [first] = judged({**settings, "HF_ENDPOINT": url}, SPEECH)
    assert hub.downloads(FILE) and not hub.downloads("smart-turn-v3.2-gpu.onnx")
    assert cached(name, settings, FILE) is not None
    chosen = choose("turn", "auto", {**settings, "VOCAL_OFFLINE": "1"})
    engines.close(chosen.engine)
    assert chosen.why == f"turn smart_turn: Smart Turn, {name}"
    assert judged({**settings, "VOCAL_OFFLINE": "1"}, SPEECH) == [first]


def _no_network(folder: Path) -> None:
    (folder / FILE).write_bytes(b"not a network")


def _another(folder: Path) -> None:
    build(folder / FILE, shape=(80, 3000))


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_no_network, r"a network that can be loaded, which .*onnx is not"),
        (_another, r"takes input_features of \(80, 800\), as Smart Turn v3 does: .* takes .*3000"),
        (_empty, rf"{FILE}, which .* does not have"),
    ],
)
def test_a_model_that_is_none_says_what_it_lacks(spoil: Any, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(EngineUnavailable, match=says):
        load("turn", "smart_turn", {"VOCAL_SMART_TURN_MODEL": str(folder)})


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("VOCAL_SMART_TURN_MODEL", "/no/such", "VOCAL_SMART_TURN_MODEL that is an ONNX file, a folder or a hub id"),
        ("VOCAL_SMART_TURN_THREADS", "none", "VOCAL_SMART_TURN_THREADS must be a number"),
    ],
)
def test_a_setting_that_cannot_be_is_named(setting: str, value: str, says: str, network: Path) -> None:
    with pytest.raises(EngineUnavailable, match=says):
        load("turn", "smart_turn", {"VOCAL_SMART_TURN_MODEL": str(network), setting: value})
