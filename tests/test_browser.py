"""A person at the page: headless Chromium with a fake microphone against a real server process."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import (
    WAIT_MS,
    Server,
    Tab,
    browsing,
    ends,
    recording,
    serving,
    wait_until_nobody_is_left,
    words_of,
    write_microphone,
)
from tests.canary import KEY

EMBEDDED = {"VOCAL_STT": "pocketsphinx", "VOCAL_LLM": "eliza", "VOCAL_TTS": "espeak", "VOCAL_TURN": "silence"}
STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
SAID = "austen-0880"

LONG_ANSWER = " ".join(
    f"This is sentence number {number}, and there are many more of them to come after it." for number in range(1, 25)
)

METER = """() => {
  // One line each 20 ms: when, how loud the caller, how loud the agent (RMS of the samples, 0..1).
  const context = new AudioContext();
  const listen = (stream) => {
    const analyser = new AnalyserNode(context, { fftSize: 1024 });
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    return () => {
      analyser.getFloatTimeDomainData(samples);
      return Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);
    };
  };
  const caller = listen(window.microphone);
  const agent = listen(document.getElementById("voice").srcObject);
  window.levels = [];
  setInterval(() => window.levels.push([performance.now(), caller(), agent()]), 20);
}"""

AUDIBLE = 0.01

Levels = list[tuple[float, float, float]]


def measured(tab: Tab) -> Levels:
    levels: Levels = [tuple(line) for line in tab.page.evaluate("window.levels")]
    return levels


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server with the embedded engines."""
    with serving(tmp_path_factory.mktemp("server"), **EMBEDDED) as running:
        yield running


@pytest.fixture
def speaking(tmp_path: Path) -> Path:
    """Return a microphone's sound: an utterance, and silence around it; played over and over it is said each 8 s."""
    return write_microphone(tmp_path / "microphone.wav", 1.5, recording(SAID), 3.5)


MOST_WORDS = """(spoken) => [...document.querySelectorAll("#captions li[data-role=caller] .said")].some((caption) => {
  const words = caption.textContent.toLowerCase().split(" ");
  return spoken.filter((word) => words.includes(word)).length >= 0.6 * spoken.length;
})"""


def test_speech_is_written_down_and_answered_aloud(server: Server, speaking: Path, tmp_path: Path) -> None:
    with browsing(tmp_path, speaking, loop=True) as tab:
        tab.open(server.url)
        tab.start()
        tab.page.evaluate(METER)
        assert server.metric("vocal_sessions_active") == 1
        tab.wait_for("() => document.querySelector('#latency-stages li')")
        # It is said again and again: an utterance that a busy machine garbles is followed by another.
        tab.wait_for(MOST_WORDS, words_of(SAID), timeout_ms=2 * WAIT_MS)
        tab.wait_for(f"() => levels.filter(([, , agent]) => agent > {AUDIBLE}).length > 25")
        answered = tab.captions("agent")
        assert len(" ".join(answered).split()) >= 2, answered
        assert tab.page.locator("#latency-total").inner_text().endswith((" ms", " s"))
        tab.page.click("#call")
        tab.page.wait_for_selector("body[data-phase=idle]")
        assert tab.page.evaluate("microphone.getTracks().every((track) => track.readyState === 'ended')")
        wait_until_nobody_is_left(tab, server)
        assert ends(server)[-1] == "hung up"
        assert not tab.page.is_visible("#alert")
        tab.check_clean()


def test_words_appear_while_they_are_spoken(server: Server, speaking: Path, tmp_path: Path) -> None:
    with browsing(tmp_path, speaking, loop=True) as tab:
        tab.open(server.url)
        tab.page.evaluate("""() => {
          window.seen = [];
          new MutationObserver(() => {
            const live = document.querySelector("#captions li[data-role=caller][data-state=live] .said");
            if (live && live.textContent !== seen.at(-1)) seen.push(live.textContent);
          }).observe(document.getElementById("captions"), { subtree: true, childList: true, characterData: true });
        }""")
        tab.start()
        tab.page.wait_for_selector("#captions li[data-role=caller][data-state=done]", timeout=WAIT_MS)
        assert len(tab.page.evaluate("seen")) >= 2
        tab.check_clean()


def test_speaking_again_cuts_the_agent_off(speaking: Path, tmp_path: Path) -> None:
    talkative = EMBEDDED | {"VOCAL_LLM": "echo", "VOCAL_ECHO_TEXT": LONG_ANSWER}
    with serving(tmp_path, **talkative) as server, browsing(tmp_path, speaking, loop=True) as tab:
        tab.open(server.url)
        tab.start()
        tab.page.evaluate(METER)
        cut = tab.page.locator("#captions li[data-role=agent] .cut:not([hidden])").first
        cut.wait_for(timeout=WAIT_MS)
        tab.page.wait_for_timeout(1500)
        levels = measured(tab)
        heard = tab.page.locator("#captions li[data-role=agent]:has(.cut:not([hidden])) .said").first.inner_text()
        rest = cut.inner_text()
        tab.check_clean()
    assert heard, "the agent was heard before it was cut off"
    assert rest, "and what it was about to say is shown as cut"
    assert LONG_ANSWER.startswith(f"{heard} {rest.removesuffix('…').strip()}")
    assert not LONG_ANSWER.endswith(heard)
    began_ms, silent_ms = interruption(levels)
    assert silent_ms - began_ms < 2_500, f"silent {silent_ms - began_ms:.0f} ms after the caller began"


def interruption(levels: Levels) -> tuple[float, float]:
    """Return when the caller spoke into the agent's speech, and when the agent had fallen silent for 400 ms."""
    window = 20
    began = next(
        i
        for i in range(window, len(levels))
        if levels[i][1] > AUDIBLE and max(agent for _, _, agent in levels[i - window : i]) > AUDIBLE
    )
    silent = next(
        i
        for i in range(began, len(levels) - window)
        if max(agent for _, _, agent in levels[i : i + window]) < AUDIBLE / 4
    )
    return levels[began][0], levels[silent][0]


def test_typed_words_are_answered_and_markup_stays_text(server: Server, tmp_path: Path) -> None:
    markup = "my <img src=x onerror=alert(1)> <b>computer</b> bores me"
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        tab.page.fill("#text", markup)
        tab.page.press("#text", "Enter")
        assert tab.page.input_value("#text") == ""
        tab.wait_for("() => document.querySelector('#captions li[data-role=agent][data-state=done]')")
        assert tab.captions("caller") == [markup]
        assert tab.captions("agent")[-1].strip()
        assert tab.page.locator("#captions img, #captions b:not(.who)").count() == 0
        tab.page.click("#call")
        wait_until_nobody_is_left(tab, server)
        tab.check_clean()


def test_a_muted_caller_is_not_heard(server: Server, speaking: Path, tmp_path: Path) -> None:
    with browsing(tmp_path, speaking, loop=True) as tab:
        tab.open(server.url)
        tab.start()
        tab.page.keyboard.press("m")
        assert tab.page.get_attribute("#mute", "aria-pressed") == "true"
        tab.page.wait_for_timeout(1500)
        before = len(tab.captions("caller"))
        tab.page.evaluate(METER)
        tab.page.wait_for_timeout(9_000)
        assert max(caller for _, caller, _ in measured(tab)) < 0.001
        assert len(tab.captions("caller")) == before
        tab.page.click("#mute")
        tab.wait_for("(n) => document.querySelectorAll('#captions li[data-role=caller]').length > n", before)
        tab.check_clean()


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


def test_a_refused_call_says_why(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with (
        serving(tmp_path, VOCAL_API_KEYS=KEY, VOCAL_MAX_SESSIONS="1", **STAND_INS) as server,
        browsing(tmp_path, quiet) as tab,
    ):
        tab.open(server.url)
        tab.page.click("#call")
        tab.page.wait_for_selector("#key", timeout=WAIT_MS)
        assert "API key" in tab.page.inner_text("#alert")
        tab.page.fill("#key", "wrong")
        tab.page.press("#key", "Enter")
        tab.wait_for("() => document.getElementById('alert').textContent.includes('does not know')")
        tab.page.fill("#key", KEY)
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)
        second = tab.page.context.new_page()
        second.goto(server.url)
        second.evaluate(f"sessionStorage.setItem('vocal-node-key', '{KEY}')")
        second.click("#call")
        second.wait_for_selector("#alert:not([hidden])", timeout=WAIT_MS)
        assert "busy. Try again in" in second.inner_text("#alert")
        assert second.get_attribute("body", "data-phase") == "idle"
        tab.check_clean("status of 401", "status of 503")


@pytest.mark.parametrize(
    ("how", "words"),
    [(signal.SIGTERM, "The server ended the call"), (signal.SIGKILL, "The connection was lost")],
    ids=["stops", "dies"],
)
def test_the_page_says_that_the_server_is_gone(tmp_path: Path, how: signal.Signals, words: str) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with serving(tmp_path, VOCAL_DRAIN_S="0", **STAND_INS) as server, browsing(tmp_path, quiet) as tab:
        tab.open(server.url)
        tab.start()
        server.process.send_signal(how)
        tab.page.wait_for_selector("body[data-phase=idle]", timeout=WAIT_MS)
        assert words in tab.page.inner_text("#alert")
        server.process.wait(timeout=20)
        tab.page.click("#call")
        tab.wait_for("() => document.getElementById('alert').textContent.includes('cannot be reached')")
        tab.check_clean("ERR_CONNECTION_REFUSED")


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
