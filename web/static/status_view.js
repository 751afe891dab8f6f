// What the numbers look like.

import { element, get } from "./dom.js";
import { Table } from "./status_table.js";
import { ago, clock, megabytes, milliseconds, percent, span, tally } from "./status_words.js";
import { axisEndMs, STAGES as TALK_STAGES } from "./waterfall.js";

/**
 * The answer of `GET /api/status`; docs/protocol.md says what each number is.
 * @typedef {{n: number, p50_ms: number | null, p95_ms: number | null}} Percentiles
 * @typedef {{received: number, lost: number, recovered: number, concealed: number}} Packets
 * @typedef {{id: string, way: string, agent: string, state: string, length_s: number, turns: number,
 *     packets: Packets | null, response_ms: number | null}} Session
 * @typedef {{kind: string, name: string, why: string, own: boolean, runs_on: string, device: string | null,
 *     healthy: boolean, why_not: string | null, failures: number, failed_s_ago: number | null}} Engine
 * @typedef {{time: string, level: string, logger: string, session: string, message: string, count: number}} Line
 * @typedef {{version: string, uptime_s: number, draining: boolean, ready: boolean, why_not: string | null,
 *     may_drain: boolean, max_sessions: number, running_sessions: number, loop_lag: Percentiles,
 *     process: {cpu_s: number | null, memory_bytes: number | null}, sessions: Session[], engines: Engine[],
 *     window_turns: number, stages: Record<string, Percentiles>, errors: Line[],
 *     totals: {started: number, ended: Record<string, number>, refused: Record<string, number>, barge_ins: number,
 *       replies: Record<string, number>, failures: Record<string, number>}}} Status
 */

/** @type {Record<string, string>} as the caller's own page has them, whose words they are */
const STAGES = { ...TALK_STAGES, stt: "Caller's words" };
/** @type {Record<string, string>} */
const KINDS = { vad: "Speech detection", stt: "Speech-to-text", llm: "Language model", tts: "Text-to-speech", turn: "End of turn" };
/** @type {Record<string, string>} */
const WAYS = { webrtc: "WebRTC", websocket: "WebSocket" };
/** @type {Record<string, string>} */
const DOTS = { "caller speaking": "caller", "agent speaking": "agent", thinking: "thinking" };
/** @type {Record<string, string>} what `why_not` means where it is a word alone */
const CLOSED = {
  draining: "Draining: no new call is let in, those that run go on",
  full: "Full: further callers are told to call again later",
  lag: "Too busy: no new call is let in until the event loop keeps up",
};
const FRESH_FAILURE_S = 60;

/** @param {string} kind @param {...(string | Node)} words */
function marked(kind, ...words) {
  return element("span", {}, element("i", { class: `dot ${kind}`, "aria-hidden": "true" }), ...words);
}

/** The page's numbers, drawn again at every answer. */
export class StatusView {
  constructor() {
    this.state = get("state", HTMLElement);
    this.tiles = get("tiles", HTMLElement);
    this.axis = element("div", { class: "axis", "aria-hidden": "true" });
    this.endMs = axisEndMs(1);
    /** @type {{cpu_s: number, uptime_s: number} | null} the answer before, against which the CPU's load is measured */
    this.before = null;
    this.sessions = sessionsTable();
    this.engines = enginesTable();
    this.errors = errorsTable();
    this.totals = new Table(get("totals", HTMLTableElement), "Since the server started", [
      { label: "What", cell: ([name]) => name },
      { label: "How many", cell: ([, count]) => count },
    ], { headless: true });
    this.stages = new Table(get("stages", HTMLTableElement), "When each stage of a turn is reached", [
      { label: "Stage", cell: ([stage]) => STAGES[stage] ?? stage },
      { label: element("div", {}, element("span", { class: "hidden" }, "On one axis"), this.axis), cell: ([, times]) => this.bar(times) },
      { label: "Median", number: true, cell: ([, times]) => milliseconds(times.p50_ms) },
      { label: "95th", number: true, cell: ([, times]) => milliseconds(times.p95_ms) },
    ]);
  }

  /** @param {Status} status */
  show(status) {
    const words = status.ready ? "Ready for calls" : CLOSED[status.why_not ?? ""] ?? `Not ready: ${status.why_not}`;
    if (this.state.textContent !== words) this.state.replaceChildren(...marked(status.ready ? "good" : "bad", words).childNodes);
    this.tiles.replaceChildren(...this.figures(status).map(([name, value, more]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, `${value} `, element("small", {}, more)))));
    const hidden = status.running_sessions - status.sessions.length;
    this.sessions.show(status.sessions, status.sessions.length >= 200 && hidden > 0 ? `The newest 200; ${hidden} more run.` : "");
    this.engines.show(status.engines);
    this.errors.show(status.errors);
    this.totals.show(totals(status));
    this.showStages(status);
    get("about", HTMLElement).textContent = `Vocal Node ${status.version}. CPU and memory are this process's; service processes are not in them.`;
  }

  /** @param {Status} status @returns {[string, string, string][]} */
  figures({ running_sessions, max_sessions, stages, uptime_s, loop_lag, process }) {
    const heard = stages.first_audio;
    const load = this.load(process.cpu_s, uptime_s);
    return [
      ["Calls", `${running_sessions}`, `of ${max_sessions}`],
      ["Response, median", milliseconds(heard.p50_ms), ""],
      ["Response, 95th", milliseconds(heard.p95_ms), ""],
      ["Loop lag, 95th", milliseconds(loop_lag.p95_ms), ""],
      ["CPU, of one core", load === null ? "–" : percent(load, 1), ""],
      ["Memory", megabytes(process.memory_bytes), ""],
      ["Up", span(uptime_s), ""],
    ];
  }

  /** Return how much of a core was used since the answer before. @param {number | null} cpu_s @param {number} uptime_s */
  load(cpu_s, uptime_s) {
    const before = this.before;
    this.before = cpu_s === null ? null : { cpu_s, uptime_s };
    return cpu_s === null || before === null || uptime_s <= before.uptime_s ? null : (cpu_s - before.cpu_s) / (uptime_s - before.uptime_s);
  }

  /** @param {Status} status */
  showStages({ stages, window_turns }) {
    const longestMs = Math.max(1, ...Object.values(stages).map((times) => times.p95_ms ?? 0));
    this.endMs = axisEndMs(longestMs);
    this.axis.replaceChildren(...[0, this.endMs / 2, this.endMs].map((ms) => element("span", {}, ms < 1000 ? `${ms}` : `${ms / 1000} s`)));
    const turns = Math.max(...Object.values(stages).map((times) => times.n));
    const which = turns ? `Of the last ${turns === 1 ? "turn" : `${turns} turns`}, at most ${window_turns}.` : "No turn yet.";
    this.stages.show(Object.entries(stages), `${which} Milliseconds after the caller's last sound: blue to the median, grey to the 95th percentile.`);
  }

  /** @param {Percentiles} times */
  bar({ p50_ms, p95_ms }) {
    const track = element("span", { class: "track", "aria-hidden": "true" });
    for (const [name, ms] of /** @type {[string, number | null][]} */ ([["p95", p95_ms], ["p50", p50_ms]])) {
      if (ms === null) continue;
      const bar = element("i", { class: name });
      bar.style.width = `${Math.max(0, Math.min(100, (100 * ms) / this.endMs))}%`;
      track.append(bar);
    }
    return track;
  }
}

/** @param {Status} status @returns {[string, string][]} */
function totals({ totals: sums }) {
  return [
    ["Calls", `${sums.started}`],
    ["Ended", tally(sums.ended)],
    ["Refused", tally(sums.refused)],
    ["Replies", tally(sums.replies)],
    ["Barge-ins", `${sums.barge_ins}`],
    ["Engine failures", tally(sums.failures)],
  ];
}

/** @returns {Table<Session>} */
function sessionsTable() {
  return new Table(get("sessions", HTMLTableElement), "Calls that run", [
    { label: "Call", cell: (call) => call.id },
    { label: "State", cell: (call) => marked(DOTS[call.state] ?? "", call.state) },
    { label: "Agent", cell: (call) => call.agent },
    { label: "Way in", cell: (call) => WAYS[call.way] ?? call.way },
    { label: "Length", number: true, cell: (call) => span(call.length_s) },
    { label: "Turns", number: true, cell: (call) => `${call.turns}` },
    { label: "Last response", number: true, cell: (call) => milliseconds(call.response_ms) },
    { label: "Packets", number: true, cell: (call) => (call.packets ? `${call.packets.received}` : "–") },
    { label: "Lost", number: true, cell: (call) => lost(call.packets) },
    { label: "Recovered", number: true, cell: (call) => (call.packets ? `${call.packets.recovered}` : "–") },
    { label: "Concealed", number: true, cell: (call) => (call.packets ? `${call.packets.concealed}` : "–") },
  ], { none: "Nobody is calling.", cards: true });
}

/** @param {Packets | null} packets */
function lost(packets) {
  return packets ? `${packets.lost} (${percent(packets.lost, packets.received + packets.lost)})` : "–";
}

/** @returns {Table<Engine>} */
function enginesTable() {
  return new Table(get("engines", HTMLTableElement), "Engines in use", [
    { label: "Stage", cell: (engine) => KINDS[engine.kind] ?? engine.kind },
    { label: "Engine", cell: (engine) => (engine.own ? engine.name : [engine.name, " ", element("span", { class: "soft" }, "named by an agent")]) },
    { label: "Health", cell: health },
    { label: "Failures", number: true, cell: (engine) => `${engine.failures}` },
    { label: "Runs on", cell: (engine) => (engine.device ? `${engine.runs_on}, ${engine.device}` : engine.runs_on) },
    { label: "Why this one", cell: (engine) => element("span", { class: "soft" }, engine.why) },
  ], { cards: true });
}

/** @param {Engine} engine */
function health({ healthy, why_not, failed_s_ago }) {
  if (!healthy) return marked("bad", element("span", { class: "bad-text" }, why_not ?? "does not answer"));
  if (failed_s_ago === null) return marked("good", "healthy");
  return marked(failed_s_ago < FRESH_FAILURE_S ? "bad" : "good", `failed ${ago(failed_s_ago)}`);
}

/** @returns {Table<Line>} */
function errorsTable() {
  return new Table(get("errors", HTMLTableElement), "Newest warnings and errors", [
    { label: "Time", cell: (line) => clock(line.time) },
    { label: "Level", cell: (line) => (line.level === "WARNING" ? "warning" : element("span", { class: "bad-text" }, line.level.toLowerCase())) },
    { label: "Call", cell: (line) => (line.session === "-" ? "–" : line.session) },
    { label: "Where", cell: (line) => line.logger },
    { label: "Message", cell: (line) => [element("bdi", {}, line.message), line.count > 1 ? ` (${line.count} times)` : ""] },
  ], { none: "None.", cards: true });
}
