// The topology as a picture: this end, its bridges, the clients, and the machines behind them. Of many clients it shows
// those that need a look and the busiest by name, and each other one as a dot.

import { drawn, fillList, setText, setAttribute, nameOf, clean, cut, plural, rate, delay, lasted } from "./format.js";
import { LEVELS } from "./health.js";

/** Clients that all have a line of their own; of more than these, so many have one. Each bridge has at least some. */
const FEW = 16, NAMED = 9, NAMED_LEAST = 3;

/** Bridges that are drawn apart, lost clients that are drawn, and dots of a bridge. */
const BRIDGES = 6, PARKED = 4, DOTS = 2000;

/** Pixels: a line, a dot with its gap, and between two parts. */
const LINE = 26, DOT = 9, GAP = 14;

/** Below this width in pixels the parts are below each other. */
const NARROW = 620;

export class Picture {
  /** In `place`; `choose(row)` is called for a client that was clicked. */
  constructor(place, choose) {
    this.place = place;
    this.svg = drawn("svg", { role: "img", class: "topology" });
    this.links = drawn("g");
    this.cards = drawn("g");
    this.clients = drawn("g");
    this.dots = drawn("g");
    // All dots of a state are one path: a thousand elements would take a browser fifty times as long to draw.
    this.paths = LEVELS.map((level) => drawn("path", { class: `dots ${level}` }));
    this.mark = drawn("circle", { class: "dot-chosen", r: DOT / 2 });
    this.under = drawn("title");
    this.dots.append(this.under, drawn("path", { class: "dots-ground" }), ...this.paths, this.mark);
    this.svg.append(this.links, this.clients, this.dots, this.cards);
    place.append(this.svg);
    this.svg.addEventListener("click", (event) => {
      const row = event.target.closest("g.client")?.row ?? this.dotAt(event)?.row;
      if (row && !row.lost) choose(row);
    });
    this.dots.addEventListener("pointermove", (event) => {
      const row = this.dotAt(event)?.row;
      setText(this.under, row ? `${nameOf(row)}: ${row.health.why}` : "");
    });
    new ResizeObserver(() => this.last && this.update(...this.last)).observe(place);
  }

  update(overview, rows, parked, chosen) {
    this.last = [overview, rows, parked, chosen];
    this.width = Math.max(260, this.place.clientWidth);
    this.narrow = this.width < NARROW;
    this.chosen = chosen;
    this.parts = { links: [], cards: [], clients: [], dots: [] };
    const height = overview.role === "client" ? this.chain(overview, rows) : this.tree(overview, rows, parked);
    setAttribute(this.svg, "viewBox", `0 0 ${this.width} ${height}`);
    setAttribute(this.svg, "height", height);
    fillList(this.links, this.parts.links, () => drawn("path"), fillLink);
    fillList(this.cards, this.parts.cards, makeCard, fillCard);
    fillList(this.clients, this.parts.clients, makeClient, (node, item) => this.fillClient(node, item));
    this.fillDots();
  }

  fillDots() {
    const paths = LEVELS.map(() => []);
    const { dots } = this.parts;
    for (const { row, x, y } of dots) paths[row.health.level].push(`M${x} ${y}h0`);
    paths.forEach((parts, level) => setAttribute(this.paths[level], "d", parts.join("")));
    // The ground between the dots takes the pointer, too.
    setAttribute(this.dots.children[1], "d", dots.map(({ x, y }) => `M${x} ${y}h0`).join(""));
    const chosen = dots.find(({ row }) => row.index === this.chosen);
    setAttribute(this.mark, "cx", chosen?.x ?? -99);
    setAttribute(this.mark, "cy", chosen?.y ?? -99);
  }

  /** The dot below the pointer. */
  dotAt(event) {
    const box = this.svg.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    return this.parts.dots.find(({ x, y }) => Math.abs(x - left) <= DOT / 2 && Math.abs(y - top) <= DOT / 2);
  }

  /** A server's picture. Returns its height. */
  tree(overview, rows, parked) {
    const { narrow, width } = this;
    const refused = Object.entries(overview.refusals ?? {}).sort((one, other) => other[1] - one[1]);
    const count = refused.reduce((sum, [, times]) => sum + times, 0);
    const workers = overview.workers ?? [];
    const server = { x: 1, y: 8, width: narrow ? width - 2 : 168, height: workers.length ? 58 : 44, kind: "server" };
    server.lines = [cut(overview.name, 20), cut(overview.listen ?? "", narrow ? 44 : 22), ...(workers.length ? [plural(workers.length, "worker")] : [])];
    if (overview.state !== "serving") server.level = 1;
    const groups = byBridge(rows, parked);
    const each = rows.length <= FEW ? FEW : Math.max(NAMED_LEAST, Math.floor(NAMED / Math.max(1, groups.length)));
    let y = narrow ? server.y + server.height + GAP + 10 : 8;
    const bridges = [];
    for (const group of groups) {
      const top = y;
      const bridge = { x: narrow ? 14 : 214, width: narrow ? width - 30 : 132, height: 40, kind: "bridge" };
      bridge.lines = [cut(group.name, 18), plural(group.rows.length, "client")];
      if (narrow) {
        bridge.y = y;
        y += bridge.height + 8;
      }
      const x = narrow ? 40 : 396;
      const from = () => (narrow ? [bridge.x + 10, bridge.y + bridge.height] : [bridge.x + bridge.width, bridge.y + bridge.height / 2]);
      const ends = [];
      const { named, others } = choice(group.rows, each);
      const lost = group.parked.slice(0, PARKED).map((row) => ({ ...row, lost: true }));
      for (const row of [...named, ...lost]) {
        this.parts.clients.push({ row, x, y });
        ends.push({ x: x - 9, y: y + LINE / 2, kind: row.lost ? "lost" : LEVELS[row.health.level], thick: thickness(row) });
        y += LINE;
      }
      if (group.parked.length > lost.length) {
        this.parts.clients.push({ words: `${plural(group.parked.length - lost.length, "more client")} lost`, x, y });
        y += LINE;
      }
      if (others.length) {
        ends.push({ x: x - 9, y: y + LINE / 2, kind: "fine", thick: 2 });
        y = this.block(others, x, y, named.length);
      }
      if (!narrow) {
        y = Math.max(y, top + bridge.height);
        bridge.y = (top + y - bridge.height) / 2;
      }
      for (const end of ends) this.parts.links.push({ ...end, from: from() });
      bridges.push(bridge);
      y += GAP;
    }
    if (!narrow) {
      const room = server.height + (count ? 62 : 0);
      y = Math.max(y, room + 16);
      server.y = Math.max(8, (y - GAP - room) / 2);
    }
    for (const bridge of bridges) {
      const start = narrow ? [server.x + 6, server.y + server.height] : [server.x + server.width, server.y + server.height / 2];
      this.parts.links.push({ x: bridge.x, y: bridge.y + bridge.height / 2, from: start, kind: "trunk", thick: 3 });
    }
    this.parts.cards.push(server, ...bridges);
    if (count) {
      const card = { x: server.x, y: narrow ? y : server.y + server.height + 18, width: server.width, height: 44, kind: "refused" };
      card.lines = [`${plural(count, "attempt")} refused`, cut(refused.map(([reason, times]) => `${times} ${reason}`).join(", "), narrow ? 44 : 22)];
      this.parts.cards.push(card);
      if (!narrow) this.parts.links.push({ x: server.x + 24, y: card.y, from: [server.x + 24, server.y + server.height], kind: "lost", thick: 1.5, straight: true });
      else y += 44 + GAP;
    }
    setAttribute(this.svg, "aria-label", words(overview, groups, count));
    return Math.ceil(y);
  }

  /** The clients without a name: a dot each, below a line that sums them up. Returns where it ends. */
  block(rows, x, y, named) {
    const slow = rows.filter((row) => row.health.level).length;
    const machines = rows.reduce((sum, row) => sum + machineCount(row), 0);
    const parts = [plural(rows.length, named ? "other client" : "client"), slow ? `${slow} slow` : "all fine", plural(machines, "machine")];
    this.parts.clients.push({ words: parts.join(" · "), x, y });
    y += LINE;
    const across = Math.max(10, Math.floor((this.width - x - 4) / DOT));
    const shown = rows.slice(0, DOTS);
    shown.forEach((row, at) => this.parts.dots.push({ row, x: x - 1 + (at % across) * DOT, y: y + 4 + Math.floor(at / across) * DOT }));
    return y + Math.ceil(shown.length / across) * DOT + 4;
  }

  /** A client's picture: one chain from its bridge to the machines at the server. Returns its height. */
  chain(overview, rows) {
    const { narrow, width } = this;
    const link = overview.link ?? {};
    const row = rows[0];
    const up = overview.state === "connected";
    const kind = up ? LEVELS[row?.health.level ?? 0] : "lost";
    const host = (address) => clean(address).replace(/^[a-z]+:\/\//, "").replace(/\/$/, "");
    const cards = [];
    if (overview.bridge) cards.push({ kind: "bridge", lines: [overview.bridge, "bridge"] });
    cards.push({ kind: "server", lines: [overview.name ?? overview.device, `this end, ${overview.device}`] });
    if (link.proxy) cards.push({ kind: "bridge", lines: [host(link.proxy), "proxy"] });
    const trip = row?.round_trip != null ? `, ${delay(row.round_trip)}` : "";
    cards.push({ kind: "server", level: up ? row?.health.level : 2, lines: [link.server ? host(link.server) : nameOf(row ?? overview), `server${up ? trip : ", not connected"}`] });
    if (up && row) cards.push({ kind: "bridge", lines: [plural(machineCount(row), "machine"), "behind the server"] });
    const step = narrow ? 62 : Math.floor((width + 30) / cards.length);
    cards.forEach((card, at) => {
      Object.assign(card, narrow ? { x: 1, y: 8 + at * step, width: width - 2 } : { x: 1 + at * step, y: 16, width: Math.min(230, step - 32) });
      card.height = 44;
      card.lines = card.lines.map((words, line) => cut(words, Math.floor((card.width - 20) / (line ? 6.8 : 8))));
      const before = cards[at - 1];
      if (!before) return;
      const far = at > (overview.bridge ? 1 : 0) && !(up && at === cards.length - 1);
      const ends = narrow ? { x: 24, y: card.y, from: [24, before.y + 44] } : { x: card.x, y: 38, from: [before.x + before.width, 38] };
      this.parts.links.push({ ...ends, kind: far ? kind : "trunk", thick: far && row ? thickness(row) : 3, straight: true });
    });
    this.parts.cards.push(...cards);
    setAttribute(this.svg, "aria-label", cards.map((card) => card.lines.join(", ")).join("; then "));
    return narrow ? cards.length * step : 76;
  }

  fillClient(node, { row, words, x, y }) {
    node.row = row;
    setAttribute(node, "transform", `translate(${x} ${y})`);
    const kind = !row ? "words" : row.lost ? "lost" : LEVELS[row.health.level];
    setAttribute(node, "class", `client ${kind}${row && row.index === this.chosen && !row.lost ? " chosen" : ""}`);
    const [title, back, mark, name, more, machines] = node.children;
    setAttribute(back, "width", this.width - x + 11);
    setAttribute(mark, "d", MARKS[kind]);
    const room = this.width - x;
    // Beside the name: what is slow about it, or how busy it is; at the end the machines behind it.
    const columns = this.narrow ? [0.42, 1] : [Math.min(190, room * 0.38) / room, 1];
    setAttribute(more, "x", Math.round(12 + room * columns[0]));
    setAttribute(machines, "x", room - 6);
    const letters = Math.floor((room * columns[0]) / 8.4);
    setText(name, words ?? cut(nameOf(row), Math.max(8, letters)));
    setText(title, row ? `${nameOf(row)}: ${row.lost ? "lost" : row.health.why}` : "");
    if (!row) {
      setText(more, "");
      setText(machines, "");
      return;
    }
    const behind = machineText(row, room);
    setText(machines, behind);
    const said = row.lost ? `lost${row.until ? `, kept for ${lasted(row.until - Date.now() / 1000)}` : ""}` : row.health.level ? row.health.brief : `${delay(row.round_trip)} · ${rate(row.rates.sent + row.rates.received)}`;
    setText(more, cut(said, Math.max(8, Math.floor((room * (1 - columns[0]) - 30) / 6.7 - behind.length))));
  }
}

/** Clients that are named, and the others. Those that need a look come first, then the busiest since they joined. */
function choice(rows, most) {
  if (rows.length <= most) return { named: rows, others: [] };
  const carried = (row) => (row.sent?.bytes ?? 0) + (row.received?.bytes ?? 0);
  const order = [...rows].sort((one, other) => other.health.weight - one.health.weight || carried(other) - carried(one) || one.index - other.index);
  const named = new Set(order.slice(0, most));
  return { named: order.slice(0, most), others: rows.filter((row) => !named.has(row)) };
}

function byBridge(rows, parked) {
  const groups = new Map();
  const group = (row) => {
    const name = row.bridge ?? "no bridge";
    if (!groups.has(name)) groups.set(name, { name, rows: [], parked: [] });
    return groups.get(name);
  };
  for (const row of rows) group(row).rows.push(row);
  for (const row of parked) group(row).parked.push(row);
  const found = [...groups.values()].sort((one, other) => other.rows.length - one.rows.length);
  if (found.length <= BRIDGES) return found;
  const rest = found.splice(BRIDGES - 1);
  return [...found, { name: `${rest.length} more bridges`, rows: rest.flatMap((each) => each.rows), parked: rest.flatMap((each) => each.parked) }];
}

const machineCount = (row) => (row.macs?.length ?? 0) + (row.macs_more ?? 0);

function machineText(row, room) {
  const count = machineCount(row);
  if (!count) return "";
  if (room < 340) return `${count} MAC`;
  return count > 1 || room < 460 ? plural(count, "machine") : cut(row.macs[0], 17);
}

const thickness = (row) => (row.rates ? Math.max(1.5, Math.min(6, Math.log10((row.rates.sent + row.rates.received) / 2000 + 1) * 1.4)) : 1.5);

function words(overview, groups, refused) {
  const parts = groups.map((group) => {
    const machines = group.rows.reduce((sum, row) => sum + machineCount(row), 0);
    const lost = group.parked.length ? `, ${plural(group.parked.length, "client")} lost` : "";
    return `bridge ${cut(group.name, 40)} with ${plural(group.rows.length, "client")} and ${plural(machines, "machine")} behind them${lost}`;
  });
  return [`Server ${cut(overview.name, 40)}`, ...parts, refused ? `${plural(refused, "attempt")} refused` : ""].filter(Boolean).join("; ");
}

/** A mark for each state, so that colour is not all that tells them apart: circle, triangle, cross, ring. */
const MARKS = {
  fine: "M-5 13a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
  slow: "M0 7L6 18H-6Z",
  bad: "M-5 8L5 18M5 8L-5 18",
  lost: "M-5 13a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",
  words: "M-5 13H5",
};

function makeClient() {
  const back = drawn("rect", { class: "back", x: -12, y: 1, height: LINE - 2, rx: 5 });
  const text = (name, x) => drawn("text", { class: name, x, y: LINE / 2 + 4 });
  return drawn("g", {}, drawn("title"), back, drawn("path", { class: "mark" }), text("name", 12), text("more", 0), text("machines", 0));
}

function makeCard() {
  return drawn("g", {}, drawn("rect", { rx: 7 }), drawn("text", { class: "name", x: 12, y: 18 }), ...[33, 47].map((y) => drawn("text", { class: "more", x: 12, y })));
}

function fillCard(node, card) {
  setAttribute(node, "transform", `translate(${card.x} ${Math.round(card.y)})`);
  setAttribute(node, "class", `card ${card.kind} ${card.level ? LEVELS[card.level] : ""}`);
  setAttribute(node.children[0], "width", card.width);
  setAttribute(node.children[0], "height", card.height);
  [0, 1, 2].forEach((at) => setText(node.children[at + 1], card.lines[at] ?? ""));
}

function fillLink(node, { x, y, from, kind, thick, straight }) {
  const [fx, fy] = from.map(Math.round);
  const below = fy < y && fx < x && x - fx < 40;
  const curve = below ? `M${fx} ${fy}V${y - 6}Q${fx} ${y} ${fx + 6} ${y}H${x}` : `M${fx} ${fy}C${(fx + x) / 2} ${fy} ${(fx + x) / 2} ${y} ${x} ${y}`;
  setAttribute(node, "d", straight ? `M${fx} ${fy}L${x} ${y}` : curve);
  setAttribute(node, "class", `link ${kind}`);
  setAttribute(node, "stroke-width", thick.toFixed(1));
}
