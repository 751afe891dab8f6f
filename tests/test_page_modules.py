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
    "words taken back leave no line": ([said("mm", False), said("", False), said("", False)], []),
    "and those that come then are new ones": (
        [said("mm", False), said("", False), said("stop", False), said("stop", True)],
        [("caller", "stop", "", "done")],
    ),
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


FLOOR = """async (types) => {
  const { Conversation } = await import("/static/conversation.js");
  const conversation = new Conversation();
  return types.map((type) => (conversation.apply({ type, data: {} }), conversation.floor));
}"""
COUGH = ["user-started-speaking", "user-stopped-speaking"]


@pytest.mark.parametrize(
    ("types", "floors"),
    [
        (COUGH, ["caller", "nobody"]),
        (["bot-llm-started", "bot-started-speaking", "bot-stopped-speaking"], ["thinking", "agent", "nobody"]),
        (["bot-started-speaking", *COUGH], ["agent", "caller", "agent"]),
        (["user-started-speaking", "bot-interrupted", "user-stopped-speaking"], ["caller", "caller", "nobody"]),
        (["bot-llm-started", "error", *COUGH], ["thinking", "nobody", "caller", "nobody"]),
    ],
    ids=["spoken", "answered", "a cough over the agent", "interrupted", "an answer that fails"],
)
def test_the_floor_is_the_callers_while_they_speak_and_the_agents_again_after_a_cough(
    tab: Tab, types: list[str], floors: list[str]
) -> None:
    assert tab.page.evaluate(FLOOR, types) == floors


@pytest.mark.parametrize(("planned", "heard", "rest"), CUTS)
def test_what_was_cut_is_what_comes_after_what_was_heard(tab: Tab, planned: str, heard: str, rest: str) -> None:
    script = "async ([planned, heard]) => (await import('/static/conversation.js')).remainder(planned, heard)"
    assert tab.page.evaluate(script, [planned, heard]) == rest


def test_a_stage_begins_where_what_it_waits_for_was_there(tab: Tab) -> None:
    turn = {"endpoint_ms": 400, "stt_ms": 180, "ttft_ms": 200, "first_clause_ms": None, "ttfb_ms": 260}
    turn["first_audio_ms"] = 410
    stages = tab.page.evaluate("async (turn) => (await import('/static/waterfall.js')).stages(turn)", turn)
    assert [(s["fromMs"], s["toMs"]) for s in stages] == [(0, 400), (0, 180), (180, 200), (180, 260), (400, 410)]


@pytest.mark.parametrize(
    "rubbish", ["", "ping", "{", "{}", "[1]", '{"label":"other","type":"x"}', '{"label":"rtvi-ai","type":3}', None, 7]
)
def test_rubbish_is_no_message(tab: Tab, rubbish: object) -> None:
    assert tab.page.evaluate("async (text) => (await import('/static/rtvi.js')).parse(text)", rubbish) is None


END_WHILE_CONNECTING = """async () => {
  const { WebRtcCall } = await import("/static/webrtc.js");
  const told = [], answers = [];
  const listener = new Proxy({}, { get: (_, name) => () => told.push(name) });
  const peer = new RTCPeerConnection();
  const real = { fetch: window.fetch, RTCPeerConnection };
  window.RTCPeerConnection = function () { return peer; };
  peer.setRemoteDescription = async () => {};
  window.fetch = (path, { method }) => new Promise((resolve) => {
    const answer = () => resolve(Response.json({ pc_id: "one", sdp: "", type: "answer" }));
    method === "DELETE" ? answers.push(answer) : answer();
  });
  const call = new WebRtcCall(listener, { agent: null });
  await call.connect(new AudioContext().createMediaStreamDestination().stream);
  call.close();
  // The server has yet to hear of it, and meanwhile the connection goes on.
  Object.defineProperty(peer, "connectionState", { value: "disconnected" });
  peer.onconnectionstatechange();
  peer.ontrack({ streams: [new MediaStream()] });
  call.close();
  const closing = new Promise((resolve) => { peer.close = () => resolve(true); });
  answers.forEach((answer) => answer());
  Object.assign(window, real);
  return { told, asked: answers.length, closed: await closing };
}"""


def test_a_connection_that_has_ended_tells_the_page_nothing(tab: Tab) -> None:
    done = tab.page.evaluate(END_WHILE_CONNECTING)
    assert done == {"told": ["onEnd"], "asked": 1, "closed": True}


SUMMARIES = """async ([now, before]) => {
  const { sample } = await import("/static/network.js");
  return sample(now, before, 7);
}"""


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        ({"received": 98, "lost": 2, "roundTripMs": 5}, None, {"lossPercent": 2.0, "roundTripMs": 5, "bufferMs": None}),
        ({"received": 148, "lost": 2}, {"received": 98, "lost": 2}, {"lossPercent": 0}),
        ({"received": 98, "lost": 2}, {"received": 98, "lost": 2}, {"lossPercent": None}),
        ({"received": 99, "lost": 1}, {"received": 50, "lost": 2}, {"lossPercent": 0}),
        ({"bufferedSumMs": 900, "played": 30}, {"bufferedSumMs": 500, "played": 20}, {"bufferMs": 40}),
        ({"bufferedMs": 80}, None, {"bufferMs": 80}),
    ],
    ids=["first", "nothing lost since", "nothing came since", "one came late", "jitter buffer", "a buffer of ours"],
)
def test_a_sample_is_what_happened_between_two_summaries(
    tab: Tab, now: dict[str, float], before: dict[str, float] | None, expected: dict[str, float | None]
) -> None:
    empty = {"way": "webrtc", "roundTripMs": None, "sentBytes": 0, "receivedBytes": 0}
    found = tab.page.evaluate(SUMMARIES, [empty | now, empty | before if before else None])
    assert found["at"] == 7
    assert {name: found[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "part", "expected"),
    [([5], 0.95, 5), ([3, 1, 2], 0.5, 2), (list(range(100, 0, -1)), 0.95, 95), ([1, 2], 0.5, 1), ([9, 10], 0.95, 10)],
)
def test_a_percentile_is_one_of_the_values(tab: Tab, values: list[int], part: float, expected: int) -> None:
    script = "async ([values, part]) => (await import('/static/waterfall.js')).percentile(values, part)"
    assert tab.page.evaluate(script, [values, part]) == expected


@pytest.mark.parametrize(("longest_ms", "end_ms"), [(1, 50), (417, 500), (449, 500), (500, 500), (1700, 2000)])
def test_an_axis_ends_at_a_round_number(tab: Tab, longest_ms: int, end_ms: int) -> None:
    script = "async (ms) => (await import('/static/waterfall.js')).axisEndMs(ms)"
    assert tab.page.evaluate(script, longest_ms) == end_ms


EARLY = """async (turn) => {
  const { drawTurn } = await import("/static/waterfall.js");
  const rows = drawTurn(turn, 500, 30).querySelectorAll(".stages li");
  const bars = (row) => [...row.querySelectorAll(".track i:not(.endpoint)")].map((bar) => bar.className);
  return [...rows].map((row) => [row.textContent, bars(row)]);
}"""


def test_work_done_before_the_end_of_the_turn_is_drawn_as_such(tab: Tab) -> None:
    turn = {"turn": 1, "endpoint_ms": 400, "stt_ms": 280, "ttft_ms": 450, "first_clause_ms": 450, "ttfb_ms": 460}
    rows = tab.page.evaluate(EARLY, turn | {"first_audio_ms": 470})
    assert rows == [
        ["End of turn400 ms", ["wait"]],
        ["Your words280 ms, early", ["early"]],
        ["First token450 ms", ["early", "work"]],
        ["First clause450 ms", ["work"]],
        ["First speech460 ms", ["work"]],
        ["First audible470 ms", ["work"]],
        ["At your ear, est.500 ms", ["work"]],
    ]


REVEAL = """async (clauses) => {
  const { Reveal } = await import("/static/reveal.js");
  const shown = [];
  const reveal = new Reveal((words) => shown.push(words));
  const whole = clauses.join(" ");
  reveal.begin(clauses[0]);
  const first = shown.at(-1);
  await new Promise((resolve) => setTimeout(resolve, 700));
  const later = shown.at(-1);
  reveal.begin(whole);
  const next = shown.at(-1);
  reveal.settle(clauses[0]);
  const settled = shown.length;
  await new Promise((resolve) => setTimeout(resolve, 400));
  return { first, later, next, last: shown.at(-1), quiet: shown.length === settled };
}"""


def test_the_agents_words_appear_one_by_one_and_those_not_heard_disappear(tab: Tab) -> None:
    clauses = ["One two three four five six seven eight nine ten.", "And eleven, and twelve."]
    seen = tab.page.evaluate(REVEAL, clauses)
    assert seen["first"] == "One"
    assert clauses[0].startswith(seen["later"])
    assert len("One") < len(seen["later"]) < len(clauses[0])
    assert seen["next"].startswith(clauses[0]) and seen["next"] != " ".join(clauses)
    assert seen["last"] == clauses[0]
    assert seen["quiet"], "what is settled is not drawn on"


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
