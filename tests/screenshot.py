"""Draw docs/images/talk.png anew: ``python -m tests.screenshot``; a conversation with the embedded engines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.browser import ROOT, WAIT_MS, browsing, recording, serving, write_microphone

IMAGE = ROOT / "docs" / "images" / "talk.png"
INTERRUPTED = "I believe that nobody listens to me these days."
INTERRUPTION = "Wait. What would you do in my place?"
HEARD = "#captions li[data-role=agent]:last-child .said:not(:empty)"


def draw(image: Path) -> None:
    """Type, interrupt the answer, speak; take the picture when the spoken turn has been answered."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        microphone = write_microphone(folder / "microphone.wav", 12.0, recording("go-forward"), 60.0)
        with serving(folder) as server, browsing(folder, microphone) as tab:
            tab.open(server.url)
            tab.start()
            for typed in (INTERRUPTED, INTERRUPTION):
                tab.page.fill("#text", typed)
                tab.page.press("#text", "Enter")
                tab.page.wait_for_selector("#captions li[data-role=caller]:last-child", state="detached")
                tab.page.wait_for_selector(HEARD, timeout=WAIT_MS)
                tab.page.wait_for_timeout(700)
            tab.page.click("#latency summary")
            tab.page.wait_for_selector("text=Your words", timeout=WAIT_MS)
            tab.page.locator(":focus").blur()
            tab.page.mouse.move(0, 0)
            image.parent.mkdir(parents=True, exist_ok=True)
            tab.page.screenshot(path=image)


if __name__ == "__main__":
    draw(IMAGE)
