// One call over the raw-PCM WebSocket, for networks that let no WebRTC pass. It is used once and then thrown away.

import { ApiError, canTalk, socketUrl } from "./api.js";
import { Capture } from "./capture.js";
import { CallError, LostError } from "./errors.js";
import { Playback } from "./playback.js";
import { Pulse } from "./pulse.js";
import { LABEL } from "./rtvi.js";

const NO_ANSWER = "The server did not answer in time. Try again in a moment.";
const NO_SOCKET = "The server is there, but something between you and it, perhaps a proxy, lets no WebSocket pass.";
const FAREWELL = "The server ended the call.";
const CONNECT_LIMIT_MS = 20_000;
/** A second of sound. What the network does not take by then would only be heard too late. */
const MAX_BUFFERED_BYTES = 32_000;
const PIECE_MS = 20;
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
  #capture = new Capture((piece) => this.#sendSound(piece));
  #pulse = new Pulse({
    ping: () => this.#tell("ping"),
    onSteady: (steady) => this.listener.onSteady(steady),
    onLost: () => this.#end(new LostError()),
  });
  #counts = { sentBytes: 0, receivedBytes: 0, droppedMs: 0 };
  #timers = { limit: 0, release: 0 };
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {"connecting" | "ready" | "ended"} */ #phase = "connecting";
  /** The last thing that was wrong: where the server closes, it says why before. */ #complaint = "";

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
      await Promise.all([this.#capture.open(microphone.getAudioTracks()[0]), this.#playback.open()]);
      if (this.#phase === "connecting") this.#open();
    } catch (error) {
      // The audio thread's modules come from the server, too.
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

  /** Return how the connection is doing. @returns {Promise<import("./stats.js").Summary>} */
  async stats() {
    const { bufferedMs, underruns } = this.#playback.stats;
    return { way: "websocket", ...this.#counts, bufferedMs, underruns, roundTripMs: this.#pulse.roundTripMs };
  }

  #open() {
    const socket = new WebSocket(socketUrl(`ws/${crypto.randomUUID()}`));
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.#send(JSON.stringify(configuration(this.agent)));
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = ({ code }) => void this.#closed(code, opened);
  }

  /** @param {string} text */
  #receive(text) {
    this.#counts.receivedBytes += text.length;
    this.#pulse.beat();
    const { label, type, data, error } = JSON.parse(text);
    if (label === LABEL) return this.#hear({ type, data: data ?? {} });
    switch (type) {
      case "tts_stream": return this.#playback.play(decode(data.chunk));
      case "tts_stream_end": return this.#playback.end();
      case "new_conversation_turn": return this.#playback.clear();
      case "pong": return this.#pulse.pong();
      case "error": this.#complaint = String(error);
    }
  }

  /** @param {Message} message */
  #hear(message) {
    if (message.type === "bot-ready" && this.#phase === "connecting") {
      this.#phase = "ready";
      clearTimeout(this.#timers.limit);
      this.#pulse.start();
      this.listener.onVoice(this.#playback.stream);
      if (this.#isOpen) this.listener.onReady();
    }
    if (message.type === "user-started-speaking") this.#playback.hold();
    if (this.#isOpen) this.listener.onMessage(message);
  }

  /** A listener may have ended it meanwhile. */
  get #isOpen() {
    return this.#phase !== "ended";
  }

  /** @param {ArrayBuffer} piece */
  #sendSound(piece) {
    if (this.#phase !== "ready") return;
    if ((this.#socket?.bufferedAmount ?? 0) > MAX_BUFFERED_BYTES) this.#counts.droppedMs += PIECE_MS;
    else this.#send(piece);
  }

  /** @param {string} type @param {Record<string, unknown>} [fields] */
  #tell(type, fields) {
    if (this.#phase === "ready") this.#send(JSON.stringify({ type, ...fields }));
  }

  /** @param {string | ArrayBuffer} message */
  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(message);
    this.#counts.sentBytes += typeof message === "string" ? message.length : message.byteLength;
  }

  /** @param {number} code @param {boolean} opened */
  async #closed(code, opened) {
    if (!opened) return this.#end(await whyNot(new CallError(NO_SOCKET)));
    this.#end(this.#phase === "ready" ? afterwards(code, this.#complaint) : refusal(code, this.#complaint));
  }

  /** @param {unknown} error */
  #end(error) {
    if (!this.#isOpen) return;
    this.#phase = "ended";
    Object.values(this.#timers).forEach((timer) => clearTimeout(timer));
    this.#pulse.stop();
    if (this.#socket) leave(this.#socket);
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

/** @param {string} chunk base64 of f32le, which is what every browser's machine computes with */
function decode(chunk) {
  const octets = atob(chunk);
  const bytes = new Uint8Array(octets.length);
  for (let i = 0; i < octets.length; i++) bytes[i] = octets.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}

/** Close, and hear nothing more. One that is still connecting is let connect: browsers complain otherwise. */
function leave(/** @type {WebSocket} */ socket) {
  socket.onmessage = socket.onclose = null;
  if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
  else socket.close();
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
