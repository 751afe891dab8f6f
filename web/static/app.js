// The page: one call at a time, and what it looks like.

import { useKey } from "./api.js";
import { Call } from "./call.js";
import { Captions } from "./captions.js";
import { Conversation } from "./conversation.js";
import { explain, needsKey } from "./errors.js";
import { drawStages, duration } from "./latency.js";
import { Levels } from "./level.js";

/** @typedef {import("./rtvi.js").Message} Message */
/** @typedef {"idle" | "connecting" | "connected"} Phase */

/** @template {HTMLElement} T @param {string} id @param {new () => T} type @returns {T} */
function get(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page lacks #${id}`);
  return found;
}

const page = {
  status: get("status", HTMLParagraphElement),
  orb: get("orb", HTMLDivElement),
  call: get("call", HTMLButtonElement),
  mute: get("mute", HTMLButtonElement),
  alert: get("alert", HTMLDivElement),
  keyForm: get("key-form", HTMLFormElement),
  key: get("key", HTMLInputElement),
  latency: get("latency", HTMLDetailsElement),
  latencyTotal: get("latency-total", HTMLElement),
  latencyStages: get("latency-stages", HTMLOListElement),
  hint: get("hint", HTMLParagraphElement),
  composer: get("composer", HTMLFormElement),
  text: get("text", HTMLInputElement),
  send: get("send", HTMLButtonElement),
  voice: get("voice", HTMLAudioElement),
};

const CALL_BUTTON = { idle: "Start talking", connecting: "Cancel", connected: "Hang up" };
const FLOOR = { nobody: "Listening", caller: "Listening to you", thinking: "Thinking", agent: "Speaking" };

const captions = new Captions(get("captions", HTMLOListElement));
let conversation = new Conversation();
/** @type {Phase} */ let phase = "idle";
/** @type {Call | null} */ let call = null;
/** @type {Levels | null} */ let levels = null;
let muted = false;
let steady = true;

/** Draw everything that follows from the state above, except captions. */
function draw() {
  document.body.dataset.phase = phase;
  document.body.dataset.floor = conversation.floor;
  page.call.textContent = CALL_BUTTON[phase];
  page.call.classList.toggle("stop", phase !== "idle");
  page.mute.hidden = phase !== "connected";
  page.mute.textContent = muted ? "Unmute" : "Mute";
  page.mute.setAttribute("aria-pressed", String(muted));
  page.text.disabled = page.send.disabled = phase !== "connected";
  const words = statusWords();
  if (page.status.textContent !== words) page.status.textContent = words;
  // In a call a screen reader would talk into it.
  page.status.ariaLive = phase === "connected" ? "off" : "polite";
}

function statusWords() {
  if (phase === "idle") return "Ready when you are";
  if (phase === "connecting") return "Connecting";
  if (!steady) return "The connection is unsteady";
  return muted && conversation.floor === "nobody" ? "You are muted" : FLOOR[conversation.floor];
}

/** @param {string} text */
function complain(text) {
  page.alert.textContent = text;
  page.alert.hidden = !text;
}

function startCall() {
  const agent = new URLSearchParams(location.search).get("agent");
  conversation = new Conversation();
  captions.clear();
  complain("");
  page.keyForm.hidden = page.latency.hidden = true;
  phase = "connecting";
  muted = false;
  steady = true;
  levels = new Levels((side, level) => page.orb.style.setProperty(`--${side}`, level.toFixed(3)));
  call = new Call({ onReady, onMicrophone, onVoice, onMessage, onSteady, onEnd }, agent ? { agent } : {});
  draw();
  void call.connect();
}

function onReady() {
  phase = "connected";
  page.hint.hidden = true;
  draw();
}

/** @param {MediaStream} stream */
function onMicrophone(stream) {
  levels?.watch("caller", stream);
}

/** @param {MediaStream} stream */
function onVoice(stream) {
  page.voice.srcObject = stream;
  levels?.watch("agent", stream);
  page.voice.play().catch(() => {
    if (page.voice.srcObject !== stream) return;
    complain("Your browser holds the sound back. Click anywhere to hear the agent.");
    addEventListener("pointerdown", () => void page.voice.play().then(() => complain("")), { once: true });
  });
}

/** @param {Message} message */
function onMessage(message) {
  captions.show(conversation.apply(message));
  if (message.type === "server-message" && message.data.t === "turn") showLatency(message.data);
  draw();
}

/** @param {any} turn */
function showLatency(turn) {
  if (typeof turn.first_audio_ms !== "number") return;
  page.latency.hidden = false;
  page.latencyTotal.textContent = duration(turn.first_audio_ms);
  drawStages(page.latencyStages, turn);
}

/** @param {boolean} passing */
function onSteady(passing) {
  steady = passing;
  draw();
}

/** @param {unknown} error */
function onEnd(error) {
  captions.show(conversation.close());
  phase = "idle";
  call = null;
  levels?.close();
  levels = null;
  page.voice.srcObject = null;
  if (error !== null) complain(explain(error));
  if (needsKey(error)) askForKey();
  draw();
}

function askForKey() {
  page.keyForm.hidden = false;
  page.key.focus();
}

function toggleMute() {
  if (phase !== "connected") return;
  muted = !muted;
  call?.mute(muted);
  draw();
}

page.call.addEventListener("click", () => (call ? call.hangUp() : startCall()));
page.mute.addEventListener("click", toggleMute);
page.composer.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = page.text.value.trim();
  if (!text || phase !== "connected") return;
  call?.sendText(text);
  page.text.value = "";
});
page.keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(page.key.value.trim());
  page.key.value = "";
  if (!call) startCall();
});
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "m" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) toggleMute();
});
// Also fires when the page is put aside for the back button: a call nobody sees is a ghost all the same.
addEventListener("pagehide", () => call?.hangUp());
draw();
