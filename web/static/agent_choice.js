// Whom to speak with: the agents there are, and which was chosen.

import { request } from "./api.js";
import { element } from "./dom.js";
import { choose, chosen } from "./settings.js";

export class AgentChoice {
  /** @param {HTMLSelectElement} select */
  constructor(select) {
    this.select = select;
    const asked = new URLSearchParams(location.search).get("agent");
    if (asked) choose("agent", asked);
    select.addEventListener("change", () => choose("agent", select.value));
  }

  /** @returns {string | null} */
  get id() {
    return chosen("agent") || null;
  }

  /** Ask who is there. One who was asked for and is not stays: the server says so when called. */
  async refill() {
    const { agents = [] } = await request("GET", "agents").catch((error) => {
      console.info("the agents are not known yet", error);
      return {};
    });
    const ids = agents.map((/** @type {{id: string}} */ { id }) => id);
    const options = agents.map((/** @type {{id: string, name: string}} */ { id, name }) => element("option", { value: id }, name));
    const wanted = chosen("agent");
    if (wanted && !ids.includes(wanted)) options.push(element("option", { value: wanted }, wanted));
    if (!options.length) options.push(element("option", { value: "" }, "Agent"));
    this.select.replaceChildren(...options);
    this.select.value = wanted || (ids.includes("default") ? "default" : (ids[0] ?? ""));
  }
}
