// The key of a server that wants one: asked for where it is first missed, and then what missed it is done again.

import { useKey } from "./api.js";
import { openDialog } from "./dialogs.js";
import { element } from "./dom.js";
import { explain, needsKey } from "./errors.js";

/** @type {Promise<boolean> | null} one question, whoever else misses the key meanwhile */
let asked = null;

/**
 * Do something that asks the server; where it wants a key, ask the person for it and try again.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>} fails as `work` does, with the 401 if no key is given
 */
export async function withKey(work) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!needsKey(error)) throw error;
      asked ??= askForKey(explain(error)).finally(() => (asked = null));
      if (!(await asked)) throw error;
    }
  }
}

/** Ask for it. @param {string} why @returns {Promise<boolean>} whether one was given */
export function askForKey(why) {
  const input = element("input", { id: "dialog-key", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const cancel = element("button", { type: "button" }, "Cancel");
  const form = element("form", { class: "fields" },
    element("h2", { id: "dialog-key-title" }, "This server wants a key"),
    element("p", {}, why),
    element("div", { class: "field" }, element("label", { for: "dialog-key" }, element("span", {}, "API key of this server")), input),
    element("div", { class: "row" }, element("button", { type: "submit", class: "primary" }, "Use key"), cancel));
  const dialog = element("dialog", { "aria-labelledby": "dialog-key-title" }, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(input.value.trim());
    dialog.close("given");
  });
  cancel.addEventListener("click", () => dialog.close(""));
  return openDialog(dialog).then((answer) => answer === "given");
}
