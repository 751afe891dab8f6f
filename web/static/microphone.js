// The caller's microphone, from the permission to the moment its light goes out.

import { CallError } from "./errors.js";

/** Cancelling the echo lets the agent be interrupted on loudspeakers: it does not hear itself. */
const WANTED = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

export class Microphone {
  #closed = false;
  #muted = false;

  /** @param {MediaStream} stream @param {() => void} onLost it was unplugged, or taken away */
  constructor(stream, onLost) {
    this.stream = stream;
    this.onLost = onLost;
    this.#watch();
  }

  /**
   * Ask for one. Throws DOMException, or CallError where pages get none.
   * @param {string} deviceId empty: the system's own
   * @param {() => void} onLost
   */
  static async open(deviceId, onLost) {
    return new Microphone(await lend(deviceId), onLost);
  }

  get track() {
    return this.stream.getAudioTracks()[0];
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.#muted = muted;
    this.track.enabled = !muted;
  }

  /** Use another device; the old one goes on if that fails. Throws as `open` does. @param {string} deviceId */
  async exchange(deviceId) {
    const stream = await lend(deviceId);
    if (this.#closed) return stop(stream);
    stop(this.stream);
    this.stream = stream;
    this.mute(this.#muted);
    this.#watch();
  }

  close() {
    this.#closed = true;
    stop(this.stream);
  }

  #watch() {
    const { track } = this;
    track.onended = () => {
      if (!this.#closed && track === this.track) this.onLost();
    };
  }
}

/** @param {string} deviceId @returns {Promise<MediaStream>} */
export async function lend(deviceId, wanted = WANTED) {
  if (!navigator.mediaDevices) {
    throw new CallError("Browsers lend the microphone to secure pages only: open this page over https, or on localhost.");
  }
  const exact = deviceId ? { deviceId: { exact: deviceId } } : {};
  return navigator.mediaDevices.getUserMedia({ audio: { ...wanted, ...exact } });
}

/** @param {MediaStream} stream */
export function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}
