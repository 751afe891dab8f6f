"""An operator at ``/status``: headless Chromium against a real server process, with real calls."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.browser import ROOT, WAIT_MS, Server, Tab, another_tab, browsing, serving
from tests.canary import KEY

SPEECH = ROOT / "tests" / "fixtures" / "audio" / "go-forward.wav"
STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
LONG = "There is a lot to say about that, and it takes a while to say it all, as you will hear in a moment."
OPERATOR, API = f"{KEY}-operator", f"{KEY}-caller"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server that nobody calls."""
    with serving(tmp_path_factory.mktemp("server"), **STAND_INS) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Share one browser."""
    with browsing(tmp_path_factory.mktemp("browser"), None) as tab:
        yield tab


@contextmanager
def looking(browser: Tab, server: Server) -> Iterator[Tab]:
    """Open the page in a tab of its own."""
    with another_tab(browser) as tab:
        tab.open(f"{server.url}/status")
        yield tab


@contextmanager
def calling(server: Server, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Call over WebRTC, say something, and hear the answer."""
    command = [sys.executable, "-m", "media_server", "call", str(SPEECH), "--url", server.url, *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as call:
        try:
            yield call
        finally:
            call.kill()


def asked(server: Server, path: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def row(tab: Tab, table: str, nth: int = 0) -> dict[str, str]:
    """Return a table's row by its columns' names."""
    heads = tab.page.locator(f"#{table} thead th").all_inner_texts()
    cells = tab.page.locator(f"#{table} tbody tr").nth(nth).locator("th, td").all_inner_texts()
    return dict(zip(heads, cells, strict=True))


def tile(tab: Tab, name: str) -> str:
    """Return a headline number."""
    return tab.page.locator("#tiles div", has_text=name).locator("dd").inner_text().strip()


def wait_for_text(tab: Tab, selector: str, words: str) -> None:
    """Wait until an element that shows has these words in it."""
    tab.page.locator(selector, has_text=words).first.wait_for(timeout=WAIT_MS)


def test_a_call_is_shown_while_it_runs_and_its_turn_when_it_is_over(browser: Tab, tmp_path: Path) -> None:
    markup = "<img src=x onerror=alert(1)>"
    with serving(tmp_path, **STAND_INS, VOCAL_ECHO_TEXT=LONG) as server, looking(browser, server) as tab:
        wait_for_text(tab, "#sessions", "Nobody is calling")
        assert tile(tab, "Calls") == "0 of 64"
        assert tab.page.locator("#state").inner_text() == "Ready for calls"
        status, agent = asked(server, "/agents", {"name": markup})
        assert status == 201
        with calling(server, "--agent", agent["id"]) as call:
            wait_for_text(tab, "#sessions", "agent speaking")
            seen = row(tab, "sessions")
            assert seen["Way in"] == "WebRTC" and seen["Agent"] == markup
            assert int(seen["Packets"]) > 0 and seen["Lost"].startswith("0 ")
            assert tile(tab, "Calls") == "1 of 64"
            wait_for_text(tab, "#totals", "finished 1")
            assert row(tab, "stages", 5)["Stage"] == "First audible"
            assert row(tab, "stages", 5)["Median"] == tile(tab, "Response, median") != "–"
            widths = tab.page.evaluate("[...document.querySelectorAll('#stages .p95')].map((bar) => bar.offsetWidth)")
            assert len(widths) == 6 and max(widths) == widths[5] > widths[1] > 0
            assert call.wait(timeout=30) == 0
        wait_for_text(tab, "#sessions", "Nobody is calling")
        wait_for_text(tab, "#totals", "hung up 1")
        assert tab.page.locator("#sessions img").count() == 0
        tab.check_clean()


def test_an_engine_that_fails_is_marked_and_its_words_are_there(browser: Tab, tmp_path: Path) -> None:
    broken = STAND_INS | {"VOCAL_TTS": "tests.broken_voice", "VOCAL_ECHO_TEXT": "Now I break in the middle of it."}
    with serving(tmp_path, **broken) as server, looking(browser, server) as tab:
        wait_for_text(tab, "#engines", "Text-to-speech")
        assert row(tab, "engines", 3)["Health"] == "healthy"
        wait_for_text(tab, "#errors", "None.")
        with calling(server):
            wait_for_text(tab, "#engines", "failed in the last minute")
            seen = row(tab, "engines", 3)
            assert (seen["Engine"], int(seen["Failures"]) >= 1) == ("tests.broken_voice", True)
            assert tab.page.locator("#engines tbody tr").nth(3).locator(".dot.bad").count() == 1
        assert "tts failed: the voice broke" in row(tab, "errors")["Message"]
        assert row(tab, "errors")["Level"] == "warning"
        wait_for_text(tab, "#totals", "tts 1")
        tab.check_clean()


def test_an_engine_elsewhere_that_does_not_answer_is_why_no_call_is_let_in(browser: Tab, tmp_path: Path) -> None:
    nowhere = STAND_INS | {"VOCAL_LLM": "openai_compatible", "VOCAL_LLM_URL": "http://127.0.0.1:9/v1"}
    with serving(tmp_path, **nowhere) as server, looking(browser, server) as tab:
        wait_for_text(tab, "#state", "Not ready: llm: ")
        assert "VOCAL_LLM_URL" in row(tab, "engines", 2)["Health"]
        assert row(tab, "engines", 2)["Runs on"] == "http://127.0.0.1:9"
        tab.check_clean()


def test_the_server_is_drained_and_opened_again_from_the_page(server: Server, browser: Tab) -> None:
    with looking(browser, server) as tab:
        tab.page.click("#drain")
        assert "Nobody is calling now" in tab.page.inner_text("#ask-meaning")
        tab.page.keyboard.press("Escape")
        tab.page.click("#drain")
        assert tab.page.evaluate("document.activeElement.textContent") == "Cancel", "what harms least has the focus"
        tab.page.keyboard.press("Enter")
        assert not tab.page.is_visible("#ask")
        assert asked(server, "/readyz") == (200, {"status": "ready"})
        tab.page.click("#drain")
        tab.page.click("#ask button.stop")
        wait_for_text(tab, "#state", "Draining: no new call is let in")
        assert asked(server, "/readyz") == (503, {"status": "not ready", "reason": "draining"})
        wait_for_text(tab, "#drain", "Let calls in again")
        tab.page.click("#drain")
        wait_for_text(tab, "#state", "Ready for calls")
        assert asked(server, "/readyz")[0] == 200
        tab.check_clean()


def give_key(tab: Tab, key: str) -> None:
    """Type a key into the form."""
    tab.page.fill("#key", key)
    tab.page.press("#key", "Enter")


def test_the_page_asks_for_an_operators_key(browser: Tab, tmp_path: Path) -> None:
    keys = {"VOCAL_API_KEYS": API, "VOCAL_OPERATOR_KEYS": OPERATOR}
    with serving(tmp_path, **STAND_INS, **keys) as server, looking(browser, server) as tab:
        wait_for_text(tab, "#trouble", "asks for an API key")
        assert tab.page.evaluate("document.activeElement.id") == "key"
        give_key(tab, "wrong")
        wait_for_text(tab, "#trouble", "does not know this API key")
        give_key(tab, API)
        wait_for_text(tab, "#trouble", "Use an operator's key")
        assert not tab.page.is_visible("#numbers")
        give_key(tab, OPERATOR)
        wait_for_text(tab, "#state", "Ready for calls")
        assert not tab.page.is_visible("#key-form") and not tab.page.is_visible("#trouble")
        assert tab.page.is_visible("#drain")
        tab.check_clean("status of 401", "status of 403")


def test_a_callers_key_may_look_where_there_are_no_operators_and_not_drain(browser: Tab, tmp_path: Path) -> None:
    with serving(tmp_path, **STAND_INS, VOCAL_API_KEYS=API) as server, looking(browser, server) as tab:
        tab.page.wait_for_selector("#key", timeout=WAIT_MS)
        give_key(tab, API)
        wait_for_text(tab, "#state", "Ready for calls")
        assert not tab.page.is_visible("#drain")
        tab.check_clean("status of 401")


def test_the_page_says_that_the_server_is_gone_and_sees_it_come_back(browser: Tab, tmp_path: Path) -> None:
    with another_tab(browser) as tab:
        with serving(tmp_path, **STAND_INS) as server:
            tab.open(f"{server.url}/status")
            wait_for_text(tab, "#state", "Ready for calls")
        wait_for_text(tab, "#trouble", "The server cannot be reached")
        assert tab.page.is_disabled("#drain")
        assert tab.page.locator("#numbers.stale").count() == 1
        with serving(tmp_path, urlsplit(server.url).port or 0, **STAND_INS):
            tab.page.locator("#numbers:not(.stale)").wait_for(timeout=WAIT_MS)
            assert not tab.page.is_visible("#trouble")
            assert tab.page.is_enabled("#drain")
        tab.check_clean("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "status of 503")


LOOK_AWAY = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_nobody_is_asked_while_nobody_looks(server: Server, browser: Tab) -> None:
    requests: list[str] = []
    with looking(browser, server) as tab:
        wait_for_text(tab, "#state", "Ready for calls")
        tab.page.on("request", lambda request: requests.append(request.url))
        tab.page.wait_for_timeout(4_500)
        assert 1 <= len(requests) <= 3, "once in two seconds"
        tab.page.evaluate(LOOK_AWAY, True)
        tab.page.wait_for_timeout(500)
        requests.clear()
        tab.page.wait_for_timeout(4_500)
        assert requests == []
        with tab.page.expect_request("**/api/status"):
            tab.page.evaluate(LOOK_AWAY, False)
        assert {urlsplit(url).path for url in requests} == {"/api/status"}
        tab.check_clean()


TOO_FAINT = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = channels(color).slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return (channels(color)[3] ?? 1) > 0 ? color : ground(node.parentElement);
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].filter((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
    if (!words.length || !node.checkVisibility()) continue;
    const [a, b] = [luminance(getComputedStyle(node).color), luminance(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) faint.push(node.textContent.trim());
  }
  return faint;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 901, 1120])
def test_it_can_be_read_by_day_by_night_and_on_a_phone(server: Server, browser: Tab, scheme: str, width: int) -> None:
    with looking(browser, server) as tab:
        tab.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
        tab.page.set_viewport_size({"width": width, "height": 800})
        wait_for_text(tab, "#engines", "healthy")
        assert tab.page.evaluate("document.documentElement.scrollWidth") == width
        assert tab.page.evaluate(TOO_FAINT) == []
        tables = tab.page.get_by_role("table")
        assert tables.count() == 5, "they are tables however they are laid out"
        assert tab.page.get_by_role("rowheader", name="Speech detection").count() == 1
        assert tab.page.get_by_role("button", name="Drain").count() == 1
        tab.check_clean()


def test_it_works_below_a_prefix_and_weighs_little() -> None:
    static = ROOT / "web" / "static"
    assert 'href="/' not in (static / "status.html").read_text()
    assert sum(path.stat().st_size for path in static.glob("status*")) < 30_000
