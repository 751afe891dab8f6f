// The microphone's samples as the server wants them: 16 kHz, 16 bits, in pieces of 20 ms. Runs on the audio thread.

import { Resampler } from "./resampler.js";

const RATE_HZ = 16_000;
const PIECE_SAMPLES = 320;
const QUANTUM_SAMPLES = 128;

class Capture extends AudioWorkletProcessor {
  #resampler = new Resampler(sampleRate, RATE_HZ);
  #silence = new Float32Array(QUANTUM_SAMPLES);
  #piece = new Int16Array(PIECE_SAMPLES);
  #filled = 0;
  /** @type {MessagePort | null} */ #to = null;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => { this.#to = data; };
  }

  /** Without a microphone there is silence: time goes on. @param {Float32Array[][]} inputs */
  process([[samples = this.#silence]]) {
    for (const sample of this.#resampler.push(samples)) this.#add(sample);
    return true;
  }

  /** @param {number} sample */
  #add(sample) {
    this.#piece[this.#filled++] = Math.max(-32_768, Math.min(32_767, Math.round(sample * 32_768)));
    if (this.#filled < PIECE_SAMPLES) return;
    this.#to?.postMessage(this.#piece.buffer, [this.#piece.buffer]);
    this.#piece = new Int16Array(PIECE_SAMPLES);
    this.#filled = 0;
  }
}

registerProcessor("capture", Capture);
