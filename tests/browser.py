"""A real server process and a real browser: what the browser tests share.

The browser is the system's Chromium with a fake microphone that plays a sound file; the server is ``vocal-node serve``
in its own process, on a port of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pipeline.audio import Pcm, silence
from tests.canary import sings

if TYPE_CHECKING:
    from playwright.sync_api import Page, Playwright

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "build" / "pictures"
SPEECH = Path(__file__).parent / "fixtures" / "audio"
RATE_HZ = 16_000
READY = "Vocal Node is ready: "
WAIT_MS = 30_000
"""How long anything in the page may take before a test gives up; a loaded machine needs a part of it."""
CLOSING_S = 10.0

STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
"""Engines that take no time and understand nothing."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)

WATCH = """
  window.violations = [];
  addEventListener("securitypolicyviolation", (event) => {
    violations.push(`${event.violatedDirective} ${event.blockedURI}`);
  });
  // Keeps what the page gets, so that a test can measure both sides on one clock.
  const lend = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (lend) navigator.mediaDevices.getUserMedia = async (wanted) => (window.microphone = await lend(wanted));
"""


def chromium_path() -> str:
    """Return the system's Chromium, or skip the test."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    return found


def recording(name: str) -> Pcm:
    """Return a recorded utterance at 16 kHz."""
    with wave.open(str(SPEECH / f"{name}.wav")) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (RATE_HZ, 1, 2)
        return np.frombuffer(sound.readframes(sound.getnframes()), np.int16)


def words_of(name: str) -> list[str]:
    """Return what is said in it."""
    lines = (SPEECH / "words.tsv").read_text().splitlines()
    return dict(line.split("\t") for line in lines)[f"{name}.wav"].split()


def write_microphone(path: Path, *parts: Pcm | float) -> Path:
    """Write what the microphone will pick up: utterances, and seconds of silence."""
    pcm = np.concatenate([silence(round(p * RATE_HZ)) if isinstance(p, float | int) else p for p in parts])
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE_HZ, len(pcm), "NONE", ""))
        sound.writeframes(pcm.tobytes())
    return path


@dataclass
class Server:
    """A running server; ``process`` may be sent signals."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def metric(self, name: str) -> float:
        """Return a gauge or counter without labels from /metrics; 0 if it is not there."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        return 0.0

    def wait_until_nobody_is_left(self) -> None:
        """Assert that its sessions end within what closing takes."""
        until_s = time.monotonic() + CLOSING_S
        while self.metric("vocal_sessions_active") > 0:
            assert time.monotonic() < until_s, "a session was left behind on the server"
            time.sleep(0.25)


@contextmanager
def serving(folder: Path, port: int = 0, /, **settings: str) -> Iterator[Server]:
    """Run ``vocal-node serve`` with these variables, none of the developer's own, until the block ends."""
    mine = {k: v for k, v in os.environ.items() if not (k.startswith("VOCAL_") or k.endswith(("_API_KEY", "_proxy")))}
    ours = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "VOCAL_DATA_DIR": str(folder), "VOCAL_OFFLINE": "1"}
    environment = mine | ours | settings
    command = [sys.executable, "-m", "media_server", "serve", "--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        try:
            yield Server(_address(process, log), process, log)
        finally:
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=20)
        assert not sings(said + log.read_text()), "a key was told"


def _address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(READY):
            return line.removeprefix(READY).strip()
    raise AssertionError(f"the server did not start:\n{''.join(said)}\n{log.read_text()}")


@dataclass
class Tab:
    """One page and what its console said."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Load ``url``."""
        self.page.goto(url)

    def start(self) -> None:
        """Start talking and wait until the agent is there."""
        self.page.click("#call")
        self.page.wait_for_selector("body[data-phase=connected]", timeout=WAIT_MS)

    def captions(self, role: str) -> list[str]:
        """Return one side's captions as they stand."""
        texts: list[str] = self.page.locator(f"#captions li[data-role={role}] .said").all_inner_texts()
        return texts

    def wait_for(self, script: str, argument: object = None, timeout_ms: int = WAIT_MS) -> Any:
        """Wait until the JavaScript function ``script`` returns something true, and return it."""
        return self.page.wait_for_function(script, arg=argument, timeout=timeout_ms).json_value()

    def check_clean(self, *expected: str) -> None:
        """Assert that the console was silent but for lines with one of these words, and that the policy held."""
        unexpected = [line for line in self.complaints if not any(word in line for word in expected)]
        assert not unexpected, "\n".join(unexpected)
        assert self.page.evaluate("window.violations") == []


DRIVERS: list[Playwright] = []
"""The one that runs, if any: it is an event loop of this thread, beside which there can be no other."""


@contextmanager
def _driver() -> Iterator[Playwright]:
    playwright_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if DRIVERS:
        yield DRIVERS[0]
        return
    with playwright_api.sync_playwright() as driver:
        DRIVERS.append(driver)
        try:
            yield driver
        finally:
            DRIVERS.clear()


@contextmanager
def browsing(
    folder: Path,
    microphone: Path | None,
    *,
    loop: bool = False,
    allowed: bool = True,
    scale: float = 1,
) -> Iterator[Tab]:
    """Open Chromium with a new profile. The microphone plays the file once or over and over; None: it has none.

    ``allowed``: whether pages get it when they ask. ``scale``: the screen's pixels for one of CSS.
    """
    executable = chromium_path()
    sound = ["--use-fake-ui-for-media-stream" if allowed else "--deny-permission-prompts"]
    if microphone is not None:
        file = f"{microphone}{'' if loop else '%noloop'}"
        sound += ["--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={file}"]
    with _driver() as playwright:
        context = playwright.chromium.launch_persistent_context(
            folder / "profile",
            executable_path=executable,
            headless=True,
            args=[*FLAGS, *sound],
            viewport={"width": 1120, "height": 720},
            device_scale_factor=scale,
        )
        try:
            context.add_init_script(WATCH)
            tab = _watched(context.pages[0])
            yield tab
            keep_picture(tab)
        finally:
            context.close()


@contextmanager
def another_tab(browser: Tab) -> Iterator[Tab]:
    """Open a tab of its own in a browser that tests share: to start one takes two seconds of CPU."""
    tab = _watched(browser.page.context.new_page())
    yield tab
    keep_picture(tab)
    tab.page.close()


def keep_picture(tab: Tab) -> None:
    """Leave a picture of what the running test sees at its end, for whoever wants to look."""
    if (picture := picture_path()) is not None:
        # Playwright would write it on a thread that outlives the test.
        picture.write_bytes(tab.page.screenshot())


def picture_path() -> Path | None:
    """Return where the running test leaves a picture of its browser; None outside of one."""
    test = os.environ.get("PYTEST_CURRENT_TEST")
    if test is None:
        return None
    PICTURES.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^a-z0-9]+", "-", test.removesuffix(" (call)").removeprefix("tests/").lower().replace(".py", ""))
    return PICTURES / f"{name.strip('-')}.png"


def answered_after(tab: Tab, typed: str) -> None:
    """Type this, and wait until it is answered."""
    before = tab.page.locator("#captions li[data-role=agent][data-state=done]").count()
    tab.page.fill("#text", typed)
    tab.page.press("#text", "Enter")
    done = "(n) => document.querySelectorAll('#captions li[data-role=agent][data-state=done]').length > n"
    tab.wait_for(done, before)


def choose_way(tab: Tab, way: str) -> None:
    """Take this way in from now on."""
    tab.page.click("#options summary")
    tab.page.select_option("#way", way)
    tab.page.click("#options summary")


def ends(server: Server) -> list[str]:
    """Return why its calls ended, in order, as its log has it."""
    return [line.rpartition(" closed: ")[2] for line in server.log.read_text().splitlines() if " closed: " in line]


def wait_until_nobody_is_left(tab: Tab, server: Server) -> None:
    """Assert that the server's sessions end within what closing takes, those too that are only just asked for."""
    tab.page.wait_for_timeout(300)
    server.wait_until_nobody_is_left()


def _watched(page: Page) -> Tab:
    tab = Tab(page)
    tab.page.on("console", lambda m: tab.complaints.append(m.text) if m.type in ("error", "warning") else None)
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    return tab
