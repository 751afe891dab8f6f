// The operators' page: asks for the server's numbers while somebody looks, and says so where it gets none.

import { ApiError, request, useKey } from "./api.js";
import { get } from "./dom.js";
import { explain } from "./errors.js";
import { StatusView } from "./status_view.js";

/** @typedef {import("./status_view.js").Status} Status */

const EVERY_MS = 2000;

const page = {
  trouble: get("trouble", HTMLElement),
  keyForm: get("key-form", HTMLFormElement),
  key: get("key", HTMLInputElement),
  numbers: get("numbers", HTMLElement),
  updated: get("updated", HTMLElement),
  drain: get("drain", HTMLButtonElement),
  ask: get("ask", HTMLDialogElement),
  meaning: get("ask-meaning", HTMLElement),
};
const view = new StatusView();

/** @type {Status | null} the last answer */
let status = null;
let timer = 0;
let asking = false;

/** Ask, unless an answer is being waited for; and again in a while if somebody looks then. */
async function refresh() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    show(await request("GET", "api/status"));
  } catch (error) {
    fail(error);
    if (wantsKey(error)) return; // nothing will be different until there is one
  } finally {
    asking = false;
  }
  timer = setTimeout(() => void refresh(), EVERY_MS);
}

/** @param {Status} answer */
function show(answer) {
  status = answer;
  complain("");
  page.keyForm.hidden = true;
  page.numbers.hidden = false;
  page.numbers.classList.remove("stale");
  page.updated.textContent = `Updated ${new Date().toLocaleTimeString([], { hour12: false })}`;
  page.drain.hidden = !answer.may_drain;
  page.drain.disabled = false;
  page.drain.textContent = answer.draining ? "Let calls in again" : "Drain";
  view.show(answer);
}

/** @param {unknown} error */
function fail(error) {
  page.numbers.classList.add("stale");
  page.drain.disabled = true;
  if (wantsKey(error)) {
    complain(error.status === 403 ? "This page is for operators. Use an operator's key: one of VOCAL_OPERATOR_KEYS." : explain(error));
    page.numbers.hidden = true;
    page.keyForm.hidden = false;
    page.key.focus();
  } else if (error instanceof ApiError && error.status > 0) {
    complain(`The server answered with an error: ${error.message}. Asking again every 2 seconds.`);
  } else {
    complain("The server cannot be reached. Asking again every 2 seconds.");
  }
}

/** @param {unknown} error @returns {error is ApiError} */
function wantsKey(error) {
  return error instanceof ApiError && (error.status === 401 || error.status === 403);
}

/** @param {string} words */
function complain(words) {
  if (page.trouble.textContent !== words) page.trouble.textContent = words;
  page.trouble.hidden = !words;
}

/** @param {boolean} draining */
async function drain(draining) {
  page.drain.disabled = true;
  try {
    await request("POST", "api/drain", { draining });
  } catch (error) {
    clearTimeout(timer); // or the next answer would wipe the words away at once
    complain(error instanceof ApiError && error.status ? `That was not possible: ${error.message}.` : explain(error));
    page.drain.disabled = false;
    timer = setTimeout(() => void refresh(), 4 * EVERY_MS);
    return;
  }
  await refresh();
}

page.drain.addEventListener("click", () => {
  if (status?.draining) return void drain(false);
  const running = status?.running_sessions ?? 0;
  const rest = running === 1 ? "The call that runs goes on." : running ? `The ${running} calls that run go on.` : "Nobody is calling now.";
  page.meaning.textContent = `No new call is let in until you say so here or the server starts again. ${rest}`;
  page.ask.returnValue = "";
  page.ask.showModal();
});
page.ask.addEventListener("close", () => {
  if (page.ask.returnValue === "drain") void drain(true);
});
page.keyForm.addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(page.key.value.trim());
  page.key.value = "";
  void refresh();
});
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : void refresh()));
void refresh();
