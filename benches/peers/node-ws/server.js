// The peer on Node with `ws`. Text stays text; a room sends each message to each member, as the package's own
// example does.
"use strict";

const http = require("node:http");
const https = require("node:https");
const { readFileSync } = require("node:fs");
const { WebSocketServer, WebSocket } = require("ws");

const words = process.argv.slice(2);
const value = (name) => words[words.indexOf(name) + 1];
const [over, mode] = value("--mode").split("-");
const [host, port] = value("--addr").split(":");

const server = over === "wss"
  ? https.createServer({ cert: readFileSync(value("--cert")), key: readFileSync(value("--key")) })
  : http.createServer();
// Compressed whatever its length: the default is from 1,024 bytes on.
const perMessageDeflate = over === "deflate" && { threshold: 0 };
const sockets = new WebSocketServer({ server, perMessageDeflate });

sockets.on("connection", (socket) => {
  socket.on("error", () => {});
  socket.on("message", (data, binary) => {
    if (mode === "echo") {
      socket.send(data, { binary });
      return;
    }
    for (const member of sockets.clients) {
      if (member !== socket && member.readyState === WebSocket.OPEN) member.send(data, { binary });
    }
  });
});

server.listen({ host, port: Number(port), backlog: 4096 }, () => {
  const { address, port } = server.address();
  process.stdout.write(`ready ${address}:${port}\n`);
});
