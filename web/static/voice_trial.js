// A sentence in one of the voices, to hear what was made of the sample.

import { request } from "./api.js";
import { clonesHere, DEFAULT, speakerOf, speechEngine, VENDORS, why } from "./catalogue.js";
import { element } from "./dom.js";
import { Field, oneAtATime } from "./fields.js";
import { withKey } from "./key.js";

/** @typedef {import("./catalogue.js").Voice} Voice */
/** @typedef {import("./catalogue.js").Engine} Engine */
/** @typedef {import("./agents.js").Catalogue} Catalogue */

/** A voice's first sentence waits for its latents, and a machine without a GPU takes its time. */
const LIMIT_MS = 120_000;

export class VoiceTrial {
  #voice = new Field("trial-voice", "Voice", element("select"));
  #text = new Field("trial-text", "Sentence", element("input", { type: "text", required: true, maxlength: "500", value: "This is how I sound. Shall we talk?", autocomplete: "off" }));
  #parts = {
    say: element("button", { type: "submit", class: "primary" }, "Say it"),
    player: element("audio", { controls: true, hidden: true, "aria-label": "The sentence" }),
    words: element("p", { role: "status", class: "soft" }),
    why: element("div", { class: "why", hidden: true }),
    alert: element("div", { role: "alert" }),
  };
  /** What is being asked for; whoever has gone on hears nothing of it. @type {object | null} */ #asked = null;
  /** @type {Catalogue} */ #catalogue = { agents: [], voices: [], engines: { stt: [], llm: [], tts: [] } };

  constructor() {
    const { say, player, words, why, alert } = this.#parts;
    this.root = element("form", { class: "card fields", id: "voice-trial", novalidate: true, "aria-label": "Say a sentence" },
      element("h2", {}, "Say a sentence"), this.#voice.root, why, this.#text.root,
      element("div", { class: "row" }, say), player, words, alert);
    this.root.addEventListener("submit", oneAtATime(say, () => this.#speak()));
    this.#voice.control.addEventListener("change", () => this.#explain());
  }

  /** @param {Catalogue} catalogue */
  offer(catalogue) {
    const before = this.#voice.control.value;
    this.#catalogue = catalogue;
    this.#voice.control.replaceChildren(...catalogue.voices.map(({ id, name }) => element("option", { value: id }, name)));
    const isEmpty = catalogue.voices.length === 0;
    this.#voice.root.hidden = isEmpty;
    this.root.hidden = isEmpty && clonesHere(catalogue.agents, catalogue.engines);
    this.choose(catalogue.voices.some(({ id }) => id === before) ? before : (catalogue.voices[0]?.id ?? ""));
  }

  /** @param {string} id a voice's */
  choose(id) {
    this.#voice.control.value = id;
    this.#explain();
  }

  /** Fall silent. */
  leave() {
    const { player, words } = this.#parts;
    this.#asked = null;
    if (player.src) URL.revokeObjectURL(player.src);
    player.removeAttribute("src");
    player.load();
    player.hidden = true;
    words.textContent = "";
  }

  /** @returns {Voice | undefined} */
  #chosen() {
    return this.#catalogue.voices.find(({ id }) => id === this.#voice.control.value);
  }

  /** Say who cannot speak with it, and what would; or let it be said. */
  #explain() {
    const { agents, engines } = this.#catalogue;
    const { say, why, alert } = this.#parts;
    const voice = this.#chosen();
    const speaker = voice ? speakerOf(voice, agents, engines) : null;
    this.leave();
    alert.textContent = "";
    this.#text.root.hidden = speaker === null;
    say.hidden = speaker === null;
    why.hidden = speaker !== null;
    if (speaker === null) why.replaceChildren(...whyNot(voice, this.#catalogue));
  }

  async #speak() {
    const voice = this.#chosen();
    if (!voice || !this.#text.check("Type a sentence.")) return this.#text.control.focus();
    const speaker = speakerOf(voice, this.#catalogue.agents, this.#catalogue.engines);
    this.leave();
    this.#parts.alert.textContent = "";
    this.#parts.words.textContent = "The sentence is being spoken. The first one in a new voice takes longer.";
    const asked = { text: this.#text.control.value, voice: voice.id, ...(speaker === DEFAULT ? {} : { personality: speaker }) };
    this.#asked = asked;
    try {
      const { audio } = await withKey(() => request("POST", "tts", asked, LIMIT_MS));
      if (this.#asked === asked) await this.#play(audio);
    } catch (error) {
      if (this.#asked !== asked) return;
      this.#parts.words.textContent = "";
      this.#parts.alert.textContent = why(error);
    }
  }

  /** @param {string} audio base64 of a WAV file */
  async #play(audio) {
    const file = Uint8Array.from(atob(audio), (c) => c.charCodeAt(0));
    this.leave();
    this.#parts.player.src = URL.createObjectURL(new Blob([file], { type: "audio/wav" }));
    this.#parts.player.hidden = false;
    await this.#parts.player.play().catch((error) => console.info("the sentence waits for its button", error));
  }
}

/** Say why nobody speaks with a voice, or with any. @param {Voice | undefined} voice @param {Catalogue} catalogue */
function whyNot(voice, { agents, engines }) {
  const here = speechEngine(agents.find(({ id }) => id === DEFAULT), engines);
  const others = engines.tts.filter(({ name, clones }) => clones && name !== here?.name);
  const kept = voice ? `${voice.name} is` : "What you clone is";
  const now = voice && here && here.name in VENDORS
    ? `${VENDORS[here.name]} speaks here, and ${voice.name} was not made there. Clone it again, and have it made there too.`
    : `${here?.name ?? "The speech engine"}, which speaks here, cannot clone voices. ${kept} kept all the same, and spoken with once an engine that clones is chosen.`;
  return [element("p", {}, now), element("ul", {}, ...others.map((engine) => element("li", {}, wouldIf(engine, voice))))];
}

/** @param {Engine} engine @param {Voice | undefined} voice */
function wouldIf({ name, usable, lacks }, voice) {
  if (!usable) return `${name} would, but lacks ${lacks ?? "something"}.`;
  return voice && name in VENDORS && !(name in voice.engines)
    ? `${name} can be used here, but ${voice.name} was not made there.`
    : `${name} can be used here: choose it as an agent's speech engine.`;
}
