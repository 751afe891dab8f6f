"""The engines of a process: one of each kind from the start, others when named, heavy ones in other processes."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from types import ModuleType
from typing import Any

import pytest

from media_server.engine_set import EngineSet
from pipeline.agents import Agent
from pipeline.audio import Pcm, silence
from pipeline.engines import Kind, Settings, Usable
from pipeline.errors import EngineUnavailable, ProtocolError
from pipeline.speech_detector import DetectorSettings
from pipeline.vad.energy import EnergyVad
from tests.rtc import until

WANTED: dict[Kind, str] = {"vad": "energy", "stt": "scripted", "llm": "echo", "tts": "tone", "turn": "silence"}


class Voice:
    """A speech engine that clones, and knows when it was closed."""

    rate_hz = 24_000
    clones = True

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def synthesize(self, clause: str, voice: str | None, language: str, speed: float) -> AsyncIterator[Pcm]:
        """Say nothing, briefly."""
        yield silence(240)

    async def aclose(self) -> None:
        """Remember it."""
        self.closed.append("connections")

    def close(self) -> None:
        """Remember it."""
        self.closed.append("threads")


@pytest.fixture
def heavy(monkeypatch: pytest.MonkeyPatch) -> list[Voice]:
    """Install a third party's module whose engine is heavy; returns what was created of it."""
    created: list[Voice] = []
    module = ModuleType("thirdparty_heavy")

    def create(settings: Settings) -> Voice:
        if "BROKEN" in settings:
            raise EngineUnavailable("a part is missing")
        created.append(Voice())
        return created[-1]

    def describe(settings: Settings) -> Usable:
        return Usable(1, "a heavy voice", settings.get("LACKS"), heavy=True)

    vars(module).update(create=create, describe=describe)
    monkeypatch.setitem(sys.modules, "thirdparty.heavy", module)
    return created


def run(main: Any) -> None:
    asyncio.run(main())


def test_what_is_served_is_created_once_and_is_the_default() -> None:
    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines:
            assert {kind: chosen.name for kind, chosen in engines.served().items()} == WANTED
            assert await engines.get("tts") is await engines.get("tts", "tone") is engines.served()["tts"]

    run(main)


def test_an_engine_is_created_when_it_is_first_named_and_shared_from_then_on() -> None:
    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines:
            first, second = await asyncio.gather(engines.get("llm", "eliza"), engines.get("llm", "eliza"))
            assert first is second
            assert first.name == "eliza"
            assert first is await engines.get("llm", "eliza")

    run(main)


@pytest.mark.parametrize("name", ["nobody", "os.path", "thirdparty.heavy", "../llm", "", "x" * 10_000])
def test_a_client_names_only_engines_that_ship(name: str, heavy: list[Voice]) -> None:
    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines:
            with pytest.raises(ProtocolError, match="known: ") as caught:
                await engines.get("tts", name)
            assert caught.value.param == "tts" and len(str(caught.value)) < 300

    run(main)
    assert heavy == []


def test_one_that_lacks_something_says_so_and_is_tried_again_when_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, str] = {"VOCAL_TONE_RTF": "rubbish"}

    async def main() -> None:
        async with EngineSet({**WANTED, "tts": "espeak"}, settings) as engines:
            with pytest.raises(EngineUnavailable, match="VOCAL_TONE_RTF"):
                await engines.get("tts", "tone")
            settings["VOCAL_TONE_RTF"] = "0"
            assert (await engines.get("tts", "tone")).name == "tone"

    run(main)


def test_agents_get_the_engines_and_the_voice_they_name() -> None:
    agent = Agent("a", "A", voice="tone", voices={"espeak": "de"}, tts="espeak", llm="eliza", sample="0" * 64)

    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines:
            found, bundle = await engines.for_agent(agent)
            assert found.voice == "de", "an engine's own voice wins"
            assert (type(bundle.llm).__name__, type(bundle.stt).__name__) == (
                "ElizaLanguageModel",
                "ScriptedSpeechToText",
            )
            found, _ = await engines.for_agent(Agent("b", "B", voice="tone", sample="0" * 64))
            assert found.voice == "tone", "this engine cannot clone"

    run(main)


def test_an_engine_that_clones_is_given_the_sample(heavy: list[Voice]) -> None:
    async def main() -> None:
        async with EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {}) as engines:
            found, bundle = await engines.for_agent(Agent("a", "A", sample="0" * 64))
            assert found.voice == f"sample:{'0' * 64}"
            assert bundle.tts is heavy[0]

    run(main)


def test_a_session_can_listen_by_loudness_alone() -> None:
    async def main() -> None:
        async with EngineSet({**WANTED, "vad": "silero"}, {}) as engines:
            _, bundle = await engines.for_agent(Agent("a", "A", detector=DetectorSettings(energy_threshold=0.25)))
            assert isinstance(bundle.vad, EnergyVad)
            _, bundle = await engines.for_agent(Agent("b", "B"))
            assert not isinstance(bundle.vad, EnergyVad)

    run(main)


def test_connections_are_closed_before_threads(heavy: list[Voice]) -> None:
    async def main() -> None:
        async with EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {}):
            assert heavy[0].closed == []
        assert heavy[0].closed == ["connections", "threads"]

    run(main)


def test_a_heavy_engine_gets_a_process_and_is_reached_by_its_address(heavy: list[Voice]) -> None:
    started: list[tuple[Kind, str]] = []

    async def start(kind: Kind, name: str, settings: Settings) -> Settings:
        started.append((kind, name))
        return {**settings, "VOCAL_TTS_URL": "http://127.0.0.1:9"}

    async def main() -> None:
        async with EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {}, start) as engines:
            chosen = engines.served()["tts"]
            assert (chosen.name, started, heavy) == ("thirdparty.heavy", [("tts", "thirdparty.heavy")], [])
            assert type(chosen.engine).__module__ == "pipeline.tts.openai_compatible"
            reason = await engines.why_not_ready()
            assert reason is not None and reason.startswith("tts: "), "nobody answers at that address"

    run(main)


def test_no_process_is_started_for_a_heavy_engine_that_lacks_something(heavy: list[Voice]) -> None:
    async def start(kind: Kind, name: str, settings: Settings) -> Settings:
        raise AssertionError("it was started")

    async def main() -> None:
        with pytest.raises(EngineUnavailable, match=r"^the model's folder$"):
            async with EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {"LACKS": "the model's folder"}, start):
                pass

    run(main)
    assert heavy == []


@pytest.mark.parametrize("steps", [0, 1, 3, 30])
def test_giving_up_while_a_service_starts_leaves_nothing(steps: int, heavy: list[Voice]) -> None:
    ended: list[str] = []

    async def start(kind: Kind, name: str, settings: Settings) -> Settings:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)
        return settings

    async def main() -> None:
        async def enter() -> None:
            async with EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {}, start):
                raise AssertionError("it cannot have started")

        entering = asyncio.create_task(enter())
        for _ in range(steps):
            await asyncio.sleep(0.01)
        entering.cancel()
        await asyncio.wait([entering])
        assert entering.cancelled()
        await asyncio.sleep(0.01)
        assert others() == []

    def others() -> Sequence[Any]:
        return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    run(main)
    assert heavy == []


def test_a_start_that_fails_closes_what_was_created(heavy: list[Voice]) -> None:
    async def main() -> None:
        with pytest.raises(EngineUnavailable, match="megaphone"):
            await EngineSet({**WANTED, "tts": "thirdparty.heavy", "llm": "megaphone"}, {}).__aenter__()
        assert [voice.closed for voice in heavy] == [["connections", "threads"]]

    run(main)


def test_an_engine_that_is_finished_when_nobody_waits_any_more_is_closed(
    heavy: list[Voice], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    create = vars(sys.modules["thirdparty.heavy"])["create"]

    def slowly(settings: Settings) -> Voice:
        begun.set()
        assert go_on.wait(10.0)
        made: Voice = create(settings)
        return made

    monkeypatch.setattr(sys.modules["thirdparty.heavy"], "create", slowly)

    async def main() -> None:
        entering = asyncio.create_task(EngineSet({**WANTED, "tts": "thirdparty.heavy"}, {}).__aenter__())
        await until(begun.is_set)
        entering.cancel()
        threading.Timer(0.1, go_on.set).start()  # the set waits for its workers by then, and the loop with it
        await asyncio.wait([entering])
        assert entering.cancelled()
        assert [voice.closed for voice in heavy] == [["connections", "threads"]]

    run(main)
