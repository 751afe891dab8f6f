// How loud both sides are, a value a screen refresh.

/** Speech sits some 40 dB above this. */
const FLOOR_DBFS = -55;
const RANGE_DB = 40;

export class Levels {
  #context = new AudioContext();
  /** @type {Map<string, {analyser: AnalyserNode, samples: Float32Array<ArrayBuffer>}>} */ #sides = new Map();
  #refresh = 0;

  /** @param {(side: string, level: number) => void} show level is 0..1 */
  constructor(show) {
    this.show = show;
    const step = () => {
      for (const [side, { analyser, samples }] of this.#sides) show(side, loudness(analyser, samples));
      this.#refresh = requestAnimationFrame(step);
    };
    this.#refresh = requestAnimationFrame(step);
  }

  /** @param {string} side @param {MediaStream} stream one that an element plays, if it is a remote one */
  watch(side, stream) {
    const analyser = new AnalyserNode(this.#context, { fftSize: 1024 });
    this.#context.createMediaStreamSource(stream).connect(analyser);
    this.#sides.set(side, { analyser, samples: new Float32Array(analyser.fftSize) });
  }

  close() {
    cancelAnimationFrame(this.#refresh);
    void this.#context.close();
    for (const side of this.#sides.keys()) this.show(side, 0);
  }
}

/** @param {AnalyserNode} analyser @param {Float32Array<ArrayBuffer>} samples */
function loudness(analyser, samples) {
  analyser.getFloatTimeDomainData(samples);
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  const dbfs = 10 * Math.log10(power + 1e-12);
  return Math.min(1, Math.max(0, (dbfs - FLOOR_DBFS) / RANGE_DB));
}
