"""A person at the page, in Firefox: recorded speech, a real server process, and what is heard of its answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import WAIT_MS, ends, recording, serving, words_of, write_microphone
from tests.firefox import browsing_firefox
from tests.test_browser import AUDIBLE, EMBEDDED, METER, MOST_WORDS, SAID

ANSWER = """() => [...document.querySelectorAll("#captions li[data-role=agent] .said")].some(
  (caption) => caption.textContent.trim().split(" ").length >= 2)"""
CHOOSE_WAY = """((way) => {
  const choice = document.getElementById("way");
  choice.value = way;
  choice.dispatchEvent(new Event("change"));
})"""
TYPED = "my computer bores me"


@pytest.mark.parametrize(
    ("way", "connection", "end"), [("webrtc", "UDP", "hung up"), ("websocket", "WebSocket", "caller left")]
)
def test_speech_is_written_down_and_answered_aloud(way: str, connection: str, end: str, tmp_path: Path) -> None:
    speech = write_microphone(tmp_path / "microphone.wav", 1.5, recording(SAID), 3.5)
    with serving(tmp_path, **EMBEDDED) as server, browsing_firefox(tmp_path, speech) as firefox:
        firefox.open(server.url)
        firefox.evaluate(f"{CHOOSE_WAY}('{way}')")
        firefox.click("#call")
        firefox.wait_for("() => document.body.dataset.phase === 'connected'")
        assert server.metric("vocal_sessions_active") == 1
        firefox.evaluate(f"({METER})()")
        firefox.wait_for(MOST_WORDS, words_of(SAID), timeout_ms=2 * WAIT_MS)
        firefox.wait_for(ANSWER)
        firefox.wait_for(f"() => levels.filter(([, , agent]) => agent > {AUDIBLE}).length > 25")
        firefox.wait_for("(way) => document.getElementById('network-facts').textContent.includes(way)", connection)
        firefox.click("#text")
        firefox.type(f"{TYPED}\n")
        firefox.wait_for("(typed) => document.getElementById('captions').textContent.includes(typed)", TYPED)
        firefox.click("#call")
        firefox.wait_for("() => document.body.dataset.phase === 'idle'")
        assert firefox.evaluate("microphone.getTracks().every((track) => track.readyState === 'ended')")
        server.wait_until_nobody_is_left()
        assert ends(server) == [end]
        firefox.check_clean()
