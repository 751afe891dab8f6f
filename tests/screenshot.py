"""Draw docs/images/talk.png anew: ``python -m tests.screenshot``; a conversation with the embedded engines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.browser import ROOT, WAIT_MS, browsing, recording, serving, write_microphone

IMAGE = ROOT / "docs" / "images" / "talk.png"
TYPED = "What would you do in my place?"


def draw(image: Path) -> None:
    """Talk a little, interrupt once, and take the picture while the agent speaks."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        microphone = write_microphone(folder / "microphone.wav", 4.0, recording("austen-0880"), 60.0)
        with serving(folder) as server, browsing(folder, microphone) as tab:
            tab.open(server.url)
            tab.start()
            tab.wait_for("() => document.querySelector('#latency-stages li')")
            tab.page.fill("#text", TYPED)
            tab.page.press("#text", "Enter")
            tab.page.wait_for_selector("#captions li[data-role=agent] .said:not(:empty)", timeout=WAIT_MS)
            tab.page.click("#latency summary")
            tab.page.mouse.move(0, 0)
            tab.page.wait_for_timeout(400)
            image.parent.mkdir(parents=True, exist_ok=True)
            tab.page.screenshot(path=image)


if __name__ == "__main__":
    draw(IMAGE)
