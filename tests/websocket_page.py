"""A page that calls over the WebSocket, without the bundled one around it: what it is told, and what it plays."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.browser import WAIT_MS, Server, Tab, browsing

RATE_HZ = 24_000
FADE_SAMPLES = 120
Sound = NDArray[np.float32]

PREPARE = """async () => {
  // What a stream carries, sample by sample as an audio element gets it, and when each part of it came.
  window.recorded = [];
  window.record = async (stream) => {
    const { readable } = new MediaStreamTrackProcessor({ track: stream.getAudioTracks()[0], maxBufferSize: 1000 });
    for await (const part of readable) {
      if (part.sampleRate !== 24000 || part.numberOfChannels !== 1) throw new Error("not what was put in");
      const samples = new Float32Array(part.numberOfFrames);
      part.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      part.close();
      recorded.push({ atMs: performance.now(), samples });
    }
  };
  window.played = () => {
    const bytes = new Uint8Array(recorded.reduce((sum, { samples }) => sum + samples.byteLength, 0));
    let at = 0;
    for (const { samples } of recorded) {
      bytes.set(new Uint8Array(samples.buffer), at);
      at += samples.byteLength;
    }
    let text = "";
    for (let i = 0; i < at; i += 8192) text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return [btoa(text), recorded.map(({ atMs, samples }) => [atMs, samples.length])];
  };

  // A call, and what it tells, each with the time.
  const { WebSocketCall } = await import("/static/websocket.js");
  window.told = [];
  const tell = (name) => (value) => told.push({
    name, atMs: performance.now(), ...about(value),
  });
  const about = (value) => value instanceof Error
    ? { error: value.constructor.name, message: value.message, status: value.status, retryAfterS: value.retryAfterS }
    : value?.type ? value : { value: typeof value === "object" ? null : value };
  window.voice = document.createElement("audio");
  window.begin = async (agent = null, microphone = null) => {
    const listener = Object.fromEntries(
      ["onReady", "onVoice", "onMessage", "onSteady", "onEnd"].map((name) => [name, tell(name)]));
    const { onVoice } = listener;
    listener.onVoice = (stream) => {
      onVoice();
      voice.srcObject = stream;
      void voice.play();
      void record(stream);
    };
    window.talk = new WebSocketCall(listener, { agent });
    const stream = microphone ?? await navigator.mediaDevices.getUserMedia({
      audio: { autoGainControl: false, echoCancellation: false, noiseSuppression: false } });
    await talk.connect(stream);
  };
}"""


class Caller:
    """One tab and the call in it."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab

    def begin(self, agent: str | None = None) -> None:
        """Connect; what comes of it is told."""
        self.tab.page.evaluate("(agent) => begin(agent)", agent)

    def call(self, agent: str | None = None) -> None:
        """Connect and wait for the agent."""
        self.begin(agent)
        self.until("onReady")

    def until(self, name: str, kind: str | None = None, times: int = 1, timeout_ms: int = WAIT_MS) -> dict[str, Any]:
        """Wait until the page was told this so many times; return the last of them."""
        script = """([name, kind, times]) => {
          const such = told.filter((fact) => fact.name === name && (kind === null || fact.type === kind));
          return such.length >= times && such[times - 1];
        }"""
        found: dict[str, Any] = self.tab.wait_for(script, [name, kind, times], timeout_ms)
        return found

    def told(self, name: str, kind: str | None = None) -> list[dict[str, Any]]:
        """Return what the page was told of this name, and type of message, in order."""
        facts: list[dict[str, Any]] = self.tab.page.evaluate("told")
        return [fact for fact in facts if fact["name"] == name and kind in (None, fact.get("type"))]

    def names(self) -> list[str]:
        """Return the names of all that the page was told, messages left out."""
        return [fact["name"] for fact in self.tab.page.evaluate("told") if fact["name"] != "onMessage"]

    def stats(self) -> dict[str, Any]:
        """Return the call's own account."""
        stats: dict[str, Any] = self.tab.page.evaluate("talk.stats()")
        return stats

    def until_silent(self) -> None:
        """Wait until nothing was played for a while, and something before that."""
        self.tab.wait_for("""() => {
          const last = recorded.findLast(({ samples }) => samples.some((sample) => sample !== 0));
          return last && performance.now() - last.atMs > 400;
        }""")

    def played(self) -> Sound:
        """Return all that was played so far, as the audio element gets it."""
        return np.frombuffer(base64.b64decode(self.tab.page.evaluate("played()[0]")), np.float32)

    def loud_ms(self, audible: float = 0.0) -> Sound:
        """Return when sound came that was louder, by the page's clock."""
        encoded, parts = self.tab.page.evaluate("played()")
        sound, end, loud = np.frombuffer(base64.b64decode(encoded), np.float32), 0, []
        for at_ms, samples in parts:
            end += samples
            if np.abs(sound[end - samples : end]).max() > audible:
                loud.append(at_ms)
        return np.array(loud)


@contextmanager
def page_of(server: Server, folder: Path, microphone: Path, *, loop: bool = False) -> Iterator[Caller]:
    """Open a page of the server that can call; it has the key ``sessionStorage`` is given, if any."""
    with browsing(folder, microphone, loop=loop) as tab:
        yield caller_in(tab, server)


def caller_in(tab: Tab, server: Server) -> Caller:
    """Load a page of the server that can call."""
    tab.open(server.url)
    tab.page.evaluate(PREPARE)
    return Caller(tab)


def sounding(sound: Sound) -> Sound:
    """Return it without the silence around it; silence is zero."""
    loud = np.flatnonzero(sound)
    assert len(loud), "nothing was played"
    return sound[loud[0] : loud[-1] + 1]


def check_tone(sound: Sound, pitch_hz: float, bound: float = 2e-4) -> None:
    """Assert that this is one sine from the first to the last sample: each follows from the two before it.

    What 16 bits make of a sine is off by 6e-5; a sample that is lost or doubled, by 3e-2 where it is loudest.
    """
    turn = 2 * np.pi * pitch_hz / RATE_HZ
    pcm = sound.astype(np.float64)
    off = np.abs(pcm[2:] - 2 * np.cos(turn) * pcm[1:-1] + pcm[:-2])
    worst = int(off.argmax())
    assert off[worst] < bound, f"{off[worst]:.4f} at {worst / RATE_HZ:.3f} s of {len(pcm) / RATE_HZ:.3f} s"


def gaps_samples(sound: Sound) -> int:
    """Return how much of it is silence, and no zero of a wave."""
    edges = np.flatnonzero(np.diff(sound == 0, prepend=False, append=False))
    lengths = edges[1::2] - edges[::2]
    return int(lengths[lengths > 10].sum())


def steepest(sound: Sound) -> float:
    """Return the largest step from one sample to the next."""
    return float(np.abs(np.diff(sound, prepend=np.float32(0))).max())
