// Rooms over several processes on Node: WebSocket clients through `ws`, the other processes through `ioredis`. The path
// of a socket is its room, and what it says goes to all others in it, here at once and elsewhere through Redis.
"use strict";

const http = require("node:http");
const { randomBytes } = require("node:crypto");
const { Cluster, Redis } = require("ioredis");
const { WebSocketServer, WebSocket } = require("ws");

const words = process.argv.slice(2);
const value = (name) => words[words.indexOf(name) + 1];
const [host, port] = value("--addr").split(":");
const backplane = (words.includes("--cluster") ? sharded : single)(value("--redis"));

// A connection that subscribes can do nothing else: publishing has one of its own, and what is published while it
// waits for an answer leaves in one write.
function single(url) {
  const publisher = new Redis(url, { enableAutoPipelining: true });
  const subscriber = new Redis(url);
  for (const client of [publisher, subscriber]) client.on("error", report);
  return {
    publish: (room, text) => publisher.publish(room, text),
    subscribe: (room) => subscriber.subscribe(room),
    unsubscribe: (room) => subscriber.unsubscribe(room),
    listen: (listener) => subscriber.on("messageBuffer", listener),
  };
}

// The same in a cluster: a room is at the node that has its slot, and subscriptions have connections of their own.
function sharded(url) {
  const cluster = new Cluster([url], { enableAutoPipelining: true, shardedSubscribers: true });
  cluster.on("error", report);
  return {
    publish: (room, text) => cluster.spublish(room, text),
    subscribe: (room) => cluster.ssubscribe(room),
    unsubscribe: (room) => cluster.sunsubscribe(room),
    listen: (listener) => cluster.on("smessageBuffer", listener),
  };
}

function report(error) {
  console.error(error.message);
}

// Which process said it, in front of each message: what comes back is dropped.
const own = randomBytes(9).toString("base64url");
const ownBytes = Buffer.from(own);

const rooms = new Map();

function join(room, socket) {
  let members = rooms.get(room);
  if (members === undefined) {
    rooms.set(room, (members = new Set()));
    backplane.subscribe(room).catch(report);
  }
  members.add(socket);
}

function leave(room, socket) {
  const members = rooms.get(room);
  members.delete(socket);
  if (members.size === 0) {
    rooms.delete(room);
    backplane.unsubscribe(room).catch(report);
  }
}

function deliver(room, message, speaker) {
  const members = rooms.get(room);
  if (members === undefined) return;
  for (const member of members) {
    if (member === speaker || member.readyState !== WebSocket.OPEN) continue;
    if (corks) cork(member._socket);
    member.send(message, { binary: false });
  }
}

// With `--cork` what a member gets in one turn of the loop leaves in one write. `ws` has no public name for that: its
// socket is a private field.
const corks = words.includes("--cork");
const corked = new Set();

function cork(socket) {
  if (corked.has(socket)) return;
  if (corked.size === 0) setImmediate(uncork);
  corked.add(socket);
  socket.cork();
}

function uncork() {
  for (const socket of corked) socket.uncork();
  corked.clear();
}

backplane.listen((room, message) => {
  if (message.subarray(0, ownBytes.length).equals(ownBytes)) return;
  deliver(room.toString(), message.subarray(ownBytes.length));
});

const server = http.createServer();
const sockets = new WebSocketServer({ server });

sockets.on("connection", (socket, request) => {
  const room = request.url;
  join(room, socket);
  socket.on("error", () => {});
  socket.on("close", () => leave(room, socket));
  socket.on("message", (data) => {
    deliver(room, data, socket);
    backplane.publish(room, own + data.toString()).catch(report);
  });
});

server.listen({ host, port: Number(port), backlog: 4096 }, () => {
  const { address, port } = server.address();
  process.stdout.write(`ready ${address}:${port}\n`);
});
