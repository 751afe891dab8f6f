"""The bundled page in a browser: bytes of its first load, time until it can be used, and what a call costs there.

    python -m benchmarks.page [--loads 20] [--call-s 30]

Headless Chromium, no GPU, against a server on loopback with stand-ins that take no time. Interactive is when the call
button has its listener, counted from the beginning of the navigation; a cold load has an empty cache, a warm one the
files of the load before. CPU is the browser's processes' own, in percent of one core, while the agent speaks and the
caller does, too, each 8 s, and cuts it off; drawn in full, without the levels (the orb and the strip below it),
and without the latency and network panel as well, in turns of 5 s within one call; and bare: the same call in a
document that has nothing else, which is the browser's own part.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import shutil
import tempfile
import wave
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
from playwright.async_api import Browser, CDPSession, Page, async_playwright

from .servers import machine, running, vocal_node

SPEECH = Path(__file__).parent.parent / "tests" / "fixtures" / "audio" / "austen-0880.wav"
CYCLE_S = 8
TURN_S = 5.0
LIMIT_MS = 30_000
ANSWER = "And so it goes on, a sentence after the other, until somebody has something to say to it. " * 4
WAYS = {"webrtc": "WebRTC", "websocket": "WebSocket"}
DRAWN = ("all", "no levels", "no panel")
PROCESSES = ("renderer", "GPU", "browser", "utility")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

WATCH = """(() => {
  const listen = EventTarget.prototype.addEventListener;
  EventTarget.prototype.addEventListener = function (type, ...rest) {
    listen.call(this, type, ...rest);
    if (this instanceof Element && this.id === "call" && type === "click") window.interactiveMs ??= performance.now();
  };
  // What the page does not draw in a hidden tab it does not draw while it is told that it is in one.
  let isHidden = false;
  Object.defineProperty(document, "hidden", { get: () => isHidden });
  window.hide = (hidden) => { isHidden = hidden; };
})()"""

LOADED = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].map(
  (entry) => [entry.name, entry.transferSize, entry.decodedBodySize])"""

SHOW = """([levels, panel]) => {
  window.hide(!levels);
  const choice = document.getElementById("show-latency");
  if (choice.checked !== panel) choice.click();
}"""


BARE = """async () => {
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio });
  const peer = new RTCPeerConnection();
  for (const track of microphone.getTracks()) peer.addTrack(track, microphone);
  const voice = new Audio();
  peer.ontrack = ({ streams }) => { voice.srcObject = streams[0]; void voice.play(); };
  await peer.setLocalDescription();
  const body = JSON.stringify({ type: "offer", sdp: peer.localDescription.sdp });
  const answer = await fetch("/api/offer", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  await peer.setRemoteDescription(await answer.json());
  Object.assign(window, { peer, voice });
}"""


async def measure_loads(
    browser: Browser, url: str, loads: int
) -> tuple[list[float], list[float], Sequence[Sequence[int]]]:
    """Return when cold and warm loads were interactive, in ms, and (transferred, decoded) bytes of each file of one."""
    cold_ms, warm_ms = [], []
    files: list[list[int]] = []
    for _ in range(loads):
        context = await browser.new_context()
        await context.add_init_script(WATCH)
        page = await context.new_page()
        cold_ms.append(await _load(page, url))
        files = [sizes for _, *sizes in await page.evaluate(LOADED)]
        await page.goto("about:blank")
        warm_ms.append(await _load(page, url))
        await context.close()
    return cold_ms, warm_ms, files


async def _load(page: Page, url: str) -> float:
    await page.goto(url, wait_until="networkidle")
    return float(await page.evaluate("window.interactiveMs"))


async def measure_call(browser: Browser, url: str, way: str, call_s: float) -> dict[str, dict[str, float]]:
    """Return, for each way of drawing, what each kind of process used of a core in a call, in percent."""
    context = await browser.new_context(permissions=["microphone"], viewport={"width": 1280, "height": 800})
    await context.add_init_script(WATCH)
    page = await context.new_page()
    await page.goto(url)
    await page.click("#options summary")
    await page.select_option("#way", way)
    await page.click("#call")
    await page.wait_for_selector("#captions li[data-role=agent] .cut:not([hidden])", timeout=LIMIT_MS)
    system = await browser.new_browser_cdp_session()
    used_s: dict[str, defaultdict[str, float]] = {drawn: defaultdict(float) for drawn in DRAWN}
    turns = max(1, round(call_s / TURN_S))
    for _ in range(turns):
        for drawn in DRAWN:
            await page.evaluate(SHOW, [drawn == "all", drawn != "no panel"])
            before = await _cpu_s(system)
            await asyncio.sleep(TURN_S)
            for process, total_s in (await _cpu_s(system)).items():
                used_s[drawn][process] += total_s - before.get(process, 0.0)
    await system.detach()
    await context.close()
    return {drawn: {name: 100 * s / (turns * TURN_S) for name, s in used.items()} for drawn, used in used_s.items()}


async def measure_bare_call(browser: Browser, url: str, call_s: float) -> dict[str, float]:
    """Return what the same call takes in a document that has nothing else: the browser's own part."""
    context = await browser.new_context(permissions=["microphone"])
    page = await context.new_page()
    await page.goto(f"{url}/static/icon.svg")
    await page.evaluate(BARE)
    await asyncio.sleep(2 * CYCLE_S)  # the first sentence has been answered, and that interrupted
    system = await browser.new_browser_cdp_session()
    before = await _cpu_s(system)
    await asyncio.sleep(call_s)
    used = {process: 100 * (s - before.get(process, 0.0)) / call_s for process, s in (await _cpu_s(system)).items()}
    await system.detach()
    await context.close()
    return used


async def _cpu_s(system: CDPSession) -> dict[str, float]:
    """Return the CPU seconds so far, user and system, summed over the processes of each kind."""
    total_s: defaultdict[str, float] = defaultdict(float)
    for process in (await system.send("SystemInfo.getProcessInfo"))["processInfo"]:
        kind = process["type"] if process["type"] in PROCESSES else "utility"
        total_s[kind] += process["cpuTime"]
    return dict(total_s)


@asynccontextmanager
async def chromium(microphone: Path) -> AsyncIterator[Browser]:
    """Run the system's Chromium; its microphone picks up the sound file over and over."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise SystemExit("no Chromium on this machine: apt-get install chromium")
    sound = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-audio-capture={microphone}")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=[*FLAGS, *sound])
        try:
            yield browser
        finally:
            await browser.close()


def write_microphone(path: Path) -> Path:
    """Write a recorded sentence and the silence up to the next."""
    with wave.open(str(SPEECH)) as speech, wave.open(str(path), "wb") as sound:
        sound.setparams(speech.getparams())
        said = speech.readframes(speech.getnframes())
        sound.writeframes(said + bytes(2 * CYCLE_S * speech.getframerate() - len(said)))
    return path


def load_line(name: str, took_ms: Sequence[float]) -> str:
    """Return a row: median, 95th percentile and maximum."""
    return f"{name:10}" + "".join(f"{ms:8.0f}" for ms in (*np.percentile(took_ms, [50, 95]), max(took_ms)))


def cpu_line(name: str, used: Mapping[str, float]) -> str:
    """Return a row: each kind of process."""
    return f"{name:22}" + "".join(f"{used.get(process, 0.0):10.1f}" for process in PROCESSES)


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--call-s", type=float, default=30.0, help="for each way of drawing")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        microphone = write_microphone(Path(folder) / "microphone.wav")
        settings = {"VOCAL_ECHO_TEXT": ANSWER, "VOCAL_DATA_DIR": folder}
        async with running(*vocal_node(400, settings)) as url, chromium(microphone) as browser:
            print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {machine()}, Chromium {browser.version}")
            cold_ms, warm_ms, files = await measure_loads(browser, url, args.loads)
            transferred, decoded = np.sum(files, axis=0) / 1000
            print(f"first load: {len(files)} requests, {transferred:.0f} kB transferred, {decoded:.0f} kB decoded")
            print(f"{'ms until interactive':20}\n{'':10}{'p50':>8}{'p95':>8}{'max':>8}")
            print(load_line("cold", cold_ms), load_line("warm", warm_ms), sep="\n")
            print(f"{'% of a core':22}" + "".join(f"{name:>10}" for name in PROCESSES))
            print(cpu_line("WebRTC, bare", await measure_bare_call(browser, url, args.call_s)))
            for way, name in WAYS.items():
                for drawn, used in (await measure_call(browser, url, way, args.call_s)).items():
                    print(cpu_line(f"{name}, {drawn}", used))
            print(cpu_line("WebRTC, bare again", await measure_bare_call(browser, url, args.call_s)))


if __name__ == "__main__":
    asyncio.run(main())
