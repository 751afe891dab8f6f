// The page: its views, one of which is shown. Each but the first is loaded when somebody goes there.

import { get } from "./dom.js";
import { TalkView } from "./talk.js";

/**
 * What the page shows under one of its names.
 * @typedef {object} View
 * @property {() => void | Promise<void>} show it has just come into sight
 */

const talk = new TalkView();

/** @type {Record<string, () => View | Promise<View>>} */
const OPENERS = {
  talk: () => talk,
  agents: async () => new (await import("./agents.js")).AgentsView(get("agents-view", HTMLElement), (id) => talk.speakWith(id)),
  voices: async () => new (await import("./voices.js")).VoicesView(get("voices-view", HTMLElement)),
};
/** @type {Map<string, Promise<View>>} */
const opened = new Map();

async function route() {
  const wanted = location.hash.slice(1);
  if (wanted === "main") return;
  const name = wanted in OPENERS ? wanted : "talk";
  for (const each of Object.keys(OPENERS)) get(`${each}-view`, HTMLElement).hidden = each !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = name;
  const view = opened.get(name) ?? Promise.resolve(OPENERS[name]());
  opened.set(name, view);
  await (await view).show();
}

addEventListener("hashchange", () => void route());
void route();
