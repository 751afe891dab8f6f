"""What the tests of the page's views of agents and voices share: a server's HTTP side, and the way there."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError

from tests.browser import Server, Tab

STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "espeak"}

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
    tab.open(f"{server.url}/#{name}")
    tab.page.wait_for_selector(f"#{name}-view .entries li")


def button(tab: Tab, name: str) -> Any:
    """Return the visible button of this name."""
    return tab.page.get_by_role("button", name=name, exact=True)


UNNAMED = """(id) => {
  const view = document.getElementById(id);
  const shown = [...view.querySelectorAll("input, select, textarea, button, audio, progress")].filter((each) => each.checkVisibility());
  const named = (each) => each.labels?.length || each.getAttribute("aria-label") || (each.tagName === "BUTTON" && each.textContent.trim());
  const lost = (each) => (each.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean).some((id) => !document.getElementById(id));
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  return [...shown.filter((each) => !named(each) || lost(each)).map((each) => each.outerHTML),
    ...ids.filter((id, at) => ids.indexOf(id) !== at),
    document.documentElement.scrollWidth > innerWidth ? "wider than the window" : ""].filter(Boolean);
}"""
"""Controls without a name, descriptions that are not there, ids given twice; and a page that has to be scrolled sideways."""


def check_named(tab: Tab, view: str) -> None:
    """Assert that every control of a view has a name, and that it fits a telephone."""
    for width in (1120, 380):
        tab.page.set_viewport_size({"width": width, "height": 720})
        assert tab.page.evaluate(UNNAMED, f"{view}-view") == []
