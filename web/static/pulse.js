// Whether the other side is still there: a socket to a server that has vanished looks open for minutes.

const TICK_MS = 500;
const TICKS_PER_PING = 2;
const UNSTEADY_MS = 1_500;
const LOST_MS = 4_000;
/** A page that was put to sleep did not listen meanwhile: that is no silence of the server's. */
const TICK_MAX_MS = 1_000;

export class Pulse {
  #timer = 0;
  #ticks = 0;
  #tickedAt = 0;
  #quietMs = 0;
  #steady = true;
  /** @type {number | null} */ #pingedAt = null;
  /** @type {number | null} between the last ping and its answer */ roundTripMs = null;

  /** @param {{ping: () => void, onSteady: (steady: boolean) => void, onLost: () => void}} listener */
  constructor(listener) {
    this.listener = listener;
  }

  start() {
    this.#tickedAt = performance.now();
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** Something came. */
  beat() {
    this.#quietMs = 0;
    this.#tellSteady(true);
  }

  /** The answer to a ping came. */
  pong() {
    if (this.#pingedAt !== null) this.roundTripMs = performance.now() - this.#pingedAt;
    this.#pingedAt = null;
  }

  #tick() {
    const now = performance.now();
    this.#quietMs += Math.min(now - this.#tickedAt, TICK_MAX_MS);
    this.#tickedAt = now;
    if (this.#quietMs >= LOST_MS) return this.listener.onLost();
    if (this.#quietMs >= UNSTEADY_MS) this.#tellSteady(false);
    if (this.#ticks++ % TICKS_PER_PING === 0) this.#ping(now);
  }

  /** @param {number} now */
  #ping(now) {
    this.#pingedAt ??= now;
    this.listener.ping();
  }

  /** @param {boolean} steady */
  #tellSteady(steady) {
    if (steady === this.#steady) return;
    this.#steady = steady;
    this.listener.onSteady(steady);
  }
}
