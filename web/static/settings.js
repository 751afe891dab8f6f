// What the person at the page has chosen, remembered by the browser.

const PREFIX = "vocal-node-";

/** @typedef {"agent" | "microphone" | "speaker" | "way" | "push-to-talk" | "latency"} Setting */

/** Return a choice, or what stands for none. @param {Setting} name */
export function chosen(name, otherwise = "") {
  try {
    return localStorage.getItem(PREFIX + name) ?? otherwise;
  } catch {
    return otherwise; // storage is forbidden: nothing is remembered
  }
}

/** Remember a choice; the empty one is forgotten. @param {Setting} name @param {string} value */
export function choose(name, value) {
  try {
    if (value) localStorage.setItem(PREFIX + name, value);
    else localStorage.removeItem(PREFIX + name);
  } catch (error) {
    console.info("a choice cannot be remembered", error);
  }
}
