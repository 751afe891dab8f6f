// Numbers as an operator reads them.

import { duration } from "./waterfall.js";

/** @param {number | null} ms @returns {string} */
export function milliseconds(ms) {
  if (ms === null) return "–";
  return ms < 10 ? `${ms.toFixed(1)} ms` : duration(ms);
}

/** Say a length of time in its two largest units. @param {number} seconds */
export function span(seconds) {
  const whole = Math.floor(seconds);
  const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Say roughly how long ago it was, so that it seldom changes. @param {number} seconds */
export function ago(seconds) {
  if (seconds < 60) return "in the last minute";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}

/** @param {number | null} bytes */
export function megabytes(bytes) {
  if (bytes === null) return "–";
  return bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`;
}

/** @param {number} part @param {number} whole */
export function percent(part, whole) {
  const value = whole ? (100 * part) / whole : 0;
  return `${value && value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

/** Return the clock's time, with the date if that is another day's. @param {string} stamp as ISO 8601 */
export function clock(stamp) {
  const at = new Date(stamp);
  const time = at.toLocaleTimeString([], { hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}

/** Say counts by name, the largest first. @param {Record<string, number>} counts @returns {string} */
export function tally(counts) {
  const shown = Object.entries(counts).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
  return shown.map(([name, count]) => `${name} ${count}`).join(", ") || "none";
}
