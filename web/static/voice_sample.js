// What a voice sample must be: the server's own limits and words (docs/voices.md), so that a bad one is not sent at all.
// What takes a speech detector is left to the server, and so is what the browser cannot decode.

import { sentence } from "./catalogue.js";

const RATE_HZ = 24_000;
const WINDOW_SAMPLES = 768;
const WINDOW_S = WINDOW_SAMPLES / RATE_HZ;

export const LEAST_S = 3;
export const MOST_S = 30;
const MOST_BYTES = 25 * 1024 * 1024;
/** A file's header may be that wrong about its length. */
const HEADER_SLACK_S = 1;
/** Browsers that save data read no header before somebody presses play. */
const HEADER_LIMIT_MS = 2_000;

const LOUD_LEAST_S = 1.5;
const LOUD_FROM_DBFS = -45;
const VARIES_FROM_DB = 6;
const FULL_SCALE_FROM = 29_000 / 32_768;
const CLIPPED_FROM = 0.03;

const TOO_LONG = `The file cannot be taken: it is longer than ${MOST_S} s: cut it.`;
const NO_SOUND = "There is no sound in it: choose a WAV, FLAC, MP3, M4A, Ogg or WebM file.";

/**
 * What can be said of a sample before it is sent.
 * @typedef {object} Verdict
 * @property {string} fault why it is of no use; empty if nothing speaks against it
 * @property {number | null} durationS null if the browser cannot tell
 */

/** Judge a sound file. @param {Blob} file @returns {Promise<Verdict>} */
export async function judge(file) {
  if (file.size === 0) return { fault: "The file is empty: choose a sound file.", durationS: null };
  if (file.size > MOST_BYTES) return { fault: "The file is too long: at most 25 MiB are taken.", durationS: null };
  const announcedS = await announced(file);
  if (announcedS !== null && announcedS > MOST_S + HEADER_SLACK_S) return { fault: TOO_LONG, durationS: announcedS };
  const samples = await decode(file);
  if (samples === null) return { fault: isOtherKind(file.type) ? NO_SOUND : "", durationS: null };
  const durationS = samples.length / RATE_HZ;
  return { fault: durationS > MOST_S ? TOO_LONG : fault(samples), durationS };
}

/** Return how long a file says that it is, so that an hour of sound is not decoded. @param {Blob} file @returns {Promise<number | null>} */
function announced(file) {
  const url = URL.createObjectURL(file);
  const player = new Audio();
  player.preload = "metadata";
  return new Promise((resolve) => {
    const answer = (/** @type {number | null} */ durationS) => {
      clearTimeout(limit);
      player.removeAttribute("src");
      URL.revokeObjectURL(url);
      resolve(durationS);
    };
    const limit = setTimeout(() => answer(null), HEADER_LIMIT_MS);
    player.addEventListener("loadedmetadata", () => answer(Number.isFinite(player.duration) ? player.duration : null), { once: true });
    player.addEventListener("error", () => answer(null), { once: true });
    player.src = url;
  });
}

/** Decode a file to what the server looks at: mono, 24 kHz. @param {Blob} file @returns {Promise<Float32Array | null>} null if it cannot be */
async function decode(file) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ);
  const sound = await context.decodeAudioData(await file.arrayBuffer()).catch(() => null);
  if (sound === null) return null;
  const mono = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel += 1) {
    sound.getChannelData(channel).forEach((sample, at) => (mono[at] += sample / sound.numberOfChannels));
  }
  return mono;
}

/** Whether a file's type says that it is no sound at all; a video may hold some. @param {string} type */
function isOtherKind(type) {
  return /^(text|image|font|model)\/|^application\/(pdf|zip|json|xml|javascript|msword|vnd\.)/.test(type);
}

/** @param {Float32Array} samples mono, 24 kHz @returns {string} */
function fault(samples) {
  const why = faultOfLevels(samples);
  return why && sentence(`the voice sample ${why}`);
}

/** @param {Float32Array} samples */
function faultOfLevels(samples) {
  const durationS = samples.length / RATE_HZ;
  if (durationS < LEAST_S) return `has ${durationS.toFixed(2)} s: send at least ${LEAST_S} s of speech`;
  const levels = levelsDbfs(samples);
  const loudS = levels.filter((level) => level >= LOUD_FROM_DBFS).length * WINDOW_S;
  if (loudS === 0) return "is silent: record it again, closer to the microphone";
  if (loudS < LOUD_LEAST_S) return `is loud enough for ${loudS.toFixed(1)} s only: send at least ${LEAST_S} s of clear speech`;
  if (samples.filter((sample) => Math.abs(sample) >= FULL_SCALE_FROM).length > CLIPPED_FROM * samples.length) {
    return "is overdriven: record it again with less gain";
  }
  levels.sort((a, b) => a - b);
  if (percentile(levels, 0.9) - percentile(levels, 0.1) < VARIES_FROM_DB) {
    return "is a steady sound and no speech: send a recording of somebody speaking";
  }
  return "";
}

/** @param {Float32Array} samples @returns {number[]} a window each */
function levelsDbfs(samples) {
  const windows = Math.floor(samples.length / WINDOW_SAMPLES);
  return Array.from({ length: windows }, (_, n) => levelDbfs(samples.subarray(n * WINDOW_SAMPLES, (n + 1) * WINDOW_SAMPLES)));
}

/** @param {Float32Array} samples */
export function levelDbfs(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return 10 * Math.log10(power + 1e-10);
}

/** @param {number[]} sorted @param {number} share */
function percentile(sorted, share) {
  const at = (sorted.length - 1) * share;
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}

/** How long a verdict looks back: over the pauses between words. */
const LATELY_S = 1.5;
/** The loudest window of somebody a hand's width away has -15 to -25. */
const QUIET_BELOW_DBFS = -35;
const OVERDRIVEN_FROM = 0.002;

/** What is said of the level while somebody speaks. */
export class Loudness {
  /** @type {{samples: number, dbfs: number, full: number}[]} */ #lately = [];

  /** @param {number} rateHz */
  constructor(rateHz) {
    this.rateHz = rateHz;
  }

  /** Take in what was just recorded, and return what is to be said. @param {Float32Array} samples @returns {"good" | "quiet" | "overdriven"} */
  add(samples) {
    const full = samples.filter((sample) => Math.abs(sample) >= FULL_SCALE_FROM).length;
    this.#lately.push({ samples: samples.length, dbfs: levelDbfs(samples), full });
    while (this.#total("samples") > LATELY_S * this.rateHz) this.#lately.shift();
    if (this.#total("full") > OVERDRIVEN_FROM * this.#total("samples")) return "overdriven";
    return Math.max(...this.#lately.map(({ dbfs }) => dbfs)) < QUIET_BELOW_DBFS ? "quiet" : "good";
  }

  /** @param {"samples" | "full"} what */
  #total(what) {
    return this.#lately.reduce((sum, each) => sum + each[what], 0);
  }
}
