"""A person at the page when things go wrong: no key, no room, no network, no server, no microphone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import (
    STAND_INS,
    WAIT_MS,
    Server,
    answered_after,
    browsing,
    choose_way,
    ends,
    serving,
    wait_until_nobody_is_left,
    write_microphone,
)
from tests.canary import KEY


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server with engines that take no time."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


def test_no_ghost_call_after_cancel_double_click_or_leaving(server: Server, tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        wait_until_nobody_is_left(tab, server)
        earlier = len(ends(server))
        for pause_ms in (0, 30, 100, 250, 500):
            tab.page.click("#call")
            tab.page.wait_for_timeout(pause_ms)
            tab.page.click("#call")
            assert tab.page.get_attribute("body", "data-phase") == "idle"
        tab.page.dblclick("#call")
        assert tab.page.get_attribute("body", "data-phase") == "idle"
        wait_until_nobody_is_left(tab, server)
        tab.start()
        assert server.metric("vocal_sessions_active") == 1
        tab.page.goto("about:blank")
        wait_until_nobody_is_left(tab, server)
        assert set(ends(server)[earlier:]) == {"hung up"}, (
            "the page said so each time; the server did not have to find out"
        )


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with serving(tmp_path, VOCAL_API_KEYS=KEY, **STAND_INS) as server, browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.page.click("#call")
        tab.page.wait_for_selector("dialog[open]", timeout=WAIT_MS)
        assert "asks for an API key" in tab.page.inner_text("dialog")
        tab.page.fill("#dialog-key", "wrong")
        tab.page.press("#dialog-key", "Enter")
        tab.wait_for("() => document.querySelector('dialog[open]')?.textContent.includes('does not know')")
        tab.page.fill("#dialog-key", KEY)
        tab.page.press("#dialog-key", "Enter")
        tab.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        assert tab.page.input_value("#agent") == "default", "and then it knows the agents"
        tab.check_clean("status of 401")


def test_a_full_server_is_asked_again_when_it_said(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with serving(tmp_path, VOCAL_MAX_SESSIONS="1", **STAND_INS) as server, browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        second = tab.page.context.new_page()
        second.goto(server.url)
        second.click("#call")
        second.wait_for_selector("body[data-phase=waiting]", timeout=WAIT_MS)
        assert "All lines are busy" in second.inner_text("#alert")
        counted = [second.inner_text("#status")]
        second.wait_for_function("(before) => document.getElementById('status').textContent !== before", arg=counted[0])
        counted.append(second.inner_text("#status"))
        assert [line.startswith("Trying again in ") for line in counted] == [True, True]
        second.click("#call")
        assert second.get_attribute("body", "data-phase") == "idle", "nobody has to wait"
        second.click("#call")
        second.wait_for_selector("body[data-phase=waiting]", timeout=WAIT_MS)
        tab.page.click("#call")
        second.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        assert second.is_hidden("#alert")
        tab.check_clean()


def test_a_conversation_outlives_its_connection(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with serving(tmp_path, **STAND_INS) as server, browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        server.process.send_signal(signal.SIGSTOP)  # nothing passes any more, as when a network is gone
        tab.page.wait_for_selector("body[data-phase=reconnecting]", timeout=WAIT_MS)
        assert "Reconnecting" in tab.page.inner_text("#status")
        server.process.send_signal(signal.SIGCONT)
        tab.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        assert tab.page.locator("#captions li[data-role=note]").count() == 0, "it is the same conversation"
        answered_after(tab, "still there?")
        assert server.metric("vocal_sessions_active") == 1
        tab.page.click("#call")
        wait_until_nobody_is_left(tab, server)
        assert ends(server)[-1] == "hung up"
        tab.check_clean("ERR_", "Failed to load resource")


@pytest.mark.parametrize("way", ["webrtc", "websocket"])
def test_a_server_that_died_is_called_again_when_it_is_back(tmp_path: Path, way: str) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        with serving(tmp_path, **STAND_INS) as server:
            tab.open(server.url)
            choose_way(tab, way)
            tab.start()
            server.process.kill()
            tab.page.wait_for_selector("body[data-phase=reconnecting]", timeout=WAIT_MS)
            port = server.url.rpartition(":")[2].strip("/")
        with serving(tmp_path, int(port), VOCAL_DRAIN_S="0", **STAND_INS) as server:
            tab.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
            note = tab.page.locator("#captions li[data-role=note]").inner_text()
            assert "a new conversation began" in note
            answered_after(tab, "do you know me?")
            server.process.send_signal(signal.SIGTERM)  # restarted by its operator; the caller hangs up meanwhile
            tab.page.wait_for_selector("body[data-phase=reconnecting]", timeout=WAIT_MS)
            server.process.wait(timeout=40)
        tab.page.click("#call")
        assert tab.page.get_attribute("body", "data-phase") == "idle"
        assert tab.page.is_hidden("#alert")
        tab.page.click("#call")
        tab.wait_for("() => document.getElementById('alert').textContent.includes('cannot be reached')")
        tab.check_clean("ERR_", "status of 404")


def test_who_wakes_up_is_not_in_a_call(server: Server, tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        tab.page.clock.install()
        tab.open(server.url)
        tab.start()
        tab.page.clock.fast_forward(7_200_000)
        tab.page.wait_for_selector("body[data-phase=idle]", timeout=WAIT_MS)
        assert "asleep" in tab.page.inner_text("#alert")
        assert tab.page.evaluate("microphone.getTracks().every((track) => track.readyState === 'ended')")
        wait_until_nobody_is_left(tab, server)
        tab.check_clean()


def test_the_page_gives_up_after_as_long_as_the_conversation_is_kept(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        tab.page.clock.install()
        with serving(tmp_path, **STAND_INS) as server:
            tab.open(server.url)
            tab.start()
            server.process.kill()
            tab.page.wait_for_selector("body[data-phase=reconnecting]", timeout=WAIT_MS)
        tab.page.wait_for_timeout(500)  # it has tried at least once
        tab.page.clock.fast_forward(61_000)
        tab.page.wait_for_selector("body[data-phase=idle]", timeout=WAIT_MS)
        assert "did not come back" in tab.page.inner_text("#alert")
        tab.check_clean("ERR_", "status of 404")


def test_a_second_tab_is_a_call_of_its_own(server: Server, tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        second = tab.page.context.new_page()
        second.goto(server.url)
        second.click("#call")
        second.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        assert server.metric("vocal_sessions_active") == 2
        second.close()
        tab.page.wait_for_timeout(1_000)
        assert server.metric("vocal_sessions_active") == 1
        answered_after(tab, "are you still there?")
        tab.page.click("#call")
        wait_until_nobody_is_left(tab, server)
        tab.check_clean()


def test_a_page_that_is_not_secure_says_what_to_do(server: Server, tmp_path: Path) -> None:
    with browsing(tmp_path, None) as tab:
        # What browsers do with a page that is neither on https nor on localhost.
        tab.page.add_init_script("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
        tab.open(server.url)
        tab.page.click("#call")
        tab.page.wait_for_selector("#alert:not([hidden])", timeout=WAIT_MS)
        assert "open this page over https, or on localhost" in tab.page.inner_text("#alert")
        tab.check_clean()


def test_an_engine_that_fails_is_told_and_the_call_goes_on(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    broken = STAND_INS | {"VOCAL_TTS": "tests.broken_voice"}
    with serving(tmp_path, **broken) as server, browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        for times in (1, 2):
            tab.page.fill("#text", "please break")
            tab.page.press("#text", "Enter")
            tab.wait_for("(n) => document.querySelectorAll('#captions li[data-role=note]').length === n", times)
        note = tab.page.locator("#captions li[data-role=note]").first.inner_text()
        assert note.startswith("The agent could not go on: tts: ")
        assert tab.page.get_attribute("body", "data-phase") == "connected"
        tab.check_clean()


@pytest.mark.parametrize(
    ("there", "words"),
    [(False, "No microphone was found"), (True, "The microphone is blocked")],
    ids=["none", "denied"],
)
def test_a_missing_microphone_is_explained(server: Server, tmp_path: Path, there: bool, words: str) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0) if there else None
    with browsing(tmp_path, quiet, allowed=not there) as tab:
        tab.open(server.url)
        tab.page.click("#call")
        tab.page.wait_for_selector("#alert:not([hidden])", timeout=WAIT_MS)
        assert words in tab.page.inner_text("#alert")
        assert server.metric("vocal_sessions_active") == 0
        tab.check_clean()
