// The npm package ws: `connect URI`, `listen`, or `choose` (listen, with a choice of subprotocols of its own).
import { WebSocket, WebSocketServer } from "ws";
import { take } from "./machine.mjs";

function run(socket) {
  socket.binaryType = "nodebuffer";
  socket.on("message", (data, binary) => {
    for (const frame of binary ? take(data) : []) socket.send(frame);
  });
}

const [role, uri] = process.argv.slice(2);
if (role === "connect") {
  const socket = new WebSocket(uri);
  run(socket);
  socket.on("error", (error) => console.log(`error: ${error.message}`));
} else {
  // By default this package chooses the first subprotocol that is offered, whatever it is.
  const options = role === "choose" ? { handleProtocols: (offered) => (offered.has("chat") ? "chat" : false) } : {};
  const server = new WebSocketServer({ host: "0.0.0.0", port: 0, ...options });
  server.on("listening", () => console.log(`listening on ${server.address().port}.`));
  server.on("connection", run);
}
