// Words and numbers as the page shows them. What a peer has said becomes harmless here; it is only ever a text node.

const UNITS = ["", "k", "M", "G", "T", "P"];

/** A number with three digits and a prefix of the SI: "1.23 M". */
export function short(value) {
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = value >= 99.95 || unit === 0 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export const rate = (bits) => (bits == null ? "–" : `${short(bits)}bit/s`);
export const bytes = (count) => (count == null ? "–" : `${short(count)}B`);
const digits = new Intl.NumberFormat("en");
export const whole = (count) => (count == null ? "–" : digits.format(count));

/** Seconds of a round trip or of a wait. */
export function delay(seconds) {
  if (seconds == null) return "–";
  const ms = seconds * 1000;
  if (ms >= 10000) return `${seconds.toFixed(0)} s`;
  if (ms >= 1000) return `${seconds.toFixed(1)} s`;
  return `${ms >= 9.95 ? ms.toFixed(0) : ms.toFixed(1)} ms`;
}

/** Seconds that something has lasted. */
export function lasted(seconds) {
  if (seconds == null) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  const days = Math.floor(whole / 86400);
  return days < 10 ? `${days} d ${Math.floor((whole % 86400) / 3600)} h` : `${days} d`;
}

/** A time of day; with the date, if that is not today. */
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  const two = (number) => String(number).padStart(2, "0");
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return date.toDateString() === new Date().toDateString() ? time : `${day} ${time}`;
}

/** "1 client", "2 clients". */
export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** A peer's word without characters that control, break or turn the line. */
export const clean = (text, most = 200) => String(text).slice(0, most).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\u{fffd}");

/** The same, cut to so many characters for a place of a fixed width. */
export function cut(text, most) {
  const found = [...clean(text)];
  return found.length <= most ? found.join("") : `${found.slice(0, most - 1).join("")}…`;
}

/** What a session or a parked port is called. */
export const nameOf = (row) => clean(row.identity || row.server || row.address || row.device || `interface ${row.index}`);

/** An element with children; a string becomes a text node. `attributes` are set as they are. */
export function element(name, attributes = {}, ...children) {
  const found = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  found.append(...children);
  return found;
}

/** The same for SVG. */
export function drawn(name, attributes = {}, ...children) {
  const found = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  found.append(...children);
  return found;
}

/** Change a text or an attribute only if it is another, so that nothing is drawn again for nothing. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Give a list, table or picture as many children as there are items; `make` makes one, `fill` fills it. */
export function fillList(parent, items, make, fill) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, at) => {
    if (!parent.children[at]) parent.append(make());
    fill(parent.children[at], item, at);
  });
}
