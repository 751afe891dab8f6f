// Which engines an agent wants: one that can be used here, or what the server itself has chosen.

import { sentence } from "./catalogue.js";
import { element } from "./dom.js";
import { Field } from "./fields.js";

/** @typedef {import("./catalogue.js").Engine} Engine */
/** @typedef {import("./catalogue.js").Engines} Engines */
/** @typedef {"stt" | "llm" | "tts"} Kind */

/** @type {Record<Kind, string>} */
const KINDS = { stt: "Speech-to-text", llm: "Language model", tts: "Text-to-speech" };

export class EngineFields {
  #lacking = element("dl", { class: "pairs" });
  #details = element("details", {}, element("summary", {}, "What the others lack"), this.#lacking);
  /** @type {Engines} */ #engines = { stt: [], llm: [], tts: [] };

  /** @param {() => void} onSpeech another speech engine was chosen */
  constructor(onSpeech) {
    /** @type {Record<Kind, Field<HTMLSelectElement>>} */
    this.fields = {
      stt: new Field("agent-stt", KINDS.stt, element("select")),
      llm: new Field("agent-llm", KINDS.llm, element("select")),
      tts: new Field("agent-tts", KINDS.tts, element("select")),
    };
    this.fields.tts.control.addEventListener("change", onSpeech);
    const columns = element("div", { class: "columns" }, ...Object.values(this.fields).map(({ root }) => root));
    this.root = element("fieldset", {}, element("legend", {}, "Engines"), columns, this.#details);
  }

  /** Offer these; what was chosen stays chosen. @param {Engines} engines */
  offer(engines) {
    const before = this.read();
    this.#engines = engines;
    this.fill(before);
    const lacking = kinds().flatMap((kind) => engines[kind].filter(({ usable }) => !usable).map((engine) => ({ kind, engine })));
    this.#details.hidden = lacking.length === 0;
    this.#lacking.replaceChildren(...lacking.flatMap(({ kind, engine }) => [
      element("dt", {}, `${engine.name}, ${KINDS[kind].toLowerCase()}`),
      element("dd", {}, sentence(engine.lacks ?? "")),
    ]));
  }

  /** @param {Record<Kind, string | null>} wanted */
  fill(wanted) {
    for (const kind of kinds()) {
      const { control } = this.fields[kind];
      control.replaceChildren(...options(this.#engines[kind], wanted[kind]));
      control.value = wanted[kind] ?? "";
      this.fields[kind].blame("");
    }
  }

  /** @returns {Record<Kind, string | null>} */
  read() {
    const { stt, llm, tts } = this.fields;
    return { stt: stt.control.value || null, llm: llm.control.value || null, tts: tts.control.value || null };
  }

  /** Return the speech engine that is chosen, the server's own choice if none is. */
  speech() {
    const { tts } = this.read();
    return this.#engines.tts.find((engine) => (tts === null ? engine.chosen : engine.name === tts));
  }
}

/** @returns {Kind[]} */
function kinds() {
  return ["stt", "llm", "tts"];
}

/** @param {Engine[]} engines @param {string | null} wanted stays to be chosen even if it is gone */
function options(engines, wanted) {
  const own = engines.find(({ chosen }) => chosen);
  const usable = engines.filter((engine) => engine.usable && !engine.by_name_only);
  const byName = engines.filter((engine) => engine.usable && engine.by_name_only);
  const lacking = engines.filter((engine) => !engine.usable);
  const isGone = wanted !== null && !engines.some(({ name }) => name === wanted);
  return [
    element("option", { value: "" }, own ? `The server's choice: ${own.name}` : "The server's choice"),
    ...group("Usable here", usable),
    ...group("Never chosen by the server itself", byName),
    ...group("Lacking something", lacking),
    ...(isGone ? [element("option", { value: wanted }, `${wanted}, not known here`)] : []),
  ];
}

/** @param {string} label @param {Engine[]} engines */
function group(label, engines) {
  if (!engines.length) return [];
  return [element("optgroup", { label }, ...engines.map(({ name, usable, lacks }) =>
    element("option", { value: name, disabled: !usable }, usable ? name : `${name}, lacks ${(lacks ?? "").split(/[:;]/)[0]}`)))];
}
