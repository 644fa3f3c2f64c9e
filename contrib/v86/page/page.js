// The page: asks for the token, joins the LAN (lan.js), and then boots the PC, whose network card it connects to it.

import { V86 } from "./libv86.mjs";
import { Lan } from "./lan.js";
import { connect } from "./keyboard.js";

/** For the kernel: to be silent about what the emulator lacks. And what halves its work: no tests of ciphers and no
 *  certificates, which nothing here uses, no search for cards of 1993, no protection from others on the processor. */
const OPTIONS = "loglevel=2 cryptomgr.notests initcall_blacklist=load_system_certificate_list noisapnp"
  + " mitigations=off";

const MEMORY = 128 << 20, VIDEO_MEMORY = 2 << 20;

const find = (id) => document.getElementById(id);
const server = find("server").textContent;
let machine = null, lan = null;

/** Whether the PC has a driver for its network card, which sends then. Without one, the emulated card takes whatever
 *  is in the PC's memory for its buffers, and writes frames there. */
let hasDriver = false;

const STATES = {
  joining: () => `Asking ${server} …`,
  joined: () => "The PC is on the LAN.",
  lost: (pause) => `The connection is lost. The next attempt is in ${Math.ceil(pause / 1000)} s.`,
  ended: (reason) =>
    `The server has ended the connection: ${reason || "the token is used elsewhere, or holds no more"}.`,
  refused: () => "The server answers, and refuses this page.\n"
    + `Is the token right? Was the server started with --allow-origin ${location.origin}? Its log says why.`,
  away: () => `No server answers at ${server}.\n`
    + `Does it run there? If it has a certificate of its own, open ${visible()} and accept it in the browser.`,
};

/** The server's address for the browser's own address line. */
const visible = () => server.replace(/^ws/, "http");

/** What a peer has said, without what could change how the text around it looks. */
const clean = (text) => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "\ufffd").slice(0, 200);

function say(state, detail) {
  document.body.dataset.state = state;
  find("state").textContent = STATES[state](typeof detail === "string" ? clean(detail) : detail);
  find("join").hidden = !["refused", "away", "ended"].includes(state);
  if (state === "joined" && !machine) boot();
}

function boot() {
  const inet = find("inet").value;
  find("inet").disabled = true;
  find("screen").hidden = find("hint").hidden = false;
  machine = new V86({
    wasm_path: "v86.wasm",
    bios: { url: "bios.bin" },
    vga_bios: { url: "vgabios.bin" },
    bzimage: { url: "kernel" },
    initrd: { url: "initramfs" },
    cmdline: inet ? `${OPTIONS} inet=${inet}` : OPTIONS,
    memory_size: MEMORY,
    vga_memory_size: VIDEO_MEMORY,
    net_device: { type: "virtio" },
    screen: { container: find("screen") },
    disable_mouse: true,
    disable_speaker: true,
    autostart: true,
  });
  machine.add_listener("net0-send", (frame) => {
    hasDriver = true;
    lan.send(frame);
  });
  machine.add_listener("emulator-ready", () => connect(find("screen"), machine));
  find("screen").focus();
}

/** Give a frame from the LAN to the PC. */
function take(frame) {
  if (hasDriver) machine.bus.send("net0-receive", frame);
}

find("join").addEventListener("submit", (event) => {
  event.preventDefault();
  try {
    lan = new Lan(server, find("token").value.trim(), take, say);
  } catch (error) {
    // A SecurityError, of a page at https:// that may not use ws://, says so itself.
    const text = error.name === "SyntaxError" ? "This is no token: it has other characters." : error.message;
    find("state").textContent = text;
    find("join").hidden = false;
  }
});
