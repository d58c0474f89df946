#!/usr/bin/env python3
"""Runs tls_echo, ws_echo, client and probe against real counterparts: openssl, curl, Python's ssl and
websockets, Node's ws.

    .ci/layers.py DIRECTORY [WORDS]    the directory with the built examples
                                       (target/release/examples by default); with WORDS, only the
                                       checks whose names contain one of them

The certificates are made for the run by openssl. websockets and ws are installed once, under
target/layers; what cannot be had is skipped, and said. Every check starts its own programs on ports
that the system chooses, waits for events and not for time, and ends what it has started. Prints what
failed and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
from checks import DIRECTORY, Skip, check  # noqa: E402
from checks import run as run_checks  # noqa: E402
from programs import (  # noqa: E402
    PATIENCE,
    Program,
    accept,
    connect,
    equal,
    example,
    one_line,
    pattern_bytes,
    read_to_end,
    server,
)

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEPT = os.path.join(ROOT, "target", "layers")


def run(*command, **options):
    return subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=600, **options
    ).stdout


# ---- certificates ----


class Certificates:
    """An authority, and a server's certificate that it has signed."""

    def __init__(self, folder):
        self.path = lambda name: os.path.join(folder, name)
        self.ca, self.chain, self.key = map(self.path, ("ca.pem", "server.pem", "server.key"))
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        run(
            *("openssl", "req", "-x509", *curve, "-days", "2", "-subj", "/CN=a test authority"),
            *("-keyout", self.path("ca.key"), "-out", self.ca),
        )
        run(
            *("openssl", "req", *curve, "-subj", "/CN=a test server"),
            *("-keyout", self.key, "-out", self.path("request.pem")),
        )
        with open(self.path("extensions"), "w") as file:
            file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        run(
            *("openssl", "x509", "-req", "-in", self.path("request.pem"), "-days", "2"),
            *("-CA", self.ca, "-CAkey", self.path("ca.key"), "-CAcreateserial"),
            *("-extfile", self.path("extensions"), "-out", self.chain),
        )

    def client(self, version=None):
        context = ssl.create_default_context(cafile=self.ca)
        if version:
            context.minimum_version = context.maximum_version = version
        return context

    def server(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        return context


CERTIFICATES = None
VERSIONS = {"tls1_2": ssl.TLSVersion.TLSv1_2, "tls1_3": ssl.TLSVersion.TLSv1_3}


def tls_echo():
    c = CERTIFICATES
    return server("tls_echo", "127.0.0.1:0", "--cert", c.chain, "--key", c.key)


# ---- TLS: our server ----


@check
def openssl_talks_over_both_versions():
    for version in VERSIONS:
        with tls_echo() as (_, port):
            client = Program(
                *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", f"-{version}"),
                *("-servername", "localhost", "-verify_hostname", "localhost"),
                *("-CAfile", CERTIFICATES.ca, "-verify_return_error", "-brief"),
            )
            with client:
                client.wait_for("Verification: OK", "err")
                client.send("hello\n")
                client.wait_for("hello\n")
                client.send("Q\n")  # s_client's own command: quit
                equal(client.status(), 0)


@check
def the_self_signed_certificate_has_the_fingerprint_that_is_printed():
    with server("tls_echo") as (program, port):
        printed = program.wait_for(r"SHA-256 ([0-9A-F:]{95})").group(1)
        certificate = ssl.get_server_certificate(("127.0.0.1", port))
        shown = run("openssl", "x509", "-noout", "-fingerprint", "-sha256", input=certificate)
        assert printed in shown, f"printed {printed}, openssl says {shown}"


@check
def curl_trusts_the_authority_and_nobody_else():
    with tls_echo() as (program, port):
        # The echo of a request is no HTTP answer; curl shows it as one of HTTP/0.9.
        curl = ("curl", "--silent", "--show-error", "--no-buffer", "--http0.9")
        url = f"https://localhost:{port}/hello"
        with Program(*curl, "--cacert", CERTIFICATES.ca, url) as client:
            client.wait_for("GET /hello HTTP/1.1\r\nHost: localhost")
        with Program(*curl, url) as client:
            equal(client.status(), 60)  # "cannot be authenticated", curl(1)
        program.wait_for("does not trust our certificate", "err")


def send_and_receive(secured, data):
    """What comes back while `data` is sent, as many bytes. One thread does both: before Python 3.13
    an ssl object that two threads use at once takes one's error for the other's, and ends."""
    secured.setblocking(False)
    sent, got = 0, bytearray()
    while len(got) < len(data):
        moved, full = False, []
        if sent < len(data):
            try:
                sent += secured.send(data[sent : sent + (1 << 16)])
                moved = True
            except ssl.SSLWantWriteError:
                full = [secured]
        with contextlib.suppress(ssl.SSLWantReadError):
            piece = secured.recv(1 << 20)
            assert piece, f"it ended after {len(got)} bytes"
            got += piece
            moved = True
        if not moved:
            ready = select.select([secured], full, [], PATIENCE)
            assert any(ready), f"nothing more came after {len(got)} bytes"
    secured.settimeout(PATIENCE)
    return got


@check
def python_echoes_much_over_both_versions_and_hears_close_notify():
    data = pattern_bytes(5_000_000)
    for version in VERSIONS.values():
        with tls_echo() as (_, port), connect(port) as plain:
            context = CERTIFICATES.client(version)
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                got = send_and_receive(secured, data)
                assert got == data, "what came back is not what was sent"
                # Says close_notify and waits for the server's: raises without.
                secured.unwrap()


@check
def python_resumes_its_session():
    with tls_echo() as (_, port):
        for version in VERSIONS.values():
            context, session = CERTIFICATES.client(version), None
            for expected in (False, True):
                with connect(port) as plain:
                    secured = context.wrap_socket(
                        plain, server_hostname="localhost", session=session
                    )
                    with secured:
                        secured.sendall(b"hello")
                        equal(secured.recv(5), b"hello")  # a ticket came with it, in TLS 1.3
                        equal(secured.session_reused, expected)
                        session = secured.session


@check
def http_to_the_tls_port_is_answered_by_an_alert_and_logged():
    with tls_echo() as (program, port):
        with connect(port) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            equal(read_to_end(s), bytes([21, 3, 3, 0, 2, 2, 50]))
        program.wait_for("127.0.0.1:.*an HTTP request without TLS", "err")
        # And the next one is served.
        with connect(port) as plain:
            with CERTIFICATES.client().wrap_socket(plain, server_hostname="localhost") as s:
                s.sendall(b"hello")
                equal(s.recv(5), b"hello")


@check
def certificates_that_cannot_be_used_are_one_line():
    c = CERTIFICATES
    for arguments, status, pattern in (
        (("--cert", c.chain), 2, "--key"),
        (("--cert", "/no/such/file", "--key", c.key), 1, "/no/such/file: cannot be read"),
        (("--cert", c.key, "--key", c.key), 1, "BEGIN CERTIFICATE"),
        (("--cert", c.chain, "--key", c.path("ca.key")), 1, "got another key"),
    ):
        with example("tls_echo", "127.0.0.1:0", *arguments) as program:
            one_line(program, pattern, status)


# ---- TLS: our client ----


@contextlib.contextmanager
def python_tls_echo(version=None):
    """An echo server on Python's ssl, for one connection after the other."""
    listener = socket.create_server(("127.0.0.1", 0))
    context = CERTIFICATES.server()
    if version:
        context.minimum_version = context.maximum_version = version

    def serve():
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), plain:
                    plain.settimeout(PATIENCE)
                    with context.wrap_socket(plain, server_side=True) as secured:
                        while piece := secured.recv(1 << 16):
                            secured.sendall(piece)
                        secured.unwrap()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)


@check
def our_client_talks_to_pythons_server_over_both_versions():
    for version in VERSIONS.values():
        with python_tls_echo(version) as port:
            found = probe(f"localhost:{port}", "--over", "tls", "--ca", CERTIFICATES.ca)
            equal(found["latency"]["round_trips"], 200)
            equal(found["throughput"]["bytes"], 1 << 20)


@check
def our_client_refuses_a_server_it_does_not_know():
    other = "00:" * 31 + "00"
    with python_tls_echo() as port:
        with example(
            "probe", f"127.0.0.1:{port}", "--over", "tls", "--fingerprint", other
        ) as program:
            one_line(program, "latency: tls: refused:.*certificate")


# ---- WebSocket: our server ----

UPGRADE = (
    *("--header", "Connection: Upgrade", "--header", "Upgrade: websocket"),
    *("--header", "Sec-WebSocket-Version: 13"),
    *("--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
)


@check
def curl_upgrades_and_is_told_when_it_does_not():
    with server("ws_echo") as (_, port):
        url = f"http://127.0.0.1:{port}/chat"
        curl = ("curl", "--silent", "--show-error", "--no-buffer", "--include", "--http1.1")
        # It waits for frames then, and prints no head before the end but in its conversation. The
        # key and its answer are those of RFC 6455, section 1.3.
        with Program(*curl, "--verbose", *UPGRADE, url) as client:
            client.wait_for("< HTTP/1.1 101 Switching Protocols", "err")
            client.wait_for("< Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK", "err")
        for arguments, status in (
            ((), "426 Upgrade Required"),
            ((*UPGRADE, "--header", "Origin: http://elsewhere"), "403 Forbidden"),
            ((*UPGRADE, "--header", "X: " + "x" * 20000), "431 Request Header Fields Too Large"),
            ((*UPGRADE, "--header", "Sec-WebSocket-Key: short"), "400 Bad Request"),
        ):
            with Program(*curl, *arguments, url) as client:
                client.wait_for(f"HTTP/1.1 {status}")
                equal(client.status(), 0)


def websockets_python():
    """A Python that has `websockets`, in a venv of its own."""
    folder = os.path.join(KEPT, "venv")
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "installed")):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            run(sys.executable, "-m", "venv", folder)
            run(python, "-m", "pip", "install", "--quiet", "websockets>=13,<17")
        except subprocess.CalledProcessError as e:
            raise Skip(f"websockets cannot be installed: {e.stderr.strip()[-200:]}") from e
        open(os.path.join(folder, "installed"), "w").close()
    return python


WEBSOCKETS = r'''
import asyncio, os, sys
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

async def main(port, compression):
    url = f"ws://127.0.0.1:{port}/"
    async with connect(url, compression=compression, max_size=None) as ws:
        agreed = [e.name for e in ws.protocol.extensions]
        assert agreed == (["permessage-deflate"] if compression else []), agreed
        for message in ("", "hello", "gr\u00fc\u00dfe \U0001f30a", b"", b"\x00\xff", os.urandom(900_000), "tide " * 100_000):
            await ws.send(message)
            back = await ws.recv()
            assert back == message and type(back) is type(message), (message[:20], back[:20])
        await ws.send(["in ", "three ", "pieces"])
        assert await ws.recv() == "in three pieces"
        await (await ws.ping(b"are you there?"))
        await ws.close(1000, "done")
        assert ws.close_code == 1000, ws.close_code
    for message, code in ((b"x" * (1 << 20) + b"x", 1009),):
        async with connect(url, compression=compression) as ws:
            try:
                await ws.send(message)
                await ws.recv()
                assert False, "it was taken"
            except ConnectionClosed as closed:
                assert closed.rcvd and closed.rcvd.code == code, closed
    # Many at once, each with its own words.
    async def one(n):
        async with connect(url, compression=compression) as ws:
            for i in range(20):
                await ws.send(f"{n}: {i}")
                assert await ws.recv() == f"{n}: {i}"
    await asyncio.gather(*(one(n) for n in range(50)))
    print("agreed")

asyncio.run(asyncio.wait_for(main(sys.argv[1], sys.argv[2] or None), 60))
'''


@check
def python_websockets_agrees():
    python = websockets_python()
    for options, compression in (((), ""), (("--deflate",), "deflate")):
        with server("ws_echo", "127.0.0.1:0", *options) as (_, port):
            equal(run(python, "-c", WEBSOCKETS, str(port), compression), "agreed\n")


# ---- WebSocket: our client ----

# Sends back what it gets, and prints how the conversation ended. A ping goes before each answer to text,
# and its pong is waited for; "refuse" in the path is answered with that status; "leave" is a reason to.
WEBSOCKETS_SERVER = r'''
import asyncio, http, ssl, sys
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

async def echo(ws):
    print("extensions", *(e.name for e in ws.protocol.extensions), flush=True)
    try:
        async for message in ws:
            if isinstance(message, str):
                await (await ws.ping(b"are you there?"))
            if message == "leave":
                await ws.close(4001, "as you wish")
            await ws.send(message)
    except ConnectionClosed:
        pass
    print("closed", ws.close_code, flush=True)

def refuse(connection, request):
    if request.path.startswith("/refuse/"):
        status = http.HTTPStatus(int(request.path.removeprefix("/refuse/")))
        return connection.respond(status, "not here\n")

async def main(certificate, key):
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
    async with serve(echo, "127.0.0.1", 0, process_request=refuse, ssl=context) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

asyncio.run(main(*sys.argv[1:]))
'''


@contextlib.contextmanager
def websockets_server(certificate="", key=""):
    command = (websockets_python(), "-c", WEBSOCKETS_SERVER, certificate, key)
    with Program(*command) as program:
        yield program, int(program.wait_for(r"listening on \S+:(\d+)").group(1))


def speaks_with(program, port, *options, ends="closed 1000"):
    """Our client sends lines, gets them back, and closes in order."""
    with example("client", f"localhost:{port}", "--ws", "/", *options) as client:
        for line in ("hello", "", "gr\u00fc\u00dfe \U0001f30a", "tide " * 50_000):
            client.send(line + "\n")
            client.wait_for(re.escape(line) + "\n$")
        client.end_input()
        equal((client.status(), client.err()), (0, ""))
    program.wait_for(ends)


@check
def our_client_talks_to_python_websockets():
    with websockets_server() as (program, port):
        speaks_with(program, port)
        program.wait_for("extensions\n")
    with websockets_server() as (program, port):
        speaks_with(program, port, "--deflate")
        program.wait_for("extensions permessage-deflate\n")
    with websockets_server(CERTIFICATES.chain, CERTIFICATES.key) as (program, port):
        speaks_with(program, port, "--ca", CERTIFICATES.ca)


@check
def our_client_sends_python_websockets_binary_messages():
    data = pattern_bytes(3_000_000)
    with websockets_server() as (program, port):
        command = ("client", f"127.0.0.1:{port}", "--ws", "/", "--binary")
        with example(*command) as client:
            client.send(data)
            client.wait_until(lambda: len(client.printed["out"]) >= len(data))
            client.end_input()
            equal(client.status(), 0)
            assert client.printed["out"] == data, "what came back is not what was sent"
        program.wait_for("closed 1000")
        # It is no text, and said not to be.
        with example("client", f"127.0.0.1:{port}", "--ws", "/") as client:
            client.send(b"\xff\xfe\n")
            one_line(client, "expected lines of UTF-8")


@check
def our_client_is_told_when_python_websockets_closes_or_refuses():
    with websockets_server() as (program, port):
        with example("client", f"127.0.0.1:{port}", "--ws", "/") as client:
            client.send("leave\n")
            one_line(client, "the server closed with code 4001: as you wish")
        program.wait_for("closed 4001")
        for status in (403, 404):
            with example("client", f"127.0.0.1:{port}", "--ws", f"/refuse/{status}") as client:
                one_line(client, f"refused by the peer: expected status 101, got {status}.*not here")
        # TLS to a plain port; and the other way round, with a server that says so.
        with example(
            *("client", f"localhost:{port}", "--ws", "/", "--ca", CERTIFICATES.ca)
        ) as client:
            one_line(client, "cannot connect to .*: tls: truncated: expected the rest of the hand")
    with tls_echo() as (_, port):
        with example("client", f"127.0.0.1:{port}", "--ws", "/") as client:
            one_line(client, "cannot connect to .*: websocket: malformed: .*looks like TLS")


@check
def our_client_refuses_what_is_no_proper_answer():
    head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    for answer, why in (
        # The answer to another key: RFC 6455, section 1.3.
        (f"{head}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", "Accept: .*, got"),
        (f"{head}\r\n", "expected Sec-WebSocket-Accept"),
        ("220 mail.example ESMTP\r\n", "expected an HTTP response, got .220 mail.example"),
    ):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with example("client", f"127.0.0.1:{port}", "--ws", "/") as client:
                with accept(listener) as connection:
                    connection.sendall(answer.encode())
                    one_line(client, f"cannot connect to .*: websocket: malformed: .*{why}")


NODE = r"""
const WebSocket = require('ws'), assert = require('assert');
const [port, deflate] = process.argv.slice(2);
const ws = new WebSocket(`ws://127.0.0.1:${port}/`, {perMessageDeflate: deflate === 'deflate'});
const text = 'tide '.repeat(50000), binary = require('crypto').randomBytes(500000);
const sent = ['', 'hello', 'gr\u00fc\u00dfe \u{1f30a}', Buffer.alloc(0), binary, text];
let got = 0, pongs = 0;
ws.on('open', () => {
  assert.strictEqual(ws.extensions !== '', deflate === 'deflate');
  for (const message of sent) ws.send(message);
  ws.send('in two ', {fin: false}); ws.send('pieces', {fin: true});
  sent.push('in two pieces');
  ws.ping('are you there?');
});
ws.on('pong', data => { assert.strictEqual(data.toString(), 'are you there?'); pongs++; });
ws.on('message', (data, isBinary) => {
  const expected = sent[got++];
  assert.strictEqual(isBinary, typeof expected !== 'string');
  assert.ok(isBinary ? data.equals(expected) : data.toString() === expected, `message ${got}`);
  if (got === sent.length) ws.close(1000, 'done');
});
ws.on('error', e => { console.error(e); process.exit(1); });
ws.on('close', code => {
  assert.deepStrictEqual([code, got], [1000, sent.length]);
  assert.ok(pongs <= 1);
  console.log('agreed');
});
"""


NODE_SERVER = r"""
const {WebSocketServer} = require('ws');
const perMessageDeflate = {threshold: 0};
const server = new WebSocketServer({host: '127.0.0.1', port: 0, perMessageDeflate}, () =>
  console.log(`listening on 127.0.0.1:${server.address().port}`));
server.on('connection', ws => {
  console.log('extensions', ws.extensions);
  ws.on('message', (data, isBinary) => {
    ws.ping('are you there?');
    ws.once('pong', () => ws.send(data, {binary: isBinary}));
  });
  ws.on('close', code => console.log('closed', code));
});
"""


def node_script(name, text):
    """A script beside the module `ws`."""
    if not (shutil.which("node") and shutil.which("npm")):
        raise Skip("there is no node, or no npm")
    folder = os.path.join(KEPT, "node")
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(os.path.join(folder, "node_modules", "ws")):
        try:
            run("npm", "install", "--silent", "--no-save", "--prefix", folder, "ws@8")
        except subprocess.CalledProcessError as e:
            raise Skip(f"ws cannot be installed: {e.stderr.strip()[-200:]}") from e
    script = os.path.join(folder, name)
    with open(script, "w") as file:
        file.write(text)
    return script


@check
def our_client_talks_to_node_ws():
    script = node_script("server.js", NODE_SERVER)
    for options, extensions in (((), ""), (("--deflate",), "permessage-deflate")):
        with Program("node", script) as program:
            port = int(program.wait_for(r"listening on \S+:(\d+)").group(1))
            speaks_with(program, port, *options)
            program.wait_for(f"extensions {extensions}\n")


@check
def node_ws_agrees():
    script = node_script("client.js", NODE)
    for options, deflate in (((), ""), (("--deflate",), "deflate")):
        with server("ws_echo", "127.0.0.1:0", *options) as (_, port):
            with Program("node", script, str(port), deflate) as client:
                equal(client.status(), 0)
                equal(client.out(), "agreed\n")


# ---- probe ----


def probe(address, *arguments):
    """A short measurement; what it found."""
    short = ("--pings", "200", "--mib", "1", "--seconds", "20", "--json")
    with example("probe", address, *short, *arguments) as program:
        status = program.status()
        assert status == 0, f"probe ended with {status}: {program.err()}"
        equal(program.err(), "")  # progress is for terminals
        return json.loads(program.out())


def is_plausible(found, over):
    equal(found["over"], over)
    latency = found["latency"]
    order = [latency[f"{q}_us"] for q in ("min", "p50", "p90", "p99", "p99_9", "max")]
    assert order == sorted(order) and order[0] > 0, order
    through = found["throughput"]
    assert through["bytes"] > 0 and through["seconds"] > 0, through
    rate = through["bytes"] / through["seconds"]
    assert abs(through["bytes_per_second"] - rate) <= rate * 0.01, through
    codecs = {codec["codec"]: codec for codec in found["compression"]}
    equal(sorted(codecs), ["deflate", "lz4"])
    for codec in codecs.values():
        assert 0.05 < codec["rate"] < 0.95, codec
        assert abs(codec["rate"] - codec["compressed_bytes"] / codec["bytes"]) < 1e-5, codec
    assert codecs["deflate"]["rate"] < codecs["lz4"]["rate"], "Huffman is what LZ4 leaves out"


@check
def probe_measures_over_tcp_and_udp():
    with server("echo") as (_, port):
        for over in ("tcp", "udp"):
            found = probe(f"127.0.0.1:{port}", "--over", over, "--distance-km", "100")
            is_plausible(found, over)
            # 100 km and back at 2/3 of 299,792 km/s.
            assert abs(found["latency"]["floor_us"] - 1000.7) < 0.1, found["latency"]
        counts = found["datagrams"]
        equal(counts["sent"], counts["received"] + counts["lost"])
        equal(counts["sent"], 200 + -(-(1 << 20) // 1200))


@check
def probe_measures_over_tls():
    with server("tls_echo") as (program, port):
        fingerprint = program.wait_for(r"SHA-256 ([0-9A-F:]{95})").group(1)
        found = probe(f"127.0.0.1:{port}", "--over", "tls", "--fingerprint", fingerprint)
        is_plausible(found, "tls")
        equal(found["latency"]["floor_us"], None)


@check
def probe_compresses_a_file():
    with server("echo") as (_, port), tempfile.NamedTemporaryFile() as file:
        file.write(pattern_bytes(300_000))
        file.flush()
        found = probe(f"127.0.0.1:{port}", "--file", file.name)
        for codec in found["compression"]:
            assert 1.0 <= codec["rate"] < 1.01, f"there is nothing to win: {codec}"
        equal(found["data"], file.name)


@check
def probe_counts_loss_and_reordering():
    # Loses each tenth; swaps two of each hundred; says one of each hundred twice.
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    udp.settimeout(0.2)
    done = threading.Event()
    did = {"lost": 0, "swapped": 0, "doubled": 0}

    def serve():
        n, held = 0, None
        while not done.is_set():
            try:
                datagram, peer = udp.recvfrom(65536)
            except TimeoutError:
                # What was lost fills probe's window, so that nothing may follow for a second: what
                # is held then goes back in its order, before probe gives it up.
                if held:
                    udp.sendto(*held)
                    held = None
                continue
            if len(datagram) < 1000:  # the pings, one at a time
                udp.sendto(datagram, peer)
                continue
            n += 1
            if n % 10 == 5:
                did["lost"] += 1
            elif n % 100 == 31:
                held = datagram, peer
            else:
                udp.sendto(datagram, peer)
                if n % 100 == 52:
                    udp.sendto(datagram, peer)
                    did["doubled"] += 1
                if held:
                    udp.sendto(*held)
                    did["swapped"] += 1
                    held = None

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        found = probe("127.0.0.1:%d" % udp.getsockname()[1], "--over", "udp")
    finally:
        done.set()
        thread.join(PATIENCE)
        udp.close()
    counts = found["datagrams"]
    # On a busy machine an answer may come after probe has stopped waiting for it: lost then, and one
    # that came twice or out of order only if it still counts.
    late = counts["lost"] - did["lost"]
    assert 0 <= late <= 5, (counts, did)
    assert did["swapped"] - late <= counts["reordered"] <= did["swapped"], (counts, did)
    assert did["doubled"] <= counts["surplus"] <= did["doubled"] + late, (counts, did)


@check
def probe_shows_a_table_and_progress_on_a_terminal():
    with server("echo") as (_, port):
        main, terminal = pty.openpty()
        process = subprocess.Popen(
            (os.path.join(DIRECTORY, "probe"), f"127.0.0.1:{port}", "--distance-km", "1", "--mib", "4"),
            stdout=subprocess.PIPE,
            stderr=terminal,
            text=True,
        )
        os.close(terminal)
        table, _ = process.communicate(timeout=PATIENCE)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a pseudo-terminal, on Linux
            while piece := os.read(main, 4096):
                shown += piece
        os.close(main)
        equal(process.returncode, 0)
        assert b"\r" in shown and b" %" in shown, shown
        for words in ("p99.9", "floor: 10.0 us", "MiB/s", "deflate", "lz4", "rate"):
            assert words in table, table


@check
def probe_says_what_is_wrong_in_one_line():
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    closed = "127.0.0.1:%d" % holder.getsockname()[1]
    with holder, server("echo") as (_, port):
        for arguments, status, pattern in (
            ((closed,), 1, "latency: cannot connect.*refused"),
            ((closed, "--over", "udp"), 1, "latency: .*refused"),
            ((f"127.0.0.1:{port}", "--over", "pigeon"), 2, "tcp, udp or tls"),
            ((f"127.0.0.1:{port}", "--over", "tls"), 2, "--fingerprint"),
            ((f"127.0.0.1:{port}", "--mib", "0"), 2, "between 1 and"),
            ((f"127.0.0.1:{port}", "--file", "/no/such/file"), 1, "/no/such/file"),
            (
                (f"127.0.0.1:{port}", "--over", "tls", "--fingerprint", "00" * 32),
                1,
                "latency: tls: ",
            ),
        ):
            with example("probe", *arguments) as program:
                one_line(program, pattern, status)


# ---- the run ----


def main():
    global CERTIFICATES
    for tool in ("openssl", "curl"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: apt-get install {tool}")
    with tempfile.TemporaryDirectory() as folder:
        CERTIFICATES = Certificates(folder)
        run_checks()


if __name__ == "__main__":
    main()
