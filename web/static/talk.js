// The talk view: one call at a time, and what it looks like.

import { AgentChoice } from "./agent_choice.js";
import { Call } from "./call.js";
import { CALL_BUTTON, clockTime, stateWords } from "./call_words.js";
import { Captions } from "./captions.js";
import { Conversation } from "./conversation.js";
import { get } from "./dom.js";
import { busyWords, explain, needsKey } from "./errors.js";
import { Latency } from "./latency.js";
import { Levels } from "./levels.js";
import { Network } from "./network.js";
import { Options, useSpeaker } from "./options.js";
import { Orb } from "./orb.js";
import { offerPushToTalk } from "./push_to_talk.js";
import { choose } from "./settings.js";

/** @typedef {import("./rtvi.js").Message} Message */
/** @typedef {import("./call_words.js").Phase} Phase */

/** What was said before the button was let go is on its way through the browser for as long as this. */
const TRAILING_MS = 150;
const HELD_BACK = "Your browser holds the sound back. Click anywhere to hear the agent.";

const page = {
  agent: get("agent", HTMLSelectElement),
  status: get("status", HTMLElement),
  timer: get("timer", HTMLElement),
  call: get("call", HTMLButtonElement),
  mute: get("mute", HTMLButtonElement),
  press: get("press", HTMLButtonElement),
  alert: get("alert", HTMLDivElement),
  hint: get("hint", HTMLParagraphElement),
  composer: get("composer", HTMLFormElement),
  text: get("text", HTMLInputElement),
  send: get("send", HTMLButtonElement),
  voice: get("voice", HTMLAudioElement),
};

export class TalkView {
  /** @type {Phase} */ #phase = "idle";
  /** @type {Call | null} */ #call = null;
  /** @type {Levels | null} */ #levels = null;
  #conversation = new Conversation();
  #muted = false;
  #held = false;
  #steady = true;
  #beganMs = 0;
  /** When a server without room is asked again. */ #againMs = 0;
  #clock = 0;
  #trailing = 0;
  #agents = new AgentChoice(page.agent);
  #captions = new Captions(get("captions", HTMLOListElement));
  #orb = new Orb(get("orb", HTMLCanvasElement), get("strip", HTMLCanvasElement));
  #latency = new Latency(get("turns", HTMLOListElement), {
    median: get("latency-median", HTMLElement),
    p95: get("latency-p95", HTMLElement),
    count: get("latency-count", HTMLElement),
    hint: get("latency-hint", HTMLElement),
  });
  #network = new Network(
    get("network-hint", HTMLElement), get("network-facts", HTMLDListElement), get("network-plots", HTMLDivElement));
  #options = new Options({
    microphone: (id) => void this.#useMicrophone(id),
    speaker: (id) => void this.#useSpeaker(id),
    pushToTalk: (wanted) => this.#setPushToTalk(wanted),
  });
  #letGo = offerPushToTalk(page.press, {
    canPress: () => this.#phase === "connected" && this.#options.pushToTalk,
    press: () => this.#holdToTalk(true),
    release: () => this.#holdToTalk(false),
  });

  constructor() {
    page.call.addEventListener("click", () => (this.#call ? this.#call.hangUp() : this.#start()));
    page.mute.addEventListener("click", () => this.#toggleMute());
    page.composer.addEventListener("submit", (event) => this.#sendText(event));
    addEventListener("keydown", (event) => this.#pressed(event));
    // Also fires when the page is put aside for the back button: a call nobody sees is a ghost all the same.
    addEventListener("pagehide", () => this.#call?.hangUp());
    this.#draw();
  }

  /** The view has come into sight. */
  show() {
    return this.#agents.refill();
  }

  /** Go to this view, to speak with this agent in the next call. @param {string} id */
  speakWith(id) {
    choose("agent", id);
    location.hash = "talk";
  }

  // The call

  #start() {
    this.#conversation = new Conversation();
    this.#captions.clear();
    this.#latency.clear();
    this.#complain("");
    this.#steady = true;
    this.#muted = false;
    this.#beganMs = 0;
    this.#levels = new Levels();
    this.#orb.follow(this.#levels);
    const listener = {
      onPhase: this.#follow,
      onMicrophone: (/** @type {MediaStream} */ stream) => this.#levels?.watch("caller", stream),
      onVoice: this.#play,
      onMessage: this.#receive,
      onSteady: (/** @type {boolean} */ steady) => this.#draw({ steady }),
      onNote: (/** @type {string} */ note) => this.#captions.show([this.#conversation.note(note)]),
      onEnd: this.#ended,
    };
    this.#call = new Call(listener, {
      agent: this.#agents.id,
      way: this.#options.way,
      deviceId: this.#options.microphoneId,
      muted: this.#options.pushToTalk,
    });
    this.#network.follow(() => this.#call?.stats() ?? Promise.resolve(null));
    this.#clock = setInterval(() => this.#draw(), 250);
    void this.#call.start();
  }

  /** @type {import("./call.js").Listener["onPhase"]} */
  #follow = (phase, detail) => {
    this.#phase = phase;
    if (phase === "connected") {
      this.#beganMs ||= performance.now();
      this.#steady = true;
      this.#complain("");
      page.hint.hidden = true;
      this.#options.refill();
      // Space would press the button that began the call, which hangs up now.
      if (this.#options.pushToTalk && document.activeElement === page.call) this.#draw(), page.press.focus();
    }
    if (phase === "waiting" && detail) {
      this.#againMs = performance.now() + 1000 * detail.seconds;
      this.#complain(busyWords(detail.busy.status));
    }
    if (phase === "reconnecting") {
      this.#letGo();
      this.#captions.show(this.#conversation.close());
    }
    this.#draw();
  };

  /** @param {MediaStream} stream */
  #play = (stream) => {
    page.voice.srcObject = stream;
    this.#levels?.watch("agent", stream);
    void this.#useSpeaker(this.#options.speakerId);
    page.voice.play().catch(() => {
      if (page.voice.srcObject !== stream) return;
      this.#complain(HELD_BACK);
      addEventListener("pointerdown", () => void page.voice.play().then(() => this.#complain("")), { once: true });
    });
  };

  /** @param {Message} message */
  #receive = (message) => {
    this.#captions.show(this.#conversation.apply(message));
    if (message.type === "server-message" && message.data.t === "turn") {
      this.#latency.add(/** @type {any} */ (message.data), this.#network.earMs);
    }
    this.#draw();
  };

  /** @param {unknown} error */
  #ended = (error) => {
    this.#letGo();
    this.#captions.show(this.#conversation.close());
    this.#phase = "idle";
    this.#call = null;
    clearInterval(this.#clock);
    this.#network.stop();
    this.#orb.follow(null);
    this.#levels?.close();
    this.#levels = null;
    page.voice.srcObject = null;
    this.#complain(error === null ? "" : explain(error));
    this.#draw();
    if (needsKey(error)) void this.#askForKey(error);
  };

  // What the caller does

  #toggleMute() {
    if (this.#phase !== "connected" || this.#options.pushToTalk) return;
    this.#muted = !this.#muted;
    this.#call?.mute(this.#muted);
    this.#draw();
  }

  /** @param {boolean} held */
  #holdToTalk(held) {
    this.#held = held;
    clearTimeout(this.#trailing);
    if (held) {
      this.#call?.mute(false);
      this.#call?.startSpeech();
    } else {
      this.#call?.endSpeech();
      this.#trailing = setTimeout(() => this.#call?.mute(!this.#held), TRAILING_MS);
    }
    this.#draw();
  }

  /** @param {string} deviceId */
  async #useMicrophone(deviceId) {
    try {
      await this.#call?.useMicrophone(deviceId);
      this.#complain("");
    } catch (error) {
      this.#complain(explain(error));
    }
  }

  /** @param {string} deviceId */
  async #useSpeaker(deviceId) {
    await useSpeaker(page.voice, deviceId).catch(() => this.#complain("That speaker cannot be used. Choose another one."));
  }

  /** @param {boolean} wanted */
  #setPushToTalk(wanted) {
    this.#letGo();
    this.#muted = false;
    this.#call?.mute(wanted);
    this.#draw();
  }

  /** @param {SubmitEvent} event */
  #sendText(event) {
    event.preventDefault();
    const text = page.text.value.trim();
    if (!text || this.#phase !== "connected") return;
    this.#call?.sendText(text);
    page.text.value = "";
  }

  /** @param {KeyboardEvent} event */
  #pressed(event) {
    const isTyping = event.target instanceof Element && event.target.closest("input:not([type=checkbox]), textarea, select");
    if (event.key === "m" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) this.#toggleMute();
  }

  /** @param {unknown} error */
  async #askForKey(error) {
    const { askForKey } = await import("./key.js");
    if (!(await askForKey(explain(error))) || this.#call) return;
    void this.#agents.refill();
    this.#start();
  }

  // What it looks like

  /** @param {string} text */
  #complain(text) {
    page.alert.textContent = text;
    page.alert.hidden = !text;
  }

  /** Draw everything that follows from the state above, except captions. @param {{steady?: boolean}} [change] */
  #draw({ steady = this.#steady } = {}) {
    this.#steady = steady;
    const [phase, connected, presses] = [this.#phase, this.#phase === "connected", this.#options.pushToTalk];
    document.body.dataset.phase = phase;
    document.body.dataset.floor = this.#conversation.floor;
    setText(page.call, CALL_BUTTON[phase]);
    page.call.classList.toggle("stop", phase !== "idle");
    page.call.classList.toggle("primary", phase === "idle");
    page.mute.hidden = !connected || presses;
    setText(page.mute, this.#muted ? "Unmute" : "Mute");
    page.mute.setAttribute("aria-pressed", String(this.#muted));
    page.press.hidden = !connected || !presses;
    page.press.setAttribute("aria-pressed", String(this.#held));
    page.text.disabled = page.send.disabled = !connected;
    page.agent.disabled = phase !== "idle";
    this.#options.lock(phase !== "idle");
    page.timer.hidden = !this.#beganMs || phase === "idle";
    setText(page.timer, clockTime(performance.now() - this.#beganMs));
    setText(page.status, stateWords({
      phase, floor: this.#conversation.floor, steady: this.#steady, muted: this.#muted, pushToTalk: presses, held: this.#held,
      waitS: Math.max(0, Math.ceil((this.#againMs - performance.now()) / 1000)),
    }));
    get("call-elsewhere", HTMLElement).hidden = phase === "idle";
    // In a call a screen reader would talk into it.
    page.status.ariaLive = connected ? "off" : "polite";
  }
}

/** @param {HTMLElement} where @param {string} text */
function setText(where, text) {
  if (where.textContent !== text) where.textContent = text;
}
