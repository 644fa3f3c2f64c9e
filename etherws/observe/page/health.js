// Who is slow, and why: one verdict for each client, and one for all. docs/page.rst names the bounds.

import { delay, lasted, plural, whole, nameOf, clean } from "./format.js";

/** Seconds. A packet that waits longer is felt; a round trip that takes longer, too. A peer is pinged each 20 s. */
const SLOW_QUEUE = 0.05, SLOW_TRIP = 0.25, SILENT = 25;

/** Seconds for which a drop is worth a word. */
const DROP_TIME = 60;

/** The part of the clients in trouble from which on the server is. One client's bad line is not the server's. */
const GRAVE = 0.1;

/** Levels, best first, as classes of CSS and in words. */
export const LEVELS = ["fine", "slow", "bad"], STATES = ["fine", "slow", "in trouble"];

/** Note in `row` what its new values say of the time before: drops that were added, and how long it is silent usually. */
export function remember(row, before, now) {
  const sum = (drops) => Object.values(drops ?? {}).reduce((one, other) => one + other, 0);
  row.dropped = sum(row.drops);
  row.usual = before?.usual ?? 0;
  if (before && row.dropped > before.dropped) {
    const news = Object.entries(row.drops).filter(([cause, count]) => count > (before.drops?.[cause] ?? 0));
    row.lastDrop = { at: now, count: row.dropped - before.dropped, causes: news.map(([cause]) => clean(cause, 60)) };
  } else {
    row.lastDrop = before?.lastDrop;
  }
  if (before && row.heard < before.heard) row.usual = Math.max(row.usual, before.heard);
}

/** The level of a session, 0 to 2, why in words and in a few of them, and a number that sorts the worst first. */
export function judge(row, now) {
  if (row.rates == null) return { level: 2, why: "its worker does not answer", brief: "worker is silent", weight: 9 };
  if (row.heard >= SILENT && row.heard > row.usual + 5) {
    const why = `silent for ${lasted(row.heard)}`;
    return { level: 2, why, brief: why, weight: 5 + row.heard / 1000 };
  }
  const found = [], brief = [];
  const wait = row.queue?.delay ?? 0;
  if (wait >= SLOW_QUEUE) {
    found.push(`packets wait ${delay(wait)} in its queue`);
    brief.push(`queue ${delay(wait)}`);
  }
  if (row.round_trip >= SLOW_TRIP) {
    found.push(`round trip ${delay(row.round_trip)}`);
    brief.push(found.at(-1));
  }
  const dropping = row.lastDrop && now - row.lastDrop.at < DROP_TIME;
  if (dropping) {
    found.push(`dropped ${plural(row.lastDrop.count, "frame")}: ${row.lastDrop.causes.join(", ")}`);
    brief.push(`drops: ${row.lastDrop.causes[0]}`);
  }
  if (!found.length) return { level: 0, why: "fine", brief: "fine", weight: 0 };
  return { level: 1, why: found.join("; "), brief: brief.join(", "), weight: Math.min(4, 1 + 4 * wait + (row.round_trip ?? 0) + (dropping ? 0.1 : 0)) };
}

/** The first line of the page: a level and words. */
export function verdict(overview, rows, parked) {
  if (overview.role === "client") return clientVerdict(overview, rows);
  const count = [0, 0, 0];
  for (const row of rows) count[row.health.level] += 1;
  const dead = (overview.workers ?? []).filter((worker) => !worker.answers).length;
  const state = { serving: "Up", draining: "Draining: nobody can join", stopping: "Stopping" }[overview.state];
  const words = [`${state ?? clean(overview.state)}.`];
  if (!rows.length) words.push("No clients.");
  else if (count[0] === rows.length) words.push(rows.length === 1 ? "1 client, and it is fine." : `${plural(rows.length, "client")}, all fine.`);
  else {
    const parts = STATES.map((word, level) => count[level] && `${whole(count[level])} ${word}`);
    words.push(`${plural(rows.length, "client")}: ${parts.filter(Boolean).join(", ")}.`);
  }
  if (parked.length) words.push(`${plural(parked.length, "client")} lost, and awaited.`);
  if (dead) words.push(`${plural(dead, "worker does", "workers do")} not answer.`);
  const warned = (overview.warnings ?? []).length;
  if (warned) words.push("The LAN needs a look:");
  const grave = dead || count[2] > rows.length * GRAVE || overview.state === "stopping";
  const level = grave ? 2 : count[1] || count[2] || warned || overview.state !== "serving" ? 1 : 0;
  return { level, text: words.join(" ") };
}

function clientVerdict(overview, rows) {
  const link = overview.link ?? {};
  const row = rows[0];
  const server = clean(link.server ?? (row ? nameOf(row) : "the server"));
  if (overview.state === "connected" && row) {
    const { level, why } = row.health;
    return { level, text: `Connected to ${server}: ${level ? why : "all is fine"}.` };
  }
  const words = { connected: "Connected to", connecting: "Connecting to", waiting: "Not connected to", stopping: "Stopping; was linked to" };
  const why = link.last_error && overview.state !== "connected" ? `: ${clean(link.last_error, 400)}` : "";
  const text = [`${words[overview.state] ?? clean(overview.state)} ${server}${why}.`];
  if (overview.state === "waiting" && link.next_attempt != null) text.push(`Next attempt in ${lasted(link.next_attempt)}.`);
  return { level: overview.state === "connected" ? 0 : 2, text: text.join(" ") };
}
