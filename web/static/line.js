// One call's end of the raw-PCM WebSocket: sound goes from and to the audio thread, all else is told. Knows no page.

import { Pulse } from "./pulse.js";
import { LABEL } from "./rtvi.js";

/** A second of sound. What the network does not take by then would only be heard too late. */
const MAX_BUFFERED_BYTES = 32_000;
const PIECE_MS = 20;
/** Pieces of the agent's voice are 20 ms apart, and up to 100 ms ahead of time. */
const STALL_MS = 60;

/**
 * @typedef {object} Opening
 * @property {string} url
 * @property {Record<string, unknown>} configuration the first message; it asks for RTVI
 * @property {MessagePort} microphone gives the caller's sound: s16le, 16 kHz, in pieces of 20 ms
 * @property {MessagePort} voice takes the agent's: float 32, 24 kHz; or "hold", "end", "clear"
 */
/**
 * What happens, told in order.
 * @typedef {{fact: "message", message: import("./rtvi.js").Message}
 *   | {fact: "steady", steady: boolean}
 *   | {fact: "lost"}
 *   | {fact: "closed", code: number, opened: boolean, complaint: string}
 *   | {fact: "stats", stats: Counts}} Fact
 */
/**
 * @typedef {object} Counts
 * @property {number} sentBytes
 * @property {number} receivedBytes
 * @property {number} droppedMs of the caller's sound, which the network did not take
 * @property {number} stalls pauses in the agent's sound that the server or the network made
 * @property {number} longestStallMs
 * @property {number | null} roundTripMs
 */

export class Line {
  #counts = { sentBytes: 0, receivedBytes: 0, droppedMs: 0, stalls: 0, longestStallMs: 0 };
  #pulse = new Pulse({
    ping: () => this.#ping(),
    onSteady: (steady) => this.tell({ fact: "steady", steady }),
    onLost: () => this.tell({ fact: "lost" }),
  });
  #socket;
  #opened = false;
  #ready = false;
  /** When the last piece of the stream came that goes on. */ #pieceAt = Infinity;
  /** The last thing that was wrong: where the server closes, it says why before. */ #complaint = "";

  /** @param {Opening} opening @param {(fact: Fact) => void} tell */
  constructor({ url, configuration, microphone, voice }, tell) {
    this.tell = tell;
    this.voice = voice;
    this.#socket = new WebSocket(url);
    this.#socket.onopen = () => {
      this.#opened = true;
      this.#send(JSON.stringify(configuration));
    };
    this.#socket.onmessage = (event) => this.#receive(event.data);
    this.#socket.onclose = ({ code }) => {
      tell({ fact: "closed", code, opened: this.#opened, complaint: this.#complaint });
      this.#pulse.stop();
    };
    microphone.onmessage = (event) => this.#sendSound(event.data);
  }

  /** Say something that is no sound. @param {Record<string, unknown>} message */
  say(message) {
    this.#send(JSON.stringify(message));
  }

  /** Close, tell nothing more, and call `done` in the end. */
  leave(/** @type {() => void} */ done) {
    this.tell = () => {};
    this.#pulse.stop();
    this.#socket.onmessage = null;
    this.#socket.onclose = () => done();
    if (this.#socket.readyState === WebSocket.CLOSED) done();
    // One that is still connecting is let connect: browsers complain otherwise.
    else if (this.#socket.readyState === WebSocket.CONNECTING) this.#socket.onopen = () => this.#socket.close();
    else this.#socket.close();
  }

  /** @param {string} text */
  #receive(text) {
    this.#counts.receivedBytes += text.length;
    this.#pulse.beat();
    const { label, type, data, error } = JSON.parse(text);
    if (label === LABEL) return this.#hear({ type, data: data ?? {} });
    switch (type) {
      case "tts_stream": return this.#play(data.chunk);
      case "tts_stream_end": return this.#end("end");
      case "new_conversation_turn": return this.#end("clear");
      case "pong": return this.#pulse.pong();
      case "error": this.#complaint = String(error);
    }
  }

  /** @param {import("./rtvi.js").Message} message */
  #hear(message) {
    if (message.type === "bot-ready") {
      this.#ready = true;
      this.#pulse.start();
    }
    if (message.type === "user-started-speaking") this.voice.postMessage("hold");
    this.tell({ fact: "message", message });
  }

  /** @param {string} chunk */
  #play(chunk) {
    this.#noteStall(performance.now());
    const samples = decode(chunk);
    this.voice.postMessage(samples, [samples.buffer]);
  }

  /** @param {number} now */
  #noteStall(now) {
    const pauseMs = now - this.#pieceAt;
    this.#pieceAt = now;
    if (pauseMs < STALL_MS) return;
    this.#counts.stalls += 1;
    this.#counts.longestStallMs = Math.max(this.#counts.longestStallMs, pauseMs);
  }

  /** @param {"end" | "clear"} how */
  #end(how) {
    this.#pieceAt = Infinity;
    this.voice.postMessage(how);
  }

  /** @param {ArrayBuffer} piece */
  #sendSound(piece) {
    if (!this.#ready) return;
    if (this.#socket.bufferedAmount > MAX_BUFFERED_BYTES) this.#counts.droppedMs += PIECE_MS;
    else this.#send(piece);
  }

  #ping() {
    this.say({ type: "ping" });
    this.tell({ fact: "stats", stats: { ...this.#counts, roundTripMs: this.#pulse.roundTripMs } });
  }

  /** @param {string | ArrayBuffer} message */
  #send(message) {
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(message);
    this.#counts.sentBytes += typeof message === "string" ? message.length : message.byteLength;
  }
}

/** @param {string} chunk base64 of f32le, which is what every browser's machine computes with */
function decode(chunk) {
  const octets = atob(chunk);
  const bytes = new Uint8Array(octets.length);
  for (let i = 0; i < octets.length; i++) bytes[i] = octets.charCodeAt(i);
  return new Float32Array(bytes.buffer);
}
