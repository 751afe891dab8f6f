// The agent's voice from the server's pieces to a stream that an audio element can play.
//
// An element, and not the context's own way to the loudspeakers: what elements play, every browser's echo canceller knows.

const RATE_HZ = 24_000;

export class Playback {
  #context = new AudioContext({ sampleRate: RATE_HZ });
  #destination = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
  /** @type {AudioWorkletNode | null} */ #worklet = null;
  #stats = { bufferedMs: 0, underruns: 0 };

  async open() {
    await this.#context.audioWorklet.addModule(new URL("./playback-worklet.js", import.meta.url));
    this.#worklet = new AudioWorkletNode(this.#context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#worklet.port.onmessage = (event) => { this.#stats = event.data; };
    this.#worklet.connect(this.#destination);
    void this.#context.resume();
  }

  /** What is heard. */
  get stream() {
    return this.#destination.stream;
  }

  /** How much was waiting to be played a moment ago, and how often what should follow was late. */
  get stats() {
    return this.#stats;
  }

  /** Queue a piece. @param {Float32Array<ArrayBuffer>} samples mono, 24 kHz; taken away */
  play(samples) {
    this.#worklet?.port.postMessage(samples, [samples.buffer]);
  }

  /** The stream is complete: play what there is of it. */
  end() {
    this.#worklet?.port.postMessage("end");
  }

  /** The caller begins to speak: be silent unless more comes, and then go on where it was. */
  hold() {
    this.#worklet?.port.postMessage("hold");
  }

  /** Be silent at once. */
  clear() {
    this.#worklet?.port.postMessage("clear");
  }

  close() {
    if (this.#context.state !== "closed") void this.#context.close();
  }
}
