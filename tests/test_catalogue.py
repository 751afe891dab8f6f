"""Who is found, and what is kept: on SQLite and on PostgreSQL, with real samples of speech."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from pipeline import catalogue as module
from pipeline import kept_voices, sample_urls
from pipeline.agents import BUILT_IN, Agent
from pipeline.catalogue import Catalogue
from pipeline.errors import EngineError, Overloaded, ProtocolError
from pipeline.fetch import fetch as fetch_public
from pipeline.voices import Sample, VoiceSamples
from tests.recordings import recording
from tests.sound_files import wav
from tests.test_agents import REQUESTS

SPEECH = wav(np.concatenate([recording("austen-0880.wav"), recording("go-forward.wav")]))
OTHER_SPEECH = wav(np.tile(recording("lj001-0008.wav"), 2))
ADA = Agent(
    "ada", "Ada Lovelace", "Be Ada.", "Good day.", "fr", 1.25, "fr+f2", allow_interruptions=False, stt="whisper"
)
URL = "https://example.org/voice.wav"


class Web:
    """Stand in for the internet: ``pages`` by URL; ``asked`` is what was fetched, ``at_once`` how many at most."""

    def __init__(self, pages: Mapping[str, bytes] | None = None) -> None:
        self.pages = dict(pages or {})
        self.asked: list[str] = []
        self.at_once = 0
        self.open = asyncio.Event()
        self.open.set()
        self.full = asyncio.Event()
        self._now = 0

    async def fetch(self, url: str) -> bytes:
        if url not in self.pages:
            return await fetch_public(url)
        self.asked.append(url)
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        if self._now == sample_urls.MAX_FETCHES:
            self.full.set()
        try:
            await self.open.wait()
        finally:
            self._now -= 1
        return self.pages[url]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "voices"


def run(database_url: str, folder: Path, main: Callable[[Catalogue], Awaitable[None]], web: Web | None = None) -> None:
    async def with_catalogue() -> None:
        fetch = fetch_public if web is None else web.fetch
        async with Catalogue(database_url, VoiceSamples(folder), fetch) as catalogue:
            await main(catalogue)

    asyncio.run(with_catalogue())


def kept(folder: Path) -> set[str]:
    """Return the samples there are."""
    return {path.stem for path in folder.glob("*")}


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/vocal.db"


async def fault(asking: Awaitable[object]) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        await asking
    assert len(str(caught.value)) < 1_000
    return caught.value


# --- agents


def test_a_new_catalogue_knows_the_default_agent_and_no_voice(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        assert await catalogue.agents() == [BUILT_IN]
        assert await catalogue.voices() == []
        assert (
            await catalogue.find({})
            == await catalogue.personality(None)
            == await catalogue.agent("default")
            == BUILT_IN
        )

    run(database_url, folder, main)


def test_agents_come_change_and_go(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        assert await catalogue.add(ADA) == ADA
        assert await catalogue.agent("ada") == ADA
        assert [agent.id for agent in await catalogue.agents()] == ["default", "ada"]
        changed = replace(ADA, name="Zoë", speed=0.5, voice=None, stt=None, tts="tone", allow_interruptions=True)
        await catalogue.replace(changed)
        assert await catalogue.find({"agent": "ada"}) == changed
        await catalogue.remove("ada")
        for gone in (catalogue.agent("ada"), catalogue.replace(ADA), catalogue.remove("ada")):
            assert (await fault(gone)).status == 404
        assert await catalogue.agents() == [BUILT_IN]

    run(database_url, folder, main)


def test_an_id_is_made_from_the_name_and_never_twice(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        names = ["Zoë Müller", "zoe muller!", "Zoe  Muller", "日本", "日本", "x" * 200]
        ids = [(await catalogue.add(Agent("", name))).id for name in names]
        assert ids == ["zoe-muller", "zoe-muller-2", "zoe-muller-3", "agent", "agent-2", "x" * 48]
        for agent_id, name in zip(ids, names, strict=True):
            assert (await catalogue.agent(agent_id)).name == name

    run(database_url, folder, main)


def test_of_many_who_add_the_same_agent_one_does(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        async with Catalogue(database_url, VoiceSamples(folder)) as other:
            both = (catalogue, other) * 3
            added = await asyncio.gather(*(one.add(ADA) for one in both), return_exceptions=True)
            faults = [one for one in added if isinstance(one, ProtocolError)]
            assert len(faults) == 5
            assert {(one.status, one.param) for one in faults} == {(409, "id")}
            named = await asyncio.gather(*(one.add(Agent("", "Bob")) for one in both))
            assert sorted(one.id for one in named) == ["bob", *(f"bob-{n}" for n in range(2, 7))]

    run(database_url, folder, main)


def test_there_is_a_limit(sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AGENTS", 2)
    monkeypatch.setattr(kept_voices, "MAX_VOICES", 0)

    async def main(catalogue: Catalogue) -> None:
        await catalogue.add(ADA)
        assert (await fault(catalogue.add(Agent("", "Bob")))).status == 409
        assert (await fault(catalogue.add_voice("Bob", SPEECH))).status == 409

    run(sqlite_url, folder, main)


def test_longest_texts_of_any_script_are_kept(database_url: str, folder: Path) -> None:
    agent = Agent("x" * 64, "名" * 200, "\U0001f600" * 16_384, "é" * 1_000, voice="ü" * 200)

    async def main(catalogue: Catalogue) -> None:
        await catalogue.add(agent)
        assert await catalogue.agent(agent.id) == agent

    run(database_url, folder, main)


# --- who is found


FOUND: list[tuple[dict[str, Any], Agent]] = [
    ({}, BUILT_IN),
    ({"userId": "u", "unknown": {"field": 1}}, BUILT_IN),
    ({"agent": None}, BUILT_IN),
    ({"agent": "ada"}, ADA),
    ({"agent": "ada", "agentId": "default"}, ADA),
    ({"agent": "ada", "speed": 2, "name": "Joe"}, replace(ADA, speed=2.0)),
    ({"agent": {"agentId": "ada"}}, ADA),
    ({"agentId": "ada"}, ADA),
    ({"agentId": "ada", "userId": "u", "agentName": "Somebody"}, ADA),
    ({"agentId": "ada", "systemPrompt": None, "language": "", "rate": 2}, replace(ADA, speed=2.0)),
    ({"agentId": "ada", "allowInterruptions": True}, replace(ADA, allow_interruptions=True)),
    ({"agentId": "new", "configId": "ada"}, ADA),
    ({"configId": "ada"}, ADA),
    ({"agentId": "default", "configId": "ada"}, BUILT_IN),
    ({"agentId": "new", "agentName": "Bob"}, replace(BUILT_IN, id="new", name="Bob")),
    ({"agentName": "Bob"}, replace(BUILT_IN, id="inline", name="Bob")),
    ({"agent": {"name": "Bob", "language": "de"}}, replace(BUILT_IN, id="inline", name="Bob", language="de")),
    ({"agent": {"voice": "en+m3"}}, replace(BUILT_IN, id="inline", voice="en+m3")),
    ({"agentId": "ada", "voice": "../.."}, replace(ADA, voice="../..")),
]


def test_who_is_found(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.add(ADA)
        for request, expected in FOUND:
            assert await catalogue.find(request) == expected, request

    run(database_url, folder, main)


def test_an_edited_default_agent_lends_what_a_temporary_one_lacks(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.replace(replace(ADA, id="default"))
        agent = await catalogue.find({"agentId": "new", "agentName": "Bob", "speed": 1})
        assert agent == replace(ADA, id="new", name="Bob", speed=1.0)

    run(sqlite_url, folder, main)


def test_somebody_answers_where_the_default_agent_was_deleted(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.remove("default")
        assert await catalogue.find({}) == await catalogue.personality("") == BUILT_IN
        assert "known: none" in str(await fault(catalogue.find({"agent": "default"})))
        await catalogue.add(BUILT_IN)
        assert await catalogue.find({"agent": "default"}) == BUILT_IN

    run(sqlite_url, folder, main)


STRANGERS = ["nobody", "../default", "default\n", "x" * 100_000, "\ud800", "a\x00", "DEFAULTS"]


def test_an_unknown_agent_is_told_who_there_is(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        for n in range(30):
            await catalogue.add(Agent("", f"Number {n:02}"))
        for stranger in STRANGERS:
            for asking, param in (
                (catalogue.find({"agent": stranger}), "agent"),
                (catalogue.personality(stranger), "personality"),
            ):
                error = await fault(asking)
                assert (error.param, error.status) == (param, 404)
                assert "known: default, number-00, " in str(error)
                assert " and 11 more; create one: POST /agents" in str(error)

    run(database_url, folder, main)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"agent": 7}, "agent"),
    ({"agent": ["ada"]}, "agent"),
    ({"agent": {"language": "english"}}, "language"),
    ({"agentId": "../../etc/passwd"}, "agentId"),
    ({"systemPrompt": "x" * 10_000_000}, "systemPrompt"),
    ({"voiceSampleUrl": "file:///etc/passwd"}, "voiceSampleUrl"),
    ({"voiceSampleUrl": "http://example.org/v.wav"}, "voiceSampleUrl"),
    ({"voiceSampleUrl": "https://127.0.0.1/v.wav"}, "voiceSampleUrl"),
    ({"voiceSampleUrl": "https://[::1]/v.wav"}, "voiceSampleUrl"),
    ({"voiceSampleUrl": "https://169.254.169.254/latest/meta-data"}, "voiceSampleUrl"),
]


def test_what_is_wrong_is_named(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        for request, param in WRONG:
            assert (await fault(catalogue.find(request))).param == param

    run(sqlite_url, folder, main)


def test_any_json_finds_an_agent_or_has_a_fault(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.add(ADA)
        loop = asyncio.get_running_loop()

        @settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
        @given(REQUESTS)
        def check(request: dict[str, Any]) -> None:
            asked.append(loop.create_task(find(request)))

        async def find(request: dict[str, Any]) -> None:
            try:
                assert isinstance(await catalogue.find(request), Agent)
            except ProtocolError as error:
                named.append(error.param)

        asked: list[asyncio.Task[None]] = []
        named: list[str | None] = []
        check()
        await asyncio.gather(*asked)
        assert None not in named

    run(database_url, folder, main)


PERSONALITIES = [
    (None, "default"),
    ("", "default"),
    ("  ", "default"),
    ("ada", "default"),  # its name; nobody has this id
    ("b", "b"),
    ("Bob", "b"),
    ("BOB ", "b"),
    ("straße", "s"),
    ("STRASSE", "s"),
    ("c", "c"),  # the id of one, the name of another
]


def test_a_personality_is_an_id_or_else_a_name(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        for agent in (Agent("d", "C"), Agent("c", "Bob"), Agent("b", "Bob"), Agent("s", "Straße")):
            await catalogue.add(agent)
        for wanted, found in PERSONALITIES:
            assert (await catalogue.personality(wanted)).id == found, wanted

    run(database_url, folder, main)


# --- voices


def test_voices_come_and_go_and_so_does_their_sample(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        anna = await catalogue.add_voice("Anna", SPEECH)
        assert anna.id == f"anna-{anna.sha256[:8]}"
        assert anna.duration_s == pytest.approx(5.2, abs=0.01)
        same = await catalogue.add_voice("Berta", SPEECH)
        assert same.sha256 == anna.sha256
        assert await catalogue.voices() == [anna, same]
        assert await catalogue.voice(anna.id) == anna
        assert kept(folder) == {anna.sha256}
        await catalogue.remove_voice(anna.id)
        assert kept(folder) == {anna.sha256}
        await catalogue.remove_voice(same.id)
        assert kept(folder) == set()
        for gone in (catalogue.voice(anna.id), catalogue.remove_voice(anna.id), catalogue.remove_voice("../x")):
            assert (await fault(gone)).status == 404

    run(database_url, folder, main)


def test_a_voice_is_never_kept_without_its_sample(
    sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_sample = VoiceSamples.add

    async def main(catalogue: Catalogue) -> None:
        async def add_while_the_other_goes(*given: Any, **options: Any) -> Sample:
            sample = await add_sample(*given, **options)
            await catalogue.remove_voice(anna.id)
            return sample

        anna = await catalogue.add_voice("Anna", SPEECH)
        monkeypatch.setattr(VoiceSamples, "add", add_while_the_other_goes)
        with pytest.raises(Overloaded, match="send it again"):
            await catalogue.add_voice("Berta", SPEECH)
        monkeypatch.undo()
        assert await catalogue.voices() == []
        berta = await catalogue.add_voice("Berta", SPEECH)
        assert kept(folder) == {berta.sha256}

    run(sqlite_url, folder, main)


def test_the_same_voice_twice_is_one(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        anna = await catalogue.add_voice("Anna", SPEECH)
        error = await fault(catalogue.add_voice("Anna", SPEECH))
        assert (error.status, error.param) == (409, "file")
        assert anna.id in str(error)
        assert (await catalogue.add_voice("Anna", OTHER_SPEECH)).id != anna.id

    run(sqlite_url, folder, main)


def test_what_is_no_voice_is_refused_and_not_kept(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        for source in (b"", b"no sound", wav(recording("austen-0880.wav")), SPEECH[:5_000]):
            assert (await fault(catalogue.add_voice("Anna", source))).param == "file"
        assert await catalogue.voices() == []
        assert kept(folder) == set()

    run(sqlite_url, folder, main)


def test_an_agent_speaks_with_a_voice_until_it_is_given_another(database_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        anna = await catalogue.add_voice("Anna", SPEECH)
        await catalogue.add(replace(ADA, voice=anna.id))
        speaking = replace(ADA, voice=None, sample=anna.sha256)
        assert await catalogue.find({"agentId": "ada"}) == await catalogue.personality("ada") == speaking
        assert (await catalogue.agent("ada")).voice == anna.id
        assert (await catalogue.find({"agent": "ada", "voice": "en"})).voice_for("xtts", clones=True) == "en"
        inline = await catalogue.find({"agent": {"voice": anna.id}})
        assert inline.voice_for("xtts", clones=True) == f"sample:{anna.sha256}"
        assert inline.voice_for("espeak", clones=False) is None
        error = await fault(catalogue.remove_voice(anna.id))
        assert error.status == 409
        assert ": ada; give them another" in str(error)
        await catalogue.replace(ADA)
        await catalogue.remove_voice(anna.id)

    run(database_url, folder, main)


# --- samples by URL


def test_a_url_is_fetched_once_for_all_who_call_within_minutes(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        request = {"agentId": "ada", "voiceSampleUrl": URL}
        found = await catalogue.find(request)
        assert found.sample is not None
        assert (folder / f"{found.sample}.wav").is_file()
        assert found == replace(BUILT_IN, id="ada", sample=found.sample)
        assert await catalogue.find(request) == found
        assert web.asked == [URL]

    web = Web({URL: SPEECH})
    run(sqlite_url, folder, main, web)


def test_a_url_may_hold_another_voice_later(sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_urls, "FRESH_S", 0.0)

    async def main(catalogue: Catalogue) -> None:
        first = await catalogue.find({"voiceSampleUrl": URL})
        web.pages[URL] = OTHER_SPEECH
        assert (await catalogue.find({"voiceSampleUrl": URL})).sample not in (None, first.sample)
        assert web.asked == [URL, URL]

    web = Web({URL: SPEECH})
    run(sqlite_url, folder, main, web)


def test_few_are_fetched_at_once(sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(catalogue: Catalogue) -> None:
        web.open = asyncio.Event()
        calls = [asyncio.create_task(catalogue.find({"voiceSampleUrl": f"{URL}?{n % 6}"})) for n in range(24)]
        await web.full.wait()
        await asyncio.sleep(0.3)  # the others wait, too, and as long as they may
        monkeypatch.setattr(sample_urls, "MAX_WAIT_S", 0.05)
        with pytest.raises(Overloaded):
            await catalogue.find({"voiceSampleUrl": f"{URL}?5"})
        calls.pop().cancel()
        web.open.set()
        assert len({agent.sample for agent in await asyncio.gather(*calls)}) == 1
        assert web.at_once == sample_urls.MAX_FETCHES

    web = Web({f"{URL}?{n}": SPEECH for n in range(6)})
    run(sqlite_url, folder, main, web)


def test_what_is_at_a_url_must_be_speech(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        for n in range(3):
            assert (await fault(catalogue.find({"voiceSampleUrl": f"{URL}?{n}"}))).param == "voiceSampleUrl"

    run(
        sqlite_url, folder, main, Web({f"{URL}?0": b"", f"{URL}?1": b"<html>", f"{URL}?2": wav(np.zeros(80_000, "i2"))})
    )


def test_no_more_urls_are_remembered_than_that(sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_urls, "MAX_URLS", 1)

    async def main(catalogue: Catalogue) -> None:
        for n in (0, 1, 1, 0):
            await catalogue.find({"voiceSampleUrl": f"{URL}?{n}"})
        assert web.asked == [f"{URL}?{n}" for n in (0, 1, 0)]

    web = Web({f"{URL}?{n}": SPEECH for n in range(2)})
    run(sqlite_url, folder, main, web)


def test_a_sample_that_was_removed_is_fetched_again(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.find({"voiceSampleUrl": URL})
        await catalogue.remove_voice((await catalogue.add_voice("Anna", SPEECH)).id)
        found = await catalogue.find({"voiceSampleUrl": URL})
        assert (folder / f"{found.sample}.wav").is_file()

    run(sqlite_url, folder, main, Web({URL: SPEECH}))


def test_a_sample_that_another_process_removed_is_fetched_again(sqlite_url: str, folder: Path) -> None:
    async def main(catalogue: Catalogue) -> None:
        await catalogue.find({"voiceSampleUrl": URL})
        async with Catalogue(sqlite_url, VoiceSamples(folder)) as other:
            await other.remove_voice((await other.add_voice("Anna", SPEECH)).id)
        found = await catalogue.find({"voiceSampleUrl": URL})
        assert (folder / f"{found.sample}.wav").is_file()

    run(sqlite_url, folder, main, Web({URL: SPEECH}))


def test_temporary_samples_go_and_voices_stay(sqlite_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_urls, "SWEEP_EVERY_S", 0.0)
    monkeypatch.setattr(sample_urls, "TEMPORARY_S", -1.0)

    async def main(catalogue: Catalogue) -> None:
        anna = await catalogue.add_voice("Anna", SPEECH)
        old = await catalogue.find({"voiceSampleUrl": f"{URL}?old"})
        new = await catalogue.find({"voiceSampleUrl": f"{URL}?new"})
        assert old.sample != new.sample
        assert kept(folder) == {anna.sha256, new.sample}

    three = wav(np.tile(recording("austen-0880.wav"), 2))
    run(sqlite_url, folder, main, Web({f"{URL}?old": OTHER_SPEECH, f"{URL}?new": three}))


def test_a_folder_that_cannot_be_written_fails_the_call_and_not_the_server(sqlite_url: str, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")

    async def main(catalogue: Catalogue) -> None:
        with pytest.raises(EngineError):
            await catalogue.find({"voiceSampleUrl": URL})
        assert await catalogue.find({}) == BUILT_IN

    run(sqlite_url, blocked / "voices", main, Web({URL: SPEECH}))
