"""The list of engines: what doctor expects, what a running server has, and what ``GET /engines`` makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from media_server import engine_list
from media_server.engine_list import KINDS, EngineList, Listed, expected, listed
from media_server.engine_set import EngineSet
from pipeline.engines import Kind, Settings
from tests.canary import KEY
from tests.test_app import client

WANTED: dict[Kind, str] = {"vad": "energy", "stt": "scripted", "llm": "echo", "tts": "tone", "turn": "silence"}
OFFLINE = {"VOCAL_OFFLINE": "1"}


def chosen(engines: list[Listed]) -> list[str]:
    return [engine.name for engine in engines if engine.chosen]


async def list_of(settings: Settings, **wanted: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Start engines, and return the list by kind and name."""
    names: dict[Kind, str] = {kind: wanted.get(kind, name) for kind, name in WANTED.items()}
    async with EngineSet(names, settings) as engines, EngineList(engines.named_settings, engines.served) as listing:
        return {kind: {engine["name"]: engine for engine in found} for kind, found in (await listing.get()).items()}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, ["espeak"]),
        ({"VOCAL_TTS": "auto", "ELEVENLABS_API_KEY": KEY}, ["elevenlabs"]),
        ({"VOCAL_TTS": "tone"}, ["tone"]),
        ({"VOCAL_TTS": "tests.broken_voice"}, []),
    ],
)
def test_what_a_server_would_begin_with_is_marked(settings: dict[str, str], name: list[str]) -> None:
    assert chosen(expected("tts", OFFLINE | settings)) == name


def test_the_usable_ones_come_first_and_the_others_say_what_they_lack() -> None:
    for kind in KINDS:
        engines = listed(kind, OFFLINE)
        assert [engine.usable for engine in engines] == sorted((engine.usable for engine in engines), reverse=True)
        assert all(engine.usable == (engine.lacks is None) for engine in engines)
        assert all(engine.note for engine in engines)


def test_a_running_server_tells_what_it_runs() -> None:
    found = asyncio.run(list_of({}, tts="espeak"))
    assert set(found) == set(WANTED)
    for kind, wanted in (WANTED | {"tts": "espeak"}).items():
        assert [name for name, engine in found[kind].items() if engine["chosen"]] == [wanted]
    assert found["tts"]["tone"]["by_name_only"] and not found["tts"]["espeak"]["by_name_only"]
    assert set(found["llm"]["echo"]) == {"name", "usable", "lacks", "note", "chosen", "by_name_only"}
    assert set(found["tts"]["tone"]) == {"name", "usable", "lacks", "note", "chosen", "by_name_only", "clones"}


def test_speech_engines_that_clone_are_known_without_being_created() -> None:
    found = asyncio.run(list_of({}))
    able = {name for name, engine in found["tts"].items() if engine["clones"]}
    assert able == {"xtts", "elevenlabs", "cartesia", "openai_compatible"}


def test_an_operators_module_is_listed_where_it_is_the_choice() -> None:
    found = asyncio.run(list_of({}, tts="tests.broken_voice"))
    assert found["tts"]["tests.broken_voice"] == {
        "name": "tests.broken_voice",
        "usable": True,
        "lacks": None,
        "note": "for tests",
        "chosen": True,
        "by_name_only": True,
        "clones": False,
    }


def test_what_would_have_to_be_downloaded_in_a_call_is_not_usable() -> None:
    found = asyncio.run(list_of({"VOCAL_OFFLINE": "0"}))
    assert "vocal-node models fetch faster_whisper" in found["stt"]["faster_whisper"]["lacks"]


def test_many_who_ask_at_once_share_one_answer_and_later_ones_get_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_list, "KEPT_S", 0.2)

    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines, EngineList(engines.named_settings, engines.served) as listing:
            impatient = asyncio.create_task(listing.get())
            await asyncio.sleep(0)
            impatient.cancel()
            first, *others = await asyncio.gather(*(listing.get() for _ in range(50)))
            assert all(other is first for other in others)
            await asyncio.sleep(0.25)
            assert await listing.get() is not first

    asyncio.run(main())


def test_it_ends_while_somebody_waits() -> None:
    async def main() -> None:
        async with EngineSet(WANTED, {}) as engines:
            async with EngineList(engines.named_settings, engines.served) as listing:
                waiting = asyncio.create_task(listing.get())
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())


def test_it_is_served_to_who_has_a_key_and_tells_none(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with client(VOCAL_API_KEYS="one", ELEVENLABS_API_KEY=KEY) as http:
            assert (await http.get("/engines")).status == 401
            answer = await http.get("/engines", headers={"Authorization": "Bearer one"})
            assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
            assert KEY not in await answer.text()
            body = await answer.json()
            assert list(body) == ["vad", "stt", "llm", "tts", "turn"]
            assert next(engine for engine in body["tts"] if engine["name"] == "elevenlabs")["usable"]

    monkeypatch.chdir(tmp_path)
    asyncio.run(main())
