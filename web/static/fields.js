// Forms: a control with its label, its hint and what is wrong with it; and what is true of every form here.

import { ApiError } from "./api.js";
import { sentence, why } from "./catalogue.js";
import { element } from "./dom.js";

/** @typedef {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} Control */

/**
 * One control. `root` goes into the form.
 * @template {Control} T
 */
export class Field {
  /**
   * @param {string} id
   * @param {string} label
   * @param {T} control
   * @param {string} [hint]
   */
  constructor(id, label, control, hint = "") {
    control.id = id;
    this.control = control;
    this.hint = element("p", { id: `${id}-hint`, class: "soft", hidden: hint === "" }, hint);
    this.fault = element("p", { id: `${id}-fault`, class: "wrong", hidden: true });
    control.setAttribute("aria-describedby", `${this.hint.id} ${this.fault.id}`);
    control.addEventListener("input", () => this.blame(""));
    const named = control.type === "checkbox"
      ? [element("label", { class: "check", for: id }, control, label)]
      : [element("label", { for: id }, element("span", {}, label)), control];
    this.root = element("div", { class: "field" }, ...named, this.hint, this.fault);
  }

  /** Say what it is good for. @param {string} words */
  advise(words) {
    this.hint.textContent = words;
    this.hint.hidden = words === "";
  }

  /** Say what is wrong with it; nothing is, with no words. @param {string} words */
  blame(words) {
    this.fault.textContent = words;
    this.fault.hidden = words === "";
    if (words) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }

  /** Say what the browser has to say against it. @param {string} words instead of what the browser would @returns {boolean} whether it is fine */
  check(words) {
    const fine = this.control.checkValidity();
    this.blame(fine ? "" : words);
    return fine;
  }
}

/**
 * Show why the server refused a form, at the field that was wrong, which gets the focus.
 * @param {unknown} error
 * @param {Record<string, Field<any>>} fields by the server's names
 * @param {HTMLElement} alert where no field is at fault
 */
export function showFault(error, fields, alert) {
  const param = error instanceof ApiError ? error.param : null;
  const field = param !== null && Object.hasOwn(fields, param) ? fields[param] : null;
  if (field === null) {
    alert.textContent = why(error);
    return;
  }
  const words = why(error);
  field.blame(words.toLowerCase().startsWith(`${param}: `) ? sentence(words.slice(`${param}: `.length)) : words);
  field.control.focus();
}

/**
 * Make a handler that does nothing while it is at work already: a second click is none.
 * @param {HTMLButtonElement} button it stands for
 * @param {() => Promise<void>} work
 * @returns {(event?: Event) => Promise<void>}
 */
export function oneAtATime(button, work) {
  let atWork = false;
  return async (event) => {
    event?.preventDefault();
    if (atWork) return;
    atWork = true;
    button.setAttribute("aria-disabled", "true");
    try {
      await work();
    } finally {
      atWork = false;
      button.removeAttribute("aria-disabled");
    }
  };
}
