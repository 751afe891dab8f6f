// Which microphone and which speaker: what there is, and what was chosen.

import { element } from "./dom.js";
import { choose, chosen } from "./settings.js";

const SYSTEM = "The system's own";

/** Whether the browser lets a page choose where sound comes out. */
export const CAN_CHOOSE_SPEAKER = "setSinkId" in HTMLMediaElement.prototype;

/**
 * Keep a list of devices in a select, and tell of a choice. Returns what asks anew which there are.
 * @param {HTMLSelectElement} select
 * @param {"microphone" | "speaker"} name
 * @param {(deviceId: string) => void} use
 */
export function offerDevices(select, name, use) {
  select.addEventListener("change", () => {
    choose(name, select.value);
    use(select.value);
  });
  const fill = () => refill(select, name);
  navigator.mediaDevices?.addEventListener("devicechange", () => void fill());
  void fill();
  return fill;
}

/** Browsers name devices only to pages that were lent a microphone. @param {HTMLSelectElement} select @param {"microphone" | "speaker"} name */
async function refill(select, name) {
  const kind = name === "microphone" ? "audioinput" : "audiooutput";
  const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  const named = all.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== "default");
  const options = named.map(({ deviceId, label }, i) => element("option", { value: deviceId }, label || `${name} ${i + 1}`));
  select.replaceChildren(element("option", { value: "" }, SYSTEM), ...options);
  const wanted = chosen(name);
  select.value = named.some(({ deviceId }) => deviceId === wanted) ? wanted : "";
}
