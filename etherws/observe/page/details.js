// The client that was chosen: all that is known of it, its last ten minutes, its events.

import { element, fillList, setText, setAttribute, nameOf, clean, rate, bytes, delay, lasted, clock, whole, plural } from "./format.js";
import { LEVELS } from "./health.js";
import { Charts } from "./charts.js";
import { fillEvents } from "./events.js";

/** MAC addresses and events that are shown. */
const MACS = 12, EVENTS = 8;

const find = (id) => document.getElementById(id);

export class Details {
  constructor() {
    this.panel = find("chosen");
    this.charts = new Charts(find("chosen-charts"));
  }

  show(row, now, events, role) {
    this.panel.hidden = !row;
    if (!row) return;
    setText(find("chosen-title"), role === "client" ? "The link" : nameOf(row));
    setText(find("chosen-state"), row.gone ? "This session has ended." : sentence(row.health.why));
    setAttribute(find("chosen-state"), "data-level", row.gone ? "unknown" : LEVELS[row.health.level]);
    find("kick-open").disabled = Boolean(row.gone);
    fillList(find("chosen-facts"), facts(row, now), makeFact, (pair, [name, text]) => {
      setText(pair.firstElementChild, name);
      setText(pair.lastElementChild, text);
    });
    fillEvents(find("chosen-events"), events.filter((event) => concerns(event, row)).slice(0, EVENTS));
  }
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + ".";

function makeFact() {
  return element("div", {}, element("dt"), element("dd"));
}

/** Whether an event is about this client: by its name, or by the best that there is. */
function concerns(event, row) {
  if (row.identity && event.identity) return event.identity === row.identity;
  if (row.device && event.device) return event.device === row.device;
  return Boolean(row.address) && event.address === row.address;
}

function facts(row, now) {
  const drops = Object.entries(row.drops ?? {}).sort((one, other) => other[1] - one[1]);
  const way = (traffic) => `${bytes(traffic?.bytes)}, ${whole(traffic?.frames)} frames, ${whole(traffic?.super_frames)} super-frames`;
  const macs = (row.macs ?? []).slice(0, MACS).map((mac) => clean(mac));
  const more = (row.macs?.length ?? 0) - macs.length + (row.macs_more ?? 0);
  const policy = Object.entries(row.policy ?? {}).filter(([, value]) => value != null && value !== false && value.length !== 0);
  const several = row.connections ?? [];
  const found = [
    ["Identity", row.identity && clean(row.identity)],
    ["Address", row.address && clean(row.address) + (row.proxy ? `, by the proxy ${clean(row.proxy)}` : "")],
    ["Interface", [row.device && clean(row.device), row.bridge && `in ${clean(row.bridge)}`].filter(Boolean).join(" ")],
    ["Worker", !several.length && row.worker && String(row.worker)],
    ["Connections", several.map((one) => `${one.member}: round trip ${delay(one.round_trip)}${one.worker ? `, worker ${one.worker}` : ""}`).join("; ")],
    ["Connected", row.since && `${lasted(now - row.since)}, since ${clock(row.since)}`],
    ["Connected again", row.reconnects != null && plural(row.reconnects, "time")],
    ["Round trip", delay(row.round_trip)],
    ["Queue", row.queue && `${delay(row.queue.delay)} wait, ${plural(row.queue.packets, "packet")}, ${bytes(row.queue.bytes)}`],
    ["Rates", row.rates && `${rate(row.rates.sent)} sent, ${rate(row.rates.received)} received`],
    ["Sent", row.sent && way(row.sent)],
    ["Received", row.received && way(row.received)],
    ["Dropped", row.drops && (drops.map(([cause, count]) => `${whole(count)} ${clean(cause, 60)}`).join(", ") || "nothing")],
    ["Wire", row.wire && [`version ${row.wire}`, ...(row.features ?? []).map((name) => clean(name, 40))].join(", ")],
    ["TLS", row.tls ? `${clean(row.tls.version)}, ${clean(row.tls.cipher)}` : row.tls === null && "none"],
    ["Congestion control", row.congestion && clean(row.congestion)],
    ["Machines behind", macs.length ? [...macs, ...(more > 0 ? [`${whole(more)} more`] : [])].join(", ") : row.macs && "none known"],
    ["Policy", policy.length ? policy.map(([name, value]) => `${clean(name, 40)} = ${clean(value === Object(value) ? JSON.stringify(value) : value)}`).join(", ") : row.policy && "no limits"],
  ];
  return found.filter(([, text]) => text);
}
