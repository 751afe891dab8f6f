// The form of one agent. What is typed into it is never lost to an error.

import { ApiError, request } from "./api.js";
import { DEFAULT, languageName } from "./catalogue.js";
import { element } from "./dom.js";
import { EngineFields } from "./engine_fields.js";
import { Field, oneAtATime, showFault } from "./fields.js";
import { withKey } from "./key.js";
import { VoiceField } from "./voice_field.js";

/** @typedef {import("./catalogue.js").Agent} Agent */
/** @typedef {import("./agents.js").Catalogue} Catalogue */

/**
 * @typedef {object} Listener
 * @property {(agent: Agent) => Promise<void>} onSaved
 * @property {(agent: Agent) => Promise<void>} onDelete it is wanted
 * @property {() => Promise<void>} onClose it is wanted
 */

/** Those that XTTS and the cloud's engines speak; any other code may be typed. */
const LANGUAGES = "ar bg ca cs da de el en en-GB es et fi fr he hi hr hu id it ja ko lt lv nl no pl pt pt-BR ro ru sk sl sv th tr uk vi zh".split(" ");
const ID = "[A-Za-z0-9_\\-]{1,64}";
const SPEED_STEP = 0.05;

const WORDS = {
  name: "Give the agent a name.",
  id: "Use letters, digits, - and _ only, at most 64 of them.",
  language: "Use a language's code of two letters, such as en, or one with its region, such as en-GB.",
};
const DELETED = "Somebody deleted this agent meanwhile. Your changes are still here: save them to add it again.";
const TAKEN = "An agent has this id already. Choose another id, or edit that agent.";
const NEVER_DELETED = "This agent answers whoever asks for nobody else, so it can be changed but not deleted.";

export class AgentForm {
  #parts = parts();
  #fields = fields();
  #voice = new VoiceField();
  #engines = new EngineFields(() => this.#voice.advise(this.#engines.speech()));
  #saving = Promise.resolve();
  /** What is kept, and what the form said when it was filled. @type {{agent: Agent | null, filled: string}} */
  #known = { agent: null, filled: "" };

  /** @param {Listener} listener */
  constructor(listener) {
    this.listener = listener;
    const { save, close, remove } = this.#parts;
    this.root = this.#layOut();
    this.root.addEventListener("submit", oneAtATime(save, () => (this.#saving = this.#save())));
    close.addEventListener("click", () => void listener.onClose());
    remove.addEventListener("click", oneAtATime(remove, async () => {
      if (this.#known.agent !== null) await listener.onDelete(this.#known.agent);
    }));
    this.#fields.language.control.addEventListener("input", () => this.#nameLanguage());
    this.#fields.speed.control.addEventListener("input", () => this.#saySpeed());
  }

  /** Offer these voices and engines; what was chosen stays chosen. @param {Catalogue} catalogue */
  offer({ voices, engines }) {
    this.#engines.offer(engines);
    this.#voice.offer(voices);
    this.#voice.advise(this.#engines.speech());
  }

  /**
   * Show an agent; null: a new one.
   * @param {Agent | null} agent
   * @param {string} prompt a new one's
   * @param {{focus: boolean}} [options]
   */
  open(agent, prompt, { focus } = { focus: true }) {
    const { heading, alert, save, remove } = this.#parts;
    alert.textContent = "";
    for (const field of Object.values(this.#fields)) field.blame("");
    this.#fill(agent ?? { ...NEW, system_prompt: prompt });
    this.#known = { agent, filled: this.#said() };
    heading.textContent = agent ? `Edit ${agent.name}` : "New agent";
    this.#fields.id.root.hidden = agent !== null;
    save.textContent = agent ? "Save" : "Add agent";
    remove.hidden = agent === null || agent.id === DEFAULT;
    this.#fields.name.advise(agent?.id === DEFAULT ? NEVER_DELETED : "");
    this.root.hidden = false;
    if (focus) this.#fields.name.control.focus();
  }

  close() {
    this.#known = { agent: null, filled: "" };
    this.root.hidden = true;
  }

  /** @returns {string} the id of the agent that is shown; empty without one */
  agentId() {
    return this.root.hidden ? "" : (this.#known.agent?.id ?? "");
  }

  /** Whether something would be lost if it were closed. */
  changed() {
    return !this.root.hidden && this.#said() !== this.#known.filled;
  }

  /** Wait until nothing is being saved. */
  async settled() {
    await this.#saving;
  }

  /** @param {unknown} error */
  complain(error) {
    showFault(error, { ...this.#fields, voice: this.#voice.field, ...this.#engines.fields }, this.#parts.alert);
  }

  async #save() {
    this.#parts.alert.textContent = "";
    if (!this.#check()) return;
    const agent = this.#known.agent;
    try {
      const body = this.#read();
      const saved = await withKey(() => agent === null
        ? request("POST", "agents", body)
        : request("PUT", `agents/${encodeURIComponent(agent.id)}`, body));
      await this.listener.onSaved(saved);
    } catch (error) {
      this.#refused(error);
    }
  }

  /** @param {unknown} error */
  #refused(error) {
    const status = error instanceof ApiError ? error.status : 0;
    if (status === 404 && this.#known.agent !== null) {
      this.#fields.id.control.value = this.#known.agent.id;
      this.#known.agent = null;
      this.#fields.id.root.hidden = false;
      this.#parts.save.textContent = "Add agent";
      this.#parts.remove.hidden = true;
      this.#parts.alert.textContent = DELETED;
      return;
    }
    const isTaken = error instanceof ApiError && status === 409 && error.param === "id";
    this.complain(isTaken ? new ApiError(status, TAKEN, null, "id") : error);
  }

  /** Say what is wrong before the server has to; the first that is gets the focus. */
  #check() {
    const { name, id, language } = this.#fields;
    /** @type {import("./fields.js").Field<any>[]} */
    const wrong = [];
    if (!name.check(WORDS.name)) wrong.push(name);
    if (!id.check(WORDS.id)) wrong.push(id);
    if (!language.check(WORDS.language)) wrong.push(language);
    if (!this.#voice.check()) wrong.push(this.#voice.field);
    wrong[0]?.control.focus();
    return wrong.length === 0;
  }

  /** @param {Agent} agent */
  #fill(agent) {
    const { name, id, system_prompt, greeting, language, speed, allow_interruptions } = this.#fields;
    name.control.value = agent.name;
    id.control.value = "";
    system_prompt.control.value = agent.system_prompt;
    greeting.control.value = agent.greeting;
    language.control.value = agent.language;
    speed.control.setAttribute("step", isStep(agent.speed) ? String(SPEED_STEP) : "any");
    speed.control.value = String(agent.speed);
    allow_interruptions.control.checked = agent.allow_interruptions;
    this.#engines.fill(agent);
    this.#voice.fill(agent.voice);
    this.#voice.advise(this.#engines.speech());
    this.#nameLanguage();
    this.#saySpeed();
  }

  /** Return it as the server takes it. */
  #read() {
    const { name, id, system_prompt, greeting, language, speed, allow_interruptions } = this.#fields;
    return {
      ...(this.#known.agent === null && id.control.value ? { id: id.control.value } : {}),
      name: name.control.value.trim(),
      system_prompt: system_prompt.control.value,
      greeting: greeting.control.value,
      language: language.control.value,
      speed: Number(speed.control.value),
      voice: this.#voice.value(),
      allow_interruptions: allow_interruptions.control.checked,
      ...this.#engines.read(),
    };
  }

  #said() {
    return JSON.stringify(this.#read());
  }

  #nameLanguage() {
    const { control } = this.#fields.language;
    const name = control.value && control.checkValidity() ? languageName(control.value) : "";
    this.#fields.language.advise(name === control.value ? "" : name);
  }

  #saySpeed() {
    const { control } = this.#fields.speed;
    const speed = Number(control.value);
    const words = `${speed.toFixed(2)} times the voice's own tempo`;
    control.setAttribute("aria-valuetext", words);
    this.#fields.speed.advise(speed === 1 ? "The voice's own tempo" : words);
  }

  #layOut() {
    const { name, id, system_prompt, greeting, language, speed, allow_interruptions } = this.#fields;
    const { heading, alert, save, close, remove } = this.#parts;
    const codes = element("datalist", { id: "languages" }, ...LANGUAGES.map((code) => element("option", { value: code }, languageName(code))));
    const root = element("form", { class: "card fields", id: "agent-form", novalidate: true, "aria-label": "Agent" },
      heading, alert,
      name.root, id.root, system_prompt.root, greeting.root,
      element("div", { class: "pair" }, language.root, speed.root), codes,
      ...this.#voice.roots,
      allow_interruptions.root,
      this.#engines.root,
      element("div", { class: "row" }, save, close, remove));
    root.hidden = true;
    return root;
  }
}

/** @type {Agent} */
const NEW = {
  id: "", name: "", system_prompt: "", greeting: "", language: "en", speed: 1, voice: null,
  allow_interruptions: true, stt: null, llm: null, tts: null,
};

/** Whether a speed is one that the range has. @param {number} speed */
function isStep(speed) {
  return Math.abs(speed / SPEED_STEP - Math.round(speed / SPEED_STEP)) < 1e-6;
}

function fields() {
  return {
    name: new Field("agent-name", "Name", element("input", { type: "text", required: true, maxlength: "200", pattern: ".*\\S.*", autocomplete: "off" })),
    id: new Field("agent-id", "Id", element("input", { type: "text", pattern: ID, maxlength: "64", autocomplete: "off", spellcheck: "false" }),
      "Names the agent to programs. Left empty, it is made from the name."),
    system_prompt: new Field("agent-prompt", "Personality", element("textarea", { maxlength: "16384" }),
      "Who the agent is, what it knows and how it speaks: the language model's system prompt."),
    greeting: new Field("agent-greeting", "Greeting", element("textarea", { maxlength: "1000", class: "low" }),
      "What it says first. Left empty, it waits for the caller."),
    language: new Field("agent-language", "Language",
      element("input", { type: "text", list: "languages", required: true, pattern: "[a-z]{2}(-[A-Za-z]{2,4})?", autocomplete: "off", spellcheck: "false" })),
    speed: new Field("agent-speed", "Speed", element("input", { type: "range", min: "0.25", max: "4", step: String(SPEED_STEP) })),
    allow_interruptions: new Field("agent-interruptions", "The caller may interrupt", element("input", { type: "checkbox" })),
  };
}

function parts() {
  return {
    heading: element("h2"),
    alert: element("div", { role: "alert" }),
    save: element("button", { type: "submit", class: "primary" }, "Save"),
    close: element("button", { type: "button" }, "Close"),
    remove: element("button", { type: "button", class: "stop apart" }, "Delete"),
  };
}
