// The orb: its core swells with the agent's voice, the halo with the caller's. Below it the last seconds of both, so that
// one sees who spoke when: the agent above the line, the caller below.

import { onNewColours, prefersStillness } from "./dom.js";

/** @typedef {import("./levels.js").Levels} Levels */

/** Not each refresh of the screen: a page that asks for those is laid out and composed each time, whether it drew or not. */
const FRAME_MS = 50;
/** A bar of the strip for each of these. */
const BAR_MS = 95;
const BAR_PX = 5;
/** A bar that is not seen. */
const QUIET = 0.02;
/** How much of the way to the new level is gone in a frame: up at once, down slowly, as ears do. */
const RISE = 0.75;
const FALL = 0.26;

export class Orb {
  #caller = 0;
  #agent = 0;
  #timer = 0;
  #barMs = 0;
  /** @type {[caller: number, agent: number][]} newest last */ #bars = [];
  #drawn = "";

  /**
   * @param {HTMLCanvasElement} orb
   * @param {HTMLCanvasElement} strip
   */
  constructor(orb, strip) {
    this.orb = orb;
    this.strip = strip;
    /** @type {Levels | null} */ this.levels = null;
    this.colours = colours();
    onNewColours(() => {
      this.colours = colours();
      this.#redraw();
    });
    this.#redraw();
  }

  /** Follow these levels; null: rest. @param {Levels | null} levels */
  follow(levels) {
    this.levels = levels;
    clearInterval(this.#timer);
    if (levels) this.#timer = setInterval(() => this.#step(performance.now()), FRAME_MS);
    else this.#rest();
  }

  /** Draw anew what changed beside the levels: colours, and whether there is a call. */
  #redraw() {
    this.#drawn = "";
    this.#drawOrb();
    this.#drawStrip();
  }

  #rest() {
    this.#caller = this.#agent = 0;
    this.#bars = [];
    this.#redraw();
  }

  /** @param {number} nowMs */
  #step(nowMs) {
    if (!this.levels || document.hidden) return;
    this.#caller = approach(this.#caller, this.levels.of("caller"));
    this.#agent = approach(this.#agent, this.levels.of("agent"));
    this.#drawOrb();
    if (nowMs - this.#barMs < BAR_MS) return;
    this.#barMs = nowMs;
    this.#bars.push([this.#caller, this.#agent]);
    if (this.#bars.length > this.strip.width / BAR_PX) this.#bars.shift();
    if (this.#bars.some((bar) => bar[0] > QUIET || bar[1] > QUIET)) this.#drawStrip();
  }

  #drawOrb() {
    const still = prefersStillness();
    const [caller, agent] = [this.#caller, this.#agent].map((level) => (still ? 0 : Math.round(level * 50) / 50));
    const wanted = `${caller} ${agent} ${this.levels !== null}`;
    if (wanted === this.#drawn) return; // most frames of a silence
    this.#drawn = wanted;
    const context = this.orb.getContext("2d");
    if (!context) return;
    const half = this.orb.width / 2;
    const { accent } = this.colours;
    context.clearRect(0, 0, this.orb.width, this.orb.height);
    context.globalAlpha = 0.12 + 0.25 * caller;
    disc(context, half, half * (0.72 + 0.27 * caller), accent);
    context.globalAlpha = this.levels ? 1 : 0.55;
    const shade = context.createRadialGradient(half * 0.78, half * 0.7, 0, half, half, half * 0.75);
    shade.addColorStop(0, "#b9c7ff");
    shade.addColorStop(0.55, "#4c6ef5");
    shade.addColorStop(1, "#2b3fa8");
    disc(context, half, half * (0.5 + 0.17 * agent), shade);
    context.globalAlpha = 1;
  }

  #drawStrip() {
    const context = this.strip.getContext("2d");
    if (!context) return;
    const { width, height } = this.strip;
    const middle = Math.round(height * 0.55);
    context.clearRect(0, 0, width, height);
    context.fillStyle = this.colours.line;
    context.fillRect(0, middle, width, 1);
    for (const [side, sign, colour] of /** @type {const} */ ([[1, -1, this.colours.accent], [0, 1, this.colours.edge]])) {
      context.fillStyle = colour;
      this.#bars.forEach((bar, i) => {
        const x = width - (this.#bars.length - i) * BAR_PX;
        const long = bar[side] * (sign < 0 ? middle - 2 : height - middle - 2);
        if (long >= 1) context.fillRect(x, sign < 0 ? middle - 1 - long : middle + 2, BAR_PX - 1.5, long);
      });
    }
  }
}

/** @param {number} from @param {number} to */
function approach(from, to) {
  return from + (to - from) * (to > from ? RISE : FALL);
}

/** The style sheet's, which are asked for rarely: asking costs as much as drawing. */
function colours() {
  const style = getComputedStyle(document.body);
  const [accent, edge, line] = ["--accent", "--edge", "--line"].map((name) => style.getPropertyValue(name));
  return { accent, edge, line };
}

/** @param {CanvasRenderingContext2D} context @param {number} at @param {number} radius @param {string | CanvasGradient} fill */
function disc(context, at, radius, fill) {
  context.beginPath();
  context.arc(at, at, radius, 0, 2 * Math.PI);
  context.fillStyle = fill;
  context.fill();
}
