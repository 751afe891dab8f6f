"""A voice recorded in the page, the fake microphone playing recorded speech; and a sentence said in a cloned one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.audio import Pcm, to_int16
from tests.browser import WAIT_MS, Server, browsing, recording, serving, write_microphone
from tests.catalogue_page import (
    STAND_INS,
    button,
    choose,
    fault,
    fill_and_send,
    likeness,
    open_view,
    sample_of,
    verdict,
    voices,
    wait_until_kept,
    watch_requests,
)
from tests.sound_files import wav

SPEECH = recording("lj001-0004")
MORE = recording("lj001-0008")

COUNT_URLS = """
  window.held = new Set();
  const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (blob) => { const url = make.call(URL, blob); held.add(url); return url; };
  URL.revokeObjectURL = (url) => { held.delete(url); drop.call(URL, url); };
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve with an engine that does not clone."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


def test_a_voice_is_recorded_listened_to_and_kept(server: Server, tmp_path: Path) -> None:
    microphone = write_microphone(tmp_path / "mic.wav", 0.7, SPEECH, 0.3, MORE, 5.0)
    with browsing(tmp_path, microphone) as tab:
        tab.page.add_init_script(COUNT_URLS)
        open_view(tab, server, "voices")
        button(tab, "Record").click()
        tab.wait_for("() => document.querySelector('.sample .verdict').textContent === 'Good level.'")
        assert tab.page.evaluate("document.activeElement.textContent") == "Stop"
        settings = tab.page.evaluate("window.microphone.getAudioTracks()[0].getSettings()")
        asked = ("echoCancellation", "noiseSuppression", "autoGainControl")
        assert [settings[name] for name in asked] == [False, False, False]
        tab.wait_for("() => document.querySelector('progress').value > 8.5")
        button(tab, "Stop").click()
        tab.wait_for("() => document.querySelector('.sample .verdict').textContent.includes('Listen to it')")
        assert tab.page.evaluate("window.microphone.getAudioTracks()[0].readyState") == "ended"
        tab.page.evaluate("document.querySelector('.sample audio').play()")
        tab.wait_for("() => document.querySelector('.sample audio').currentTime > 0.3")
        fill_and_send(tab, "Linda")
        wait_until_kept(tab, "Linda")
        assert tab.page.evaluate("held.size") == 0
        assert tab.page.input_value("#voice-name") == "" and not tab.page.is_checked("#voice-consent")
        (voice,) = voices(server)
        assert voice["name"] == "Linda"
        assert 6.5 < float(str(voice["duration_s"])) < 8.2, "trimmed to its speech"
        assert min(likeness(sample_of(server, str(voice["id"])), SPEECH)) > 0.9
        tab.check_clean()


QUIET = to_int16(SPEECH / 32_768 * 0.02)
OVERDRIVEN = to_int16(np.clip(SPEECH / 32_768 * 40, -1, 1))


@pytest.mark.parametrize(
    ("speech", "verdict_while", "fault_after"),
    [(QUIET, "Too quiet:", "silent"), (OVERDRIVEN, "Overdriven:", "overdriven")],
    ids=["quiet", "overdriven"],
)
def test_the_level_is_judged_while_recording_and_a_bad_one_is_not_sent(
    server: Server, tmp_path: Path, speech: Pcm, verdict_while: str, fault_after: str
) -> None:
    microphone = write_microphone(tmp_path / "mic.wav", speech)
    with browsing(tmp_path, microphone, loop=True) as tab:
        open_view(tab, server, "voices")
        asked = watch_requests(tab, "/voices")
        button(tab, "Record").click()
        tab.wait_for(
            "(words) => document.querySelector('.sample .verdict').textContent.startsWith(words)", verdict_while
        )
        tab.wait_for("() => document.querySelector('progress').value > 4")
        button(tab, "Stop").click()
        tab.page.wait_for_selector("#sample-fault:not(:empty)")
        assert fault_after in fault(tab)
        fill_and_send(tab, "Nobody")
        assert tab.page.evaluate("document.activeElement.textContent") == "Record again"
        assert asked == []
        tab.check_clean()


def test_a_recording_stops_by_itself(server: Server, tmp_path: Path) -> None:
    microphone = write_microphone(tmp_path / "mic.wav", SPEECH, 0.3)
    with browsing(tmp_path, microphone, loop=True) as tab:
        open_view(tab, server, "voices")
        button(tab, "Record").click()
        button(tab, "Record again").wait_for(timeout=WAIT_MS)
        tab.wait_for("() => document.querySelector('.sample .verdict').textContent.startsWith('15.0 s')")
        button(tab, "Discard").click()
        assert button(tab, "Record").is_visible()
        tab.check_clean()


def test_leaving_the_view_ends_the_recording_and_holds_no_sound(server: Server, tmp_path: Path) -> None:
    microphone = write_microphone(tmp_path / "mic.wav", SPEECH, 0.3)
    with browsing(tmp_path, microphone, loop=True) as tab:
        tab.page.add_init_script(COUNT_URLS)
        open_view(tab, server, "voices")
        button(tab, "Record").click()
        tab.wait_for("() => document.querySelector('progress').value > 1")
        tab.page.click("nav a[href='#agents']")
        tab.wait_for("() => window.microphone.getAudioTracks()[0].readyState === 'ended'")
        tab.page.click("nav a[href='#voices']")
        assert button(tab, "Record").is_visible()
        # what is recorded already is still there for who comes back
        choose(tab, "kept.wav", wav(SPEECH))
        assert tab.page.evaluate("held.size") == 1
        tab.page.click("nav a[href='#talk']")
        tab.wait_for("() => held.size === 0")
        tab.page.click("nav a[href='#voices']")
        tab.wait_for("() => held.size === 1 && document.querySelector('.sample audio').readyState > 0")
        assert "5.1 s" in verdict(tab)
        tab.check_clean()


@pytest.mark.parametrize(
    ("there", "words"),
    [(False, "No microphone was found"), (True, "The microphone is blocked")],
    ids=["none", "denied"],
)
def test_a_missing_microphone_is_explained(server: Server, tmp_path: Path, there: bool, words: str) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0) if there else None
    with browsing(tmp_path, quiet, allowed=not there) as tab:
        open_view(tab, server, "voices")
        button(tab, "Record").click()
        tab.page.wait_for_selector("#sample-fault:not(:empty)")
        assert words in fault(tab)
        assert tab.page.evaluate("document.activeElement.textContent") == "Record"
        tab.check_clean()


def test_a_sentence_is_said_in_a_voice_that_was_just_cloned(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="pip install 'vocal-node[xtts]'")
    from tests import xtts_checkpoint

    checkpoint = xtts_checkpoint.write_checkpoint(tmp_path / "xtts")
    settings = {**STAND_INS, "VOCAL_TTS": "xtts", "XTTS_MODEL_PATH": str(checkpoint)}
    with serving(tmp_path, **settings) as server, browsing(tmp_path, None) as tab:
        open_view(tab, server, "voices")
        assert tab.page.is_hidden("#voice-trial"), "there is no voice yet, and nothing to explain"
        choose(tab, "speech.wav", wav(SPEECH))
        fill_and_send(tab, "Anna")
        wait_until_kept(tab, "Anna")
        assert not list((tmp_path / "latents").glob("*"))
        tab.page.fill("#trial-text", "Good morning, this is me.")
        button(tab, "Say it").click()
        tab.wait_for("() => document.querySelector('#voice-trial audio').currentTime > 0.2", timeout_ms=90_000)
        assert tab.page.evaluate("document.querySelector('#voice-trial audio').duration") > 0.5
        assert list((tmp_path / "latents").glob("*")), "the engine has taken the sample in"
        tab.page.fill("#trial-text", "...")
        button(tab, "Say it").click()
        tab.page.wait_for_selector("#voice-trial [role=alert]:not(:empty)")
        assert "nothing that can be spoken" in tab.page.inner_text("#voice-trial [role=alert]")
        tab.check_clean("status of 400")
