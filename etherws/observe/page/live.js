// The connection to the server: server-sent events, and the requests. It finds out by itself when the server is back,
// and says when this browser has to log in again. observe/stream.py says what comes.

/** Milliseconds without a message after which the connection counts as lost: the server sends one each two seconds. */
const SILENCE = 9000;

/** Milliseconds between two attempts, and between two while the login is not valid. */
const AGAIN = 2000, LOGIN_AGAIN = 5000;

/** Milliseconds for which a page that nobody sees keeps its connection. */
const HIDDEN = 60000;

export class Live {
  /** `take(name, values)` gets each message; `state(word)` gets "live", "lost" or "login". */
  constructor(take, state) {
    this.take = take;
    this.tell = state;
    this.source = null;
    this.timer = this.watchdog = this.hider = 0;
    document.addEventListener("visibilitychange", () => this.seen(!document.hidden));
    addEventListener("online", () => this.source || this.open());
    this.open();
  }

  open() {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = new EventSource("/stream");
    this.alive();
    for (const name of ["start", "rows", "tick"]) {
      this.source.addEventListener(name, (message) => {
        this.alive();
        this.take(name, JSON.parse(message.data));
        if (name === "tick") this.tell("live");
      });
    }
    this.source.onerror = () => this.lost();
  }

  alive() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.lost(), SILENCE);
  }

  /** A browser may wait long before it connects again, or not try at all after a status that is not 200: we do it. */
  async lost() {
    this.close();
    const refused = await login();
    if (this.source || document.hidden) return;
    this.tell(refused ? "login" : "lost");
    this.timer = setTimeout(() => this.open(), refused ? LOGIN_AGAIN : AGAIN);
  }

  close() {
    clearTimeout(this.watchdog);
    clearTimeout(this.timer);
    this.source?.close();
    this.source = null;
  }

  seen(visible) {
    clearTimeout(this.hider);
    if (!visible) this.hider = setTimeout(() => this.close(), HIDDEN);
    else if (!this.source) this.open();
  }
}

/** Whether the server asks this browser to log in. */
async function login() {
  try {
    const answer = await fetch("/history", { signal: AbortSignal.timeout(SILENCE) });
    return answer.status === 401 || answer.status === 403;
  } catch {
    return false;
  }
}

/** The last ten minutes of a session by its interface's index, or of all together; null if there is none now. */
export async function history(index) {
  try {
    const answer = await fetch(index == null ? "/history" : `/history?index=${index}`, { signal: AbortSignal.timeout(SILENCE) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

/** Have the server do something. Returns its answer; throws an Error with its words. */
export async function post(path, values) {
  let answer;
  try {
    const headers = { "Content-Type": "application/json" };
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(values) });
  } catch {
    throw new Error("The server does not answer.");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error || `The server refused this (HTTP status ${answer.status}).`);
  return said;
}
