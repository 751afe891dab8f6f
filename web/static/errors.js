// What went wrong, in words for the person in front of the page: what happened and what to do.

import { accessToken, ApiError } from "./api.js";

/** A failure of the call itself, after the server had agreed to it. */
export class CallError extends Error {}

/** Nothing passes any more, or the server went away: another connection may carry the conversation on. */
export class LostError extends CallError {
  constructor() {
    super("The connection was lost. Check your network, then start again.");
  }
}

/** @type {Record<string, string>} by DOMException name */
const MICROPHONE = {
  NotAllowedError: "The microphone is blocked. Allow it for this page in your browser's address bar, then try again.",
  NotFoundError: "No microphone was found. Plug one in, then try again.",
  NotReadableError: "The microphone is in use by another program. Close that, then try again.",
  OverconstrainedError: "That microphone is not there any more. Choose another one under “Sound and connection”.",
};

/** Whether the server wants a key, or another one. @param {unknown} error */
export function needsKey(error) {
  return error instanceof ApiError && error.status === 401;
}

/** Say what happened. @param {unknown} error @returns {string} */
export function explain(error) {
  if (error instanceof ApiError) return explainAnswer(error);
  if (error instanceof CallError) return error.message;
  if (error instanceof DOMException && error.name in MICROPHONE) return MICROPHONE[error.name];
  return `Something unexpected happened: ${error instanceof Error ? error.message : String(error)}`;
}

/** Whether the server only wants to be asked later. @param {unknown} error @returns {error is ApiError} */
export function isBusy(error) {
  return error instanceof ApiError && (error.status === 503 || error.status === 429);
}

/** @param {number} status */
export function busyWords(status) {
  return status === 503 ? "All lines are busy." : "That was too often.";
}

/** @param {number} count */
export function seconds(count) {
  return `${count} ${count === 1 ? "second" : "seconds"}`;
}

/** @param {ApiError} error */
function explainAnswer(error) {
  const { status, message, retryAfterS } = error;
  if (status === 0) return "The server cannot be reached. Is it running, and are you online?";
  if (status === 401) return accessToken() ? "The server does not know this API key." : "This server asks for an API key.";
  if (status === 403) return `The server does not accept calls from this page: ${message}`;
  if (isBusy(error)) return `${busyWords(status)} Try again ${retryAfterS === null ? "in a moment" : `in ${seconds(retryAfterS)}`}.`;
  return `The server refused the call: ${message}`;
}
