// The npm package undici, whose WebSocket is that of browsers and of Node itself: `connect URI`.
import { WebSocket } from "undici";
import { take } from "./machine.mjs";

const socket = new WebSocket(process.argv[3]);
socket.binaryType = "arraybuffer";
socket.onmessage = ({ data }) => {
  for (const frame of typeof data === "string" ? [] : take(data)) socket.send(frame);
};
socket.onerror = (event) => console.log(`error: ${event.message}`);
