// The clients as a table. Only the rows that are seen exist, so it takes a thousand clients like ten.

import { element, setText, setAttribute, rate, delay, whole, lasted, nameOf, clean } from "./format.js";
import { LEVELS, STATES } from "./health.js";

const compareNames = new Intl.Collator("en", { numeric: true }).compare;

/** Rows above and below those that are seen, so that a fast wheel finds some. */
const MORE = 8;

/** Columns: what a cell shows, what is sorted by (a number, or a name), which way first. `class` hides it when narrow. */
const COLUMNS = [
  { key: "state", title: "State", show: (row) => row.health.why, by: (row) => row.health.weight, down: true },
  { key: "client", title: "Client", show: nameOf, name: true },
  { key: "address", title: "Address", show: (row) => clean(row.address ?? "–"), name: true, class: "wide" },
  { key: "device", title: "Interface", show: (row) => clean(row.device ?? "–"), name: true, class: "wider" },
  { key: "sent", title: "Sent", show: (row) => rate(row.rates?.sent), by: (row) => row.rates?.sent ?? -1, down: true, class: "number" },
  { key: "received", title: "Received", show: (row) => rate(row.rates?.received), by: (row) => row.rates?.received ?? -1, down: true, class: "number" },
  { key: "trip", title: "Round trip", show: (row) => delay(row.round_trip), by: (row) => row.round_trip ?? -1, down: true, class: "number medium" },
  { key: "queue", title: "Queue", show: (row) => delay(row.queue?.delay), by: (row) => row.queue?.delay ?? -1, down: true, class: "number medium" },
  { key: "drops", title: "Drops", show: (row) => whole(row.dropped), by: (row) => row.dropped, down: true, class: "number medium" },
  { key: "since", title: "For", show: (row, now) => lasted(row.since && now - row.since), by: (row) => row.since ?? 0, down: true, class: "number wider" },
];

export class Clients {
  /** In `place`. `choose(row)` is called for a row that was chosen, `end(row)` for one whose session is to be ended. */
  constructor(place, choose, end) {
    this.place = place;
    this.choose = choose;
    this.end = end;
    this.rows = this.shown = [];
    this.words = [];
    this.by = COLUMNS[0];
    this.down = true;
    this.now = 0;
    this.height = 30;
    this.active = this.chosen = null;
    this.heads = COLUMNS.map((column) => this.head(column));
    this.above = element("tbody", { "aria-hidden": "true" });
    this.below = element("tbody", { "aria-hidden": "true" });
    this.body = element("tbody");
    this.grid = element("table", { role: "grid", class: "grid", tabindex: "0", "aria-label": "Clients", "aria-colcount": COLUMNS.length });
    this.grid.append(element("thead", {}, element("tr", { "aria-rowindex": "1" }, ...this.heads)), this.above, this.body, this.below);
    this.empty = element("p", { class: "empty", hidden: "" });
    place.append(this.grid, this.empty);
    place.addEventListener("scroll", () => this.soon(), { passive: true });
    new ResizeObserver(() => {
      this.height = parseFloat(getComputedStyle(place).getPropertyValue("--row"));
      this.soon();
    }).observe(place);
    this.grid.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("tr")?.row;
      if (row) this.choose(this.active = row);
    });
    // Rows that move away under the pointer cannot be clicked: the order stays while it is over them.
    this.body.addEventListener("pointerenter", () => (this.held = true));
    this.body.addEventListener("pointerleave", () => (this.held = false));
  }

  head(column) {
    const button = element("button", { type: "button" }, column.title);
    const cell = element("th", { scope: "col", class: `${column.key} ${column.class ?? ""}` }, button);
    button.addEventListener("click", () => {
      this.down = this.by === column ? !this.down : Boolean(column.down);
      this.by = column;
      this.place.scrollTop = 0;
      this.order(true);
    });
    return cell;
  }

  /** Show only the rows that have all these words. */
  search(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.place.scrollTop = 0;
    this.order(true);
    return this.shown.length;
  }

  /** New values. */
  update(rows, now, chosen) {
    this.rows = rows;
    this.now = now;
    this.chosen = chosen;
    this.order(false);
  }

  order(asked) {
    const { words, by } = this;
    const found = words.length ? this.rows.filter((row) => words.every((word) => hay(row).includes(word))) : [...this.rows];
    if (this.held && !asked) {
      const place = new Map(this.shown.map((row, at) => [row.index, at]));
      found.sort((one, other) => (place.get(one.index) ?? Infinity) - (place.get(other.index) ?? Infinity) || one.index - other.index);
    } else {
      const sign = this.down ? -1 : 1;
      const compare = by.name ? (one, other) => compareNames(by.show(one), by.show(other)) : (one, other) => by.by(one) - by.by(other);
      found.sort((one, other) => sign * compare(one, other) || one.index - other.index);
    }
    this.shown = found;
    if (this.active) this.active = found.find((row) => row.index === this.active.index) ?? null;
    COLUMNS.forEach((column, at) => {
      const order = column !== by ? "none" : this.down ? "descending" : "ascending";
      setAttribute(this.heads[at], "aria-sort", order);
    });
    setAttribute(this.grid, "aria-rowcount", found.length + 1);
    this.empty.hidden = found.length > 0;
    setText(this.empty, this.rows.length ? "No client fits this search." : "No clients yet.");
    this.draw();
  }

  soon() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  draw() {
    const { height } = this;
    const first = Math.max(0, Math.floor(this.place.scrollTop / height) - MORE);
    const last = Math.min(this.shown.length, Math.ceil((this.place.scrollTop + this.place.clientHeight) / height) + MORE);
    space(this.above, first * height);
    space(this.below, (this.shown.length - last) * height);
    const seen = this.shown.slice(first, Math.max(first, last));
    while (this.body.children.length > seen.length) this.body.lastElementChild.remove();
    while (this.body.children.length < seen.length) this.body.append(emptyRow());
    seen.forEach((row, at) => this.fill(this.body.children[at], row, first + at));
    const at = this.active ? this.shown.indexOf(this.active) : -1;
    if (at >= first && at < last) setAttribute(this.grid, "aria-activedescendant", `row-${this.active.index}`);
    else this.grid.removeAttribute("aria-activedescendant");
  }

  fill(line, row, at) {
    line.row = row;
    setAttribute(line, "id", `row-${row.index}`);
    setAttribute(line, "aria-rowindex", at + 2);
    setAttribute(line, "aria-selected", row.index === this.chosen);
    setAttribute(line, "data-level", LEVELS[row.health.level]);
    line.classList.toggle("active", this.active?.index === row.index);
    COLUMNS.forEach((column, number) => {
      const place = line.children[number].firstElementChild;
      const text = column.show(row, this.now);
      if (place.textContent !== text) {
        place.textContent = text;
        if (number < 3) place.title = text;
      }
      if (column.key === "client") setText(place.nextElementSibling, row.health.level ? row.health.why : clean(row.address ?? ""));
    });
  }

  /** Arrows move, Enter and Space choose, Delete ends the session. */
  key(event) {
    if (event.target !== this.grid || event.ctrlKey || event.metaKey || event.altKey || !this.shown.length) return;
    const page = Math.max(1, Math.floor(this.place.clientHeight / this.height) - 2);
    const at = this.active ? this.shown.indexOf(this.active) : -1;
    const last = this.shown.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last }[event.key];
    if (to != null) {
      this.active = this.shown[Math.max(0, Math.min(last, to))];
      this.reveal(this.shown.indexOf(this.active));
    } else if (this.active && (event.key === "Enter" || event.key === " ")) {
      this.choose(this.active);
    } else if (this.active && event.key === "Delete") {
      this.end(this.active);
    } else {
      return;
    }
    event.preventDefault();
    this.draw();
  }

  reveal(at) {
    const head = this.heads[0].offsetHeight;
    const top = at * this.height, room = this.place.clientHeight - head - this.height;
    if (top < this.place.scrollTop) this.place.scrollTop = top;
    else if (top > this.place.scrollTop + room) this.place.scrollTop = top - room;
  }
}

/** All words that a client can be found by. */
const hay = (row) => `${row.names} ${STATES[row.health.level]} ${row.health.why}`;

function emptyRow() {
  const line = element("tr");
  for (const column of COLUMNS) {
    const cell = element("td", { class: `${column.key} ${column.class ?? ""}` });
    cell.append(element(column.name ? "bdi" : "span"));
    // On a phone there is no room for the words of the state but below the name.
    if (column.key === "client") cell.append(element("span", { class: "below" }));
    line.append(cell);
  }
  return line;
}

/** Make a part of the table as high as the rows that it stands for. */
function space(part, height) {
  if (height && !part.firstElementChild) part.append(element("tr", {}, element("td")));
  if (!height && part.firstElementChild) part.replaceChildren();
  if (part.firstElementChild) part.firstElementChild.style.height = `${height}px`;
}
