// The agent's voice from the server's pieces to a stream that an audio element can play.
//
// An element, and not the context's own way to the loudspeakers: what elements play, every browser's echo canceller knows.

const RATE_HZ = 24_000;

export class Playback {
  #context = new AudioContext({ sampleRate: RATE_HZ });
  #destination = new MediaStreamAudioDestinationNode(this.#context, { channelCount: 1 });
  /** @type {AudioWorkletNode | null} */ #worklet = null;
  #stats = { bufferedMs: 0, underruns: 0 };

  /**
   * Begin to play.
   * @param {MessagePort} port brings Float32Arrays, mono, at 24 kHz; "end" after a stream's last one; "clear", to be
   * silent at once; or "hold", to be silent unless more comes, and then go on where it was
   */
  async open(port) {
    await this.#context.audioWorklet.addModule(new URL("./playback-worklet.js", import.meta.url));
    this.#worklet = new AudioWorkletNode(this.#context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#worklet.port.onmessage = (event) => { this.#stats = event.data; };
    this.#worklet.port.postMessage(port, [port]);
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

  close() {
    if (this.#context.state !== "closed") void this.#context.close();
  }
}
