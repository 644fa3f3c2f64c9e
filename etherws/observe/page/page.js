// The live page: takes what comes from the server, keeps it, and shows it. The parts of the page are in the modules
// below; live.js has the connection, health.js says who is slow.

import { Live, history, post } from "./live.js";
import { Clients } from "./table.js";
import { Charts } from "./charts.js";
import { Picture } from "./picture.js";
import { Details } from "./details.js";
import { Events, fillCounts } from "./events.js";
import { remember, judge, verdict, LEVELS } from "./health.js";
import { element, fillList, setText, setAttribute, nameOf, clean, lasted, clock, plural, whole } from "./format.js";
import { Question } from "./question.js";

/** Milliseconds between two looks at the history. */
const HISTORY = 5000;

/** Clients that the first lines name. */
const TROUBLES = 5;

const find = (id) => document.getElementById(id);

/** What is known: rows by the index of the interface, the last overview, and the client that was chosen. */
const known = { sessions: new Map(), parked: new Map(), overview: null, run: "", version: "", round: 0, ahead: 0 };
let chosen = null, charts = null, said = "";

const events = new Events();
const details = new Details();
const wholeCharts = new Charts(find("whole"));
const clients = new Clients(find("table"), choose, askToEnd);
const picture = new Picture(find("picture"), choose);

const isClient = () => known.overview?.role === "client";
const now = () => Date.now() / 1000 + known.ahead;

const take = {
  /** The connection begins: the whole table follows, then a tick. What is not in it is gone. */
  start(values) {
    if (known.run && known.run !== values.run) events.note("etherws was started again");
    known.run = values.run;
    known.round += 1;
    events.take(values.events, 0);
  },

  /** Rows, or what changed of them. */
  rows(values) {
    for (const kind of ["sessions", "parked"]) {
      for (const change of values[kind] ?? []) merge(known[kind], change, kind === "sessions");
      for (const { index } of values[`gone_${kind}`] ?? []) remove(known[kind], index);
    }
  },

  /** All have been told of. */
  tick(values) {
    known.overview = values.overview;
    known.ahead = values.overview.now - Date.now() / 1000;
    for (const rows of [known.sessions, known.parked]) {
      for (const row of rows.values()) if (row.round < known.round) remove(rows, row.index);
    }
    if (known.version && known.version !== values.overview.version) location.reload();
    known.version = values.overview.version;
    events.take(values.events, values.left_out);
    document.body.dataset.role = isClient() ? "client" : "server";
    soon();
  },
};

function merge(rows, change, session) {
  const before = rows.get(change.index);
  const row = { ...before, ...change, round: known.round };
  if (session) {
    remember(row, before, now());
    if (!before || change.identity !== undefined || change.address !== undefined || change.macs) row.names = undefined;
    row.names ??= [row.identity, row.address, row.proxy, row.device, row.bridge, ...(row.macs ?? [])].filter(Boolean).join(" ").toLowerCase();
  }
  rows.set(change.index, row);
  if (session && chosen) follow(row);
}

/** The client that was chosen may come back on another interface, and another may get the one it had. */
function follow(row) {
  const same = nameOf(row) === nameOf(chosen);
  if (chosen.index === row.index) chosen = same ? row : { ...chosen, gone: true };
  else if (chosen.gone && same && row.identity) chosen = row;
}

function remove(rows, index) {
  if (chosen?.index === index && rows === known.sessions) chosen = { ...chosen, gone: true };
  rows.delete(index);
}

/** What is shown, part after part: each in a frame of its own, so that keys and the pointer never wait long. */
const parts = [
  ({ overview, rows, parked, at }) => {
    showHead(overview, rows, parked, at);
    clients.update(rows, at, chosen?.index);
    setText(find("count"), rows.length ? whole(rows.length) : "");
  },
  ({ overview, at }) => details.show(chosen, at, events.all, overview.role),
  ({ overview, rows, parked }) => picture.update(overview, rows, parked, chosen?.index),
  ({ overview }) => fillCounts(overview, charts),
];
let pending = 0;

function soon() {
  cancelAnimationFrame(pending);
  pending = requestAnimationFrame(() => show());
}

function show() {
  const { overview } = known;
  if (!overview) return;
  const at = now();
  const rows = [...known.sessions.values()].sort((one, other) => one.index - other.index);
  for (const row of rows) row.health = judge(row, at);
  if (isClient()) chosen = rows[0] ?? chosen;
  const values = { overview, rows, parked: [...known.parked.values()], at };
  const next = (number) => {
    parts[number](values);
    pending = number + 1 < parts.length ? requestAnimationFrame(() => next(number + 1)) : 0;
  };
  next(0);
}

function showHead(overview, rows, parked, at) {
  const name = clean(overview.name ?? overview.device ?? "");
  const found = verdict(overview, rows, parked);
  setText(find("name"), name);
  const facts = [isClient() ? "Client" : "Server", overview.listen, overview.device, `version ${overview.version}`, `up ${lasted(at - overview.started)}`, `process ${overview.pid}`];
  setText(find("facts"), facts.filter(Boolean).map((fact) => clean(fact)).join(" · "));
  setText(find("verdict"), found.text);
  setAttribute(find("verdict"), "data-level", LEVELS[found.level]);
  document.title = `${["", "▲ ", "✕ "][found.level]}${name} – etherws`;
  const warnings = isClient() ? [] : overview.warnings ?? [];
  fillList(find("warnings"), warnings, () => element("li", {}, element("bdi")), (line, text) => setText(line.firstElementChild, clean(text, 1000)));
  const worst = rows.filter((row) => row.health.level).sort((one, other) => other.health.weight - one.health.weight);
  const shown = isClient() ? [] : worst.slice(0, TROUBLES);
  const more = isClient() ? 0 : worst.length - shown.length;
  fillList(find("troubles"), more > 0 ? [...shown, null] : shown, makeTrouble, (line, row) => {
    line.row = row;
    setAttribute(line, "data-level", row ? LEVELS[row.health.level] : "more");
    line.firstElementChild.hidden = !row;
    setText(line.firstElementChild, row ? nameOf(row) : "");
    setText(line.lastElementChild, row ? row.health.why : `and ${whole(more)} more: they are first in the table by State`);
  });
  find("drain-open").disabled = overview.state !== "serving";
}

function makeTrouble() {
  const button = element("button", { type: "button", class: "link" });
  const line = element("li", {}, button, " ", element("bdi"));
  button.addEventListener("click", () => choose(line.row));
  return line;
}

/** Show all of a client. */
function choose(row) {
  chosen = row;
  details.charts.update(null);
  details.show(chosen, now(), events.all, known.overview.role);
  soon();
  look();
  const panel = find("chosen");
  const { top } = panel.getBoundingClientRect();
  if (top < 0 || top > innerHeight - 200) panel.scrollIntoView({ block: "start" });
  say(`${nameOf(row)}: ${row.health.why}. All about it is in the section ${nameOf(row)}.`);
}

function askToEnd(row) {
  find("kick-text").replaceChildren("This ends the session of ", element("bdi", { class: "who" }, nameOf(row)), ` (${clean(row.address ?? "")}, ${clean(row.device ?? "")}).`);
  kick.open(row);
}

const kick = new Question("kick", async (row, seconds) => {
  await post("/kick", { client: row.device ?? row.identity ?? row.address, seconds });
  say(`The session of ${nameOf(row)} was ended.`);
});
const drain = new Question("drain", async (_, seconds) => {
  await post("/drain", { seconds });
  say("The server is draining.");
});
find("kick-open").addEventListener("click", () => chosen && askToEnd(chosen));
find("drain-open").addEventListener("click", () => drain.open(null));
find("chosen-close").addEventListener("click", () => {
  chosen = null;
  details.show(null);
  soon();
  clients.grid.focus();
});

let typing = 0;
find("search").addEventListener("input", (event) => {
  const count = clients.search(event.target.value);
  clearTimeout(typing);
  typing = setTimeout(() => say(`${plural(count, "client fits", "clients fit")} the search.`), 800);
});

/** Look at the history, of all and of the client that was chosen. */
async function look() {
  if (document.hidden || document.body.dataset.connection !== "live") return;
  const index = chosen && !chosen.gone && !isClient() ? chosen.index : null;
  const [all, one] = await Promise.all([history(null), index == null ? null : history(index)]);
  if (all) wholeCharts.update((charts = all));
  if (all && known.overview) fillCounts(known.overview, charts);
  if (one && chosen?.index === index) details.charts.update(one);
}
setInterval(look, HISTORY);

/** Have a screen reader say something, once. */
function say(text) {
  setText(find("say"), text === said ? `${text} ` : text);
  said = find("say").textContent;
}

function connection(state) {
  const before = document.body.dataset.connection;
  if (before === state) return;
  document.body.dataset.connection = state;
  const words = { live: "live", lost: "connection lost", login: "not logged in" };
  setText(find("connection-text"), words[state]);
  const since = known.overview ? `What you see is of ${clock(Date.now() / 1000)}. ` : "";
  const notices = {
    live: "",
    lost: `No connection to etherws. ${since}This page tries again all the time.`,
    login: `This browser is not logged in any more. ${since}Type “etherws page” on that machine, and open the address that it prints.`,
  };
  find("notice").hidden = state === "live";
  setText(find("notice"), notices[state]);
  if (state !== "live") say(notices[state]);
  else if (before !== "connecting") say("The connection is back.");
  if (state === "live") look();
}

new Live((name, values) => take[name](values), connection);
