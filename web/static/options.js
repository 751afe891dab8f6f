// What the person at the page has chosen under "Sound and connection", kept from one visit to the next.

import { CAN_CHOOSE_SPEAKER, offerDevices } from "./devices.js";
import { get } from "./dom.js";
import { choose, chosen } from "./settings.js";

/**
 * @typedef {object} Changes what has to happen at once, in a call
 * @property {(deviceId: string) => void} microphone
 * @property {(deviceId: string) => void} speaker
 * @property {(pushToTalk: boolean) => void} pushToTalk
 */

export class Options {
  #microphone = get("microphone", HTMLSelectElement);
  #speaker = get("speaker", HTMLSelectElement);
  #way = get("way", HTMLSelectElement);
  #pushToTalk = get("push-to-talk", HTMLInputElement);
  #latency = get("show-latency", HTMLInputElement);
  /** @type {(() => Promise<void>)[]} */ #refills;

  /** @param {Changes} changed */
  constructor(changed) {
    this.#way.value = chosen("way", "webrtc");
    this.#pushToTalk.checked = chosen("push-to-talk") === "yes";
    this.#latency.checked = chosen("latency", "yes") === "yes";
    this.#way.addEventListener("change", () => choose("way", this.#way.value));
    this.#pushToTalk.addEventListener("change", () => {
      choose("push-to-talk", this.pushToTalk ? "yes" : "");
      changed.pushToTalk(this.pushToTalk);
    });
    this.#latency.addEventListener("change", () => {
      choose("latency", this.#latency.checked ? "yes" : "no");
      this.#showLatency();
    });
    this.#showLatency();
    this.#refills = [offerDevices(this.#microphone, "microphone", changed.microphone)];
    get("speaker-field", HTMLLabelElement).hidden = !CAN_CHOOSE_SPEAKER;
    if (CAN_CHOOSE_SPEAKER) this.#refills.push(offerDevices(this.#speaker, "speaker", changed.speaker));
  }

  /** @returns {"webrtc" | "websocket"} */
  get way() {
    return this.#way.value === "websocket" ? "websocket" : "webrtc";
  }

  /** Empty: the system's own. */
  get microphoneId() {
    return this.#microphone.value;
  }

  /** Empty: the system's own. */
  get speakerId() {
    return this.#speaker.value;
  }

  get pushToTalk() {
    return this.#pushToTalk.checked;
  }

  /** Ask again which devices there are: their names are told once the microphone was lent. */
  refill() {
    for (const refill of this.#refills) void refill();
  }

  /** What cannot change in a call is not offered in one. @param {boolean} inCall */
  lock(inCall) {
    this.#way.disabled = inCall;
  }

  #showLatency() {
    document.body.dataset.latency = this.#latency.checked ? "shown" : "hidden";
  }
}

/** Let sound come out there. Throws where that speaker cannot be used. @param {HTMLAudioElement} element @param {string} deviceId */
export async function useSpeaker(element, deviceId) {
  const voice = /** @type {HTMLAudioElement & {sinkId?: string, setSinkId?: (id: string) => Promise<void>}} */ (element);
  if (CAN_CHOOSE_SPEAKER && (voice.sinkId ?? "") !== deviceId) await voice.setSinkId?.(deviceId);
}
