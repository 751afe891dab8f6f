// The latency of a call: each turn as a waterfall, newest first, and the figures over all that were spoken.

import { axisEndMs, drawTurn, duration, isTyped, percentile } from "./waterfall.js";

/** @typedef {import("./waterfall.js").Turn} Turn */

/** Older turns count in the figures, and are drawn no more. */
const DRAWN = 30;

export class Latency {
  /** @type {{turn: Turn, earMs: number | null}[]} newest first */ #turns = [];
  /** @type {number[]} */ #totalsMs = [];

  /**
   * @param {HTMLElement} list
   * @param {{median: HTMLElement, p95: HTMLElement, count: HTMLElement, hint: HTMLElement}} figures
   */
  constructor(list, figures) {
    this.list = list;
    this.figures = figures;
  }

  /** Forget the last call's turns. */
  clear() {
    this.#turns = [];
    this.#totalsMs = [];
    this.#draw();
  }

  /**
   * Take a turn in.
   * @param {Turn} turn as the server measured it
   * @param {number | null} earMs half the round trip and the jitter buffer, where known
   */
  add(turn, earMs) {
    this.#turns = [{ turn, earMs }, ...this.#turns].slice(0, DRAWN);
    if (typeof turn.first_audio_ms === "number" && !isTyped(turn)) this.#totalsMs.push(turn.first_audio_ms);
    this.#draw();
  }

  #draw() {
    const longest = this.#turns.map(({ turn, earMs }) => (turn.first_audio_ms ?? turn.endpoint_ms ?? 0) + (earMs ?? 0));
    const endMs = axisEndMs(Math.max(1, ...longest));
    this.list.replaceChildren(...this.#turns.map(({ turn, earMs }) => drawTurn(turn, endMs, earMs)));
    const { median, p95, count, hint } = this.figures;
    const totals = this.#totalsMs;
    median.textContent = totals.length ? duration(percentile(totals, 0.5)) : "–";
    p95.textContent = totals.length ? duration(percentile(totals, 0.95)) : "–";
    count.textContent = String(totals.length);
    hint.hidden = this.#turns.length > 0;
  }
}
