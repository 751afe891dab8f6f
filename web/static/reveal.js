// The agent's words as they are heard: the server tells when a clause begins, and its words follow at the voice's pace,
// which is learned from the clauses before it.

/** Of an unhurried English voice. */
const CHARACTERS_PER_S = 15;
const SLOWEST = 7;
const FASTEST = 30;
/** Shorter clauses say little of the pace. */
const TELLING_CHARACTERS = 12;

export class Reveal {
  #pace = CHARACTERS_PER_S;
  #text = "";
  #shown = 0;
  #clauseAt = 0;
  #clauseFrom = 0;
  #timer = 0;

  /** @param {(words: string) => void} show */
  constructor(show) {
    this.show = show;
  }

  /** A clause has begun to be heard. @param {string} text all words so far, those of this clause last */
  begin(text) {
    const now = performance.now();
    if (this.#text) this.#learn(now);
    this.#clauseAt = now;
    this.#clauseFrom = this.#shown = this.#text.length;
    this.#text = text;
    this.#next();
  }

  /** So many words were heard, and no more follow. @param {string} text */
  settle(text) {
    clearTimeout(this.#timer);
    this.#text = text;
    this.#shown = text.length;
    this.show(text);
  }

  #next() {
    clearTimeout(this.#timer);
    const space = this.#text.indexOf(" ", this.#shown + 1);
    this.#shown = space < 0 ? this.#text.length : space;
    this.show(this.#text.slice(0, this.#shown));
    if (this.#shown === this.#text.length) return;
    const dueMs = this.#clauseAt + (1000 * (this.#shown - this.#clauseFrom)) / this.#pace;
    this.#timer = setTimeout(() => this.#next(), Math.max(0, dueMs - performance.now()));
  }

  /** @param {number} now ms */
  #learn(now) {
    const characters = this.#text.length - this.#clauseFrom;
    if (characters < TELLING_CHARACTERS) return;
    this.#pace = Math.min(FASTEST, Math.max(SLOWEST, (1000 * characters) / Math.max(1, now - this.#clauseAt)));
  }
}
