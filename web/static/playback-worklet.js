// The agent's voice as it comes from the network, played without a gap or a click. Runs on the audio thread.
//
// One rule makes every edge soft: the gain rises by at most one step a sample, and is at most one step for each sample
// that is left. So what begins fades in, and the last 5 ms of whatever is there fade out, be it the end of the stream,
// what an interruption left of it, or the network being late.

const FADE_SAMPLES = (sampleRate * 5) / 1000;
const STEP = 1 / FADE_SAMPLES;
const SAMPLES_PER_MS = sampleRate / 1000;
/**
 * What has to be there before a stream begins, or goes on after it ran dry, unless all of it is. The server sends up to 100 ms
 * ahead of time, so it comes at once; and what a stall held back comes together, and is a longer buffer from then on.
 */
const START_SAMPLES = 80 * SAMPLES_PER_MS;
/**
 * When the caller begins to speak the server holds the agent's words at once, and sends no more than the fade at their end;
 * what goes on all the same, because this agent may not be interrupted, shows within two pieces.
 */
const HOLD_SAMPLES = 45 * SAMPLES_PER_MS;
const GOES_ON_PIECES = 2;
const REPORT_SAMPLES = sampleRate / 4;

/** One reply's sound, as far as it has come and was not played. */
class Stream {
  /** @type {Float32Array[]} */ #pieces = [];
  #at = 0;
  samples = 0;
  /** Whether nothing more will come. */
  ended = false;

  /** @param {Float32Array} piece */
  push(piece) {
    if (piece.length === 0) return;
    this.#pieces.push(piece);
    this.samples += piece.length;
  }

  /** End it within the time of a fade. */
  cut() {
    this.ended = true;
    this.samples = Math.min(this.samples, FADE_SAMPLES);
  }

  next() {
    const sample = this.#pieces[0][this.#at++];
    this.samples -= 1;
    if (this.#at === this.#pieces[0].length) {
      this.#pieces.shift();
      this.#at = 0;
    }
    return sample;
  }
}

class Playback extends AudioWorkletProcessor {
  /** @type {Stream[]} the first is played; one that has begun is not joined to the end of another */ #streams = [];
  #playing = false;
  /** Samples until what is there is held: not played, and not thrown away. */ #untilHeld = Infinity;
  #piecesSinceHold = 0;
  #gain = 0;
  #late = false;
  #underruns = 0;
  #unreported = 0;

  constructor() {
    super();
    /** @param {MessageEvent<MessagePort>} event where the voice comes from */
    this.port.onmessage = ({ data: from }) => { from.onmessage = (event) => this.#take(event.data); };
  }

  /** @param {Float32Array | "hold" | "end" | "clear"} message */
  #take(message) {
    if (message === "hold") this.#hold();
    else if (message === "end") this.#end();
    else if (message === "clear") this.#clear();
    else this.#push(message);
  }

  /** @param {unknown} _ @param {Float32Array[][]} outputs */
  process(_, [[output]]) {
    for (let i = 0; i < output.length; i++) output[i] = this.#next();
    this.#unreported += output.length;
    if (this.#unreported >= REPORT_SAMPLES) this.#report();
    return true;
  }

  /** @param {Float32Array} piece */
  #push(piece) {
    this.#piecesSinceHold += 1;
    if (this.#piecesSinceHold >= GOES_ON_PIECES) this.#untilHeld = Infinity;
    if (this.#streams.at(-1)?.ended !== false) this.#streams.push(new Stream());
    this.#streams.at(-1)?.push(piece);
  }

  #hold() {
    this.#untilHeld = HOLD_SAMPLES;
    this.#piecesSinceHold = 0;
  }

  #end() {
    this.#untilHeld = Infinity;
    const last = this.#streams.at(-1);
    if (last) last.ended = true;
  }

  #clear() {
    this.#untilHeld = Infinity;
    this.#playing &&= this.#gain > 0; // what is held needs no fade
    this.#streams.length = this.#playing ? 1 : 0;
    this.#streams[0]?.cut();
  }

  #next() {
    const stream = this.#streams[0];
    if (!stream || !this.#begun(stream)) return 0;
    this.#untilHeld -= 1;
    if (this.#untilHeld < 0 && this.#gain <= STEP) return this.#rest();
    this.#watch(stream);
    if (stream.samples === 0) {
      this.#playing = false;
      this.#gain = 0;
      if (stream.ended) this.#streams.shift();
      return 0;
    }
    const step = this.#untilHeld < 0 ? -STEP : STEP;
    this.#gain = Math.min(1, this.#gain + step, stream.samples * STEP);
    return stream.next() * this.#gain;
  }

  #rest() {
    this.#gain = 0;
    return 0;
  }

  /** @param {Stream} stream */
  #begun(stream) {
    this.#playing ||= stream.ended || stream.samples >= START_SAMPLES;
    return this.#playing;
  }

  /** Count it once when what should follow is late, however long. @param {Stream} stream */
  #watch(stream) {
    const late = !stream.ended && stream.samples < FADE_SAMPLES;
    if (late && !this.#late) this.#underruns += 1;
    this.#late = late;
  }

  #report() {
    this.#unreported = 0;
    const samples = this.#streams.reduce((sum, stream) => sum + stream.samples, 0);
    this.port.postMessage({ bufferedMs: samples / SAMPLES_PER_MS, underruns: this.#underruns });
  }
}

registerProcessor("playback", Playback);
