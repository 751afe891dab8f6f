// One call as the person at the page sees it, from "Start talking" to "Hang up", over one connection after another: a
// lost one is replaced, and the conversation goes on; a server without room is asked again when it said.
//
//     connecting -> connected -> reconnecting -> connected ...
//         |  ^
//         v  |
//        waiting                                   each of them -> (ended), once

import { ApiError } from "./api.js";
import { CallError, LostError, isBusy } from "./errors.js";
import { Microphone } from "./microphone.js";
import { WebRtcCall, hangUp } from "./webrtc.js";

/** For as long as this the server keeps the conversation of a call that broke off. */
const KEPT_MS = 60_000;
const AGAIN_MS = [300, 1000, 2000, 4000];
const ALIVE_MS = 1000;
const BUSY_S = 5;

const SLEPT = "The call ended while this page was asleep. Start again when you like.";
const GAVE_UP = "The connection was lost and did not come back. Is the server running, and are you online? Start again when they are.";
const TAKEN = "The microphone was taken away. Choose another one under “Sound and connection”, then start again.";
const ANEW = "The connection was lost, and a new conversation began: the agent does not remember what was said before.";

/** @typedef {"connecting" | "connected" | "reconnecting" | "waiting"} Phase */

/**
 * @typedef {object} Listener
 * @property {(phase: Phase, detail?: {busy: ApiError, seconds: number}) => void} onPhase `detail` while waiting
 * @property {(stream: MediaStream) => void} onMicrophone the caller's sound
 * @property {(stream: MediaStream) => void} onVoice the agent's sound
 * @property {(message: import("./rtvi.js").Message) => void} onMessage
 * @property {(steady: boolean) => void} onSteady whether anything passes at present
 * @property {(note: string) => void} onNote what the caller should know of the conversation
 * @property {(error: unknown) => void} onEnd once; null if the caller hung up
 */

/**
 * @typedef {object} Wanted
 * @property {string | null} agent whom to speak with; null: the server's own
 * @property {"webrtc" | "websocket"} way
 * @property {string} deviceId the microphone; empty: the system's own
 * @property {boolean} muted whether it is muted to begin with
 */

export class Call {
  /** @type {Microphone | null} */ #microphone = null;
  /** @type {WebRtcCall | import("./websocket.js").WebSocketCall | null} */ #connection = null;
  /** A call whose conversation is to be carried on. @type {string | null} */ #lostId = null;
  /** When anything last passed, on the clock that also goes on while the machine sleeps. */ #aliveAt = 0;
  #tries = 0;
  #muted;
  #ended = false;
  #timer = 0;
  #alive = 0;

  /** @param {Listener} listener @param {Wanted} wanted */
  constructor(listener, wanted) {
    this.listener = listener;
    this.wanted = wanted;
    this.#muted = wanted.muted;
  }

  /** Begin. Everything that goes wrong, now or later, comes as `onEnd`. */
  async start() {
    this.listener.onPhase("connecting");
    try {
      const microphone = await Microphone.open(this.wanted.deviceId, () => this.#end(new CallError(TAKEN)));
      if (this.#ended) return microphone.close();
      this.#microphone = microphone;
    } catch (error) {
      return this.#end(error);
    }
    this.mute(this.#muted);
    this.listener.onMicrophone(this.#microphone.stream);
    await this.#connect();
  }

  /** End the call; at any time, any number of times. */
  hangUp() {
    this.#end(null);
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#muted = muted;
    this.#microphone?.mute(muted);
  }

  /** Say it in writing. @param {string} text */
  sendText(text) {
    this.#connection?.sendText(text);
  }

  /** The talk button is held. */
  startSpeech() {
    this.#connection?.startSpeech();
  }

  /** The talk button was released. */
  endSpeech() {
    this.#connection?.endSpeech();
  }

  /** Speak through another microphone from now on. Throws DOMException; then the old one goes on. @param {string} deviceId */
  async useMicrophone(deviceId) {
    this.wanted.deviceId = deviceId;
    if (!this.#microphone) return;
    await this.#microphone.exchange(deviceId);
    if (this.#ended) return;
    await this.#connection?.setMicrophone(this.#microphone.track);
    this.listener.onMicrophone(this.#microphone.stream);
  }

  /** Return how the connection is doing; null while there is none. */
  async stats() {
    return this.#ended ? null : ((await this.#connection?.stats()) ?? null);
  }

  async #connect() {
    clearTimeout(this.#timer);
    removeEventListener("online", this.#again);
    try {
      this.#connection = await this.#newConnection();
    } catch (error) {
      return this.#end(error);
    }
    if (this.#ended || !this.#microphone) return;
    await this.#connection.connect(this.#microphone.stream);
  }

  async #newConnection() {
    const listener = {
      onReady: () => this.#ready(),
      onVoice: this.listener.onVoice,
      onMessage: this.listener.onMessage,
      onSteady: this.listener.onSteady,
      onEnd: (/** @type {unknown} */ error) => this.#disconnected(error),
    };
    if (this.wanted.way === "webrtc") return new WebRtcCall(listener, { agent: this.wanted.agent, resumes: this.#lostId });
    const { WebSocketCall } = await import("./websocket.js");
    return new WebSocketCall(listener, { agent: this.wanted.agent });
  }

  #ready() {
    if (this.wanted.way === "websocket" && this.#aliveAt) this.listener.onNote(ANEW);
    this.#tries = 0;
    this.#lostId = null;
    this.#aliveAt = Date.now();
    clearInterval(this.#alive);
    this.#alive = setInterval(() => this.#stillAwake(), ALIVE_MS);
    this.listener.onPhase("connected");
  }

  /** A page that wakes up after an hour must not find itself in a call. */
  #stillAwake() {
    if (Date.now() - this.#aliveAt > KEPT_MS) this.#end(new CallError(SLEPT));
    else this.#aliveAt = Date.now();
  }

  /** @param {unknown} error */
  #disconnected(error) {
    if (this.#ended) return;
    clearInterval(this.#alive);
    const wasConnected = this.#aliveAt > 0;
    if (error instanceof LostError && this.#connection instanceof WebRtcCall) this.#lostId = this.#connection.id ?? this.#lostId;
    if (isBusy(error)) return this.#wait(error);
    if (wasConnected && isForgotten(error)) return this.#beginAnew();
    if (wasConnected && isAway(error)) return this.#reconnect();
    this.#end(error);
  }

  /** @param {ApiError} busy */
  #wait(busy) {
    const seconds = Math.max(1, busy.retryAfterS ?? BUSY_S);
    this.#timer = setTimeout(() => void this.#connect(), seconds * 1000);
    this.listener.onPhase("waiting", { busy, seconds });
  }

  #beginAnew() {
    this.#lostId = null;
    this.listener.onNote(ANEW);
    void this.#connect();
  }

  #reconnect() {
    if (Date.now() - this.#aliveAt > KEPT_MS) return this.#end(new CallError(this.#tries ? GAVE_UP : SLEPT));
    this.listener.onPhase("reconnecting");
    const inMs = AGAIN_MS[Math.min(this.#tries, AGAIN_MS.length - 1)];
    this.#tries += 1;
    this.#timer = setTimeout(this.#again, inMs);
    addEventListener("online", this.#again, { once: true });
  }

  #again = () => void this.#connect();

  /** @param {unknown} error */
  #end(error) {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    clearInterval(this.#alive);
    removeEventListener("online", this.#again);
    this.#microphone?.close();
    this.#connection?.close();
    if (this.#lostId) void hangUp(this.#lostId);
    this.listener.onEnd(error);
  }
}

/** Whether the server can be reached no more, for now. @param {unknown} error */
function isAway(error) {
  return error instanceof LostError || (error instanceof ApiError && (error.status === 0 || error.status === 502 || error.status === 504));
}

/** Whether the server knows the conversation no more. @param {unknown} error */
function isForgotten(error) {
  return error instanceof ApiError && error.status === 404 && error.param === "pc_id";
}
