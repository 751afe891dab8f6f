// Which voice an agent speaks with: a kept one, or what a speech engine or a vendor calls one of its own.

import { speaksWith } from "./catalogue.js";
import { element } from "./dom.js";
import { Field } from "./fields.js";

/** @typedef {import("./catalogue.js").Voice} Voice */
/** @typedef {import("./catalogue.js").Engine} Engine */

/** No kept voice has such an id: it has a colon. */
const OTHER = "other:";

export class VoiceField {
  #select = element("select");
  #other = new Field("agent-voice-name", "The voice's name or id",
    element("input", { type: "text", maxlength: "200", required: true, autocomplete: "off", spellcheck: "false" }),
    "As the speech engine or its vendor calls it, such as en-gb+f3 for espeak.");
  /** @type {Voice[]} */ #voices = [];
  /** @type {Engine | undefined} */ #engine = undefined;

  constructor() {
    this.field = new Field("agent-voice", "Voice", this.#select);
    this.roots = [this.field.root, this.#other.root];
    this.#select.addEventListener("change", () => {
      this.#showOther();
      this.advise(this.#engine);
    });
    this.fill(null);
  }

  /** Offer these voices; what was chosen stays chosen. @param {Voice[]} voices */
  offer(voices) {
    const before = this.value();
    this.#voices = voices;
    this.fill(before);
  }

  /** @param {string | null} voice */
  fill(voice) {
    const kept = this.#voices.map(({ id, name }) => element("option", { value: id }, name));
    this.#select.replaceChildren(
      element("option", { value: "" }, "The speech engine's own"),
      ...(kept.length ? [element("optgroup", { label: "Cloned voices" }, ...kept)] : []),
      element("option", { value: OTHER }, "Another, by its name or id"));
    const isKept = this.#voices.some(({ id }) => id === voice);
    this.#select.value = voice === null || isKept ? (voice ?? "") : OTHER;
    this.#other.control.value = voice === null || isKept ? "" : voice;
    this.#other.blame("");
    this.#showOther();
  }

  /** @returns {string | null} */
  value() {
    return (this.#select.value === OTHER ? this.#other.control.value.trim() : this.#select.value) || null;
  }

  /** Whether a voice is given where one was promised; if not, say so. */
  check() {
    return this.#select.value !== OTHER || this.#other.check("Say which voice, or choose one of the list.");
  }

  /** Say what the speech engine makes of the voice. @param {Engine | undefined} engine */
  advise(engine) {
    this.#engine = engine;
    const voice = this.#voices.find(({ id }) => id === this.#select.value);
    const useless = voice !== undefined && engine !== undefined && !speaksWith(engine, voice);
    this.field.advise(useless ? `${engine.name} cannot speak with this voice. It uses its own until another speech engine is chosen.` : "");
  }

  #showOther() {
    this.#other.root.hidden = this.#select.value !== OTHER;
  }
}
