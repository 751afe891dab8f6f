// Agents: who there is to speak with, and what each of them is like.

import { request } from "./api.js";
import { AgentForm } from "./agent_form.js";
import { DEFAULT, languageName, load, loadStyle, takeWanted, why } from "./catalogue.js";
import { confirmed } from "./dialogs.js";
import { element } from "./dom.js";
import { withKey } from "./key.js";

/** @typedef {import("./catalogue.js").Agent} Agent */
/** @typedef {Awaited<ReturnType<typeof load>>} Catalogue */

const EXCERPT_CHARS = 120;

export class AgentsView {
  #alert = element("div", { role: "alert" });
  #status = element("p", { role: "status", class: "soft" });
  #list = element("ul", { class: "entries" });
  #nobody = element("p", { class: "empty card nobody" }, "Choose an agent to edit, or add one.");
  /** @type {AgentForm} */ #form;
  /** @type {Catalogue} */ #catalogue = { agents: [], voices: [], engines: { stt: [], llm: [], tts: [] } };

  /** @param {HTMLElement} section @param {(id: string) => void} speakWith go and talk to this agent */
  constructor(section, speakWith) {
    this.speakWith = speakWith;
    this.#form = new AgentForm({
      onSaved: (agent) => this.#saved(agent),
      onDelete: (agent) => this.#delete(agent),
      onClose: () => this.#close(),
    });
    const add = element("button", { type: "button", class: "primary" }, "New agent");
    add.addEventListener("click", () => void this.#edit(null));
    section.classList.add("catalogue");
    section.append(
      element("div", { class: "card" },
        element("div", { class: "heading" }, element("h2", {}, "Agents"), add),
        this.#alert, this.#status, this.#list),
      this.#form.root, this.#nobody);
    addEventListener("beforeunload", (event) => {
      if (this.#form.changed()) event.preventDefault();
    });
  }

  /** Show who there is by now; what is being edited stays as it is. */
  async show() {
    await loadStyle();
    if (!(await this.#refresh())) return;
    const wanted = takeWanted();
    const agent = this.#catalogue.agents.find(({ id }) => id === wanted);
    if (agent) await this.#edit(agent);
  }

  async #refresh() {
    try {
      this.#catalogue = await load();
    } catch (error) {
      this.#fail(error);
      return false;
    }
    this.#alert.replaceChildren();
    this.#form.offer(this.#catalogue);
    this.#draw();
    return true;
  }

  /** @param {unknown} error */
  #fail(error) {
    const again = element("button", { type: "button" }, "Try again");
    again.addEventListener("click", () => void this.show());
    this.#alert.replaceChildren(element("p", {}, why(error)), again);
  }

  #draw() {
    this.#list.replaceChildren(...this.#catalogue.agents.map((agent) => this.#entry(agent)));
    this.#nobody.hidden = !this.#form.root.hidden;
  }

  /** @param {Agent} agent */
  #entry(agent) {
    const speak = element("button", { type: "button", "aria-label": `Speak with ${agent.name}` }, "Speak");
    const edit = element("button", { type: "button", "aria-label": `Edit ${agent.name}`, "data-edit": agent.id }, "Edit");
    speak.addEventListener("click", () => this.speakWith(agent.id));
    edit.addEventListener("click", () => void this.#edit(agent));
    const voice = this.#catalogue.voices.find(({ id }) => id === agent.voice)?.name ?? agent.voice ?? "the engine's own voice";
    const prompt = agent.system_prompt.replaceAll(/\s+/g, " ");
    const excerpt = prompt.length > EXCERPT_CHARS ? `${prompt.slice(0, EXCERPT_CHARS).trimEnd()}…` : prompt;
    return element("li", { "data-agent": agent.id, "aria-current": this.#form.agentId() === agent.id ? "true" : false },
      element("div", { class: "about" },
        element("h3", {}, agent.name),
        element("p", { class: "soft" }, `${languageName(agent.language)}, ${voice}`),
        element("p", {}, excerpt)),
      element("div", { class: "row" }, speak, edit));
  }

  /** @param {Agent | null} agent null: a new one */
  async #edit(agent) {
    if (!(await this.#mayLeave())) return;
    this.#status.textContent = "";
    const standard = this.#catalogue.agents.find(({ id }) => id === DEFAULT);
    this.#form.open(agent, standard?.system_prompt ?? "");
    this.#draw();
  }

  async #close() {
    const id = this.#form.agentId();
    if (!(await this.#mayLeave())) return;
    this.#form.close();
    this.#draw();
    this.#focus(id);
  }

  async #mayLeave() {
    await this.#form.settled();
    return !this.#form.changed()
      || (await confirmed("Discard your changes?", "What you have changed of this agent is not saved.", "Discard changes"));
  }

  /** @param {Agent} agent as it is kept now */
  async #saved(agent) {
    this.#form.open(agent, "", { focus: false });
    this.#status.textContent = `${agent.name} is saved.`;
    await this.#refresh();
  }

  /** @param {Agent} agent */
  async #delete(agent) {
    const meaning = "Calls that are running go on to their end. This cannot be undone.";
    if (!(await confirmed(`Delete ${agent.name}?`, meaning, "Delete agent"))) return;
    try {
      await withKey(() => request("DELETE", `agents/${encodeURIComponent(agent.id)}`));
    } catch (error) {
      if (!(error instanceof Error && "status" in error && error.status === 404)) {
        this.#form.complain(error);
        return;
      }
    }
    this.#form.close();
    this.#status.textContent = `${agent.name} is deleted.`;
    await this.#refresh();
    this.#focus("");
  }

  /** @param {string} id of the agent in whose row it goes; else the first */
  #focus(id) {
    const buttons = [...this.#list.querySelectorAll("button[data-edit]")];
    const button = buttons.find((each) => each.getAttribute("data-edit") === id) ?? buttons[0];
    if (button instanceof HTMLElement) button.focus();
  }
}
