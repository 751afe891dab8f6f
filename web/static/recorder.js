// The microphone as it is: lossless, and without what makes calls clearer but colours a voice.

import { CallError } from "./errors.js";
import { chosen } from "./settings.js";

const UNTOUCHED = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
const INSECURE = "Browsers lend the microphone to secure pages only: open this page over https, or on localhost.";
const TAKEN = "The microphone was taken away.";

/** One recording. It is used once and then thrown away. */
export class Recorder {
  /** @type {MediaStream | null} */ #microphone = null;
  /** @type {AudioContext | null} */ #context = null;
  /** @type {Float32Array[]} */ #recorded = [];
  #stopped = false;

  /**
   * @param {(samples: Float32Array, rateHz: number) => void} onSound each piece, some 20 ms long
   * @param {(error: unknown) => void} onLost the microphone is gone
   */
  constructor(onSound, onLost) {
    this.onSound = onSound;
    this.onLost = onLost;
  }

  /** Begin. Fails as `getUserMedia` does; does nothing more once it was stopped. */
  async start() {
    if (!navigator.mediaDevices) throw new CallError(INSECURE);
    const audio = { ...UNTOUCHED, deviceId: chosen("microphone") || undefined };
    this.#microphone = await navigator.mediaDevices.getUserMedia({ audio });
    if (this.#stopped) return this.#release();
    this.#microphone.getAudioTracks()[0].onended = () => this.#lose();
    try {
      await this.#listen(this.#microphone);
    } catch (error) {
      this.#release();
      if (!this.#stopped) throw error;
    }
  }

  /** End, and return what was recorded as a WAV file; null if nothing was, or if it was stopped before. At any time. */
  stop() {
    const rateHz = this.#context?.sampleRate ?? 0;
    const recorded = this.#stopped ? [] : this.#recorded;
    this.#stopped = true;
    this.#release();
    return recorded.length ? wav(recorded, rateHz) : null;
  }

  /** @param {MediaStream} stream */
  async #listen(stream) {
    const context = new AudioContext();
    this.#context = context;
    void context.resume(); // a browser may hold it back that was asked for the microphone long after the click
    await context.audioWorklet.addModule("static/recorder_worklet.js");
    if (this.#stopped) return;
    const tap = new AudioWorkletNode(context, "recorder", { channelCount: 1, channelCountMode: "explicit" });
    tap.port.onmessage = ({ data }) => {
      if (this.#stopped) return;
      this.#recorded.push(data);
      this.onSound(data, context.sampleRate);
    };
    // Its output is silence; not every browser runs a node that leads nowhere.
    context.createMediaStreamSource(stream).connect(tap).connect(context.destination);
  }

  #lose() {
    if (this.#stopped) return;
    this.stop();
    this.onLost(new CallError(TAKEN));
  }

  #release() {
    for (const track of this.#microphone?.getTracks() ?? []) track.stop();
    this.#microphone = null;
    void this.#context?.close();
    this.#context = null;
  }
}

const HEADER_BYTES = 44;
const SAMPLE_BYTES = 2;

/** Return samples as a WAV file, 16-bit, mono. @param {Float32Array[]} pieces @param {number} rateHz */
export function wav(pieces, rateHz) {
  const soundBytes = SAMPLE_BYTES * pieces.reduce((sum, piece) => sum + piece.length, 0);
  const file = new DataView(new ArrayBuffer(HEADER_BYTES + soundBytes));
  const write = (/** @type {number} */ at, /** @type {string} */ tag) => [...tag].forEach((c, n) => file.setUint8(at + n, c.charCodeAt(0)));
  write(0, "RIFF");
  file.setUint32(4, HEADER_BYTES - 8 + soundBytes, true);
  write(8, "WAVEfmt ");
  file.setUint32(16, 16, true);
  file.setUint16(20, 1, true);
  file.setUint16(22, 1, true);
  file.setUint32(24, rateHz, true);
  file.setUint32(28, rateHz * SAMPLE_BYTES, true);
  file.setUint16(32, SAMPLE_BYTES, true);
  file.setUint16(34, 8 * SAMPLE_BYTES, true);
  write(36, "data");
  file.setUint32(40, soundBytes, true);
  let at = HEADER_BYTES;
  for (const piece of pieces) {
    for (const sample of piece) {
      file.setInt16(at, Math.max(-32_768, Math.min(32_767, Math.round(sample * 32_768))), true);
      at += SAMPLE_BYTES;
    }
  }
  return new Blob([file.buffer], { type: "audio/wav" });
}
