"""Draw the pictures of README and docs anew: ``make screenshots``. Real conversations with the embedded engines."""

from __future__ import annotations

import io
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import av.filter
import numpy as np

from pipeline.audio import Pcm
from tests.browser import ROOT, WAIT_MS, Server, Tab, answered_after, browsing, recording, serving, write_microphone
from tests.catalogue_page import ask, button, open_view, send_voice
from tests.sound_files import wav

IMAGES = ROOT / "docs" / "images"
SCALE = 2
DESKTOP = (1280, 840)
TALL = (1280, 1220)
PHONE = (390, 844)

EMBEDDED = {"VOCAL_STT": "pocketsphinx", "VOCAL_LLM": "eliza", "VOCAL_TTS": "espeak", "VOCAL_TURN": "silence"}
INTERRUPTED = "I believe that nobody listens to me these days."
INTERRUPTION = "Wait. What would you do in my place?"
HEARD = "#captions li[data-role=agent]:last-child .said:not(:empty)"
AGENTS = [
    (
        "Margaux",
        "You know wine and explain it without Latin. Ask what is for dinner, then name one bottle.",
    ),
    ("Sam", "You rehearse job interviews with people. Ask one question at a time, and say what was good."),
]
VOICES = [("Emma", ["lj001-0004"]), ("James", ["austen-0880", "austen-0880"])]


@contextmanager
def scene(*heard: Pcm | float, loop: bool = False, **settings: str) -> Iterator[tuple[Server, Tab]]:
    """Run a server and a browser whose microphone picks up ``heard``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        microphone = write_microphone(folder / "microphone.wav", *heard)
        engines = EMBEDDED | settings
        with serving(folder, **engines) as server, browsing(folder, microphone, loop=loop, scale=SCALE) as tab:
            resize(tab, DESKTOP)
            yield server, tab


def resize(tab: Tab, size: tuple[int, int]) -> None:
    """Give the page this many CSS pixels."""
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})


def draw(tab: Tab, name: str, part: str | None = None) -> None:
    """Write what is in sight, or only a part of it, with nothing hovered or focused."""
    tab.page.evaluate("document.activeElement?.blur()")
    tab.page.mouse.move(0, 0)
    png = tab.page.locator(part).first.screenshot() if part else tab.page.screenshot()
    (IMAGES / f"{name}.png").write_bytes(in_few_colours(png))


def in_few_colours(png: bytes) -> bytes:
    """Return the picture with a palette of 256 colours of its own: a third of the size, and nobody sees it."""
    with av.open(io.BytesIO(png), "r") as source:
        frame = next(source.decode(video=0)).reformat(format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = frame.width, frame.height, "pal8", Fraction(1)
    encoder.options = {"compression_level": "9", "pred": "none"}
    return b"".join(bytes(packet) for packet in [*encoder.encode(_with_palette(frame)), *encoder.encode(None)])


def _with_palette(frame: av.VideoFrame) -> av.VideoFrame:
    graph = av.filter.Graph()
    picture = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    split = graph.add("split")
    choose = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "dither=none")
    sink = graph.add("buffersink")
    picture.link_to(split)
    split.link_to(choose, 0, 0)
    split.link_to(use, 1, 0)
    choose.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    graph.push(frame)
    graph.push(None)
    drawn = graph.pull()
    assert isinstance(drawn, av.VideoFrame)
    return drawn


def conversation() -> None:
    """Draw a call: an answer that was cut off, and turns that were spoken. In both schemes, on a phone, its latency."""
    with scene(14.0, recording("go-forward"), 6.0, recording("lj001-0008"), 90.0) as (server, tab):
        tab.open(server.url)
        tab.start()
        for typed in (INTERRUPTED, INTERRUPTION):
            tab.page.fill("#text", typed)
            tab.page.press("#text", "Enter")
            tab.page.wait_for_selector("#captions li[data-role=caller]:last-child", state="detached")
            tab.page.wait_for_selector(HEARD, timeout=WAIT_MS)
            tab.page.wait_for_timeout(900)
        tab.wait_for("() => Number(document.getElementById('latency-count').textContent) >= 2")
        draw(tab, "talk")
        resize(tab, TALL)
        tab.page.wait_for_timeout(10_000)  # for the network's lines to get long
        draw(tab, "latency", "#instruments")
        resize(tab, DESKTOP)
        tab.page.emulate_media(color_scheme="dark")
        draw(tab, "talk-dark")
        tab.page.emulate_media(color_scheme="light")
        resize(tab, PHONE)
        draw(tab, "phone")


def agents() -> None:
    """Draw the view of agents, one of them being edited."""
    with scene(5.0) as (server, tab):
        for name, prompt in AGENTS:
            ask(server, "POST", "agents", {"id": name.lower(), "name": name, "system_prompt": prompt})
        open_view(tab, server, "agents")
        resize(tab, DESKTOP)
        button(tab, f"Edit {AGENTS[0][0]}").click()
        draw(tab, "agents")


def voices() -> None:
    """Draw the view of voices while one is recorded."""
    with scene(recording("lj001-0004"), loop=True) as (server, tab):
        for name, parts in VOICES:
            told = send_voice(server, name, wav(np.concatenate([recording(part) for part in parts])))
            assert told[0] == 201, told
        open_view(tab, server, "voices")
        resize(tab, DESKTOP)
        button(tab, "Record").click()
        tab.page.wait_for_timeout(5_000)
        draw(tab, "voices")


def status() -> None:
    """Draw the operators' page while three people call."""
    with scene(recording("go-forward"), 6.0, loop=True) as (server, tab):
        for _ in range(3):
            caller = Tab(tab.page.context.new_page())
            caller.open(server.url)
            caller.start()
            answered_after(caller, INTERRUPTED)
        tab.open(f"{server.url}/status")
        tab.page.bring_to_front()
        tab.page.wait_for_selector("#sessions tbody tr:nth-child(3)", timeout=WAIT_MS)
        tab.page.wait_for_timeout(12_000)
        draw(tab, "status")


def busy() -> None:
    """Draw what a caller sees whom the server has no room for."""
    with scene(5.0, VOCAL_MAX_SESSIONS="1") as (server, tab):
        first = Tab(tab.page.context.new_page())
        first.open(server.url)
        first.start()
        tab.open(server.url)
        tab.page.bring_to_front()
        tab.page.click("#call")
        tab.page.wait_for_selector("body[data-phase=waiting]", timeout=WAIT_MS)
        draw(tab, "busy", ".stage")


def reconnecting() -> None:
    """Draw a call whose network is gone."""
    with scene(5.0) as (server, tab):
        tab.open(server.url)
        tab.start()
        answered_after(tab, INTERRUPTED)
        server.process.send_signal(signal.SIGSTOP)  # nothing passes any more
        tab.page.wait_for_selector("body[data-phase=reconnecting]", timeout=WAIT_MS)
        draw(tab, "reconnecting", ".stage")
        server.process.send_signal(signal.SIGCONT)


SCENES: tuple[Callable[[], None], ...] = (conversation, agents, voices, status, busy, reconnecting)


if __name__ == "__main__":
    IMAGES.mkdir(parents=True, exist_ok=True)
    for drawn in SCENES:
        drawn()
