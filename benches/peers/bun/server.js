// The peer on Bun, whose WebSocket server is uWebSockets. A room is one of its topics.
const words = process.argv.slice(2);
const value = (name) => words[words.indexOf(name) + 1];
const [over, mode] = value("--mode").split("-");
const [hostname, port] = value("--addr").split(":");
const deflate = over === "deflate";

const websocket = {
  perMessageDeflate: deflate,
  open(socket) {
    if (mode === "chat") socket.subscribe("room");
  },
  message(socket, data) {
    if (mode === "chat") {
      socket.publish("room", data, deflate);
    } else {
      socket.send(data, deflate);
    }
  },
};
const tls = over === "wss"
  ? { cert: Bun.file(value("--cert")), key: Bun.file(value("--key")) }
  : undefined;
const server = Bun.serve({
  hostname,
  port: Number(port),
  tls,
  websocket,
  fetch: (request, server) =>
    server.upgrade(request) ? undefined : new Response("a WebSocket server\n", { status: 426 }),
});
console.log(`ready ${server.hostname}:${server.port}`);
