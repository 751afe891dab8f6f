// What a call is called in each of its states.

import { seconds } from "./errors.js";

/** @typedef {"idle" | import("./call.js").Phase} Phase */

/** @type {Record<Phase, string>} */
export const CALL_BUTTON = {
  idle: "Start talking", connecting: "Cancel", waiting: "Cancel", connected: "Hang up", reconnecting: "Hang up",
};
const FLOOR = { caller: "Listening to you", thinking: "Thinking", agent: "Speaking" };

/**
 * Say what is happening.
 * @param {{phase: Phase, floor: import("./conversation.js").Floor, steady: boolean, muted: boolean, pushToTalk: boolean,
 *   held: boolean, waitS: number}} state
 */
export function stateWords({ phase, floor, steady, muted, pushToTalk, held, waitS }) {
  switch (phase) {
    case "idle": return "Ready when you are";
    case "connecting": return "Connecting";
    case "reconnecting": return "Connection lost. Reconnecting";
    case "waiting": return `Trying again in ${seconds(waitS)}`;
  }
  if (!steady) return "The connection is unsteady";
  if (floor !== "nobody") return FLOOR[floor];
  if (pushToTalk && !held) return "Hold the space bar to talk";
  return muted ? "You are muted" : "Listening";
}

/** Tell how long something has lasted, as a clock would. @param {number} ms */
export function clockTime(ms) {
  const total = Math.floor(ms / 1000);
  return `${Math.floor(total / 60)}:${String(total % 60).padStart(2, "0")}`;
}
