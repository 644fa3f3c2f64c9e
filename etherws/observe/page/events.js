// Events, and what was dropped and refused.

import { element, fillList, setText, setAttribute, clean, clock, whole } from "./format.js";

/** Events that are kept, and that are shown. */
const KEPT = 500, SHOWN = 150;

/** Levels of the log that need a look. */
const LOUD = ["warning", "error", "critical"];

const find = (id) => document.getElementById(id);

export class Events {
  constructor() {
    /** Newest first. */
    this.all = [];
    this.last = -1;
    find("events-kind").addEventListener("change", () => this.show());
  }

  /** Take events as they come; those that are known already are left out. */
  take(events, leftOut) {
    const news = events.filter((event) => event.number > this.last);
    if (!news.length) return;
    if (leftOut) news.unshift({ number: news[0].number - 1, time: news[0].time, level: "warning", kind: "gap", text: `${whole(leftOut)} events are not shown: they came too fast` });
    this.last = news.at(-1).number;
    this.all = [...news.reverse(), ...this.all].slice(0, KEPT);
    this.show();
  }

  /** A line of the page's own. */
  note(text) {
    this.all.unshift({ time: Date.now() / 1000, level: "info", kind: "page", text });
    this.show();
  }

  show() {
    const wanted = find("events-kind").value;
    const fits = (event) => !wanted || (wanted === "warning" ? LOUD.includes(event.level) : wanted.split(" ").includes(event.kind));
    const list = find("events");
    const top = list.scrollTop, height = list.scrollHeight;
    fillEvents(list, this.all.filter(fits).slice(0, SHOWN));
    // Who has scrolled down to read keeps the place.
    if (top > 4) list.scrollTop = top + list.scrollHeight - height;
  }
}

/** Fill a list with events. */
export function fillEvents(list, events) {
  const items = events.length ? events : [{ text: "Nothing yet.", level: "", kind: "" }];
  fillList(list, items, () => element("li", {}, element("time"), element("span", { class: "kind" }), element("bdi", { class: "text" })), (line, event) => {
    const [time, kind, text] = line.children;
    line.classList.toggle("none", !event.time);
    setAttribute(line, "data-level", LOUD.includes(event.level) ? event.level : "info");
    setText(time, event.time ? clock(event.time) : "");
    setText(kind, clean(event.kind ?? "", 20));
    setText(text, clean(event.text ?? "", 400));
  });
}

/** The two tables of counts. */
export function fillCounts(overview, history) {
  const recent = history?.reasons ?? {};
  const causes = Object.entries(overview.totals?.drops ?? {}).sort((one, other) => (recent[other[0]] ?? 0) - (recent[one[0]] ?? 0) || other[1] - one[1]);
  rows(find("drops"), causes.map(([cause, count]) => [cause, history ? whole(recent[cause] ?? 0) : "–", whole(count)]), "Nothing was dropped", 3);
  const refused = Object.entries(overview.refusals ?? {}).sort((one, other) => other[1] - one[1]);
  rows(find("refusals"), refused.map(([reason, count]) => [reason, whole(count)]), "Nobody was refused", 2);
}

function rows(body, items, none, columns) {
  const make = () => element("tr", {}, element("th", { scope: "row" }), ...Array.from({ length: columns - 1 }, () => element("td")));
  fillList(body, items.length ? items : [[none]], make, (line, item) => [...line.children].forEach((cell, at) => setText(cell, clean(item[at] ?? ""))));
}
