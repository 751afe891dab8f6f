// Small plots over time, drawn by uPlot (vendor/uplot), which is loaded when the first is opened.

import { element } from "./dom.js";

const HEIGHT_PX = 78;
const SECONDS = 120;

/** @type {Promise<any> | null} */ let loading = null;

/** @returns {Promise<any>} uPlot's constructor; whoever asks after a failure tries again */
function load() {
  loading ??= new Promise((resolve, reject) => {
    document.head.append(element("link", { rel: "stylesheet", href: "static/vendor/uplot/uPlot.min.css" }));
    const script = element("script", { src: "static/vendor/uplot/uPlot.iife.min.js" });
    script.onload = () => resolve(/** @type {any} */ (globalThis).uPlot);
    script.onerror = () => {
      loading = null;
      reject(new Error("the plots could not be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

export class Plot {
  /** @type {any} */ #plot = null;

  /**
   * @param {any} uPlot
   * @param {HTMLElement} box
   * @param {number} most what the axis shows at least
   */
  constructor(uPlot, box, most) {
    this.box = box;
    const colour = (/** @type {string} */ name) => getComputedStyle(document.body).getPropertyValue(name);
    const axis = { stroke: () => colour("--soft"), grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const now = () => Date.now() / 1000;
    this.#plot = new uPlot({
      width: box.clientWidth || 300,
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 4, 6, 0],
      scales: {
        x: { time: true, range: () => [now() - SECONDS, now()] },
        y: { range: (/** @type {any} */ _, /** @type {number} */ __, /** @type {number | null} */ max) => [0, Math.max(most, (max ?? 0) * 1.15)] },
      },
      axes: [{ ...axis, show: false }, { ...axis, size: 34, space: 24 }],
      series: [{}, { stroke: () => colour("--accent"), width: 1.5, points: { show: false }, spanGaps: false }],
    }, [[], []], box);
  }

  /**
   * Make plots, one below the other. Throws while the library cannot be loaded.
   * @param {HTMLElement} parent
   * @param {{label: string, most: number}[]} wanted `most`: what the axis shows at least
   */
  static async open(parent, wanted) {
    const uPlot = await load();
    return wanted.map(({ label, most }) => {
      const box = element("div", { class: "plot", role: "img", "aria-label": `${label}, over the last two minutes` });
      parent.append(element("figure", {}, element("figcaption", {}, label), box));
      return new Plot(uPlot, box, most);
    });
  }

  /** @param {number[]} at seconds since 1970 @param {(number | null)[]} values */
  draw(at, values) {
    if (this.box.clientWidth !== this.#plot.width) this.#plot.setSize({ width: this.box.clientWidth, height: HEIGHT_PX });
    this.#plot.setData([at, values]);
  }
}
