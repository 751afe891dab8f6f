"""Firefox as it is shipped, driven by WebDriver BiDi (w3.org/TR/webdriver-bidi): as much of it as the tests need.

Playwright drives only a Firefox patched for it. Debian's speaks BiDi by itself: JSON over one WebSocket. Its audio
contexts stand still without a sound device; it gets PulseAudio's, which nobody hears and which is a microphone as well.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.browser import WAIT_MS, WATCH, picture_path

T = TypeVar("T")

READY = "WebDriver BiDi listening on "
START_S = 60.0
ANSWER_S = 30.0
"""What Firefox may take to start, and to do anything but wait; a loaded machine needs a part of it."""

SOUND = ("-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--load=module-null-sink rate=48000")
SOUND_SOCKET = "module-native-protocol-unix auth-anonymous=1 socket="

PREFERENCES: dict[str, bool | int | str] = {
    # The microphone without a question.
    "media.navigator.permission.disabled": True,
    # A machine without a network connects over the loopback address, which is no candidate otherwise.
    "media.peerconnection.ice.loopback": True,
    # Driven, it does little by itself (remote.prefs.recommended); what it still asks for elsewhere, it asks itself.
    "app.normandy.enabled": False,
    "toolkit.telemetry.enabled": False,
    "network.dns.native-is-localhost": True,
    "network.dns.native_https_query": False,
    "network.trr.mode": 5,
}

MICROPHONE = """() => {
  const sound = Uint8Array.fromBase64("SOUND");
  const lend = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
  if (lend) navigator.mediaDevices.getUserMedia = async (wanted) => {
    // What Firefox would refuse, it refuses here as well.
    for (const track of (await lend(wanted)).getTracks()) track.stop();
    const context = new AudioContext();
    const buffer = await context.decodeAudioData(sound.slice().buffer);
    const source = new AudioBufferSourceNode(context, { buffer, loop: true });
    const destination = new MediaStreamAudioDestinationNode(context);
    source.connect(destination);
    source.start();
    return (window.microphone = destination.stream);
  };
}"""

WAIT = """(script, argument, limit_ms) => new Promise((resolve, reject) => {
  const until = performance.now() + limit_ms;
  const look = async () => {
    const found = await script(argument);
    if (found || performance.now() > until) resolve(found);
    else setTimeout(() => look().catch(reject), 50);
  };
  look().catch(reject);
})"""


class FirefoxError(Exception):
    """Firefox did not do what it was told, or a script in the page threw."""


class Firefox:
    """One page in a running Firefox. Every method blocks, within limits; not for two threads."""

    def __init__(self, socket: ClientConnection) -> None:
        self.complaints: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded"])
        self._context: str = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, *, limit_s: float = ANSWER_S, **params: Any) -> dict[str, Any]:
        """Send a command, return its result, and keep what the console says meanwhile. Raises FirefoxError."""
        wanted = next(self._ids)
        self._socket.send(json.dumps({"id": wanted, "method": method, "params": params}))
        until_s = time.monotonic() + limit_s
        while True:
            try:
                message = json.loads(self._socket.recv(max(0.0, until_s - time.monotonic())))
            except TimeoutError:
                raise FirefoxError(f"no answer to {method} within {limit_s:.0f} s: {params}") from None
            if message.get("method") == "log.entryAdded":
                entry = message["params"]
                self.complaints += [entry["text"]] if entry["level"] in ("error", "warn") else []
            elif message.get("id") == wanted and message["type"] == "error":
                raise FirefoxError(f"{method}: {message['error']}: {message['message']}")
            elif message.get("id") == wanted:
                result: dict[str, Any] = message["result"]
                return result

    def preload(self, function: str) -> None:
        """Run the JavaScript ``function`` in every page before its own scripts."""
        self.command("script.addPreloadScript", functionDeclaration=function)

    def open(self, url: str) -> None:
        """Load ``url`` and everything it needs."""
        self.command("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def evaluate(self, expression: str, limit_s: float = ANSWER_S) -> Any:
        """Return the JSON value of a JavaScript expression, or of what it promises. Raises FirefoxError."""
        answer = self._evaluate(f"(async () => JSON.stringify((await ({expression})) ?? null))()", limit_s)
        return json.loads(answer["value"])

    def wait_for(self, script: str, argument: object = None, timeout_ms: int = WAIT_MS) -> Any:
        """Wait until the JavaScript function ``script`` returns something true, and return it."""
        asked = f"({WAIT})({script}, {json.dumps(argument)}, {timeout_ms})"
        found = self.evaluate(asked, timeout_ms / 1000 + ANSWER_S)
        if not found:
            raise FirefoxError(f"not true within {timeout_ms} ms: {script}")
        return found

    def click(self, selector: str) -> None:
        """Press the main button on the middle of an element, as a person would: the page gets a user's gesture."""
        found = self._evaluate(f"document.querySelector({json.dumps(selector)})")
        if found["type"] != "node":
            raise FirefoxError(f"the page has no {selector}")
        origin = {"type": "element", "element": {"sharedId": found["sharedId"]}}
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self._act("pointer", [{"type": "pointerMove", "x": 0, "y": 0, "origin": origin}, *press])

    def type(self, text: str) -> None:
        """Type into what has the focus; ``\\n`` is the Enter key."""
        letters = text.replace("\n", "\ue007")
        self._act("key", [{"type": way, "value": letter} for letter in letters for way in ("keyDown", "keyUp")])

    def check_clean(self) -> None:
        """Assert that the console was silent and that the policy held."""
        assert self.evaluate("window.violations") == []
        assert self.complaints == []

    def screenshot(self, path: Path) -> None:
        """Write what is in sight as a PNG file."""
        taken = self.command("browsingContext.captureScreenshot", context=self._context)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _act(self, device: str, actions: list[dict[str, Any]]) -> None:
        doing = {"type": device, "id": device, "actions": actions}
        self.command("input.performActions", context=self._context, actions=[doing])

    def _evaluate(self, expression: str, limit_s: float = ANSWER_S) -> dict[str, Any]:
        asked = {"expression": expression, "target": {"context": self._context}, "awaitPromise": True}
        answer = self.command("script.evaluate", limit_s=limit_s, **asked)
        if answer["type"] == "exception":
            raise FirefoxError(f"{answer['exceptionDetails']['text']}, in: {expression}")
        result: dict[str, Any] = answer["result"]
        return result


def installed(name: str, package: str) -> str:
    """Return a program's path, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine: apt-get install {package}")
    return found


@contextmanager
def browsing_firefox(folder: Path, microphone: Path) -> Iterator[Firefox]:
    """Start Firefox with a new profile; pages that ask for a microphone get the sound file, over and over."""
    profile = folder / "firefox"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))
    command = [installed("firefox-esr", "firefox-esr"), "--headless", "--remote-debugging-port=0"]
    log = folder / "firefox.log"
    with _sound_device(folder) as sound, _running([*command, "--profile", str(profile)], log, sound) as process:
        with connect(f"{_address(process, log)}/session", max_size=None, proxy=None) as socket:
            firefox = Firefox(socket)
            firefox.preload(f"() => {{{WATCH}}}")
            firefox.preload(MICROPHONE.replace("SOUND", base64.b64encode(microphone.read_bytes()).decode()))
            yield firefox
            if (picture := picture_path()) is not None:
                firefox.screenshot(picture)
            firefox.command("browser.close")
        process.wait(ANSWER_S)


@contextmanager
def _sound_device(folder: Path) -> Iterator[dict[str, str]]:
    """Run a sound server of our own; return the variables that lead to it."""
    home = folder / "sound"
    home.mkdir()
    socket = home / "socket"
    command = [installed("pulseaudio", "pulseaudio"), *SOUND, f"--load={SOUND_SOCKET}{socket}"]
    with _running(command, home / "log", {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}) as process:
        _wait(process, home / "log", socket.is_socket)
        yield {"PULSE_SERVER": f"unix:{socket}"}


@contextmanager
def _running(command: list[str], log: Path, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("w") as said,
        subprocess.Popen(command, env=os.environ | variables, stdout=said, stderr=subprocess.STDOUT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return where Firefox listens, once it says so."""

    def address() -> str | None:
        lines = log.read_text().split("\n")
        return next((line.removeprefix(READY) for line in lines[:-1] if line.startswith(READY)), None)

    return _wait(process, log, address)


def _wait(process: subprocess.Popen[bytes], log: Path, started: Callable[[], T | None]) -> T:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        found = started()
        if found:
            return found
        time.sleep(0.05)
    raise FirefoxError(f"{process.args!r} did not start within {START_S:.0f} s:\n{log.read_text()}")
