// Voices: which ones are kept, what they sound like, and how another is cloned.

import { ApiError, download, request } from "./api.js";
import { load, loadStyle, VENDORS, wantAgent, why } from "./catalogue.js";
import { confirmed } from "./dialogs.js";
import { element } from "./dom.js";
import { oneAtATime } from "./fields.js";
import { withKey } from "./key.js";
import { SamplePlayer } from "./sample_player.js";
import { VoiceForm } from "./voice_form.js";
import { VoiceTrial } from "./voice_trial.js";

/** @typedef {import("./catalogue.js").Voice} Voice */

export class VoicesView {
  #alert = element("div", { role: "alert" });
  #status = element("p", { role: "status", class: "soft" });
  #list = element("ul", { class: "entries" });
  #form = new VoiceForm((voice) => this.#made(voice));
  #trial = new VoiceTrial();
  #player = new SamplePlayer((id) => withKey(() => download(`voices/${encodeURIComponent(id)}/sample`)), (error) => this.#fail(error));

  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
    section.classList.add("catalogue");
    section.append(
      element("div", { class: "stack" },
        element("div", { class: "card" },
          element("div", { class: "heading" }, element("h2", {}, "Voices")), this.#alert, this.#status, this.#list),
        this.#trial.root),
      this.#form.root);
    addEventListener("hashchange", () => {
      if (this.section.hidden) this.#leave();
    });
  }

  /** Show which there are by now; a sample that is not sent yet is still there. */
  async show() {
    await loadStyle();
    this.#form.show();
    await this.#refresh();
  }

  #leave() {
    this.#form.leave();
    this.#trial.leave();
    this.#player.stop();
  }

  async #refresh() {
    try {
      const catalogue = await load();
      this.#alert.replaceChildren();
      this.#form.offer(catalogue.engines);
      this.#trial.offer(catalogue);
      this.#player.stop();
      const none = element("li", { class: "empty" }, "No voice is kept yet. Clone one, and give it to an agent.");
      this.#list.replaceChildren(...(catalogue.voices.length ? catalogue.voices.map((voice) => this.#entry(voice)) : [none]));
    } catch (error) {
      const again = element("button", { type: "button" }, "Try again");
      again.addEventListener("click", () => void this.show());
      this.#fail(error, again);
    }
  }

  /** @param {unknown} error @param {...Node} remedies */
  #fail(error, ...remedies) {
    this.#status.textContent = "";
    this.#alert.replaceChildren(element("p", {}, why(error)), ...remedies);
  }

  /** @param {Voice} voice */
  #entry(voice) {
    const play = element("button", { type: "button", "aria-label": `Play ${voice.name}` }, "Play");
    const remove = element("button", { type: "button", class: "stop", "aria-label": `Delete ${voice.name}` }, "Delete");
    play.addEventListener("click", () => void this.#player.toggle(voice.id, play));
    remove.addEventListener("click", oneAtATime(remove, () => this.#delete(voice)));
    const vendors = Object.keys(voice.engines).map((name) => VENDORS[name] ?? name);
    const where = vendors.length ? `, also at ${vendors.join(" and ")}` : "";
    return element("li", { "data-voice": voice.id },
      element("div", { class: "about" },
        element("h3", {}, voice.name), element("p", { class: "soft" }, `${voice.duration_s.toFixed(1)} s${where}`)),
      element("div", { class: "row" }, play, remove));
  }

  /** @param {Voice} voice */
  async #made(voice) {
    await this.#refresh();
    this.#trial.choose(voice.id);
  }

  /** @param {Voice} voice */
  async #delete(voice) {
    const vendors = Object.keys(voice.engines).map((name) => VENDORS[name] ?? name);
    const there = vendors.length ? ` It is deleted at ${vendors.join(" and ")} too.` : "";
    if (!(await confirmed(`Delete ${voice.name}?`, `Its sample is deleted with it.${there} This cannot be undone.`, "Delete voice"))) return;
    try {
      await withKey(() => request("DELETE", `voices/${encodeURIComponent(voice.id)}`, undefined, 60_000));
    } catch (error) {
      const status = error instanceof ApiError ? error.status : 0;
      if (status === 409) return this.#inUse(voice, error);
      if (status !== 404) return this.#fail(error);
    }
    await this.#refresh();
    this.#status.textContent = `${voice.name} is deleted.`;
    this.section.querySelector("button")?.focus();
  }

  /** Say who speaks with it, and lead there. @param {Voice} voice @param {unknown} error */
  async #inUse(voice, error) {
    const users = await load().then(({ agents }) => agents.filter((agent) => agent.voice === voice.id), () => []);
    if (!users.length) return this.#fail(error);
    const names = users.map(({ name }) => name).join(", ");
    const verb = users.length === 1 ? "speaks" : "speak";
    this.#status.textContent = "";
    this.#alert.replaceChildren(
      element("p", {}, `${names} ${verb} with ${voice.name}. Choose another voice there first.`),
      element("div", { class: "row" }, ...users.map(({ id, name }) => {
        const go = element("a", { class: "button", href: "#agents" }, `Edit ${name}`);
        go.addEventListener("click", () => wantAgent(id));
        return go;
      })));
  }
}
