// How loud both sides are.

/** Speech sits some 40 dB above this. */
const FLOOR_DBFS = -55;
const RANGE_DB = 40;

/** @typedef {"caller" | "agent"} Side */

export class Levels {
  /** It only listens: it needs no output device, which would be fed silence all the time. */
  #context = new AudioContext(/** @type {AudioContextOptions} */ ({ sinkId: { type: "none" } }));
  /** @type {Map<Side, {source: MediaStreamAudioSourceNode, analyser: AnalyserNode, samples: Float32Array<ArrayBuffer>}>} */ #sides = new Map();

  /** Listen to a side's sound from now on. @param {Side} side @param {MediaStream} stream played by an element, if it is a remote one */
  watch(side, stream) {
    this.#sides.get(side)?.source.disconnect();
    const analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    const source = this.#context.createMediaStreamSource(stream);
    source.connect(analyser);
    this.#sides.set(side, { source, analyser, samples: new Float32Array(analyser.fftSize) });
    void this.#context.resume();
  }

  /** Return how loud a side is now, 0 to 1. @param {Side} side */
  of(side) {
    const watched = this.#sides.get(side);
    return watched ? loudness(watched.analyser, watched.samples) : 0;
  }

  close() {
    void this.#context.close();
  }
}

/** @param {AnalyserNode} analyser @param {Float32Array<ArrayBuffer>} samples */
export function loudness(analyser, samples) {
  analyser.getFloatTimeDomainData(samples);
  let power = 0;
  for (const sample of samples) power += sample * sample;
  const dbfs = 10 * Math.log10(power / samples.length + 1e-12);
  return Math.min(1, Math.max(0, (dbfs - FLOOR_DBFS) / RANGE_DB));
}
