// The form that clones a voice: a sample, whose it is, and that they have agreed.

import { ApiError } from "./api.js";
import { sentence, VENDORS, why } from "./catalogue.js";
import { element } from "./dom.js";
import { Field, oneAtATime, showFault } from "./fields.js";
import { withKey } from "./key.js";
import { SampleInput } from "./sample_input.js";
import { upload } from "./upload.js";

/** @typedef {import("./catalogue.js").Voice} Voice */
/** @typedef {import("./catalogue.js").Engines} Engines */

/** A slow line, a server that looks at it, and vendors that take 30 s. */
const LIMIT_MS = 600_000;
const CONSENT = "The person who speaks has agreed to this, in writing, and knows what the voice will say and to whom.";
const NO_CONSENT = "Clone only the voice of somebody who has agreed to it, and say so here.";
const ADVICE = "6 to 15 s of one person, in a quiet room, speaking as the agent is to speak. No music, no echo, no second voice.";
const SENT = "They are sent the sample and the name. Their terms apply.";

export class VoiceForm {
  #sample = new SampleInput();
  #fields = {
    name: new Field("voice-name", "Name of the voice", element("input", { type: "text", required: true, maxlength: "200", pattern: ".*\\S.*", autocomplete: "off" })),
    consent: new Field("voice-consent", CONSENT, element("input", { type: "checkbox", required: true })),
    language: new Field("voice-language", "Language of the sample",
      element("input", { type: "text", required: true, pattern: "[a-z]{2}(-[A-Za-z]{2,4})?", value: "en", autocomplete: "off" })),
  };
  #vendors = { root: element("fieldset", { hidden: true }), boxes: element("div", { class: "row boxes" }) };
  #alert = element("div", { role: "alert" });
  #progress = element("progress", { max: "1", hidden: true, "aria-label": "Sent" });
  #words = element("p", { role: "status", class: "soft" });

  /** @param {(voice: Voice) => Promise<void>} onMade */
  constructor(onMade) {
    this.onMade = onMade;
    const submit = element("button", { type: "submit", class: "primary" }, "Clone this voice");
    const { root, boxes } = this.#vendors;
    root.append(element("legend", {}, "Also make this voice at"), boxes, element("p", { class: "soft" }, SENT), this.#fields.language.root);
    this.root = element("form", { class: "card fields", id: "voice-form", novalidate: true, "aria-label": "Clone a voice" },
      element("h2", {}, "Clone a voice"), element("p", { class: "soft" }, ADVICE),
      this.#sample.root, this.#fields.name.root, root, this.#fields.consent.root,
      element("div", { class: "row" }, submit), this.#progress, this.#words, this.#alert);
    this.root.addEventListener("submit", oneAtATime(submit, () => this.#send()));
  }

  /** Offer the vendors that can be asked from here. @param {Engines} engines */
  offer(engines) {
    const before = this.#wanted();
    const usable = engines.tts.filter(({ name, usable }) => usable && name in VENDORS);
    this.#vendors.root.hidden = usable.length === 0;
    this.#vendors.boxes.replaceChildren(...usable.map(({ name }) => {
      const box = element("input", { type: "checkbox", id: `vendor-${name}`, value: name });
      box.checked = before.includes(name);
      return element("label", { class: "check", for: box.id }, box, VENDORS[name]);
    }));
  }

  leave() {
    this.#sample.leave();
  }

  show() {
    this.#sample.show();
  }

  /** @returns {string[]} */
  #wanted() {
    return [...this.#vendors.boxes.querySelectorAll("input")].filter(({ checked }) => checked).map(({ value }) => value);
  }

  async #send() {
    this.#alert.textContent = "";
    this.#words.textContent = "";
    const file = this.#check();
    if (file === null) return;
    const { name, consent } = this.#fields;
    this.#progress.hidden = false;
    this.#sample.root.inert = true;
    try {
      const voice = await withKey(() => upload("voices", this.#form(file), (share) => this.#tell(share), LIMIT_MS));
      this.#sample.clear();
      name.control.value = "";
      consent.control.checked = false;
      await this.onMade(voice);
      this.#words.textContent = `${voice.name} is kept, with ${voice.duration_s.toFixed(1)} s of speech.`;
    } catch (error) {
      this.#words.textContent = "";
      this.#sample.root.inert = false; // or it could not be given the focus
      this.#refused(error);
    } finally {
      this.#sample.root.inert = false;
      this.#progress.hidden = true;
    }
  }

  /** Say what is missing, first things first. @returns {File | null} what is to be sent */
  #check() {
    const { name, consent, language } = this.#fields;
    const wrong = [
      name.check("Give the voice a name.") ? null : name,
      this.#wanted().length === 0 || language.check("Use a language's code of two letters, such as en.") ? null : language,
      consent.check(NO_CONSENT) ? null : consent,
    ].find((field) => field !== null);
    wrong?.control.focus();
    return this.#sample.check() && !wrong ? this.#sample.file() : null;
  }

  /** @param {File} file */
  #form(file) {
    const form = new FormData();
    form.append("name", this.#fields.name.control.value.trim());
    for (const engine of this.#wanted()) form.append("engine", engine);
    if (this.#wanted().length) form.append("language", this.#fields.language.control.value);
    form.append("file", file, file.name);
    return form;
  }

  /** @param {number} share */
  #tell(share) {
    this.#progress.value = share;
    const vendors = this.#wanted().map((name) => VENDORS[name]).join(" and ");
    const words = share < 1 ? "Sending the sample." : vendors ? `Having it made at ${vendors}, which may take half a minute.` : "The server looks at it.";
    if (this.#words.textContent !== words) this.#words.textContent = words;
  }

  /** @param {unknown} error */
  #refused(error) {
    if (!(error instanceof ApiError)) return showFault(error, this.#fields, this.#alert);
    if (error.param === "file") return this.#sample.blame(error.status === 409 ? sentence(`${error.message}: give it another name`) : why(error));
    showFault(error, this.#fields, this.#alert);
  }
}
