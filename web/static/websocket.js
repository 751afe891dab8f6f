// One call over the raw-PCM WebSocket, for networks that let no WebRTC pass. It is used once and then thrown away.

import { ApiError, canTalk, socketUrl } from "./api.js";
import { Capture } from "./capture.js";
import { CallError, LostError } from "./errors.js";
import { Playback } from "./playback.js";

const NO_ANSWER = "The server did not answer in time. Try again in a moment.";
const NO_SOCKET = "The server is there, but something between you and it, perhaps a proxy, lets no WebSocket pass.";
const FAREWELL = "The server ended the call.";
const CONNECT_LIMIT_MS = 20_000;
/** What was said before the talk button was released, and is still on its way from the microphone. */
const IN_FLIGHT_MS = 150;
/** What the server says over HTTP where all lines are busy; a closed WebSocket cannot. */
const RETRY_AFTER_S = 5;

/** The codes that the server closes with; see docs/protocol.md. */
const CLOSED = { NORMAL: 1000, GOING_AWAY: 1001, NO_CODE: 1005, BROKEN: 1006, FAILED: 1011, FULL: 1013 };

/** @typedef {import("./rtvi.js").Message} Message */
/** @typedef {import("./webrtc.js").Listener} Listener */

export class WebSocketCall {
  #playback = new Playback();
  #capture = new Capture();
  #timers = { limit: 0, release: 0 };
  /** @type {import("./line.js").Counts} */ #stats = { sentBytes: 0, receivedBytes: 0, droppedMs: 0, stalls: 0, longestStallMs: 0, roundTripMs: null };
  /** @type {Worker | null} */ #line = null;
  /** @type {"connecting" | "ready" | "ended"} */ #phase = "connecting";

  /** @param {Listener} listener @param {{agent: string | null}} who to speak with; null is the default agent */
  constructor(listener, { agent }) {
    this.listener = listener;
    this.agent = agent;
  }

  /**
   * Connect. Everything that goes wrong, now or later, comes as `onEnd`. Who opened the microphone closes it.
   * @param {MediaStream} microphone
   */
  async connect(microphone) {
    this.#timers.limit = setTimeout(() => this.#end(new CallError(NO_ANSWER)), CONNECT_LIMIT_MS);
    try {
      const [sound, voice] = [new MessageChannel(), new MessageChannel()];
      await Promise.all([
        this.#capture.open(microphone.getAudioTracks()[0], sound.port1), this.#playback.open(voice.port1),
      ]);
      if (this.#isOpen) this.#open(sound.port2, voice.port2);
    } catch (error) {
      // Modules of the audio thread come from the server, too.
      this.#end(error instanceof DOMException && error.name === "AbortError" ? await whyNot(error) : error);
    }
  }

  /** End the call; at any time, any number of times. */
  close() {
    this.#end(null);
  }

  /** Say it in writing. @param {string} text */
  sendText(text) {
    this.#tell("transcript", { text });
  }

  /** The talk button is pressed: the floor is the caller's, whatever the pauses, until it is released. */
  startSpeech() {
    clearTimeout(this.#timers.release);
    this.#tell("speech_start");
  }

  /** The talk button is released. Pressed again at once, it never was. */
  endSpeech() {
    clearTimeout(this.#timers.release);
    this.#timers.release = setTimeout(() => this.#tell("speech_end"), IN_FLIGHT_MS);
  }

  /** Listen to another device from now on. @param {MediaStreamTrack} track */
  setMicrophone(track) {
    if (this.#isOpen) this.#capture.use(track);
  }

  /**
   * Return how the connection is doing, as of a second ago. `stalls`: pauses in the agent's sound that the server or the
   * network made; `underruns`: how often they were heard.
   * @returns {Promise<import("./stats.js").Summary>}
   */
  async stats() {
    return { way: "websocket", ...this.#stats, ...this.#playback.stats };
  }

  /** @param {MessagePort} microphone @param {MessagePort} voice */
  #open(microphone, voice) {
    const line = new Worker(new URL("./line-worker.js", import.meta.url), { type: "module" });
    this.#line = line;
    line.onmessage = (event) => this.#follow(event.data);
    line.onerror = async ({ message }) => this.#end(await whyNot(new Error(message ?? "a file of the page is missing")));
    const url = String(socketUrl(`ws/${crypto.randomUUID()}`));
    const open = { url, configuration: configuration(this.agent), microphone, voice };
    line.postMessage({ open }, [microphone, voice]);
  }

  /** @param {import("./line.js").Fact} what */
  #follow(what) {
    if (!this.#isOpen) return;
    switch (what.fact) {
      case "message": return this.#hear(what.message);
      case "steady": return this.listener.onSteady(what.steady);
      case "stats": this.#stats = what.stats; return;
      case "lost": return this.#end(new LostError());
      case "closed": return void this.#closed(what);
    }
  }

  /** @param {Message} message */
  #hear(message) {
    if (message.type === "bot-ready" && this.#phase === "connecting") {
      this.#phase = "ready";
      clearTimeout(this.#timers.limit);
      this.listener.onVoice(this.#playback.stream);
      if (this.#isOpen) this.listener.onReady();
    }
    if (this.#isOpen) this.listener.onMessage(message);
  }

  /** A listener may have ended it meanwhile. */
  get #isOpen() {
    return this.#phase !== "ended";
  }

  /** @param {string} type @param {Record<string, unknown>} [fields] */
  #tell(type, fields) {
    if (this.#phase === "ready") this.#line?.postMessage({ say: { type, ...fields } });
  }

  /** @param {{code: number, opened: boolean, complaint: string}} how */
  async #closed({ code, opened, complaint }) {
    if (!opened) return this.#end(await whyNot(new CallError(NO_SOCKET)));
    this.#end(this.#phase === "ready" ? afterwards(code, complaint) : refusal(code, complaint));
  }

  /** @param {unknown} error */
  #end(error) {
    if (!this.#isOpen) return;
    this.#phase = "ended";
    Object.values(this.#timers).forEach((timer) => clearTimeout(timer));
    this.#line?.postMessage("leave");
    this.#capture.close();
    this.#playback.close();
    this.listener.onEnd(error);
  }
}

/** @param {string | null} agent an id that the server must know */
function configuration(agent) {
  const named = { agentId: agent ?? "default", agentName: agent ?? "default", userId: "page", rtvi: true };
  return agent === null ? named : { ...named, agent };
}

/**
 * Say why something could not be had from the server: browsers keep that to themselves, but tell it of an ordinary request.
 * @param {unknown} otherwise what went wrong where the server does answer those
 */
async function whyNot(otherwise) {
  try {
    await canTalk();
    return otherwise;
  } catch (error) {
    return error;
  }
}

/** Say why there is no call. @param {number} code @param {string} complaint */
function refusal(code, complaint) {
  if (code === CLOSED.FULL) return new ApiError(503, complaint, RETRY_AFTER_S);
  if (code === CLOSED.BROKEN) return new LostError();
  if (code === CLOSED.GOING_AWAY) return new LostError();
  if (!complaint) return new CallError(FAREWELL);
  return new ApiError(code === CLOSED.FAILED ? 500 : 400, complaint);
}

/** Say why the call is over. @param {number} code @param {string} complaint */
function afterwards(code, complaint) {
  // A server that goes away may be back soon, or another one in its place.
  if (code === CLOSED.BROKEN || code === CLOSED.GOING_AWAY) return new LostError();
  const farewell = code === CLOSED.NORMAL || code === CLOSED.NO_CODE || !complaint;
  return new CallError(farewell ? FAREWELL : `The server ended the call: ${complaint}`);
}
