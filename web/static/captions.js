// The conversation on the page. Words are set as text, never as markup.

/** @typedef {import("./conversation.js").Entry} Entry */

const SPEAKER = { caller: "You", agent: "Agent", note: "Note" };

/** A model may be many sentences ahead of its voice: of what was cut off, this much is shown. */
const CUT_CHARACTERS = 140;

export class Captions {
  /** @type {Map<number, HTMLLIElement>} */ #items = new Map();

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
    this.#items.clear();
    this.list.replaceChildren();
  }

  /** @param {Entry} entry */
  #draw(entry) {
    const item = this.#items.get(entry.id) ?? this.#add(entry);
    if (entry.state === "gone") {
      item.remove();
      this.#items.delete(entry.id);
      return;
    }
    item.dataset.state = entry.state;
    const [said, cut] = /** @type {HTMLElement[]} */ ([...item.querySelectorAll(".said, .cut")]);
    said.textContent = entry.text;
    cut.textContent = shortened(entry.cut);
    cut.hidden = !entry.cut;
    item.toggleAttribute("data-waiting", entry.state === "live" && !entry.text);
  }

  /** @param {Entry} entry */
  #add(entry) {
    const item = document.createElement("li");
    item.dataset.role = entry.role;
    item.append(element("b", "who", SPEAKER[entry.role]), element("span", "said"), element("s", "cut"));
    item.querySelector(".cut")?.setAttribute("title", "Cut off: you did not hear this");
    this.#items.set(entry.id, item);
    this.list.append(item);
    return item;
  }
}

/** @param {string} text */
function shortened(text) {
  return text.length > CUT_CHARACTERS ? `${text.slice(0, CUT_CHARACTERS).replace(/\s+\S*$/, "")} …` : text;
}

/** @param {string} tag @param {string} className @param {string} text */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
