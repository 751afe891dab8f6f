// Another sample rate, in a stream: a windowed sinc, so that nothing above the new rate's half is left to fold back.

/** Crossings of zero on either side of the sinc's middle: how steep the low-pass is. */
const CROSSINGS = 24;
/** Where the low-pass begins to fall, of half the lower rate: it is down by 80 dB a little above that half. */
const ROLL_OFF = 0.92;
/** Of Kaiser's window: 80 dB. */
const BETA = 8;

export class Resampler {
  /** One output sample is `#down / #up` input samples after the one before. */
  #up;
  #down;
  /** @type {Float32Array[]} the filter, for each place that an output can have between two inputs */ #phases;
  #held;
  #at = 0;
  #phase = 0;

  /** @param {number} fromHz @param {number} toHz whole numbers, both */
  constructor(fromHz, toHz) {
    const common = divisor(fromHz, toHz);
    this.#up = toHz / common;
    this.#down = fromHz / common;
    const cutoff = ROLL_OFF * Math.min(1, toHz / fromHz);
    const half = Math.ceil(CROSSINGS / cutoff);
    this.#phases = Array.from({ length: this.#up }, (_, phase) => filter(phase / this.#up, half, cutoff));
    this.#held = new Float32Array(half - 1);
  }

  /** Return what the samples so far, cut anywhere, come to in addition. @param {Float32Array} samples */
  push(samples) {
    const held = new Float32Array(this.#held.length + samples.length);
    held.set(this.#held);
    held.set(samples, this.#held.length);
    const taps = this.#phases[0].length;
    const made = new Float32Array(Math.ceil((held.length * this.#up) / this.#down));
    let count = 0;
    while (this.#at + taps <= held.length) {
      made[count++] = dot(this.#phases[this.#phase], held, this.#at);
      const next = this.#phase + this.#down;
      this.#at += Math.floor(next / this.#up);
      this.#phase = next % this.#up;
    }
    const used = Math.min(this.#at, held.length);
    this.#held = held.slice(used);
    this.#at -= used;
    return made.subarray(0, count);
  }
}

/** @param {Float32Array} filter @param {Float32Array} samples @param {number} at */
function dot(filter, samples, at) {
  let sum = 0;
  for (let k = 0; k < filter.length; k++) sum += filter[k] * samples[at + k];
  return sum;
}

/** Return the filter for an output at `shift` of an input sample after its middle. */
function filter(/** @type {number} */ shift, /** @type {number} */ half, /** @type {number} */ cutoff) {
  const taps = Float32Array.from({ length: 2 * half }, (_, k) => {
    const t = k - (half - 1) - shift;
    return sinc(cutoff * t) * kaiser(t / half);
  });
  const sum = taps.reduce((a, b) => a + b, 0);
  return taps.map((tap) => tap / sum);
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** @param {number} x -1..1 */
function kaiser(x) {
  return Math.abs(x) >= 1 ? 0 : bessel(BETA * Math.sqrt(1 - x * x)) / bessel(BETA);
}

/** The modified Bessel function of the first kind, order 0, by its series. @param {number} x */
function bessel(x) {
  let sum = 1;
  for (let k = 1, term = 1; term > 1e-9 * sum; k++) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

/** @param {number} a @param {number} b @returns {number} the greatest common one */
function divisor(a, b) {
  return b === 0 ? a : divisor(b, a % b);
}
