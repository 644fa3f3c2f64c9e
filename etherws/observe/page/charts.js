// Small charts of the last ten minutes: lines for rates and times, bars for drops. Each says in words what it shows.

import { element, drawn, setText, setAttribute, rate, delay, whole } from "./format.js";

/** Samples across a chart: ten minutes in steps of five seconds. */
const SAMPLES = 120;

/** Samples that a line goes over: the round trip is measured each 20 s if nothing else happens. */
const GAP = 7;

/** The kinds of charts; `lines` are keys of observe/history.py, with what the legend calls each, and what
    it is called where there is no legend. */
const KINDS = [
  { title: "Traffic", show: rate, least: 1000, lines: [["sent", "sent"], ["received", "received"]] },
  { title: "Round trip", show: delay, least: 0.002, lines: [["round_trip", "median"], ["round_trip_95", "95 %", "95 of 100 below"]] },
  { title: "Wait in the queue", show: delay, least: 0.002, lines: [["queue_delay", "median"], ["queue_delay_95", "95 %", "95 of 100 below"]] },
  { title: "Frames dropped", show: whole, least: 4, bars: true, lines: [["drops", "each 5 s"]] },
];

/** A row of the charts, in `place`. */
export class Charts {
  constructor(place) {
    this.charts = KINDS.map((kind) => new Chart(kind));
    place.append(...this.charts.map((chart) => chart.figure));
  }

  /** Show a history as observe/history.py has it, or nothing. */
  update(history) {
    for (const chart of this.charts) chart.update(history);
  }
}

class Chart {
  constructor(kind) {
    this.kind = kind;
    this.values = {};
    this.at = null;
    this.now = element("span", { class: "now" }, "–");
    this.top = element("span", { class: "axis top", "aria-hidden": "true" });
    this.paths = kind.lines.map((_, number) => drawn("path", { class: `line line-${number}${kind.bars ? " bars" : ""}` }));
    this.area = drawn("path", { class: "area" });
    this.cursor = drawn("path", { class: "cursor" });
    const grid = drawn("path", { class: "guide", d: "M0 50H119M0 99.5H119" });
    this.svg = drawn("svg", { viewBox: "0 0 119 100", preserveAspectRatio: "none", role: "img" });
    this.svg.append(grid, this.area, ...this.paths, this.cursor);
    const legend = kind.lines.length < 2 ? [] : kind.lines.map(([, legend], number) => element("span", { class: `key key-${number}` }, legend));
    this.figure = element("figure", { class: "chart panel" },
      element("figcaption", {}, element("span", { class: "name" }, kind.title), this.now),
      element("div", { class: "plot" }, this.svg, this.top),
      element("div", { class: "axis", "aria-hidden": "true" }, element("span", {}, "−10 min"), element("span", { class: "keys" }, ...legend), element("span", {}, "now")));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.point(null));
  }

  update(history) {
    this.values = {};
    for (const [key] of this.kind.lines) {
      const found = (history?.[key] ?? []).slice(-SAMPLES);
      if (found.length) this.values[key] = [...Array(SAMPLES - found.length).fill(null), ...found];
    }
    const all = Object.values(this.values).flat().filter((value) => value != null);
    const most = round(Math.max(this.kind.least, ...all));
    setText(this.top, all.length ? this.kind.show(most) : "");
    this.kind.lines.forEach(([key], number) => {
      const values = this.values[key] ?? [];
      setAttribute(this.paths[number], "d", this.kind.bars ? bars(values, most) : line(values, most));
    });
    if (!this.kind.bars) setAttribute(this.area, "d", area(this.values[this.kind.lines[0][0]] ?? [], most));
    setAttribute(this.svg, "aria-label", this.words());
    this.read();
  }

  /** What the chart shows, for whoever does not see it. */
  words() {
    const parts = this.kind.lines.map(([key, legend, word = legend]) => {
      const values = (this.values[key] ?? []).filter((value) => value != null);
      if (!values.length) return "";
      const { show } = this.kind;
      if (this.kind.bars) return `${show(values.reduce((one, other) => one + other, 0))} in all`;
      return `${word} ${show(values.at(-1))} now, lowest ${show(Math.min(...values))}, highest ${show(Math.max(...values))}`;
    });
    return `${this.kind.title}, last ten minutes: ${parts.filter(Boolean).join("; ") || "no values yet"}`;
  }

  /** The numbers beside the title: the newest, or those under the pointer. */
  read() {
    const parts = this.kind.lines.map(([key]) => {
      const values = this.values[key] ?? [];
      if (this.at != null) return values[this.at];
      if (this.kind.bars) return values.length ? values.reduce((one, other) => one + (other ?? 0), 0) : null;
      return values.findLast((value) => value != null);
    });
    const shown = parts.filter((value, number) => number === 0 || value != null).map((value) => this.kind.show(value)).join(" · ");
    const ago = this.at == null ? "" : `, ${Math.round(((SAMPLES - 1 - this.at) * 5) / 6) / 10} min ago`;
    setText(this.now, shown + ago);
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    this.at = event && Math.max(0, Math.min(SAMPLES - 1, Math.round(((event.clientX - box.left) / box.width) * (SAMPLES - 1))));
    setAttribute(this.cursor, "d", this.at == null ? "" : `M${this.at} 0V100`);
    this.read();
  }
}

/** The next 1, 2 or 5 with zeros. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value * 0.9999) * power;
}

const height = (value, most) => (99.5 - (98 * value) / most).toFixed(1);

/** Runs of values, as lists of [place, value]: what is missing for longer than GAP parts two runs. */
function runs(values) {
  const found = [];
  let last = -Infinity;
  values.forEach((value, at) => {
    if (value == null) return;
    if (at - last > GAP) found.push([]);
    found.at(-1).push([at, value]);
    last = at;
  });
  return found;
}

/** A line through each run; a value that is alone is a short dash. */
function line(values, most) {
  return runs(values).map((run) => {
    const points = run.length > 1 ? run : [[Math.max(0, run[0][0] - 2), run[0][1]], run[0]];
    return `M${points.map(([at, value]) => `${at} ${height(value, most)}`).join("L")}`;
  }).join("");
}

/** What is below each run. */
function area(values, most) {
  return runs(values).map((run) => {
    return `M${run[0][0]} 99.5L${run.map(([at, value]) => `${at} ${height(value, most)}`).join("L")}V99.5Z`;
  }).join("");
}

function bars(values, most) {
  return values.map((value, at) => (value ? `M${at} 99.5V${height(value, most)}` : "")).join("");
}
