// How the connection is doing: asked each second while there is a call, told in words and drawn over the last two minutes.

import { element, onNewColours } from "./dom.js";
import { Plot } from "./plots.js";

/** @typedef {import("./stats.js").Summary} Summary */
/** @typedef {{at: number, roundTripMs: number | null, jitterMs: number | null, lossPercent: number | null, bufferMs: number | null}} Sample */

const EVERY_MS = 1000;
const KEPT = 120;
/** In two minutes on so few pixels a second is hardly one: drawing each would cost more than it shows. */
const DRAWN_EVERY = 2;

const PLOTS = /** @type {const} */ ([
  { name: "roundTripMs", label: "Round trip, ms", most: 20 },
  { name: "jitterMs", label: "Jitter, ms", most: 10 },
  { name: "bufferMs", label: "Waiting to be played, ms", most: 50 },
  { name: "lossPercent", label: "Lost on the way to you, %", most: 2 },
]);

/**
 * Return what happened between two summaries.
 * @param {Summary} now
 * @param {Summary | null} before
 * @param {number} at seconds since 1970
 * @returns {Sample}
 */
export function sample(now, before, at) {
  const since = (/** @type {"received" | "lost" | "bufferedSumMs" | "played"} */ name) => (now[name] ?? 0) - (before?.[name] ?? 0);
  const due = since("received") + since("lost");
  const played = since("played");
  return {
    at,
    roundTripMs: now.roundTripMs,
    jitterMs: now.jitterMs ?? null,
    lossPercent: due > 0 ? (100 * Math.max(0, since("lost"))) / due : null,
    bufferMs: now.bufferedMs ?? (played > 0 ? since("bufferedSumMs") / played : null),
  };
}

export class Network {
  /** @type {Summary | null} */ #before = null;
  /** @type {Sample[]} */ #samples = [];
  #timer = 0;
  #asked = 0;
  /** @type {Promise<Plot[]> | null} */ #opening = null;

  /** @param {HTMLElement} hint shown until there is something to tell @param {HTMLElement} facts a `dl` @param {HTMLElement} plots */
  constructor(hint, facts, plots) {
    this.hint = hint;
    this.facts = facts;
    this.plots = plots;
    onNewColours(() => {
      this.#opening = null;
      plots.replaceChildren();
    });
  }

  /** How long what the server sends now takes to the caller's ear, as far as is known. @returns {number | null} */
  get earMs() {
    const last = this.#samples.at(-1);
    return last && last.roundTripMs !== null ? last.roundTripMs / 2 + (last.bufferMs ?? 0) : null;
  }

  /** Follow a call. @param {() => Promise<Summary | null>} ask */
  follow(ask) {
    this.stop();
    this.#samples = [];
    this.#before = null;
    this.#timer = setInterval(() => void this.#ask(ask), EVERY_MS);
  }

  /** Follow it no more; what was seen stays. */
  stop() {
    clearInterval(this.#timer);
  }

  /** @param {() => Promise<Summary | null>} ask */
  async #ask(ask) {
    const now = await ask();
    if (!now) {
      this.#before = null;
      return;
    }
    // Another connection counts from its own beginning.
    if (this.#before && now.receivedBytes < this.#before.receivedBytes) this.#before = null;
    this.#samples.push(sample(now, this.#before, Date.now() / 1000));
    if (this.#samples.length > KEPT) this.#samples.shift();
    this.#tell(now);
    this.#before = now;
    this.#asked += 1;
    if (this.#asked % DRAWN_EVERY === 0 && this.plots.checkVisibility()) await this.#draw();
  }

  /** @param {Summary} now */
  #tell(now) {
    const last = /** @type {Sample} */ (this.#samples.at(-1));
    const rate = (/** @type {"sentBytes" | "receivedBytes"} */ name) =>
      this.#before ? `${Math.round((8 * (now[name] - this.#before[name])) / EVERY_MS)} kb/s` : "–";
    const facts = {
      Connection: now.way === "webrtc" ? now.path || "WebRTC" : "WebSocket, raw PCM",
      Codec: now.codec || (now.way === "websocket" ? "PCM, 16 kHz up, 24 kHz down" : "–"),
      "Round trip": inMs(last.roundTripMs),
      ...(now.way === "webrtc" ? { Jitter: inMs(last.jitterMs) } : {}),
      "Waiting to be played": inMs(last.bufferMs),
      ...losses(now, last),
      "Up, down": `${rate("sentBytes")}, ${rate("receivedBytes")}`,
    };
    const rows = Object.entries(facts).map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
    this.facts.replaceChildren(...rows);
    this.hint.hidden = true;
  }

  async #draw() {
    this.#opening ??= Plot.open(this.plots, [...PLOTS]);
    try {
      const plots = await this.#opening;
      const at = this.#samples.map((one) => one.at);
      PLOTS.forEach(({ name }, i) => plots[i].draw(at, this.#samples.map((one) => one[name])));
    } catch (error) {
      this.#opening = null; // the server is away, and the figures are told without pictures until it is back
      console.info(error);
    }
  }
}

/** A WebSocket loses nothing, and comes too late instead. @param {Summary} now @param {Sample} last @returns {Record<string, string>} */
function losses(now, last) {
  if (now.way === "webrtc") return { "Lost to you, to the server": `${percent(last.lossPercent)}, ${percent(now.sentLostPercent ?? null)}` };
  return { "Gaps in what you hear": String(now.underruns ?? 0), "Yours that was dropped": `${now.droppedMs ?? 0} ms` };
}

/** @param {number | null} value */
function inMs(value) {
  return value === null ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

/** @param {number | null} value */
function percent(value) {
  return value === null ? "–" : `${value.toFixed(1)} %`;
}
