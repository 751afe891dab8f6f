// The microphone as a stream of pieces for the server.
//
// The context runs at the rate that the browser prefers, and the worklet brings that to 16 kHz: Firefox refuses to connect
// a microphone to a context of another rate, or loses samples.

export class Capture {
  #context = new AudioContext();
  /** @type {AudioWorkletNode | null} */ #worklet = null;
  /** @type {MediaStreamAudioSourceNode | null} */ #source = null;

  /**
   * Begin to listen.
   * @param {MediaStreamTrack} track
   * @param {MessagePort} port is given 20 ms each time: s16le, 16 kHz, mono
   */
  async open(track, port) {
    await this.#context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    this.#worklet = new AudioWorkletNode(this.#context, "capture", {
      numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit",
    });
    this.#worklet.port.postMessage(port, [port]);
    this.use(track);
    void this.#context.resume();
  }

  /** Listen to `track` from now on; whoever opened the old one closes it. @param {MediaStreamTrack} track */
  use(track) {
    this.#source?.disconnect();
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    if (this.#worklet) this.#source.connect(this.#worklet);
  }

  close() {
    if (this.#context.state !== "closed") void this.#context.close();
  }
}
