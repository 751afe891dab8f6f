"""What the page costs to load: bytes, and nothing from anywhere else."""

from __future__ import annotations

from pathlib import Path

from tests.browser import STAND_INS, browsing, serving, write_microphone

MAX_FIRST_LOAD_BYTES = 150_000

LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].map(
  (entry) => [entry.name, entry.decodedBodySize])"""


def test_the_first_load_is_light_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    quiet = write_microphone(tmp_path / "quiet.wav", 5.0)
    with serving(tmp_path, **STAND_INS) as server, browsing(tmp_path, quiet) as tab:
        asked: list[str] = []
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.goto(server.url, wait_until="networkidle")
        loaded: list[tuple[str, int]] = [(name, size) for name, size in tab.page.evaluate(LOADED)]
        first_load_bytes = sum(size for _, size in loaded)
        assert {f"{server.url}/static/app.js", f"{server.url}/static/style.css"} <= {name for name, _ in loaded}
        assert first_load_bytes < MAX_FIRST_LOAD_BYTES, sorted(loaded, key=lambda each: -each[1])
        tab.start()
        tab.page.wait_for_timeout(3_000)
        tab.page.click("#call")
        elsewhere = [url for url in asked if not url.startswith((f"{server.url}/", "data:", "blob:"))]
        assert not elsewhere
        tab.check_clean()
