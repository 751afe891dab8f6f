// What was said so far, as the messages tell it. No DOM in here.

/** @typedef {import("./rtvi.js").Message} Message */

/**
 * One line of the captions.
 * @typedef {object} Entry
 * @property {number} id
 * @property {"caller" | "agent" | "note"} role
 * @property {string} text the caller's words so far; of the agent's, those that were heard
 * @property {string} cut the agent's words that an interruption kept from being heard
 * @property {"live" | "done" | "gone"} state live: more may come; gone: there was nothing to show
 */

/** @typedef {"nobody" | "caller" | "thinking" | "agent"} Floor */

export class Conversation {
  #callerSpeaks = false;
  /** @type {Floor} What the agent does; while the caller speaks over it, too. */ #agentDoes = "nobody";
  /** @type {Entry | null} */ #caller = null;
  /** @type {Entry | null} */ #agent = null;
  /** What the language model wrote, heard or not. */ #planned = "";
  #ids = 0;

  /** Take a message in; returns the entries it changed. @param {Message} message @returns {Entry[]} */
  apply({ type, data }) {
    switch (type) {
      case "user-started-speaking": this.#callerSpeaks = true; return [];
      case "user-stopped-speaking": this.#callerSpeaks = false; return [];
      case "user-transcription": return this.#hear(String(data.text ?? ""), Boolean(data.final));
      case "bot-llm-started": return this.#begin();
      case "bot-llm-text": this.#planned += data.text ?? ""; return [];
      case "bot-started-speaking": this.#agentDoes = "agent"; return [];
      case "bot-tts-text": return this.#say(String(data.text ?? ""));
      case "bot-stopped-speaking": this.#agentDoes = "nobody"; return this.#finish();
      case "bot-interrupted": this.#agentDoes = "nobody"; return this.#interrupt(this.#agent?.text ?? "");
      case "server-message": return data.t === "turn" ? this.#settle(data) : [];
      case "error": this.#stopThinking(); return [...this.#finish(), this.note(`The agent could not go on: ${data.error ?? "unknown error"}`)];
      default: return [];
    }
  }

  /** @returns {Floor} */
  get floor() {
    return this.#callerSpeaks ? "caller" : this.#agentDoes;
  }

  /** The call is over: nothing is live any more. @returns {Entry[]} */
  close() {
    this.#callerSpeaks = false;
    this.#agentDoes = "nobody";
    const caller = this.#caller;
    this.#caller = null;
    if (caller) caller.state = "done";
    return [...(caller ? [caller] : []), ...this.#finish()];
  }

  /** @param {string} text @param {boolean} final */
  #hear(text, final) {
    if (!this.#caller && !text) return [];
    const entry = (this.#caller ??= this.#entry("caller", ""));
    entry.text = text;
    if (final || !text) {
      entry.state = text ? "done" : "gone";
      this.#caller = null;
    }
    return [entry];
  }

  /** A reply without a sound never began to speak, and does not stop either. */
  #stopThinking() {
    if (this.#agentDoes === "thinking") this.#agentDoes = "nobody";
  }

  #begin() {
    this.#planned = "";
    this.#agentDoes = "thinking";
    return [(this.#agent = this.#entry("agent", ""))];
  }

  /** @param {string} words */
  #say(words) {
    if (this.#agent?.state !== "live") this.#begin();
    const entry = /** @type {Entry} */ (this.#agent);
    entry.text = [entry.text, words.trim()].filter(Boolean).join(" ");
    return [entry];
  }

  #finish() {
    const entry = this.#agent;
    if (entry?.state !== "live") return [];
    entry.state = entry.text ? "done" : "gone";
    return [entry];
  }

  /** @param {string} heard */
  #interrupt(heard) {
    const entry = this.#agent;
    if (!entry || entry.state === "gone") return [];
    entry.text = heard;
    entry.cut = remainder(this.#planned, heard);
    entry.state = heard || entry.cut ? "done" : "gone";
    return [entry];
  }

  /** The turn's own account comes after its reply ended, and knows to the word what was heard. @param {any} turn */
  #settle(turn) {
    this.#stopThinking();
    return turn.interrupted ? this.#interrupt(String(turn.agent ?? "")) : this.#finish();
  }

  /** Put something between the lines that nobody said. @param {string} text @returns {Entry} */
  note(text) {
    return { ...this.#entry("note", text), state: "done" };
  }

  /** @param {Entry["role"]} role @param {string} text @returns {Entry} */
  #entry(role, text) {
    this.#ids += 1;
    return { id: this.#ids, role, text, cut: "", state: "live" };
  }
}

/**
 * Return what of `planned` comes after `heard`. They are compared by their letters and digits alone, since marks and
 * spacing that cannot be spoken are not in what was heard; where they differ, nothing is claimed to have been cut.
 * @param {string} planned
 * @param {string} heard
 */
export function remainder(planned, heard) {
  const isSpoken = (/** @type {string} */ char) => /[\p{L}\p{N}]/u.test(char);
  const wanted = [...heard].filter(isSpoken);
  const chars = [...planned];
  let at = 0;
  for (const char of wanted) {
    while (at < chars.length && !isSpoken(chars[at])) at += 1;
    if (at === chars.length || chars[at].toLowerCase() !== char.toLowerCase()) return "";
    at += 1;
  }
  while (wanted.length && at < chars.length && !isSpoken(chars[at]) && chars[at] !== " ") at += 1;
  return chars.slice(at).join("").trim();
}
