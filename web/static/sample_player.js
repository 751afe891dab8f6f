// Plays the samples of kept voices, one at a time, each at the button that asked for it.

export class SamplePlayer {
  #audio = new Audio();
  #url = "";
  /** @type {HTMLButtonElement | null} */ #button = null;

  /**
   * @param {(id: string) => Promise<Blob>} fetchSample
   * @param {(error: unknown) => void} onFail
   */
  constructor(fetchSample, onFail) {
    this.fetchSample = fetchSample;
    this.onFail = onFail;
    this.#audio.addEventListener("ended", () => this.stop());
  }

  /** Play a voice's sample, or stop if it is played. @param {string} id @param {HTMLButtonElement} button */
  async toggle(id, button) {
    const isPlaying = this.#button === button;
    this.stop();
    if (isPlaying) return;
    this.#button = button;
    button.textContent = "Stop";
    button.setAttribute("aria-label", button.getAttribute("aria-label")?.replace(/^Play /, "Stop ") ?? "Stop");
    try {
      const sample = await this.fetchSample(id);
      if (this.#button !== button) return;
      this.#url = URL.createObjectURL(sample);
      this.#audio.src = this.#url;
      await this.#audio.play();
    } catch (error) {
      if (this.#button !== button) return; // stopped meanwhile
      this.stop();
      this.onFail(error);
    }
  }

  /** Fall silent. */
  stop() {
    this.#audio.pause();
    this.#audio.removeAttribute("src");
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = "";
    if (this.#button === null) return;
    this.#button.textContent = "Play";
    this.#button.setAttribute("aria-label", this.#button.getAttribute("aria-label")?.replace(/^Stop /, "Play ") ?? "Play");
    this.#button = null;
  }
}
