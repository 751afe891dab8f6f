"""The page's view of voices, in a real browser against real servers: samples from files, what is kept, its sound."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import SPEECH_RATE_HZ, silence, to_int16
from tests.browser import WAIT_MS, Server, Tab, recording, serving
from tests.canary import KEY
from tests.catalogue_page import (
    STAND_INS,
    XTTS_LACKS,
    ask,
    begin_anew,
    button,
    check_named,
    choose,
    fault,
    fill_and_send,
    likeness,
    open_view,
    sample_of,
    send_voice,
    sharing,
    verdict,
    voices,
    wait_until_kept,
    watch_requests,
)
from tests.music import music
from tests.sound_files import encoded, wav
from tests.vendor_voices import Vendors, voice_vendors

SPEECH = recording("lj001-0004")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with an engine that does not clone."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


@pytest.fixture(autouse=True)
def no_voice_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Begin each test of the shared server with an empty shelf."""
    yield
    if "server" in request.fixturenames:
        running: Server = request.getfixturevalue("server")
        for agent in ask(running, "GET", "agents")[1]["agents"]:
            if agent["id"] != "default":
                ask(running, "DELETE", f"agents/{agent['id']}")
        for voice in voices(running):
            ask(running, "DELETE", f"voices/{voice['id']}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Share one browser."""
    with sharing(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def tab(server: Server, browser: Tab) -> Tab:
    """Open the view of voices of the shared server."""
    open_view(browser, server, "voices")
    return browser


# --- from a file


@pytest.mark.parametrize("kind", ["mp3", "flac", "amr"])
def test_a_voice_is_cloned_from_a_file_of_any_kind(server: Server, tab: Tab, kind: str) -> None:
    choose(tab, f"speech.{kind}", encoded(SPEECH, kind), f"audio/{kind}")
    heard = "cannot play" if kind == "amr" else "It will do, but 6 to 15 s"
    assert heard in verdict(tab)
    fill_and_send(tab, "Filed")
    wait_until_kept(tab, "Filed")
    (voice,) = voices(server)
    # an AMR is what a telephone makes of it
    assert min(likeness(sample_of(server, str(voice["id"])), SPEECH)) > (0.6 if kind == "amr" else 0.9)
    tab.check_clean()


OVERDRIVEN = to_int16(np.clip(SPEECH / 32_768 * 40, -1, 1))
HUM = to_int16(0.3 * np.sin(np.arange(5 * SPEECH_RATE_HZ) * 0.1))
USELESS = {
    "silent": wav(silence(5 * SPEECH_RATE_HZ)),
    "nearly silent": wav(np.concatenate([silence(4 * SPEECH_RATE_HZ), SPEECH[: SPEECH_RATE_HZ + 4_000]])),
    "overdriven": wav(OVERDRIVEN),
    "too short": wav(SPEECH[: 2 * SPEECH_RATE_HZ]),
    "too long": wav(np.resize(SPEECH, 31 * SPEECH_RATE_HZ)),
    "much too long": wav(np.resize(SPEECH, 120 * SPEECH_RATE_HZ)),
    "a steady sound": wav(HUM),
}


@pytest.mark.parametrize("kind", USELESS)
def test_what_the_server_would_refuse_is_not_sent_and_is_told_in_its_words(server: Server, tab: Tab, kind: str) -> None:
    status, refusal = send_voice(server, "Nobody", USELESS[kind])
    asked = watch_requests(tab, "/voices")
    choose(tab, "sound.wav", USELESS[kind])
    fill_and_send(tab, "Nobody")
    assert status in (413, 422)
    assert fault(tab).lower() == f"{refusal['error']['message']}.".lower()
    assert asked == []
    tab.check_clean()


@pytest.mark.parametrize(
    ("name", "mime", "content", "words"),
    [
        ("poem.txt", "text/plain", b"Tyger Tyger, burning bright", "no sound in it"),
        ("photo.png", "image/png", b"\x89PNG\r\n\x1a\n", "no sound in it"),
        ("empty.wav", "audio/wav", b"", "empty"),
    ],
)
def test_what_is_no_sound_is_not_sent(tab: Tab, name: str, mime: str, content: bytes, words: str) -> None:
    asked = watch_requests(tab, "/voices")
    choose(tab, name, content, mime)
    fill_and_send(tab, "Nobody")
    assert words in fault(tab)
    assert asked == []
    tab.check_clean()


def test_a_file_beyond_all_bounds_is_not_sent(tab: Tab, tmp_path: Path) -> None:
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.truncate(25 * 1024 * 1024 + 1)
    tab.page.set_input_files("#sample-file", huge)
    tab.page.wait_for_selector("#sample-fault:not(:empty)")
    assert "at most 25 MiB" in fault(tab)
    tab.check_clean()


def test_what_only_the_server_can_tell_is_said_afterwards(server: Server, tab: Tab) -> None:
    choose(tab, "music.wav", wav(music("piano")))
    assert "Listen to it" in verdict(tab), "music is as loud as speech"
    fill_and_send(tab, "Band")
    tab.page.wait_for_selector("#sample-fault:not(:empty)")
    assert "holds music, noise or other sound, but no speech" in fault(tab)
    assert (tab.page.input_value("#voice-name"), tab.page.is_checked("#voice-consent")) == ("Band", True)
    choose(tab, "noise.wav", b"this is not a RIFF file" * 40)
    button(tab, "Clone this voice").click()
    tab.page.wait_for_selector("#sample-fault:not(:empty)")
    assert "There is no sound in it that can be decoded".lower() in fault(tab).lower()
    assert voices(server) == []
    choose(tab, "speech.wav", wav(SPEECH))
    assert fault(tab) == ""
    button(tab, "Clone this voice").click()
    wait_until_kept(tab, "Band")
    tab.check_clean("status of 422", "status of 415")


def test_the_same_voice_twice_is_told(server: Server, tab: Tab) -> None:
    send_voice(server, "Once", wav(SPEECH))
    choose(tab, "speech.wav", wav(SPEECH))
    fill_and_send(tab, "Once")
    tab.page.wait_for_selector("#sample-fault:not(:empty)")
    assert "already, with this name and this sample" in fault(tab)
    assert len(voices(server)) == 1
    tab.check_clean("status of 409")


def test_nothing_is_sent_without_a_name_the_speakers_consent_and_a_sample(tab: Tab) -> None:
    asked = watch_requests(tab, "/voices")
    button(tab, "Clone this voice").click()
    assert "Give the voice a name" in tab.page.inner_text("#voice-name-fault")
    assert "agreed to it" in tab.page.inner_text("#voice-consent-fault")
    assert "Record a sample" in fault(tab)
    choose(tab, "speech.wav", wav(SPEECH))
    tab.page.fill("#voice-name", "Nora")
    button(tab, "Clone this voice").click()
    assert tab.page.evaluate("document.activeElement.id") == "voice-consent"
    assert tab.page.get_attribute("#voice-consent", "aria-invalid") == "true"
    assert asked == []
    tab.check_clean()


def test_a_dropped_file_and_a_double_click_make_one_voice(server: Server, tab: Tab) -> None:
    drop = """async (bytes) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], "dropped.wav", { type: "audio/wav" }));
      const dropped = new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
      document.querySelector(".sample .drop").dispatchEvent(dropped);
    }"""
    tab.page.evaluate(drop, list(wav(SPEECH[: 4 * SPEECH_RATE_HZ])))
    tab.wait_for("() => document.querySelector('.sample .verdict').textContent.startsWith('4.0 s')")
    assert "dropped.wav" in tab.page.inner_text(".sample")
    asked = watch_requests(tab, "/voices")
    tab.page.fill("#voice-name", "Twin")
    tab.page.check("#voice-consent")
    button(tab, "Clone this voice").dblclick()
    wait_until_kept(tab, "Twin")
    assert [method for method, _ in asked if method == "POST"] == ["POST"]
    tab.check_clean()


# --- what is kept


def test_voices_are_listed_played_and_deleted(server: Server, tab: Tab) -> None:
    name = "<i>Anna</i>"
    send_voice(server, name, wav(SPEECH))
    tab.page.reload()
    tab.page.wait_for_selector("[data-voice]")
    assert tab.page.inner_text("[data-voice] h3") == name
    assert "5.1 s" in tab.page.inner_text("[data-voice]")
    asked = watch_requests(tab, "/sample")
    button(tab, f"Play {name}").click()
    button(tab, f"Stop {name}").wait_for()
    button(tab, f"Play {name}").wait_for(timeout=WAIT_MS)
    assert len(asked) == 1, "it is played to its end"
    button(tab, f"Delete {name}").click()
    tab.page.locator("dialog").get_by_role("button", name="Cancel").click()
    assert len(voices(server)) == 1
    button(tab, f"Delete {name}").click()
    button(tab, "Delete voice").click()
    tab.wait_for("() => document.querySelector('#voices-view .entries').textContent.includes('No voice is kept')")
    assert voices(server) == []
    tab.check_clean()


def test_a_voice_that_an_agent_speaks_with_leads_to_that_agent(server: Server, tab: Tab) -> None:
    voice = send_voice(server, "Anna", wav(SPEECH))[1]["id"]
    ask(server, "POST", "agents", {"id": "nora", "name": "Nora", "voice": voice})
    tab.page.reload()
    button(tab, "Delete Anna").click()
    button(tab, "Delete voice").click()
    tab.page.wait_for_selector("#voices-view .card [role=alert]:not(:empty)")
    assert "Nora speaks with Anna. Choose another voice there first." in tab.page.inner_text("#voices-view")
    tab.page.get_by_role("link", name="Edit Nora").click()
    tab.page.wait_for_selector("#agent-form", state="visible")
    assert tab.page.input_value("#agent-name") == "Nora"
    assert tab.page.input_value("#agent-voice") == voice
    tab.page.select_option("#agent-voice", "")
    button(tab, "Save").click()
    tab.wait_for("() => document.querySelector('#agents-view [role=status]').textContent.includes('Nora is saved')")
    tab.page.click("nav a[href='#voices']")
    tab.wait_for("() => !document.querySelector('#voices-view .card [role=alert]').textContent")
    button(tab, "Delete Anna").click()
    button(tab, "Delete voice").click()
    tab.wait_for("() => document.querySelector('#voices-view .entries').textContent.includes('No voice is kept')")
    tab.check_clean("status of 409")


def test_every_control_has_a_name_and_fits_a_telephone(server: Server, tab: Tab) -> None:
    send_voice(server, "Anna", wav(SPEECH))
    tab.page.reload()
    tab.page.wait_for_selector("[data-voice]")
    check_named(tab, "voices")
    choose(tab, "a very long name of a file which nobody has shortened to what fits there.wav", wav(SPEECH))
    check_named(tab, "voices")
    tab.check_clean()


# --- a sentence in the new voice


def test_an_engine_that_cannot_clone_is_named_with_those_that_would(server: Server, tab: Tab) -> None:
    explanation = "espeak, which speaks here, cannot clone voices."
    assert explanation in tab.page.inner_text("#voice-trial"), "before anything is recorded"
    choose(tab, "speech.wav", wav(SPEECH))
    fill_and_send(tab, "Anna")
    wait_until_kept(tab, "Anna")
    words = tab.page.inner_text("#voice-trial")
    assert f"{explanation} Anna is kept all the same" in words
    assert "elevenlabs would, but lacks ELEVENLABS_API_KEY." in words
    assert re.search(rf"xtts would, but lacks .*{re.escape(XTTS_LACKS)}", words)
    assert button(tab, "Say it").count() == 0
    tab.check_clean()


@contextmanager
def vendors_in_a_thread() -> Iterator[Vendors]:
    """Serve both vendors beside the test, which does not await."""
    loop = asyncio.new_event_loop()
    found: list[Vendors] = []
    ready, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with voice_vendors() as vendors:
            found.append(vendors)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="vendors")
    thread.start()
    try:
        assert ready.wait(10.0)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
        loop.close()


def test_a_voice_is_made_at_a_vendor_only_if_that_is_asked_for(browser: Tab, tmp_path: Path) -> None:
    tab = browser
    pytest.importorskip("elevenlabs", reason="pip install 'vocal-node[elevenlabs]'")
    with (
        vendors_in_a_thread() as vendors,
        serving(tmp_path, **{**STAND_INS, "VOCAL_TTS": "elevenlabs"}, **vendors.settings) as server,
    ):
        open_view(tab, server, "voices")
        choose(tab, "speech.wav", wav(SPEECH))
        fill_and_send(tab, "Here")
        wait_until_kept(tab, "Here")
        assert vendors.elevenlabs.known == {} and vendors.cartesia.known == {}
        assert "ElevenLabs speaks here, and Here was not made there." in tab.page.inner_text("#voice-trial")

        choose(tab, "speech.wav", wav(SPEECH))
        tab.page.check("#vendor-elevenlabs")
        tab.page.fill("#voice-language", "de")
        fill_and_send(tab, "There")
        wait_until_kept(tab, "There")
        (made,) = vendors.elevenlabs.known.values()
        assert made.name == "There" and "de" in made.language
        assert vendors.cartesia.known == {}
        assert "also at ElevenLabs" in tab.page.inner_text("#voices-view .entries")

        button(tab, "Say it").click()
        tab.wait_for("() => document.querySelector('#voice-trial audio').currentTime > 0")
        assert set(vendors.elevenlabs.spoken) == set(vendors.elevenlabs.known), "each sentence, in the new voice"

        button(tab, "Delete There").click()
        assert "deleted at ElevenLabs too" in tab.page.inner_text("dialog")
        button(tab, "Delete voice").click()
        tab.wait_for("() => !document.querySelector('#voices-view .entries').textContent.includes('There')")
        assert vendors.elevenlabs.known == {}
        tab.check_clean()


def test_a_sentence_is_said_by_an_agent_whose_engine_has_the_voice(browser: Tab, tmp_path: Path) -> None:
    pytest.importorskip("elevenlabs", reason="pip install 'vocal-node[elevenlabs]'")
    tab = browser
    with vendors_in_a_thread() as vendors, serving(tmp_path, **STAND_INS, **vendors.settings) as server:
        open_view(tab, server, "voices")
        choose(tab, "speech.wav", wav(SPEECH))
        tab.page.check("#vendor-elevenlabs")
        fill_and_send(tab, "Anna")
        wait_until_kept(tab, "Anna")
        words = tab.page.inner_text("#voice-trial")
        assert "elevenlabs can be used here: choose it as an agent's speech engine." in words
        assert "cartesia can be used here, but Anna was not made there." in words
        ask(server, "POST", "agents", {"id": "nora", "name": "Nora", "tts": "elevenlabs"})
        tab.page.reload()
        button(tab, "Say it").click()
        tab.wait_for("() => document.querySelector('#voice-trial audio').currentTime > 0")
        assert set(vendors.elevenlabs.spoken) == set(vendors.elevenlabs.known)
        tab.check_clean()


def test_a_server_with_keys_takes_and_plays_voices_too(browser: Tab, tmp_path: Path) -> None:
    tab = browser
    with serving(tmp_path, VOCAL_API_KEYS=KEY, **STAND_INS) as server:
        begin_anew(tab)
        tab.open(f"{server.url}/#voices")
        tab.page.fill("dialog input", KEY)
        button(tab, "Use key").click()
        tab.page.wait_for_selector("#voices-view .entries li")
        choose(tab, "speech.wav", wav(SPEECH))
        fill_and_send(tab, "Anna")
        wait_until_kept(tab, "Anna")
        button(tab, "Play Anna").click()
        button(tab, "Play Anna").wait_for(timeout=WAIT_MS)
        # the key is taken back while the form is filled in: it is asked for again, and nothing is lost
        tab.page.evaluate("sessionStorage.clear()")
        choose(tab, "speech.wav", wav(SPEECH))
        fill_and_send(tab, "Anna again")
        tab.page.fill("dialog input", KEY)
        button(tab, "Use key").click()
        wait_until_kept(tab, "Anna again")
        assert len(ask(server, "GET", "voices", key=KEY)[1]["voices"]) == 2
        tab.check_clean("status of 401")
