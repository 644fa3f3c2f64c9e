// The PC's cable to the LAN: a WebSocket to etherws server, by version 1 of the wire (docs/wire.rst), in which each
// message is one whole Ethernet frame. It is made again when it is lost. It knows nothing of the page or of the PC.

/** Milliseconds for an attempt, and between two of them: the first, and at most. */
const PATIENCE = 20_000, FIRST_PAUSE = 1000, LONGEST_PAUSE = 30_000;

/** Bytes that may wait to be sent. More would wait longer than TCP in the PC does; it sends again what is dropped. */
const BACKLOG = 256 * 1024;

/** Bytes of a frame for a network card of MTU 1500, with a VLAN tag. */
const LONGEST_FRAME = 1518;

/** "This connection may not be" (RFC 6455, section 7.4.1): the server says why, and to ask again would not help. */
const POLICY_VIOLATION = 1008;

/** Before the name of a subprotocol that is a token: a page cannot set the header Authorization. */
const BEARER = "authorization.bearer.";

export class Lan {
  #server; #token; #took; #say;
  #socket = null;
  #joined = false;
  #pause = FIRST_PAUSE;

  /** `took(frame)` is called for each frame from the LAN, `say(state, detail)` when the state changes: to "joining",
   *  "joined", "refused", "away", "lost" with the milliseconds until the next attempt, or "ended" with the server's
   *  reason. After "refused", "away" and "ended" nothing more happens. */
  constructor(server, token, took, say) {
    this.#server = server;
    this.#token = token;
    this.#took = took;
    this.#say = say;
    this.#join();
  }

  /** Send a frame to the LAN; drop it if there is no connection, or too much waits. */
  send(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN && this.#socket.bufferedAmount < BACKLOG) this.#socket.send(frame);
  }

  #join() {
    this.#say("joining");
    // Without a token nothing is offered: then the answer cannot choose wrongly, whatever serves etherws.
    const socket = new WebSocket(this.#server, this.#token ? ["etherws.v1", BEARER + this.#token] : []);
    const timer = setTimeout(() => socket.close(), PATIENCE);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      clearTimeout(timer);
      this.#joined = true;
      this.#pause = FIRST_PAUSE;
      this.#say("joined");
    };
    socket.onmessage = ({ data }) => {
      if (data instanceof ArrayBuffer && data.byteLength <= LONGEST_FRAME) this.#took(new Uint8Array(data));
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(timer);
      if (code === POLICY_VIOLATION) this.#say("ended", reason);
      else if (this.#joined) this.#joinLater();
      else this.#answers().then((answers) => this.#say(answers ? "refused" : "away"));
    };
    this.#socket = socket;
  }

  #joinLater() {
    // Not all at once, when a server has started again.
    const pause = this.#pause * (0.5 + Math.random() / 2);
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
    this.#say("lost", pause);
    setTimeout(() => this.#join(), pause);
  }

  /** Whether anybody answers there: of a WebSocket that failed, a browser does not say why. */
  async #answers() {
    try {
      const options = { mode: "no-cors", cache: "no-store", credentials: "omit" };
      await fetch(this.#server.replace(/^ws/, "http"), { ...options, signal: AbortSignal.timeout(PATIENCE) });
      return true;
    } catch {
      return false;
    }
  }
}
