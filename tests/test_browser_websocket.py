"""The page's call over the WebSocket: headless Chromium, a fake microphone and a real server process."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.browser import (
    WAIT_MS,
    Server,
    Tab,
    another_tab,
    browsing,
    recording,
    serving,
    wait_until_nobody_is_left,
    words_of,
    write_microphone,
)
from tests.canary import KEY
from tests.websocket_page import (
    FADE_SAMPLES,
    RATE_HZ,
    Caller,
    Sound,
    caller_in,
    check_tone,
    gaps_samples,
    page_of,
    sounding,
    steepest,
)

EMBEDDED = {"VOCAL_STT": "pocketsphinx", "VOCAL_LLM": "eliza", "VOCAL_TTS": "espeak", "VOCAL_TURN": "silence"}
STAND_INS = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
SAID = "austen-0880"

PITCH_HZ = 440
CHARACTER_SAMPLES = 1200
"""22 periods of the tone: whatever the clauses, it goes through."""
LONG = " ".join(f"This is sentence number {n}, and many more come after it." for n in range(10, 22))
LONG_S = 30
TONE = STAND_INS | {"VOCAL_ECHO_TEXT": LONG, "VOCAL_TONE_CHARACTER_MS": str(CHARACTER_SAMPLES * 1000 // RATE_HZ)}
STEEPEST = 1.1 * 0.3 * 2 * np.pi * PITCH_HZ / RATE_HZ
"""What the tone itself comes to, and its fades."""

STALL_MS = 60
"""Pieces come each 20 ms, but for the first ones, which come at once."""


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """Return a microphone that hears nothing."""
    return write_microphone(tmp_path / "quiet.wav", 5.0)


@pytest.fixture
def speaking(tmp_path: Path) -> Path:
    """Return a microphone's sound: an utterance, and silence around it; played over and over it is said each 8 s."""
    return write_microphone(tmp_path / "microphone.wav", 1.5, recording(SAID), 3.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Share one server whose agent hums for half a minute."""
    with serving(tmp_path_factory.mktemp("server"), **TONE) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Share one browser whose microphone hears nothing."""
    folder = tmp_path_factory.mktemp("browser")
    with browsing(folder, write_microphone(folder / "quiet.wav", 5.0)) as tab:
        yield tab


@pytest.fixture
def caller(server: Server, browser: Tab) -> Iterator[Caller]:
    """A page of the server's, in a tab of its own."""
    with another_tab(browser) as tab:
        yield caller_in(tab, server)
        tab.check_clean("ScriptProcessorNode is deprecated")


# --- the sound


def test_half_a_minute_is_played_without_a_gap_or_a_click(caller: Caller) -> None:
    caller.call()
    caller.tab.page.evaluate("talk.sendText('go on')")
    caller.until("onMessage", "server-message", timeout_ms=120_000)
    caller.until_silent()
    caller.tab.page.wait_for_timeout(1_100)
    sound, stats = sounding(caller.played()), caller.stats()
    underruns = stats["underruns"]
    assert underruns <= stats["stalls"], "only where this machine stood still for as long as the server is ahead"
    assert steepest(sound) < STEEPEST, "whatever happens, nothing clicks"
    check_length(sound)
    if underruns == 0:
        check_tone(sound[FADE_SAMPLES:-FADE_SAMPLES], PITCH_HZ)


def test_a_busy_page_does_not_stop_the_sound(caller: Caller) -> None:
    """Five times for half a second: each is longer than all the sound that is there beforehand.

    The machine may be busy, too, and stop it for a moment: the best of three tries counts.
    """
    caller.call()
    caller.tab.page.evaluate("talk.sendText('go on')")
    caller.until("onMessage", "bot-started-speaking")
    stopped = [_underruns_while_busy(caller)]
    while stopped[-1] > 4 and len(stopped) < 3:
        stopped.append(_underruns_while_busy(caller))
    assert min(stopped) <= 4, "on the page's own thread it would have stopped five times"
    assert caller.stats()["sentBytes"] > 4 * 32_000, "and the caller is heard all the time"


def _underruns_while_busy(caller: Caller) -> int:
    before = int(caller.stats()["underruns"])
    caller.tab.page.evaluate("""async () => {
      for (let n = 0; n < 5; n++) {
        await new Promise((resolve) => setTimeout(resolve, 300));
        for (const end = performance.now() + 500; performance.now() < end;);
      }
    }""")
    caller.tab.page.wait_for_timeout(1_100)
    return int(caller.stats()["underruns"]) - before


def check_length(sound: Sound) -> None:
    """Assert that of all that was said no sample is lost or doubled."""
    samples = len(sound) - gaps_samples(sound)
    assert samples / RATE_HZ > LONG_S and samples % CHARACTER_SAMPLES == 0


OLD_CLIENT = """async () => {
  // 16 kHz from a script processor in, one buffer source after the other out: as such pages are written.
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const socket = new WebSocket(`ws://${location.host}/ws/${crypto.randomUUID()}`);
  await new Promise((resolve) => { socket.onopen = resolve; });
  socket.send(JSON.stringify({ agentId: "default", userId: "me", agentName: "Ada" }));
  const input = new AudioContext({ sampleRate: 16000 });
  const processor = input.createScriptProcessor(4096, 1, 1);
  processor.onaudioprocess = ({ inputBuffer }) =>
    socket.send(Int16Array.from(inputBuffer.getChannelData(0), (sample) => sample * 32767));
  input.createMediaStreamSource(stream).connect(processor).connect(input.destination);
  const output = new AudioContext({ sampleRate: 24000 });
  const destination = new MediaStreamAudioDestinationNode(output, { channelCount: 1 });
  void record(destination.stream);
  let next = 0;
  window.late = window.pieces = 0;
  window.arrivals = [];
  window.kinds = [];
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type !== "tts_stream") return kinds.push(message.label ?? message.type);
    arrivals.push(performance.now());
    const samples = new Float32Array(Uint8Array.from(atob(message.data.chunk), (char) => char.charCodeAt(0)).buffer);
    const buffer = output.createBuffer(1, samples.length, 24000);
    buffer.copyToChannel(samples, 0);
    const source = new AudioBufferSourceNode(output, { buffer });
    source.connect(destination);
    const now = Math.ceil(output.currentTime * 24000);
    if (next < now) {
      late += pieces > 0;
      next = now + 480;  // its first piece waits for one more
    }
    source.start(next / 24000);
    next += samples.length;
    pieces += 1;
  };
  window.say = (text) => socket.send(JSON.stringify({ type: "transcript", text }));
}"""


def test_a_page_that_plays_piece_after_piece_has_each_in_time(caller: Caller) -> None:
    caller.tab.page.evaluate(OLD_CLIENT)
    caller.tab.wait_for("() => kinds.includes('call_ready')")
    caller.tab.page.evaluate("say('go on')")
    caller.tab.wait_for("() => kinds.includes('tts_stream_end')", timeout_ms=120_000)
    caller.until_silent()
    sound, late = sounding(caller.played()), caller.tab.page.evaluate("late")
    assert caller.tab.page.evaluate("kinds") == ["call_ready", "tts_stream_end"], "it asked for nothing more"
    stalls = (np.diff(caller.tab.page.evaluate("arrivals")) > STALL_MS).sum()
    assert late <= stalls, "only where this machine stood still for as long as the server is ahead"
    check_length(sound)
    if late == 0:
        check_tone(sound, PITCH_HZ)


FEED = """async ([pieces, ahead, gapAfter, gapMs]) => {
  // A sine in pieces of 20 ms, some of them ahead of time, and once some that are late.
  const { Playback } = await import("/static/playback.js");
  const playback = new Playback(), { port1, port2 } = new MessageChannel();
  await playback.open(port2);
  void record(playback.stream);
  await new Promise((resolve) => setTimeout(resolve, 100));
  const beginMs = performance.now();
  for (let n = 0; n < pieces; n++) {
    const dueMs = (n - ahead) * 20 + (n >= gapAfter ? gapMs : 0);
    const waitMs = beginMs + dueMs - performance.now();
    if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
    const cosine = (_, k) => 0.3 * Math.cos(2 * Math.PI * 440 * (n * 480 + k) / 24000);
    port1.postMessage(Float32Array.from({ length: 480 }, cosine));
  }
  Object.assign(window, { playback, give: (what) => port1.postMessage(what) });
}"""


def test_what_is_late_is_waited_for_without_a_click(caller: Caller) -> None:
    caller.tab.page.evaluate(FEED, [60, 4, 30, 300])
    caller.tab.page.evaluate("give('end')")
    caller.until_silent()
    sound = sounding(caller.played())
    assert caller.tab.page.evaluate("playback.stats.underruns") >= 1
    assert np.count_nonzero(sound == 0) / RATE_HZ > 0.1, "there was a gap"
    assert np.count_nonzero(sound) == pytest.approx(60 * 480, abs=60 * 480 * 0.002), "all of it was played"
    assert steepest(sound) < STEEPEST


def test_what_is_cleared_ends_at_once_and_softly_and_what_comes_next_begins_softly(caller: Caller) -> None:
    caller.tab.page.evaluate(FEED, [100, 100, 100, 0])
    caller.tab.wait_for("() => recorded.length > 30")
    caller.tab.page.evaluate("give('clear')")
    caller.until_silent()
    first = sounding(caller.played())
    assert len(first) / RATE_HZ < 1.9, "what was still waiting was thrown away"
    caller.tab.page.evaluate("give(new Float32Array(480).fill(0.3)); give('end')")
    caller.tab.page.wait_for_timeout(400)
    caller.until_silent()
    sound = sounding(caller.played())
    assert np.count_nonzero(sound[len(first) :]) == 480, "a stream that is complete does not wait for more"
    assert steepest(sound) < STEEPEST
    assert caller.tab.page.evaluate("playback.stats") == {"bufferedMs": 0, "underruns": 0}


HELD = """async (afterMs) => {
  const play = (n) => {
    const cosine = (_, k) => 0.3 * Math.cos(2 * Math.PI * 440 * (n * 480 + k) / 24000);
    give(Float32Array.from({ length: 480 }, cosine));
  };
  give("hold");
  play(100);  // as the server sends a fade
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  play(101);
}"""


@pytest.mark.parametrize(("after_ms", "is_held"), [(400, True), (0, False)], ids=["held", "goes on at once"])
def test_what_is_held_goes_on_where_it_was_softly(caller: Caller, after_ms: int, is_held: bool) -> None:
    caller.tab.page.evaluate(FEED, [100, 100, 100, 0])
    caller.tab.wait_for("() => recorded.length > 30")
    caller.tab.page.evaluate(HELD, after_ms)
    caller.tab.page.evaluate("give('end')")
    caller.until_silent()
    sound = sounding(caller.played())
    assert (np.count_nonzero(sound == 0) / RATE_HZ > 0.25) == is_held
    assert np.count_nonzero(sound) == pytest.approx(102 * 480, abs=102 * 480 * 0.005), "all of it was played"
    assert steepest(sound) < STEEPEST
    assert caller.tab.page.evaluate("playback.stats.underruns") == 0


RESAMPLE = """async ([fromHz, pitchHz, cut]) => {
  const { Resampler } = await import("/static/resampler.js");
  const resampler = new Resampler(fromHz, 16000), made = [];
  const sine = Float32Array.from({ length: fromHz }, (_, n) => Math.sin(2 * Math.PI * pitchHz * n / fromHz));
  for (let at = 0; at < fromHz; at += cut) made.push(...resampler.push(sine.subarray(at, at + cut)));
  return made;
}"""


@pytest.mark.parametrize("from_hz", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000])
def test_the_microphone_is_brought_to_16_khz_and_nothing_folds_back(server: Server, browser: Tab, from_hz: int) -> None:
    with another_tab(browser) as tab:
        tab.open(server.url)
        for pitch_hz in (100, 1_000, 3_000, 6_000):
            if pitch_hz > 0.8 * from_hz / 2:
                continue
            made = np.array(tab.page.evaluate(RESAMPLE, [from_hz, pitch_hz, 128]))
            assert 0 <= 16_000 - len(made) < 200, "all but what lies ahead of the filter's middle"
            wanted = np.sin(2 * np.pi * pitch_hz * np.arange(len(made)) / 16_000)
            assert np.abs(made - wanted)[200:].max() < 2e-3, pitch_hz
            whole = tab.page.evaluate(RESAMPLE, [from_hz, pitch_hz, from_hz])
            assert np.array_equal(made, np.array(whole)), "wherever it is cut"
        for pitch_hz in (9_000, 11_000, 15_000, 20_000):
            if pitch_hz < from_hz / 2:
                made = np.array(tab.page.evaluate(RESAMPLE, [from_hz, pitch_hz, 128]))
                assert np.abs(made[200:-200]).max() < 2e-3, pitch_hz


CAPTURE = """async () => {
  const { Capture } = await import("/static/capture.js");
  const capture = new Capture(), { port1, port2 } = new MessageChannel();
  let heard = "";
  port1.onmessage = ({ data }) => { heard += String.fromCharCode(...new Uint8Array(data)); };
  const unaltered = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: unaltered });
  await capture.open(microphone.getAudioTracks()[0], port2);
  await new Promise((resolve) => setTimeout(resolve, 6000));
  capture.close();
  return btoa(heard);
}"""


def test_what_the_microphone_hears_is_what_the_server_gets(server: Server, speaking: Path, tmp_path: Path) -> None:
    """Through the browser's rates and ours: 30 dB between what was said and all that was added, wherever it is loud."""
    with browsing(tmp_path, speaking, loop=True) as tab:
        tab.open(server.url)
        heard = np.frombuffer(base64.b64decode(tab.page.evaluate(CAPTURE)), "<i2").astype(np.float64)
        tab.check_clean()
    said = recording(SAID).astype(np.float64)
    ratios = [clarity_db(heard, said[at : at + 3_200]) for at in range(0, len(said) - 3_200, 3_200)]
    assert np.median(ratios) > 30, ratios


def clarity_db(heard: NDArray[np.float64], said: NDArray[np.float64]) -> float:
    """Return how much stronger ``said`` is in ``heard`` than what differs, at the best place, to a 16th of a sample."""
    size = len(heard) + len(said)
    spectrum, wanted = np.fft.rfft(heard, size), np.fft.rfft(said, size)
    alike = np.fft.irfft(spectrum * np.conj(wanted), size)
    frequency = 2 * np.pi * np.arange(len(wanted)) / size
    places = alike[: len(heard)].argmax() + np.arange(-16, 17) / 16
    shifted = (np.fft.irfft(spectrum * np.exp(1j * frequency * place), size)[: len(said)] for place in places)
    return float(10 * np.log10(np.sum(said**2) / min(np.sum((part - said) ** 2) for part in shifted)))


# --- the conversation


def test_speech_is_heard_answered_and_may_interrupt(speaking: Path, tmp_path: Path) -> None:
    talkative = EMBEDDED | {"VOCAL_LLM": "echo", "VOCAL_ECHO_TEXT": LONG}
    with serving(tmp_path, **talkative) as server, page_of(server, tmp_path, speaking, loop=True) as caller:
        caller.call()
        caller.until("onMessage", "bot-interrupted", timeout_ms=2 * WAIT_MS)
        caller.tab.page.wait_for_timeout(800)
        spoken = words_of(SAID)
        heard = [
            m["data"]["text"].split() for m in caller.told("onMessage", "user-transcription") if m["data"]["final"]
        ]
        assert max(len(set(spoken) & set(words)) for words in heard) >= 0.6 * len(set(spoken)), heard
        cut_ms = caller.told("onMessage", "bot-interrupted")[0]["atMs"]
        began_ms = caller.told("onMessage", "bot-started-speaking")[0]["atMs"]
        loud_ms = caller.loud_ms(0.001)
        assert ((loud_ms > began_ms) & (loud_ms < cut_ms)).sum() > 20, "the agent was heard"
        again = [m["atMs"] for m in caller.told("onMessage", "bot-started-speaking")][1:]
        after = loud_ms[(loud_ms > cut_ms) & (loud_ms < min(again, default=np.inf))]
        assert max(after, default=cut_ms) - cut_ms < 1_000, "it had half a minute to say"
        assert caller.names()[:2] == ["onVoice", "onReady"]
        caller.tab.page.evaluate("talk.close()")
        wait_until_nobody_is_left(caller.tab, server)
        assert caller.told("onEnd")[0]["value"] is None
        caller.tab.check_clean()


def test_typed_words_interrupt_within_200_ms_and_without_a_click(caller: Caller) -> None:
    caller.call()
    caller.tab.page.evaluate("talk.sendText('go on')")
    caller.until("onMessage", "bot-started-speaking")
    caller.tab.page.wait_for_timeout(1_000)
    cuts_ms, silent_ms = [], []
    for turn in (1, 2, 3):
        caller.tab.page.evaluate("talk.sendText('and now something else')")
        cuts_ms.append(caller.until("onMessage", "bot-interrupted", times=turn)["atMs"])
        again_ms = caller.until("onMessage", "bot-started-speaking", times=turn + 1)["atMs"]
        silent_ms.append(again_ms - cuts_ms[-1])
        caller.tab.page.wait_for_timeout(300)
    assert (caller.loud_ms() < cuts_ms[0]).sum() > 50
    texts = [m["data"]["text"] for m in caller.told("onMessage", "user-llm-text")]
    assert texts == ["go on", *["and now something else"] * 3]
    # The stand-ins answer at once, so the silence lies in the sound. A busy machine may stumble in between.
    assert min(silent_ms) < 200, silent_ms
    assert steepest(sounding(caller.played())) < STEEPEST


def test_push_to_talk_holds_the_floor_and_sends_all_that_was_said(
    server: Server, speaking: Path, tmp_path: Path
) -> None:
    with page_of(server, tmp_path, speaking, loop=True) as caller:
        caller.call()
        caller.tab.page.evaluate("talk.startSpeech()")
        caller.until("onMessage", "user-started-speaking")
        caller.tab.page.wait_for_timeout(6_000)
        assert caller.told("onMessage", "user-llm-text") == [], "in a pause of 3.5 s"
        caller.tab.page.evaluate("talk.endSpeech()")
        released_ms = caller.tab.page.evaluate("performance.now()")
        stopped_ms = caller.until("onMessage", "user-stopped-speaking")["atMs"]
        assert stopped_ms - released_ms > 100, "what was on its way was waited for"
        caller.until("onMessage", "user-llm-text")
        caller.tab.page.evaluate("talk.startSpeech(); talk.endSpeech(); talk.startSpeech()")
        caller.until("onMessage", "user-started-speaking", times=2)
        caller.tab.page.wait_for_timeout(500)
        assert len(caller.told("onMessage", "user-stopped-speaking")) == 1, (
            "pressed again at once, it was never released"
        )
        caller.tab.check_clean()


def test_another_microphone_in_the_call(server: Server, speaking: Path, tmp_path: Path) -> None:
    with page_of(server, tmp_path, speaking, loop=True) as caller:
        caller.tab.page.evaluate(
            "begin(null, new MediaStreamAudioDestinationNode(new AudioContext(), { channelCount: 1 }).stream)"
        )
        caller.until("onReady")
        caller.tab.page.wait_for_timeout(8_500)
        assert caller.told("onMessage", "user-started-speaking") == []
        assert caller.stats()["sentBytes"] > 8 * 32_000, "silence is sent, too"
        caller.tab.page.evaluate("""async () => {
          const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
          talk.setMicrophone(stream.getAudioTracks()[0]);
        }""")
        caller.until("onMessage", "user-started-speaking")
        caller.tab.check_clean()


# --- the ends


@pytest.mark.parametrize("pause_ms", [0, 30, 100, 300, 1_000])
def test_whoever_hangs_up_at_any_time_is_told_so_once_and_leaves_nobody_behind(
    caller: Caller, server: Server, pause_ms: int
) -> None:
    caller.tab.page.evaluate("void begin()")
    caller.tab.page.wait_for_timeout(pause_ms)
    caller.tab.page.evaluate("talk.close(); talk.close()")
    caller.tab.page.wait_for_timeout(1_500)
    wait_until_nobody_is_left(caller.tab, server)
    assert caller.names()[-1] == "onEnd" and caller.names().count("onEnd") == 1
    assert caller.told("onEnd")[0]["value"] is None
    caller.tab.page.evaluate("talk.sendText('x'); talk.startSpeech(); talk.endSpeech(); talk.stats()")


def test_a_server_that_falls_silent_is_noticed_and_may_come_back(quiet: Path, tmp_path: Path) -> None:
    with serving(tmp_path, **STAND_INS) as server, page_of(server, tmp_path, quiet) as caller:
        caller.call()
        server.process.send_signal(signal.SIGSTOP)
        try:
            stopped_ms = caller.tab.page.evaluate("performance.now()")
            unsteady = caller.until("onSteady")
            assert unsteady["value"] is False and 900 < unsteady["atMs"] - stopped_ms < 5_000
            server.process.send_signal(signal.SIGCONT)
            assert caller.until("onSteady", times=2)["value"] is True
            server.process.send_signal(signal.SIGSTOP)
            stopped_ms = caller.tab.page.evaluate("performance.now()")
            end = caller.until("onEnd")
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert end["error"] == "LostError" and 3_000 < end["atMs"] - stopped_ms < 10_000
        wait_until_nobody_is_left(caller.tab, server)
        caller.tab.check_clean()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stops", "dies"])
def test_a_server_that_is_gone(quiet: Path, tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path, VOCAL_DRAIN_S="0", **STAND_INS) as server, page_of(server, tmp_path, quiet) as caller:
        caller.call()
        server.process.send_signal(how)
        end = caller.until("onEnd")
        assert end["error"] == "LostError" and "The connection was lost" in end["message"], "it may be back soon"
        server.process.wait(timeout=20)
        caller.begin()
        end = caller.until("onEnd", times=2)
        assert (end["error"], end["status"]) == ("ApiError", 0)
        caller.tab.check_clean("ERR_CONNECTION_REFUSED", "Failed to load worklet module script")


def test_who_is_not_let_in_is_told_why(quiet: Path, tmp_path: Path) -> None:
    with (
        serving(tmp_path, VOCAL_API_KEYS=KEY, VOCAL_MAX_SESSIONS="1", **STAND_INS) as server,
        page_of(server, tmp_path, quiet) as caller,
    ):
        caller.begin()
        end = caller.until("onEnd")
        assert (end["error"], end["status"]) == ("ApiError", 401)
        caller.tab.page.evaluate("async (key) => (await import('/static/api.js')).useKey(key)", KEY)
        caller.begin("nobody")
        end = caller.until("onEnd", times=2)
        assert (end["error"], end["status"]) == ("ApiError", 400) and "no agent 'nobody'" in end["message"]
        caller.call("default")
        caller.tab.page.evaluate("window.first = talk")
        caller.begin()
        end = caller.until("onEnd", times=3)
        assert (end["error"], end["status"], end["retryAfterS"]) == ("ApiError", 503, 5)
        assert "places are taken" in end["message"]
        assert caller.names().count("onReady") == 1
        caller.tab.check_clean("401", "no valid credentials available")


FULL = """async () => {
  // A line in the page itself, whose socket says that nothing leaves it.
  const [{ Line }, { socketUrl }] = [await import("/static/line.js"), await import("/static/api.js")];
  const microphone = new MessageChannel(), voice = new MessageChannel();
  window.facts = [];
  const configuration = { agentId: "default", agentName: "Ada", userId: "page", rtvi: true };
  const opening = { url: socketUrl("ws/s1"), configuration, microphone: microphone.port2, voice: voice.port2 };
  window.line = new Line(opening, (fact) => facts.push(fact));
  const full = { get: () => window.bufferedBytes, configurable: true };
  window.bufferedBytes = 32_001;
  Object.defineProperty(WebSocket.prototype, "bufferedAmount", full);
  window.speak = (pieces) => {
    for (let n = 0; n < pieces; n++) microphone.port1.postMessage(new ArrayBuffer(640));
  };
}"""


def test_what_the_network_does_not_take_is_dropped_and_counted(caller: Caller) -> None:
    stats = """(n) => {
      const all = facts.filter(({ fact }) => fact === "stats");
      return all.length > n && all.at(-1).stats;
    }"""
    caller.tab.page.evaluate(FULL)
    caller.tab.wait_for("() => facts.some(({ message }) => message?.type === 'bot-ready')")
    caller.tab.page.evaluate("speak(50)")
    before = caller.tab.wait_for(stats, 1)
    assert before["droppedMs"] == 1_000 and before["sentBytes"] < 1_000
    caller.tab.page.evaluate("bufferedBytes = 32_000; speak(50)")
    after = caller.tab.wait_for(stats, 3)
    assert after["droppedMs"] == 1_000 and after["sentBytes"] - before["sentBytes"] >= 32_000
    caller.tab.page.evaluate("new Promise((resolve) => line.leave(resolve))")


def test_the_address_is_relative_to_the_page_and_carries_the_key(server: Server, browser: Tab) -> None:
    with another_tab(browser) as tab:
        tab.open(server.url)
        address = """async (key) => {
          const api = await import("/static/api.js");
          if (key) api.useKey(key);
          history.replaceState(null, "", "/behind/a/proxy/?agent=ada");
          return String(api.socketUrl("ws/s1"));
        }"""
        base = server.url.replace("http", "ws")
        assert tab.page.evaluate(address, None) == f"{base}/behind/a/proxy/ws/s1"
        assert tab.page.evaluate(address, "a key&") == f"{base}/behind/a/proxy/ws/s1?access_token=a+key%26"
