// Hands what the microphone picks up to the page, sample for sample. It runs beside the page, on the audio thread.

const BATCH_SAMPLES = 1024;

class RecorderProcessor extends AudioWorkletProcessor {
  #batch = new Float32Array(BATCH_SAMPLES);
  #filled = 0;

  /** @param {Float32Array[][]} inputs @returns {boolean} whether it wants to go on */
  process([[channel]]) {
    if (channel === undefined) return true; // the microphone is not there yet
    this.#batch.set(channel, this.#filled);
    this.#filled += channel.length;
    if (this.#filled === BATCH_SAMPLES) {
      this.port.postMessage(this.#batch, [this.#batch.buffer]);
      this.#batch = new Float32Array(BATCH_SAMPLES);
      this.#filled = 0;
    }
    return true;
  }
}

registerProcessor("recorder", RecorderProcessor);
