// Where the time of the last turn went: one bar a stage, all on one axis.

/**
 * @typedef {object} Turn milliseconds after the caller's last sound; null where a stage did not happen
 * @property {number | null} endpoint_ms
 * @property {number | null} stt_ms
 * @property {number | null} ttft_ms
 * @property {number | null} first_clause_ms
 * @property {number | null} ttfb_ms
 * @property {number | null} first_audio_ms
 */

/** @typedef {{label: string, fromMs: number, toMs: number}} Stage */

/**
 * Return the stages that happened. Each starts where what it waits for was there: some work begins before the end of the
 * turn is certain, so bars may overlap.
 * @param {Turn} turn
 * @returns {Stage[]}
 */
export function stages(turn) {
  const words = turn.stt_ms ?? 0;
  const chain = [
    { label: "End of turn", fromMs: 0, toMs: turn.endpoint_ms },
    { label: "Your words", fromMs: 0, toMs: turn.stt_ms },
    { label: "First thought", fromMs: words, toMs: turn.ttft_ms },
    { label: "First clause", fromMs: turn.ttft_ms ?? words, toMs: turn.first_clause_ms },
    { label: "Voice", fromMs: turn.first_clause_ms ?? words, toMs: turn.ttfb_ms },
    { label: "On its way", fromMs: Math.max(turn.ttfb_ms ?? 0, turn.endpoint_ms ?? 0), toMs: turn.first_audio_ms },
  ];
  return chain.flatMap(({ label, fromMs, toMs }) =>
    typeof toMs === "number" ? [{ label, fromMs: Math.min(Math.max(fromMs, 0), Math.max(toMs, 0)), toMs: Math.max(toMs, 0) }] : []);
}

/** Format milliseconds for a person. @param {number} ms */
export function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

/** Draw a turn. @param {HTMLOListElement} list @param {Turn} turn */
export function drawStages(list, turn) {
  const shown = stages(turn);
  const wholeMs = Math.max(1, ...shown.map((stage) => stage.toMs));
  list.replaceChildren(...shown.map((stage) => row(stage, wholeMs)));
}

/** @param {Stage} stage @param {number} wholeMs */
function row({ label, fromMs, toMs }, wholeMs) {
  const item = document.createElement("li");
  const [name, track, bar, at] = ["span", "span", "i", "span"].map((tag) => document.createElement(tag));
  name.textContent = label;
  at.textContent = duration(toMs);
  track.className = "track";
  track.append(bar);
  bar.style.marginLeft = `min(${(100 * fromMs) / wholeMs}%, 100% - 3px)`;
  bar.style.width = `${(100 * (toMs - fromMs)) / wholeMs}%`;
  item.append(name, track, at);
  return item;
}
