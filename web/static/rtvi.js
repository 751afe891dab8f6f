// RTVI, the messages on the data channel, and beside the sound on a WebSocket: {"label": "rtvi-ai", "type", "id", "data"}.

/** @typedef {{type: string, data: Record<string, any>}} Message */

export const LABEL = "rtvi-ai";
const VERSION = "2.1.0";

let sent = 0;

/** Read a message; what says nothing to the page is null. @param {unknown} text @returns {Message | null} */
export function parse(text) {
  if (typeof text !== "string" || !text.startsWith("{")) return null;
  try {
    const { label, type, data, message } = JSON.parse(text);
    if (type === "signalling" && message?.type === "peerLeft") return { type: "peer-left", data: { reason: message.reason } };
    return label === LABEL && typeof type === "string" ? { type, data: data ?? {} } : null;
  } catch {
    return null;
  }
}

/** The page listens: the server answers `bot-ready`. */
export function clientReady() {
  return format("client-ready", { version: VERSION, about: { library: "vocal-node-page" } });
}

/** Words typed instead of spoken. @param {string} content */
export function sendText(content) {
  return format("send-text", { content, options: { run_immediately: true, audio_response: true } });
}

/** A message of our own, which the server answers. @param {string} name @param {unknown} [data] */
export function clientMessage(name, data) {
  return format("client-message", { t: name, d: data });
}

/** @param {string} type @param {Record<string, unknown>} data */
function format(type, data) {
  sent += 1;
  return JSON.stringify({ label: LABEL, type, id: String(sent), data });
}
