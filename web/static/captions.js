// The conversation on the page. Words are set as text, never as markup.

import { element } from "./dom.js";
import { Reveal } from "./reveal.js";

/** @typedef {import("./conversation.js").Entry} Entry */

const SPEAKER = { caller: "You", agent: "Agent", note: "Note" };

/** A model may be many sentences ahead of its voice: of what was cut off, this much is shown. */
const CUT_CHARACTERS = 140;

export class Captions {
  /** @type {Map<number, {item: HTMLLIElement, said: HTMLElement, cut: HTMLElement, reveal: Reveal | null}>} */ #lines = new Map();

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
  }

  /** Draw what changed. @param {Entry[]} entries */
  show(entries) {
    for (const entry of entries) this.#draw(entry);
  }

  /** Forget the last call's words. */
  clear() {
    this.#lines.clear();
    this.list.replaceChildren();
  }

  /** @param {Entry} entry */
  #draw(entry) {
    const line = this.#lines.get(entry.id) ?? this.#add(entry);
    const { item, said, cut, reveal } = line;
    if (entry.state === "gone") {
      reveal?.settle("");
      item.remove();
      this.#lines.delete(entry.id);
      return;
    }
    item.dataset.state = entry.state;
    if (!reveal) said.textContent = entry.text;
    else if (entry.state === "live" && entry.text) reveal.begin(entry.text);
    else reveal.settle(entry.text);
    cut.textContent = shortened(entry.cut);
    cut.hidden = !entry.cut;
    item.toggleAttribute("data-waiting", entry.state === "live" && !entry.text);
  }

  /** @param {Entry} entry */
  #add(entry) {
    const said = element("span", { class: "said" });
    const cut = element("s", { class: "cut", title: "Cut off: you did not hear this" });
    const item = element("li", { "data-role": entry.role }, element("b", { class: "who" }, SPEAKER[entry.role]), said, " ", cut);
    const reveal = entry.role === "agent" ? new Reveal((words) => (said.textContent = words)) : null;
    const line = { item, said, cut, reveal };
    this.#lines.set(entry.id, line);
    this.list.append(item);
    return line;
  }
}

/** @param {string} text */
function shortened(text) {
  return text.length > CUT_CHARACTERS ? `${text.slice(0, CUT_CHARACTERS).replace(/\s+\S*$/, "")} …` : text;
}
