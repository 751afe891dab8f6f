// Questions in a dialog of the page's own.

import { element } from "./dom.js";

/** Show a dialog until it is closed, and then take it out of the page. @param {HTMLDialogElement} dialog @returns {Promise<string>} its answer */
export function openDialog(dialog) {
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
}

/**
 * Ask before something is done that cannot be undone.
 * @param {string} question
 * @param {string} meaning what it comes to
 * @param {string} action the words on the button that does it
 * @returns {Promise<boolean>}
 */
export async function confirmed(question, meaning, action) {
  const go = element("button", { type: "button", class: "stop" }, action);
  const stay = element("button", { type: "button", autofocus: true }, "Cancel");
  const dialog = element("dialog", { "aria-labelledby": "dialog-question", "aria-describedby": "dialog-meaning" },
    element("div", { class: "fields" },
      element("h2", { id: "dialog-question" }, question),
      element("p", { id: "dialog-meaning" }, meaning),
      element("div", { class: "row" }, go, stay)));
  go.addEventListener("click", () => dialog.close("go"));
  stay.addEventListener("click", () => dialog.close(""));
  return (await openDialog(dialog)) === "go";
}
