// What the server keeps and runs: agents, voices, engines; and what can be said of them together.

import { ApiError, request } from "./api.js";
import { element } from "./dom.js";
import { explain } from "./errors.js";
import { withKey } from "./key.js";

/**
 * @typedef {object} Agent
 * @property {string} id
 * @property {string} name
 * @property {string} system_prompt
 * @property {string} greeting
 * @property {string} language
 * @property {number} speed
 * @property {string | null} voice a kept voice's id, or what a speech engine calls one of its own
 * @property {boolean} allow_interruptions
 * @property {string | null} stt
 * @property {string | null} llm
 * @property {string | null} tts
 */

/** @typedef {{id: string, name: string, duration_s: number, sha256: string, engines: Record<string, string>}} Voice */

/**
 * @typedef {object} Engine
 * @property {string} name
 * @property {boolean} usable
 * @property {string | null} lacks
 * @property {string} note
 * @property {boolean} chosen the server's own choice
 * @property {boolean} by_name_only
 * @property {boolean} [clones] of speech engines
 */

/** @typedef {Record<"stt" | "llm" | "tts", Engine[]>} Engines */

export const DEFAULT = "default";

/** Speech engines that clone no sample themselves: a voice is made at their vendor, who is sent it. @type {Record<string, string>} */
export const VENDORS = { elevenlabs: "ElevenLabs", cartesia: "Cartesia" };

/** @returns {Promise<{agents: Agent[], voices: Voice[], engines: Engines}>} */
export function load() {
  return withKey(async () => {
    const [{ agents }, { voices }, engines] = await Promise.all(["agents", "voices", "engines"].map((path) => request("GET", path)));
    return { agents, voices, engines };
  });
}

/** @type {Promise<void> | null} */
let styled = null;

/** Load the style of these views, which the page's first view does without. */
export function loadStyle() {
  styled ??= new Promise((resolve) => {
    const link = element("link", { rel: "stylesheet", href: "static/catalogue.css" });
    link.addEventListener("load", () => resolve());
    link.addEventListener("error", () => resolve());
    document.head.append(link);
  });
  return styled;
}

/** Return the speech engine that an agent speaks with. @param {Agent | undefined} agent @param {Engines} engines */
export function speechEngine(agent, engines) {
  return engines.tts.find((engine) => (agent?.tts ? engine.name === agent.tts : engine.chosen));
}

/** Whether a speech engine speaks with a kept voice. @param {Engine | undefined} engine @param {Voice} voice */
export function speaksWith(engine, voice) {
  if (!engine?.usable) return false;
  return engine.name in VENDORS ? engine.name in voice.engines : engine.clones === true;
}

/**
 * Return the id of an agent whose engine speaks with a voice, the default one before others; null if nobody's does.
 * @param {Voice} voice @param {Agent[]} agents @param {Engines} engines
 */
export function speakerOf(voice, agents, engines) {
  const standard = agents.find(({ id }) => id === DEFAULT);
  if (speaksWith(speechEngine(standard, engines), voice)) return DEFAULT;
  return agents.find((agent) => speaksWith(speechEngine(agent, engines), voice))?.id ?? null;
}

/** Whether the engine of any agent clones, by itself or at its vendor. @param {Agent[]} agents @param {Engines} engines */
export function clonesHere(agents, engines) {
  return [undefined, ...agents].some((agent) => speechEngine(agent, engines)?.clones === true);
}

/** Begin with a capital and end with a full stop. @param {string} words */
export function sentence(words) {
  const whole = words.charAt(0).toUpperCase() + words.slice(1);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}

/** Say why the server would not do something that is no call. @param {unknown} error */
export function why(error) {
  const saysItself = error instanceof ApiError && ![0, 401, 403, 429].includes(error.status);
  return saysItself ? sentence(error.message) : explain(error);
}

/** @type {Intl.DisplayNames | null} */
let languages = null;

/** Return a language's name, its code where it has none. @param {string} code */
export function languageName(code) {
  languages ??= new Intl.DisplayNames(["en"], { type: "language" });
  try {
    return languages.of(code) ?? code;
  } catch {
    return code; // it is none
  }
}

let wanted = "";

/** Have the agents' view open this agent when it is shown next. @param {string} id */
export function wantAgent(id) {
  wanted = id;
}

/** @returns {string} whose agent is to be opened, once */
export function takeWanted() {
  const id = wanted;
  wanted = "";
  return id;
}
