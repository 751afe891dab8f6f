// A voice sample: recorded here while a text is read, or a file. What is of no use is refused before it is sent.

import { element } from "./dom.js";
import { explain } from "./errors.js";
import { Recorder } from "./recorder.js";
import { judge, levelDbfs, Loudness } from "./voice_sample.js";

const GOOD_FROM_S = 6;
const STOPS_AT_S = 15;
/** What the meter's left end stands for. */
const FLOOR_DBFS = -60;

const TEXT = "This morning I walked along the river before the town was awake. A heron stood in the shallow water, quite still, "
  + "and two boats knocked gently against the pier. Who would not stop and listen for a moment?";
const VERDICTS = {
  good: "Good level.",
  quiet: "Too quiet: speak up, or come closer to the microphone.",
  overdriven: "Overdriven: move back a little, or turn the microphone down.",
};
const NOTHING = "Record a sample, or choose a sound file.";
const STILL_RECORDING = "Stop the recording first, and listen to it.";
const UNPLAYABLE = "Your browser cannot play this file. The server will look at it.";

export class SampleInput {
  #parts = parts();
  /** @type {Recorder | null} */ #recorder = null;
  /** @type {File | null} */ #file = null;
  #refused = false;
  #playable = false;
  #url = "";

  constructor() {
    const { record, stop, discard, again, choose, ways, recording, there, words, fault } = this.#parts;
    this.root = element("div", { class: "fields sample" }, ways, recording, there, words, fault);
    record.addEventListener("click", () => void this.#record());
    again.addEventListener("click", () => void this.#record());
    stop.addEventListener("click", () => this.#stop());
    discard.addEventListener("click", () => this.#discard());
    choose.addEventListener("change", () => {
      if (choose.files?.length) void this.#take(choose.files[0]);
    });
    this.root.addEventListener("dragover", (event) => event.preventDefault());
    this.root.addEventListener("drop", (event) => {
      event.preventDefault();
      const dropped = event.dataTransfer?.files[0];
      if (dropped && this.#recorder === null) void this.#take(dropped);
    });
    this.clear();
  }

  /** @returns {File | null} what can be sent */
  file() {
    return this.#refused ? null : this.#file;
  }

  /** Whether there is something to send; if not, say so. */
  check() {
    if (this.file() !== null) return true;
    if (!this.#parts.fault.textContent) this.#parts.fault.textContent = this.#recorder === null ? NOTHING : STILL_RECORDING;
    this.#focus();
    return false;
  }

  /** Say what the server has against it. @param {string} words */
  blame(words) {
    this.#refused = true;
    this.#parts.words.textContent = "";
    this.#parts.fault.textContent = words;
    this.#focus();
  }

  /** Take it away: it is used, or not wanted. */
  clear() {
    this.#file = null;
    this.#refused = false;
    this.#playable = false;
    this.#parts.choose.value = "";
    this.#parts.words.textContent = "";
    this.#parts.fault.textContent = "";
    this.#unload();
    this.#show("ways");
  }

  /** The page is out of sight: no microphone stays open, and no sound is held in an address. What was recorded stays. */
  leave() {
    if (this.#recorder !== null) {
      this.#recorder.stop();
      this.#recorder = null;
      this.clear();
    }
    this.#unload();
  }

  /** The page is back. */
  show() {
    if (this.#url === "") this.#load();
  }

  async #record() {
    if (this.#recorder !== null) return;
    this.clear();
    const loudness = { meter: /** @type {Loudness | null} */ (null), samples: 0 };
    const recorder = new Recorder((samples, rateHz) => {
      loudness.meter ??= new Loudness(rateHz);
      loudness.samples += samples.length;
      this.#hear(loudness.meter.add(samples), levelDbfs(samples), loudness.samples / rateHz);
    }, (error) => this.#fail(error));
    this.#recorder = recorder;
    this.#show("recording");
    this.#tell("good", "Waiting for the microphone.", FLOOR_DBFS, 0);
    this.#parts.stop.focus();
    try {
      await recorder.start();
    } catch (error) {
      if (this.#recorder === recorder) this.#fail(error);
    }
  }

  /** @param {keyof VERDICTS} verdict @param {number} dbfs @param {number} durationS */
  #hear(verdict, dbfs, durationS) {
    const begins = durationS < 1.5 && verdict === "quiet";
    this.#tell(verdict, begins ? "Speak now." : VERDICTS[verdict], dbfs, durationS);
    if (durationS >= STOPS_AT_S) this.#stop();
  }

  /** @param {string} verdict @param {string} words @param {number} dbfs @param {number} durationS */
  #tell(verdict, words, dbfs, durationS) {
    const { level, progress, time } = this.#parts;
    level.style.width = `${100 * Math.min(1, Math.max(0, 1 - dbfs / FLOOR_DBFS))}%`;
    level.dataset.verdict = verdict;
    progress.value = durationS;
    const whole = `${Math.floor(durationS)} s of ${STOPS_AT_S} s`;
    time.textContent = durationS < GOOD_FROM_S ? `${whole}; at least ${GOOD_FROM_S} s make a good voice` : `${whole}; stop when you like`;
    if (this.#parts.words.textContent !== words) this.#parts.words.textContent = words; // said once, and not fifty times a second
  }

  #stop() {
    const recorded = this.#recorder?.stop() ?? null;
    this.#recorder = null;
    if (recorded === null) this.clear();
    else void this.#take(new File([recorded], "recording.wav", { type: "audio/wav" }));
    this.#focus();
  }

  /** @param {unknown} error */
  #fail(error) {
    this.#recorder?.stop();
    this.#recorder = null;
    this.clear();
    this.#parts.fault.textContent = explain(error);
    this.#focus();
  }

  /** @param {File} file */
  async #take(file) {
    this.clear();
    this.#file = file;
    this.#refused = true; // until it is looked at
    this.#parts.name.textContent = file.name;
    this.#show("there");
    this.#parts.words.textContent = "Looking at it.";
    const { fault, durationS } = await judge(file);
    if (this.#file !== file) return;
    this.#refused = fault !== "";
    this.#parts.fault.textContent = fault;
    this.#parts.words.textContent = fault ? "" : described(durationS);
    this.#playable = durationS !== null;
    this.#load();
  }

  #discard() {
    this.clear();
    this.#focus();
  }

  /** Let it be listened to, if the browser can play it and the page is in sight. */
  #load() {
    this.#unload();
    if (this.#file === null || !this.#playable || this.root.offsetParent === null) return;
    this.#url = URL.createObjectURL(this.#file);
    this.#parts.player.src = this.#url;
    this.#parts.player.hidden = false;
  }

  #unload() {
    this.#parts.player.removeAttribute("src");
    this.#parts.player.load();
    this.#parts.player.hidden = true;
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = "";
  }

  /** @param {"ways" | "recording" | "there"} shown */
  #show(shown) {
    const { text, ways, recording, there } = this.#parts;
    for (const [name, part] of Object.entries({ ways, recording, there })) part.hidden = name !== shown;
    if (shown === "ways") ways.prepend(text);
    else if (shown === "recording") recording.prepend(text);
  }

  #focus() {
    const { ways, recording, record, stop, again } = this.#parts;
    if (!ways.hidden) record.focus();
    else (recording.hidden ? again : stop).focus();
  }
}

/** @param {number | null} durationS */
function described(durationS) {
  if (durationS === null) return UNPLAYABLE;
  const length = `${durationS.toFixed(1)} s.`;
  return durationS < GOOD_FROM_S ? `${length} It will do, but ${GOOD_FROM_S} to ${STOPS_AT_S} s make a better voice.` : `${length} Listen to it before you send it.`;
}

function parts() {
  const text = element("figure", { class: "reading" },
    element("figcaption", { class: "soft" }, "Read this aloud, or say something of your own"), element("blockquote", {}, TEXT));
  const record = element("button", { type: "button", class: "record", "aria-describedby": "sample-fault" }, "Record");
  const choose = element("input", { type: "file", id: "sample-file", accept: "audio/*,video/webm,video/ogg" });
  const level = element("i");
  const progress = element("progress", { max: String(STOPS_AT_S), value: "0", "aria-label": "Recorded" });
  const time = element("p", { class: "soft" });
  const stop = element("button", { type: "button", class: "stop" }, "Stop");
  const player = element("audio", { controls: true, preload: "metadata", "aria-label": "Your sample" });
  const name = element("p", { class: "name" });
  const again = element("button", { type: "button", "aria-describedby": "sample-fault" }, "Record again");
  const discard = element("button", { type: "button" }, "Discard");
  const ways = element("div", { class: "fields" }, element("div", { class: "row" }, record),
    element("div", { class: "field drop" }, element("label", { for: choose.id }, element("span", {}, "Or choose a sound file, or drop one here")), choose));
  const recording = element("div", { class: "fields" },
    element("div", { class: "level", "aria-hidden": "true" }, level), progress, time, element("div", { class: "row" }, stop));
  const there = element("div", { class: "fields" }, name, player, element("div", { class: "row" }, again, discard));
  const words = element("p", { role: "status", class: "verdict" });
  const fault = element("div", { role: "alert", id: "sample-fault" });
  return { words, fault, text, record, choose, level, progress, time, stop, player, name, again, discard, ways, recording, there };
}
