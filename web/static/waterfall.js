// Where a turn's time went: one bar a stage, all on one axis that begins with the caller's last sound.

import { element } from "./dom.js";

/**
 * @typedef {object} Turn milliseconds after the caller's last sound; null where a stage did not happen
 * @property {number} turn
 * @property {boolean} interrupted
 * @property {number | null} endpoint_ms
 * @property {number | null} stt_ms
 * @property {number | null} ttft_ms
 * @property {number | null} first_clause_ms
 * @property {number | null} ttfb_ms
 * @property {number | null} first_audio_ms
 */

/** @typedef {{label: string, fromMs: number, toMs: number}} Stage */

/** What each stage is called. */
export const STAGES = {
  endpoint: "End of turn",
  stt: "Your words",
  ttft: "First token",
  first_clause: "First clause",
  ttfb: "First speech",
  first_audio: "First audible",
};

const TICKS_MS = [50, 100, 200, 250, 500, 1000, 2000, 5000, 10_000, 30_000];

/**
 * Return the stages that happened. Each starts where what it waits for was there: some work begins before the end of the
 * turn is certain, so bars may overlap.
 * @param {Turn} turn
 * @returns {Stage[]}
 */
export function stages(turn) {
  const words = turn.stt_ms ?? 0;
  const chain = [
    { label: STAGES.endpoint, fromMs: 0, toMs: turn.endpoint_ms },
    { label: STAGES.stt, fromMs: 0, toMs: turn.stt_ms },
    { label: STAGES.ttft, fromMs: words, toMs: turn.ttft_ms },
    { label: STAGES.first_clause, fromMs: turn.ttft_ms ?? words, toMs: turn.first_clause_ms },
    { label: STAGES.ttfb, fromMs: turn.first_clause_ms ?? words, toMs: turn.ttfb_ms },
    { label: STAGES.first_audio, fromMs: Math.max(turn.ttfb_ms ?? 0, turn.endpoint_ms ?? 0), toMs: turn.first_audio_ms },
  ];
  return chain.flatMap(({ label, fromMs, toMs }) =>
    typeof toMs === "number" ? [{ label, fromMs: Math.min(Math.max(fromMs, 0), Math.max(toMs, 0)), toMs: Math.max(toMs, 0) }] : []);
}

/** Whether the caller typed this turn: then there was no last sound to count from. @param {Turn} turn */
export function isTyped(turn) {
  return turn.stt_ms === null;
}

/** Format milliseconds for a person. @param {number} ms */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/**
 * Return the value below which this part of them lies; the nearest rank, so that it is one of them.
 * @param {number[]} values at least one
 * @param {number} part 0 to 1
 */
export function percentile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];
}

/** Return the end of an axis that holds all of these, at a round number. @param {number} longestMs */
export function axisEndMs(longestMs) {
  const stepMs = tickMs(longestMs);
  return Math.max(1, Math.ceil(longestMs / stepMs)) * stepMs;
}

/** @param {number} longestMs */
function tickMs(longestMs) {
  return TICKS_MS.find((step) => longestMs / step <= 5) ?? 60_000;
}

/**
 * Draw a turn.
 * @param {Turn} turn
 * @param {number} endMs of the axis
 * @param {number | null} earMs what is left to the caller's ear, estimated
 */
export function drawTurn(turn, endMs, earMs) {
  const shown = stages(turn);
  const firstMs = turn.first_audio_ms;
  const total = typeof firstMs === "number" ? duration(firstMs) : "not heard";
  const heading = element("h3", {}, `Turn ${turn.turn}`, element("strong", {}, total));
  const rows = shown.map((stage) => drawStage(stage, turn.endpoint_ms ?? 0, endMs));
  if (earMs !== null && typeof firstMs === "number") {
    const label = "At your ear, est.";
    rows.push(drawStage({ label, fromMs: firstMs, toMs: firstMs + earMs }, turn.endpoint_ms ?? 0, endMs));
  }
  const item = element("li", { class: "turn" }, heading, element("ol", { class: "stages" }, ...rows), drawAxis(endMs));
  const notes = [isTyped(turn) ? "typed" : "", turn.interrupted ? "interrupted" : ""].filter(Boolean).join(", ");
  heading.append(element("span", { class: "soft" }, notes));
  return item;
}

/** @param {Stage} stage @param {number} endpointMs @param {number} endMs */
function drawStage({ label, fromMs, toMs }, endpointMs, endMs) {
  const track = element("span", { class: "track" });
  const isEnd = label === STAGES.endpoint;
  const split = isEnd ? fromMs : Math.min(toMs, Math.max(fromMs, endpointMs));
  if (!isEnd) track.append(mark("endpoint", endpointMs, endpointMs, endMs));
  if (split > fromMs || (!isEnd && toMs <= endpointMs)) track.append(mark("early", fromMs, split, endMs));
  if (toMs > split || (!isEnd && toMs > endpointMs)) track.append(mark(isEnd ? "wait" : "work", split, toMs, endMs));
  const early = !isEnd && toMs <= endpointMs;
  const note = early ? [element("span", { class: "hidden" }, ", early")] : [];
  return element("li", {}, element("span", {}, label), track, element("span", { class: "at" }, duration(toMs), ...note));
}

/** @param {string} name @param {number} fromMs @param {number} toMs @param {number} endMs */
function mark(name, fromMs, toMs, endMs) {
  const made = element("i", { class: name });
  made.style.left = `min(${(100 * fromMs) / endMs}%, 100% - 3px)`;
  made.style.width = `${(100 * (toMs - fromMs)) / endMs}%`;
  return made;
}

/** @param {number} endMs */
function drawAxis(endMs) {
  const axis = element("div", { class: "axis", "aria-hidden": "true" });
  for (let atMs = 0; atMs <= endMs; atMs += tickMs(endMs)) {
    const tick = element("span", {}, atMs < 1000 ? `${atMs}` : `${atMs / 1000} s`);
    tick.style.left = `${(100 * atMs) / endMs}%`;
    axis.append(tick);
  }
  return axis;
}
