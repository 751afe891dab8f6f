"""The page's modules that draw nothing, one by one: tables of messages in, captions and stages out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import Tab, browsing, serving

CUTS = [
    ("Hello there. How are you?", "Hello there.", "How are you?"),
    ("**Hello** there, you!", "Hello there,", "you!"),
    ("One two three", "One t", "wo three"),
    ("All of it.", "All of it.", ""),
    ("All of it", "", "All of it"),
    ("Something", "else entirely", ""),
    ("Ça va? Très bien.", "ça va?", "Très bien."),
]


def said(text: str, final: bool) -> tuple[str, dict[str, object]]:
    return "user-transcription", {"text": text, "final": final}


SAY = ("bot-tts-text", {"text": "Hello there."})
PLAN = [
    ("bot-llm-started", {}),
    ("bot-llm-text", {"text": "Hello there. "}),
    ("bot-llm-text", {"text": "How are you?"}),
]
CUT_OFF = ("server-message", {"t": "turn", "interrupted": True, "agent": "Hello there. How"})

CONVERSATIONS = {
    "words so far, then all of them": (
        [said("hel", False), said("hello", False), said("hello there", True)],
        [("caller", "hello there", "", "done")],
    ),
    "a noise without words leaves no line": ([said("uh", False), said("", True)], []),
    "answered": (
        [said("hi", True), *PLAN, SAY, ("bot-tts-text", {"text": "How are you?"}), ("bot-stopped-speaking", {})],
        [("caller", "hi", "", "done"), ("agent", "Hello there. How are you?", "", "done")],
    ),
    "cut off, known by the clause": (
        [*PLAN, SAY, ("bot-interrupted", {}), ("bot-stopped-speaking", {})],
        [("agent", "Hello there.", "How are you?", "done")],
    ),
    "cut off, known by the word": (
        [*PLAN, SAY, ("bot-interrupted", {}), CUT_OFF],
        [("agent", "Hello there. How", "are you?", "done")],
    ),
    "a voice that fails": (
        [*PLAN, ("error", {"error": "tts: no voice", "fatal": False}), ("bot-stopped-speaking", {})],
        [("note", "The agent could not go on: tts: no voice", "", "done")],
    ),
    "a kind nobody knows": ([("bot-dances", {"steps": 3})], []),
}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Share one page: nothing here changes it."""
    folder = tmp_path_factory.mktemp("page")
    stand_ins = {"VOCAL_STT": "scripted", "VOCAL_LLM": "echo", "VOCAL_TTS": "tone"}
    with serving(folder, **stand_ins) as server, browsing(folder, None) as tab:
        tab.open(server.url)
        yield tab
        tab.check_clean()


CONVERSE = """async (messages) => {
  const { Conversation } = await import("/static/conversation.js");
  const conversation = new Conversation();
  const entries = messages.flatMap(([type, data]) => conversation.apply({ type, data }));
  return [...new Map(entries.map((entry) => [entry.id, entry])).values()].filter(({ state }) => state !== "gone");
}"""


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_captions_follow_the_messages(tab: Tab, name: str) -> None:
    messages, expected = CONVERSATIONS[name]
    entries = tab.page.evaluate(CONVERSE, messages)
    assert [(entry["role"], entry["text"], entry["cut"], entry["state"]) for entry in entries] == expected


@pytest.mark.parametrize(("planned", "heard", "rest"), CUTS)
def test_what_was_cut_is_what_comes_after_what_was_heard(tab: Tab, planned: str, heard: str, rest: str) -> None:
    script = "async ([planned, heard]) => (await import('/static/conversation.js')).remainder(planned, heard)"
    assert tab.page.evaluate(script, [planned, heard]) == rest


def test_a_stage_begins_where_what_it_waits_for_was_there(tab: Tab) -> None:
    turn = {"endpoint_ms": 400, "stt_ms": 180, "ttft_ms": 200, "first_clause_ms": None, "ttfb_ms": 260}
    turn["first_audio_ms"] = 410
    stages = tab.page.evaluate("async (turn) => (await import('/static/latency.js')).stages(turn)", turn)
    assert [(s["fromMs"], s["toMs"]) for s in stages] == [(0, 400), (0, 180), (180, 200), (180, 260), (400, 410)]


@pytest.mark.parametrize(
    "rubbish", ["", "ping", "{", "{}", "[1]", '{"label":"other","type":"x"}', '{"label":"rtvi-ai","type":3}', None, 7]
)
def test_rubbish_is_no_message(tab: Tab, rubbish: object) -> None:
    assert tab.page.evaluate("async (text) => (await import('/static/rtvi.js')).parse(text)", rubbish) is None


END_WHILE_CONNECTING = """async () => {
  const { Call } = await import("/static/call.js");
  const told = [], answers = [];
  const listener = new Proxy({}, { get: (_, name) => () => told.push(name) });
  const peer = new RTCPeerConnection();
  const real = { fetch: window.fetch, RTCPeerConnection, getUserMedia: navigator.mediaDevices.getUserMedia };
  window.RTCPeerConnection = function () { return peer; };
  peer.setRemoteDescription = async () => {};
  navigator.mediaDevices.getUserMedia = async () => new AudioContext().createMediaStreamDestination().stream;
  window.fetch = (path, { method }) => new Promise((resolve) => {
    const answer = () => resolve(Response.json({ pc_id: "one", sdp: "", type: "answer" }));
    method === "DELETE" ? answers.push(answer) : answer();
  });
  const call = new Call(listener, {});
  await call.connect();
  call.hangUp();
  // The server has yet to hear of it, and meanwhile the connection goes on.
  Object.defineProperty(peer, "connectionState", { value: "disconnected" });
  peer.onconnectionstatechange();
  peer.ontrack({ streams: [new MediaStream()] });
  call.hangUp();
  const closing = new Promise((resolve) => { peer.close = () => resolve(true); });
  answers.forEach((answer) => answer());
  Object.assign(window, { fetch: real.fetch, RTCPeerConnection: real.RTCPeerConnection });
  navigator.mediaDevices.getUserMedia = real.getUserMedia;
  return { told, asked: answers.length, closed: await closing };
}"""


def test_a_call_that_has_ended_tells_the_page_nothing(tab: Tab) -> None:
    done = tab.page.evaluate(END_WHILE_CONNECTING)
    assert done == {"told": ["onMicrophone", "onEnd"], "asked": 1, "closed": True}


REFUSALS = [
    (0, None, "cannot be reached"),
    (401, None, "asks for an API key"),
    (403, None, "does not accept calls from this page"),
    (429, 2, "too often. Try again in 2 seconds"),
    (503, 1, "All lines are busy. Try again in 1 second."),
    (503, None, "Try again in a moment"),
    (500, None, "refused the call: because"),
]


@pytest.mark.parametrize(("status", "retry_after_s", "words"), REFUSALS)
def test_each_refusal_is_explained(tab: Tab, status: int, retry_after_s: int | None, words: str) -> None:
    script = """async ([status, retryAfterS]) => {
      const [{ ApiError }, { explain }] = [await import("/static/api.js"), await import("/static/errors.js")];
      return explain(new ApiError(status, "because", retryAfterS));
    }"""
    assert words in tab.page.evaluate(script, [status, retry_after_s])
