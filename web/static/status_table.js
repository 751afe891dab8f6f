// Tables that are drawn again only where something has changed: who selects a line in them keeps it.

import { element } from "./dom.js";

/**
 * @template Row
 * @typedef {object} Column the first one names the row
 * @property {string | Node} label
 * @property {(row: Row) => string | Node | (string | Node)[]} cell
 * @property {boolean} [number]
 */

/** @template Row */
export class Table {
  /**
   * @param {HTMLTableElement} table an empty one
   * @param {string} caption
   * @param {Column<Row>[]} columns
   * @param {{none?: string, cards?: boolean, headless?: boolean}} [options] what to say without rows; whether a phone
   *     shows each row as a card; whether the columns' names are for screen readers alone
   */
  constructor(table, caption, columns, { none = "", cards = false, headless = false } = {}) {
    this.columns = columns;
    this.none = none;
    this.body = element("tbody", { role: "rowgroup" });
    const heads = columns.map(({ label, number }) => element("th", { scope: "col", role: "columnheader", class: number ? "number" : "" }, label));
    this.note = element("span", { class: "soft" });
    table.setAttribute("role", "table"); // what CSS makes of a table may take its meaning away
    table.classList.toggle("cards", cards);
    table.append(element("caption", {}, caption, this.note),
      element("thead", { role: "rowgroup", class: headless ? "hidden" : "" }, element("tr", { role: "row" }, ...heads)), this.body);
  }

  /** @param {Row[]} rows @param {string} [note] said below the caption */
  show(rows, note = "") {
    this.note.textContent = note;
    const lines = rows.map((row) => this.line(row));
    if (!lines.length) lines.push(element("tr", { role: "row", class: "quiet" }, element("td", { role: "cell", colspan: `${this.columns.length}` }, this.none)));
    const fresh = element("tbody", { role: "rowgroup" }, ...lines);
    if (!this.body.isEqualNode(fresh)) this.body.replaceChildren(...lines);
  }

  /** @param {Row} row */
  line(row) {
    const cells = this.columns.map(({ label, cell, number }, at) => {
      const content = [cell(row)].flat();
      const attributes = { class: number ? "number" : "" };
      if (at === 0) return element("th", { ...attributes, scope: "row", role: "rowheader" }, ...content);
      const name = typeof label === "string" ? label : "";
      return element("td", { ...attributes, role: "cell", "data-label": name }, element("span", {}, ...content));
    });
    return element("tr", { role: "row" }, ...cells);
  }
}
