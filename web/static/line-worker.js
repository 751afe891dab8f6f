// The line in a thread of its own: a page that is busy neither stops the sound nor makes it late.

import { Line } from "./line.js";

/** A server that does not say goodbye is not waited for. */
const GOODBYE_MS = 3_000;

/** @type {Line | null} */ let line = null;

/** @param {MessageEvent<{open: import("./line.js").Opening} | {say: Record<string, unknown>} | "leave">} event */
onmessage = ({ data }) => {
  if (data === "leave") {
    setTimeout(close, GOODBYE_MS);
    line?.leave(close);
  } else if ("open" in data) {
    line = new Line(data.open, (fact) => postMessage(fact));
  } else {
    line?.say(data.say);
  }
};
