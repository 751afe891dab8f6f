"""What the tests of the page's views of agents and voices share: a server's HTTP side, and a person's."""

from __future__ import annotations

import io
import json
import urllib.request
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
from numpy.typing import NDArray

from pipeline.audio import SPEECH_RATE_HZ, VOICE_RATE_HZ, Pcm
from pipeline.resample import Resampler
from pipeline.tts import xtts
from tests.browser import Server, Tab, browsing

STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "espeak"}

XTTS_IS_INSTALLED = all(find_spec(package) is not None for package in xtts.PACKAGES)
XTTS_LACKS = "vocal-node models fetch xtts" if XTTS_IS_INSTALLED else xtts.INSTALL.removeprefix("pip ")
"""What the page says of it: its model, or, where the engines that run models are not installed, how they would be."""

Asked = list[tuple[str, str]]
"""Requests: method and path."""


def ask(
    server: Server, method: str, path: str, body: Mapping[str, Any] | None = None, key: str = ""
) -> tuple[int, Any]:
    """Ask a server as another program would; return the status and the JSON of the answer."""
    request = urllib.request.Request(f"{server.url}/{path}", method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    return answer(request)


def voices(server: Server) -> list[dict[str, object]]:
    """Return the voices that a server keeps."""
    found: list[dict[str, object]] = ask(server, "GET", "voices")[1]["voices"]
    return found


def send_voice(server: Server, name: str, sound: bytes) -> tuple[int, Any]:
    """Clone a voice as another program would."""
    boundary = "8d1f"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n--{boundary}\r\n'
    head += 'Content-Disposition: form-data; name="file"; filename="voice"\r\n\r\n'
    request = urllib.request.Request(f"{server.url}/voices", method="POST")
    request.data = head.encode() + sound + f"\r\n--{boundary}--\r\n".encode()
    request.add_header("Content-Type", f"multipart/form-data; boundary={boundary}")
    return answer(request)


def answer(request: urllib.request.Request) -> tuple[int, Any]:
    """Return the status and the JSON, empty if there is none."""
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.loads(response.read() or b"{}")
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def sample_of(server: Server, voice_id: str) -> bytes:
    """Return a voice's sample, a WAV file."""
    with urllib.request.urlopen(f"{server.url}/voices/{voice_id}/sample", timeout=30) as response:
        sample: bytes = response.read()
    return sample


def watch_requests(tab: Tab, path: str) -> Asked:
    """Return a list of what the page asks of paths that contain ``path``, from now on."""
    asked: Asked = []
    tab.page.on("request", lambda r: asked.append((r.method, r.url)) if path in r.url else None)
    return asked


def open_view(tab: Tab, server: Server, name: str) -> None:
    """Load the page at one of its views, and wait until it shows what the server has."""
    begin_anew(tab)
    tab.open(f"{server.url}/#{name}")
    tab.page.wait_for_selector(f"#{name}-view .entries li")


def begin_anew(tab: Tab) -> None:
    """Leave nothing of an earlier test in a shared tab."""
    tab.page.goto("about:blank")
    tab.page.set_viewport_size({"width": 1120, "height": 720})
    tab.complaints.clear()


@contextmanager
def sharing(folder: Path) -> Iterator[Tab]:
    """Open a browser without a microphone, for tests that each begin anew: its start is most of what one takes."""
    with browsing(folder, None) as tab:
        tab.page.on("dialog", lambda dialog: dialog.accept())  # edits that a test leaves behind
        yield tab


def button(tab: Tab, name: str) -> Any:
    """Return the visible button of this name."""
    return tab.page.get_by_role("button", name=name, exact=True)


UNNAMED = """(id) => {
  const controls = "input, select, textarea, button, audio, progress";
  const shown = [...document.getElementById(id).querySelectorAll(controls)].filter((each) => each.checkVisibility());
  const isNamed = (each) => each.labels?.length || each.getAttribute("aria-label")
    || (each.tagName === "BUTTON" && each.textContent.trim());
  const describing = (each) => (each.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean);
  const lost = shown.flatMap(describing).filter((id) => !document.getElementById(id));
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
  const wide = document.documentElement.scrollWidth > innerWidth ? ["wider than the window"] : [];
  return [...shown.filter((each) => !isNamed(each)).map((each) => each.outerHTML), ...lost, ...twice, ...wide];
}"""
"""Controls without a name, descriptions that are not there, ids given twice; a page that is wider than its window."""


def check_named(tab: Tab, view: str) -> None:
    """Assert that every control of a view has a name, and that it fits a telephone."""
    for width in (1120, 380):
        tab.page.set_viewport_size({"width": width, "height": 720})
        assert tab.page.evaluate(UNNAMED, f"{view}-view") == []


def choose(tab: Tab, name: str, sound: bytes, mime: str = "audio/wav") -> None:
    """Choose a sound file, and wait until the page has looked at it."""
    tab.page.set_input_files("#sample-file", {"name": name, "mimeType": mime, "buffer": sound})
    tab.wait_for("() => !document.querySelector('.sample').textContent.includes('Looking at it')")


def fill_and_send(tab: Tab, name: str) -> None:
    """Say whose voice it is and that they agree, and send it."""
    tab.page.fill("#voice-name", name)
    tab.page.check("#voice-consent")
    button(tab, "Clone this voice").click()


def verdict(tab: Tab) -> str:
    """Return what the page says of the sample."""
    return tab.page.inner_text(".sample .verdict")


def fault(tab: Tab) -> str:
    """Return what the page has against the sample."""
    return tab.page.inner_text("#sample-fault")


def wait_until_kept(tab: Tab, name: str) -> None:
    """Wait until the page says that the server has this voice."""
    tab.wait_for("(name) => document.getElementById('voice-form').textContent.includes(`${name} is kept`)", name)


def likeness(kept: bytes, original: Pcm) -> list[float]:
    """Return how like each second of ``original`` (16 kHz) is to something in ``kept``, a WAV file of 24 kHz: 0..1."""
    with wave.open(io.BytesIO(kept)) as file:
        assert (file.getframerate(), file.getnchannels()) == (VOICE_RATE_HZ, 1)
        sample = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(float)
    resampler = Resampler(SPEECH_RATE_HZ, VOICE_RATE_HZ)
    speech = np.concatenate([resampler.push(original), resampler.flush()]).astype(float)
    seconds = [speech[at : at + VOICE_RATE_HZ] for at in range(0, len(speech) - VOICE_RATE_HZ, VOICE_RATE_HZ)]
    return [_peak(sample, second) for second in seconds]


def _peak(sample: NDArray[np.float64], part: NDArray[np.float64]) -> float:
    size = len(sample) + len(part)
    products = np.fft.irfft(np.fft.rfft(sample, size) * np.conj(np.fft.rfft(part, size)), size)[
        : len(sample) - len(part)
    ]
    sums = np.concatenate([[0.0], np.cumsum(np.square(sample))])
    power = sums[len(part) :] - sums[: -len(part)]
    return float(np.max(products / np.sqrt(power[: len(products)] * np.square(part).sum() + 1.0)))
