#!/usr/bin/env python3
"""Runs the examples against real counterparts: Python's socket and asyncio, nc, curl, redis-cli.

    .ci/examples.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run.

Every check starts its own programs on ports that the system chooses, waits for events and not for
time, and ends what it has started. Prints what failed and "N passed, N failed"; the exit status is
0 if nothing failed. It needs Python's standard library and nc (netcat-openbsd). Checks that need curl
or redis-tools are skipped where they are not installed.
"""

import asyncio
import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from checks import DIRECTORY, Skip, check, run  # noqa: E402
from programs import (  # noqa: E402
    ADDRESSES,
    PATIENCE,
    Person,
    Program,
    accept,
    closed_port,
    connect,
    equal,
    example,
    listen,
    nc,
    one_line,
    pattern_bytes,
    read_exactly,
    read_to_end,
    server,
)

BIG = 50 * 1000 * 1000

# ---- --help, and addresses that cannot be used ----

EXAMPLES = [
    "echo", "chat", "client", "proxy", "connect_proxy", "resp_server", "custom_protocol", "metrics",
    "channels", "game", "feed",
]


@check
def help_says_how_to_use_each_example():
    for name in EXAMPLES:
        for option in ("--help", "-h"):
            with example(name, option) as program:
                equal(program.status(), 0)
                assert program.out().startswith(f"{name} - "), program.out()
                usage = rf"Usage: cargo run --release (--features \S+ )?--example {name}\b"
                assert re.search(usage, program.out()), program.out()
                equal(program.err(), "")
        with example(name, "--nonsense") as program:
            one_line(program, f"^{name}: did not expect '--nonsense'; --help", status=2)


@check
def an_address_that_cannot_be_used_costs_one_line_and_status_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = [
            ("nonsense", r"cannot resolve nonsense .*address:port"),
            ("127.0.0.1:99999", r"cannot resolve 127.0.0.1:99999 .*invalid port"),
            ("nosuchname.invalid:8888", r"cannot resolve nosuchname.invalid:8888: .*"),
            ("192.0.2.1:8888", r"cannot listen on 192.0.2.1:8888: .*assign requested address"),
            (f"127.0.0.1:{port}", rf"cannot listen on 127.0.0.1:{port}: .*in use.*another address"),
        ]
        for address, why in cases:
            for name in ("echo", "chat", "proxy", "connect_proxy", "resp_server"):
                with example(name, address) as program:
                    one_line(program, f"^{name}: {why}")
            with example("custom_protocol", "server", address) as program:
                one_line(program, f"^custom_protocol: {why}")


@check
def a_udp_port_in_use_is_told_as_well():
    for _ in range(20):  # until the port is free for TCP, where others may be at work
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            with example("echo", f"127.0.0.1:{port}") as program:
                program.status()
                if "cannot listen on" not in program.err():
                    one_line(program, rf"^echo: cannot bind UDP 127.0.0.1:{port}: .*in use")
                    return
    raise Skip("no port is free")


@check
def a_missing_permission_is_told():
    command = [os.path.abspath(os.path.join(DIRECTORY, "echo")), "127.0.0.1:81"]
    with tempfile.TemporaryDirectory() as directory:
        options = {}
        if os.geteuid() == 0:
            # Root may do everything. Somebody else needs a copy that they can reach.
            os.chmod(directory, 0o755)
            command[0] = shutil.copy(command[0], directory)
            options = {"user": 65534, "extra_groups": [], "cwd": directory}
        probe = "import socket; socket.socket().bind(('127.0.0.1', 81))"
        tried = subprocess.run(
            ["python3", "-c", probe] if options else [sys.executable, "-c", probe],
            capture_output=True,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin"},
            **options,
        )
        if b"PermissionError" not in tried.stderr:
            raise Skip("this system lets everybody bind ports below 1024")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)
        equal(done.returncode, 1)
        equal(len(done.stderr.splitlines()), 1)
        assert re.match("echo: cannot listen on 127.0.0.1:81: .*ermission", done.stderr), done


@check
def output_that_nobody_takes_is_told():
    for name in ("echo", "chat", "proxy", "custom_protocol"):
        arguments = ["server"] if name == "custom_protocol" else []
        if name == "chat":
            arguments = ["--tls", "127.0.0.1:0", "--web", "127.0.0.1:0"]
        command = [os.path.join(DIRECTORY, name), *arguments, "127.0.0.1:0"]
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
            )
        equal(done.returncode, 1)
        equal(len(done.stderr.splitlines()), 1)
        assert re.match(f"{name}: cannot write to standard output: ", done.stderr), done.stderr


@check
def a_server_that_cannot_be_reached_is_told():
    holder, port = closed_port()
    with holder:
        with example("client", f"127.0.0.1:{port}") as program:
            one_line(program, rf"^client: cannot connect to 127.0.0.1:{port}: Connection refused")
        with example("custom_protocol", "client", f"127.0.0.1:{port}") as program:
            one_line(program, rf"^custom_protocol: cannot connect to 127.0.0.1:{port}: .*refused")
    with example("client", "nosuchname.invalid:1") as program:
        one_line(program, r"^client: cannot resolve nosuchname.invalid:1: ")
    with example("proxy", "127.0.0.1:0", "nosuchname.invalid:1") as program:
        one_line(program, r"^proxy: cannot forward to nosuchname.invalid:1: ")


# ---- echo ----

CLASSIC_CLIENT = """
import socket

with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    s.connect(("127.0.0.1", 8888))
    s.sendall(b"Hello, world!")
    data = s.recv(1024)

print(f"Received {data!r}")
"""


@check
def pythons_classic_client_talks_to_echo():
    with server("echo") as (_, port):
        with Program(sys.executable, "-c", CLASSIC_CLIENT.replace("8888", str(port))) as program:
            equal(program.status(), 0)
            equal(program.out(), "Received b'Hello, world!'\n")


@check
def asyncio_streams_talk_to_echo():
    async def one(port, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for line in range(20):
            sent = f"{number} {line}\n".encode()
            writer.write(sent)
            await writer.drain()
            equal(await reader.readline(), sent)
        writer.write_eof()
        equal(await reader.read(), b"")
        writer.close()
        await writer.wait_closed()

    async def many(port):
        await asyncio.wait_for(asyncio.gather(*(one(port, n) for n in range(100))), PATIENCE)

    with server("echo") as (_, port):
        asyncio.run(many(port))


@check
def echo_answers_datagrams():
    with server("echo") as (_, port):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(PATIENCE)
            s.connect(("127.0.0.1", port))
            for sent in (b"Hello, world!", b"", b"x" * 9000, b"\0\xff"):
                s.send(sent)
                equal(s.recv(65536), sent)


@check
def asyncio_datagrams_talk_to_echo():
    class Ask(asyncio.DatagramProtocol):
        def __init__(self):
            self.answers = asyncio.Queue()

        def datagram_received(self, data, addr):
            self.answers.put_nowait(data)

    async def ask(port):
        loop = asyncio.get_running_loop()
        to = ("127.0.0.1", port)
        transport, protocol = await loop.create_datagram_endpoint(Ask, remote_addr=to)
        for n in range(20):
            transport.sendto(str(n).encode())
            answer = await asyncio.wait_for(protocol.answers.get(), PATIENCE)
            equal(answer, str(n).encode())
        transport.close()

    with server("echo") as (_, port):
        asyncio.run(ask(port))


@check
def nc_talks_to_echo():
    with server("echo") as (_, port), nc(port) as program:
        program.send("Hello, world!\n")
        program.wait_for("Hello, world!\n")
        program.end_input()
        equal(program.status(), 0)


def port_free_on(addresses):
    """A port that was free a moment ago, for TCP and UDP, on all these addresses."""
    for _ in range(100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            port = 0
            for address in addresses:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    holder = stack.enter_context(socket.socket(family, kind))
                    holder.bind((address, port))
                    port = holder.getsockname()[1]
            return port
    raise Skip("no port is free")


@check
def echo_listens_on_all_addresses_of_a_name():
    names = set()
    for family, _, _, _, at in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM):
        with contextlib.suppress(OSError), socket.socket(family) as probe:
            probe.bind(at)
            names.add(at[0])
    if len(names) < 2:
        raise Skip("localhost stands for one usable address here")
    port = port_free_on(names)
    with server("echo", f"localhost:{port}") as (_, port):
        for address in names:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(family, kind) as s:
                    s.settimeout(PATIENCE)
                    s.connect((address, port))
                    s.send(b"here")
                    equal(s.recv(10), b"here")


# ---- chat ----


@check
def two_terminals_with_nc_can_talk():
    with server("chat") as (_, port), nc(port) as anna:
        anna.wait_for(r"\* Welcome\. You are guest1\. /help")
        anna.send("/nick Anna\n")
        anna.wait_for(r"\* guest1 is now Anna\n")
        with nc(port) as ben:
            ben.wait_for(r"\* Here now: Anna, guest2\n")
            anna.wait_for(r"\* guest2 has joined\n")
            ben.send("/nick Ben\n/who\n/help\n")
            ben.wait_for(r"\* Here now: Anna, Ben\n")
            ben.wait_for(r"\* /nick NAME")
            anna.wait_for(r"\* guest2 is now Ben\n")
            anna.send("Hello, Ben!\n")
            ben.wait_for(r"<Anna> Hello, Ben!\n")
            ben.send("Hello, Anna!\n")
            anna.wait_for(r"<Ben> Hello, Anna!\n")
            ben.send("/quit\n")
            anna.wait_for(r"\* Ben has left\n")
            # nc goes on until its own input ends too.
            ben.end_input()
            equal(ben.status(), 0)
        anna.end_input()
        equal(anna.status(), 0)
        assert "<Anna>" not in anna.out(), "what one says oneself is not sent back"


@check
def names_in_the_chat_are_checked():
    with server("chat") as (_, port), Person(port) as a, Person(port) as b:
        a.line()  # the other has joined
        a.say("/nick Zoë")
        equal(a.line(), "* guest1 is now Zoë")
        equal(b.line(), "* guest1 is now Zoë")
        for name in ("zoë", "ZOË"):
            b.say(f"/nick {name}")
            equal(b.line(), f"* {name} is taken")
        for name in ("", "two words", "x" * 21, "<b>", "a\x1b[2J", "* admin"):
            b.say(f"/nick {name}")
            line = b.line()
            assert line.startswith(("* A name has", "* I do not know /nick.")), line
        a.say("/nick zoë")  # one's own name in another form
        equal(b.line(), "* Zoë is now zoë")
        b.say("/frobnicate")
        assert b.line().startswith("* I do not know /frobnicate. /nick NAME")


@check
def control_characters_do_not_reach_other_terminals():
    with server("chat") as (_, port), Person(port) as a, Person(port) as b:
        a.line()
        b.socket.sendall(b"\x1b[2J\x07bell\rover\x9bwrite \xe2\x80\xaeright to left\tend\xff\x00\r\n")
        line = a.line()
        assert line.startswith("<guest2> "), line
        assert all(c.isprintable() for c in line), repr(line)
        assert "bell" in line and line.count("\ufffd") >= 6, repr(line)


@check
def a_slow_reader_never_stalls_the_room():
    with server("chat") as (program, port):
        with Person(port) as a, Person(port) as b, Person(port, receive_buffer=4096) as slow:
            equal(a.line(), "* guest2 has joined")
            equal(a.line(), "* guest3 has joined")
            equal(b.line(), "* guest3 has joined")
            text = "x" * 1000
            said = 0
            # `slow` reads nothing. Everybody else hears every line; at last the room lets it go.
            while True:
                a.say(f"{said} {text}")
                line = b.line()
                if line.startswith("* guest3"):
                    equal(line, "* guest3 could not keep up and was disconnected")
                    line = b.line()
                equal(line, f"<guest1> {said} {text}")
                said += 1
                if "more queued output than" in program.err():
                    break
                assert said < 20_000, "the slow reader was never disconnected"
            a.say("still here")
            while (line := b.line()).startswith("* "):
                pass
            equal(line, "<guest1> still here")
            b.say("/who")
            equal(b.line(), "* Here now: guest1, guest2")


@check
def a_line_that_never_ends_costs_its_sender_only():
    with server("chat") as (_, port), Person(port) as a, Person(port) as b:
        a.line()
        b.socket.sendall(b"x" * 5000)
        equal(b.lines.read(), b"")
        b.lines.close()
        b.socket.close()
        equal(a.line(), "* guest2 has left")
        a.say("/who")
        equal(a.line(), "* Here now: guest1")


@check
def a_last_line_without_its_end_is_heard():
    with server("chat") as (_, port), Person(port) as a:
        with connect(port) as b:
            equal(a.line(), "* guest2 has joined")
            b.sendall(b"bye")
            b.shutdown(socket.SHUT_WR)
            equal(a.line(), "<guest2> bye")
            equal(a.line(), "* guest2 has left")
            assert b"Welcome" in read_to_end(b)


@check
def ctrl_c_and_sigterm_close_the_room_gracefully():
    for number in (signal.SIGINT, signal.SIGTERM):
        with server("chat") as (program, port), Person(port) as a, nc(port) as b:
            b.wait_for("Here now")
            equal(a.line(), "* guest2 has joined")
            program.process.send_signal(number)
            equal(a.line(), "* The room is closing. Goodbye!")
            equal(a.lines.readline(), b"")
            b.wait_for(r"\* The room is closing\. Goodbye!\n")
            a.lines.close()
            a.socket.close()
            b.end_input()
            equal(b.status(), 0)
            equal(program.status(), 0)
            assert "chat: closed" in program.out(), program.out()


@check
def one_room_spans_the_workers():
    with server("chat", *ADDRESSES["chat"], "--workers", "3", "--metrics", "127.0.0.1:0") as (
        program,
        port,
    ):
        at = int(program.wait_for(r"listening on \S+:(\d+), figures").group(1))
        people = []
        for number in range(1, 7):
            people.append(Person(port))
            equal(people[-1].name, f"guest{number}")
            for earlier in people[:-1]:
                equal(earlier.line(), f"* guest{number} has joined")
        # Two on each worker: everybody hears each of them, in order.
        for line in range(20):
            for person in people:
                person.say(str(line))
        for person in people:
            heard = {}
            for _ in range(20 * 5):
                name, said = re.fullmatch(r"<(\w+)> (\d+)", person.line()).groups()
                equal(int(said), heard.get(name, -1) + 1)
                heard[name] = int(said)
            equal(sorted(heard.values()), [19] * 5)
        people[0].say("/stats")
        told = people[0].line()
        assert re.match(r"\* 6 here, 120 lines said; .* accepted 6 connections", told), told
        page = parsed_by_prometheus(scrape(at))
        equal(page["chat_members"][1][0][2], 6.0)
        # The lines of two thirds of the people crossed to others.
        assert page["tidegate_crossings"][1][0][2] > 0
        people[3].say("/nick Dora")
        equal([person.line() for person in people], ["* guest4 is now Dora"] * 6)
        people[3].say("/who")
        equal(people[3].line(), "* Here now: Dora, guest1, guest2, guest3, guest5, guest6")
        program.process.send_signal(signal.SIGINT)
        for person in people:
            equal(person.line(), "* The room is closing. Goodbye!")
            equal(person.lines.readline(), b"")
            person.lines.close()
            person.socket.close()
        equal(program.status(), 0)
        assert "chat: closed\n" in program.out(), program.out()
    with example("chat", "--workers", "0") as program:
        equal(program.status(), 2)
        assert "did not expect --workers '0'" in program.err(), program.err()


@check
def a_member_that_does_not_go_cannot_hold_the_room_open():
    with server("chat") as (program, port), Person(port) as a:
        program.process.send_signal(signal.SIGINT)
        equal(a.line(), "* The room is closing. Goodbye!")
        # `a` never closes. The room ends all the same, in seconds.
        equal(program.status(), 0)
    with server("chat") as (program, port), Person(port) as a:
        program.process.send_signal(signal.SIGINT)
        equal(a.line(), "* The room is closing. Goodbye!")
        before = time.monotonic()
        program.process.send_signal(signal.SIGINT)  # again: at once
        equal(program.status(), 0)
        assert time.monotonic() - before < 1.5, "the second Ctrl-C had to wait"


# ---- client ----

CLASSIC_SERVER = """
import socket

with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as s:
    s.bind(("127.0.0.1", 0))
    s.listen()
    print("port", s.getsockname()[1], flush=True)
    conn, addr = s.accept()
    with conn:
        data = conn.recv(1024)
        print(f"Received {data!r}", flush=True)
        conn.sendall(b"Hello, world!")
"""


@check
def client_talks_to_pythons_classic_server():
    with Program(sys.executable, "-c", CLASSIC_SERVER) as classic:
        port = classic.wait_for(r"port (\d+)").group(1)
        with example("client", f"127.0.0.1:{port}") as client:
            client.send("Good day!")
            # Its input stays open: it ends because the server has ended.
            equal(client.status(), 0)
            equal(client.out(), "Hello, world!")
        equal(classic.status(), 0)
        assert "Received b'Good day!'" in classic.out()


@check
def client_talks_to_an_asyncio_server():
    async def talk():
        async def shout(reader, writer):
            while line := await reader.readline():
                writer.write(line.upper())
                await writer.drain()
            writer.write(b"bye\n")
            writer.close()

        served = await asyncio.start_server(shout, "127.0.0.1", 0)
        port = served.sockets[0].getsockname()[1]
        client = await asyncio.create_subprocess_exec(
            os.path.join(DIRECTORY, "client"),
            f"127.0.0.1:{port}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(client.communicate(b"one\ntwo\n"), PATIENCE)
        served.close()
        equal((client.returncode, out), (0, b"ONE\nTWO\nbye\n"))

    asyncio.run(talk())


@check
def a_piped_client_ends_when_the_server_is_done():
    with server("echo") as (_, port), example("client", f"127.0.0.1:{port}") as client:
        client.send("Hello, world!")
        client.end_input()
        equal(client.status(), 0)
        equal((client.out(), client.err()), ("Hello, world!", ""))
    # With no input at all, and a server that answers only after the end.
    with listen() as listener:
        port = listener.getsockname()[1]
        with example("client", f"127.0.0.1:{port}") as client:
            client.end_input()
            with accept(listener) as connection:
                equal(read_to_end(connection), b"")
                connection.sendall(b"late answer")
            equal(client.status(), 0)
            equal(client.out(), "late answer")


@check
def client_and_chat_talk():
    with server("chat") as (_, port), Person(port) as a:
        with example("client", f"127.0.0.1:{port}") as client:
            client.wait_for("You are guest2")
            equal(a.line(), "* guest2 has joined")
            client.send("from the client\n")
            equal(a.line(), "<guest2> from the client")
            a.say("to the client")
            client.wait_for("<guest1> to the client\n")
            client.send("/quit\n")
            equal(client.status(), 0)


@check
def fifty_megabytes_through_client_and_echo():
    data = pattern_bytes(BIG)
    with server("echo") as (_, port):
        done = subprocess.run(
            [os.path.join(DIRECTORY, "client"), f"127.0.0.1:{port}"],
            input=data,
            capture_output=True,
            timeout=PATIENCE * 4,
        )
        equal((done.returncode, done.stderr), (0, b""))
        assert done.stdout == data, f"sent {len(data)} bytes, {len(done.stdout)} came back"


@check
def a_server_that_does_not_read_slows_the_client_down():
    with listen() as listener:
        port = listener.getsockname()[1]
        with example("client", f"127.0.0.1:{port}") as client, accept(listener) as connection:
            os.set_blocking(client.process.stdin.fileno(), False)
            piece, taken, waited = b"x" * 65536, 0, 0
            # Until it has taken nothing for a second.
            while waited < 10:
                try:
                    taken += os.write(client.process.stdin.fileno(), piece)
                    waited = 0
                except BlockingIOError:
                    time.sleep(0.1)
                    waited += 1
                assert taken < 100_000_000, "the client reads without limit"
            assert resident(client) < 32_000_000, f"{resident(client)} bytes in memory"
            client.end_input()
            equal(len(read_to_end(connection)), taken)
            connection.shutdown(socket.SHUT_WR)
            equal(client.status(), 0)


def resident(program):
    """How much memory a program uses, in bytes; nothing where the system does not say."""
    try:
        with open(f"/proc/{program.process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0


@check
def a_lost_connection_is_told():
    with listen() as listener:
        port = listener.getsockname()[1]
        with example("client", f"127.0.0.1:{port}") as client:
            with accept(listener) as connection:
                connection.sendall(b"greeting")
                client.wait_for("greeting")  # it knows that the connection stands
                reset_on_close(connection)
            one_line(client, rf"^client: lost the connection to 127.0.0.1:{port}: .*reset")


def reset_on_close(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@check
def a_client_whose_output_is_gone_says_so():
    with server("echo") as (_, port):
        client = subprocess.Popen(
            [os.path.join(DIRECTORY, "client"), f"127.0.0.1:{port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        client.stdout.close()
        client.stdin.write(b"Hello\n")
        client.stdin.flush()
        equal(client.wait(PATIENCE), 1)
        client.stdin.close()
        with client.stderr as err:
            assert re.match(rb"client: cannot write to standard output: .*\n$", err.read())


# ---- proxy ----


@contextlib.contextmanager
def proxied(target):
    with server("proxy", "127.0.0.1:0", f"127.0.0.1:{target}") as (program, port):
        yield program, port


@check
def fifty_megabytes_both_ways_through_the_proxy():
    data = pattern_bytes(BIG)
    with server("echo") as (_, echo), proxied(echo) as (program, port), connect(port) as s:
        sender = threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)))
        sender.start()
        # Half-close: the end travels to echo, and the rest and echo's own end come back.
        came = read_to_end(s)
        sender.join(PATIENCE)
        assert came == data, f"sent {len(data)} bytes, {len(came)} came back"
        assert resident(program) < 64_000_000, f"{resident(program)} bytes in memory"


@check
def the_proxy_passes_each_half_close_on():
    with listen() as listener, proxied(listener.getsockname()[1]) as (_, port):
        # The client ends first; the answer comes after its end.
        with connect(port) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            with accept(listener) as target:
                equal(read_to_end(target), b"question")
                target.sendall(b"answer")
            equal(read_to_end(client), b"answer")
        # The target ends first, and still listens.
        with connect(port) as client, accept(listener) as target:
            target.sendall(b"greeting")
            target.shutdown(socket.SHUT_WR)
            equal(read_to_end(client), b"greeting")
            client.sendall(b"thanks")
            client.close()
            equal(read_to_end(target), b"thanks")


@check
def a_slow_peer_behind_the_proxy_slows_the_other_down():
    with listen() as listener, proxied(listener.getsockname()[1]) as (program, port):
        with connect(port) as client, accept(listener) as target:
            client.setblocking(False)
            piece, taken, waited = pattern_bytes(65536), 0, 0
            while waited < 10:
                try:
                    taken += client.send(piece[taken % 65536 :])
                    waited = 0
                except BlockingIOError:
                    time.sleep(0.1)
                    waited += 1
                assert taken < 100_000_000, "the proxy reads without limit"
            assert resident(program) < 32_000_000, f"{resident(program)} bytes in memory"
            # The other direction is not held up.
            client.settimeout(PATIENCE)
            target.sendall(b"meanwhile")
            equal(client.recv(100), b"meanwhile")
            client.shutdown(socket.SHUT_WR)
            came = read_to_end(target)
            assert came == (piece * (taken // 65536 + 1))[:taken], f"{taken} sent, {len(came)} came"


@check
def the_proxy_passes_bad_ends_on():
    with listen() as listener, proxied(listener.getsockname()[1]) as (_, port):
        with connect(port) as client, accept(listener) as target:
            client.sendall(b"x")
            equal(target.recv(1), b"x")
            reset_on_close(target)
            target.close()
            reset_is_seen(client)
        with connect(port) as client, accept(listener) as target:
            client.sendall(b"x")
            equal(target.recv(1), b"x")
            reset_on_close(client)
            client.close()
            reset_is_seen(target)
    holder, nobody = closed_port()
    with holder, proxied(nobody) as (program, port):
        # The reset may be so quick that the connect itself fails.
        with contextlib.suppress(ConnectionResetError), connect(port) as client:
            reset_is_seen(client)
        program.wait_for(f"cannot connect to 127.0.0.1:{nobody}: Connection refused", "err")


def reset_is_seen(connection):
    try:
        data = connection.recv(100)
    except ConnectionResetError:
        return
    raise AssertionError(f"expected a reset, got {data!r}")


@check
def pythons_classic_client_talks_through_the_proxy():
    with server("echo") as (_, echo), proxied(echo) as (_, port):
        with Program(sys.executable, "-c", CLASSIC_CLIENT.replace("8888", str(port))) as program:
            equal(program.status(), 0)
            equal(program.out(), "Received b'Hello, world!'\n")


# ---- connect_proxy ----


def ask_for_tunnel(port, request):
    """Sends a request head and returns the socket and the head of the answer."""
    s = connect(port)
    s.sendall(request)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = s.recv(1)
        assert piece, f"the proxy closed after {head!r}"
        head += piece
    return s, head


def connect_request(target):
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def needs(program):
    if not shutil.which(program):
        raise Skip(f"{program} is not installed")


@check
def curl_fetches_through_the_connect_proxy():
    needs("curl")
    page = pattern_bytes(5_000_000)

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        try:
            with server("connect_proxy") as (_, port):
                # -p: a tunnel also for http. By address, and by a name that has to be looked up.
                for host in ("127.0.0.1", "localhost"):
                    url = f"http://{host}:{pages.server_port}/"
                    tunnel = ("-sS", "--noproxy", "", "-p", "-x", f"http://127.0.0.1:{port}")
                    got = subprocess.run(
                        ["curl", *tunnel, url], capture_output=True, timeout=PATIENCE, check=True
                    )
                    assert got.stdout == page, f"{len(got.stdout)} bytes of {len(page)}"
                holder, nobody = closed_port()
                with holder:
                    url = f"http://127.0.0.1:{nobody}/"
                    got = subprocess.run(
                        ["curl", *tunnel, url], capture_output=True, timeout=PATIENCE, check=False
                    )
                    assert got.returncode != 0 and b"502" in got.stderr, got
        finally:
            pages.shutdown()
            thread.join(PATIENCE)


@check
def the_connect_proxy_sends_200_when_the_target_is_open_and_relays_what_came_early():
    with listen() as listener, server("connect_proxy") as (_, port):
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        # In one segment with the head: an eager client, as with TLS.
        s, head = ask_for_tunnel(port, connect_request(target) + b"early")
        with s, accept(listener) as far:
            assert head.startswith(b"HTTP/1.1 200 "), head
            equal(read_exactly(far, 5), b"early")
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            equal(read_to_end(s), b"answer")
            s.sendall(b"late")
            s.shutdown(socket.SHUT_WR)
            equal(read_to_end(far), b"late")


@check
def the_connect_proxy_says_why_there_is_no_tunnel():
    holder, nobody = closed_port()
    # A backlog that is full: the system drops what else comes, so a connect gets no answer.
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    waiting = []
    with holder, full, contextlib.ExitStack() as stack, server("connect_proxy") as (_, port):
        for _ in range(4):
            s = stack.enter_context(socket.socket())
            s.setblocking(False)
            s.connect_ex(full.getsockname())
            waiting.append(s)
        cases = [
            (connect_request(f"127.0.0.1:{nobody}"), b"502"),
            (connect_request("nosuchname.invalid:443"), b"502"),
            (connect_request(f"127.0.0.1:{full.getsockname()[1]}"), b"504"),
            (connect_request("127.0.0.1"), b"400"),
            (b"CONNECT 127.0.0.1:80\r\n\r\n", b"400"),
            (b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"405"),
        ]
        for request, status in cases:
            s, head = ask_for_tunnel(port, request)
            with s:
                assert head.startswith(b"HTTP/1.1 " + status + b" "), (request, head)
                equal(read_to_end(s), b"")
        # A head that never ends costs its sender only.
        with connect(port) as s, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            s.sendall(b"CONNECT " + b"x" * 20_000)
            equal(read_to_end(s), b"")


# ---- resp_server ----


def command(*words):
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word.encode() if isinstance(word, str) else word
        parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(parts)


@check
def the_resp_server_answers_pipelined_commands_in_order():
    dialogue = [
        (("PING",), b"+PONG\r\n"),
        (("echo", "a\r\nb"), b"$4\r\na\r\nb\r\n"),
        (("GET", "tide"), b"$-1\r\n"),
        (("SET", "tide", "high"), b"+OK\r\n"),
        (("GET", "tide"), b"$4\r\nhigh\r\n"),
        (("TTL", "tide"), b":-1\r\n"),
        (("EXPIRE", "tide", "100"), b":1\r\n"),
        (("TTL", "tide"), b":100\r\n"),
        (("EXPIRE", "tide", "soon"), b"-ERR invalid expire time\r\n"),
        (("EXPIRE", "gate", "1"), b":0\r\n"),
        (("TTL", "gate"), b":-2\r\n"),
        (("DEL", "tide"), b":1\r\n"),
        (("DEL", "tide"), b":0\r\n"),
        (("HELLO", "3"), b"-ERR unknown command or wrong number of arguments\r\n"),
    ]
    commands = b"".join(command(*words) for words, _ in dialogue)
    answers = b"".join(answer for _, answer in dialogue)
    with server("resp_server") as (_, port), connect(port) as s:
        s.sendall(commands)
        equal(read_exactly(s, len(answers)), answers)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(commands)):  # byte by byte
            s.sendall(commands[at : at + 1])
        equal(read_exactly(s, len(answers)), answers)


@check
def the_resp_server_takes_commands_as_lines():
    with server("resp_server") as (_, port), connect(port) as s:
        s.sendall(b"PING\r\nset tide 'high water'\n\r\nGET tide\r\n")
        answers = b"+PONG\r\n+OK\r\n$10\r\nhigh water\r\n"
        equal(read_exactly(s, len(answers)), answers)


@check
def an_entry_of_the_resp_server_expires():
    with server("resp_server") as (_, port), connect(port) as s:
        s.sendall(command("SET", "tide", "high") + command("EXPIRE", "tide", "1"))
        equal(read_exactly(s, 9), b"+OK\r\n:1\r\n")
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE:
            s.sendall(command("GET", "tide"))
            if read_exactly(s, 4) == b"$-1\r":
                break
            read_exactly(s, 6)
            time.sleep(0.05)
        assert 0.9 < time.monotonic() - begin < PATIENCE, "expired too early, or not at all"


@check
def who_does_not_read_the_resp_servers_answers_is_not_read_from():
    value = pattern_bytes(10_000)
    answer = b"$10000\r\n" + value + b"\r\n"
    with server("resp_server") as (program, port), connect(port) as s:
        s.sendall(command("SET", "tide", value))
        equal(read_exactly(s, 5), b"+OK\r\n")
        count = 5_000  # 50 MB of answers for 120 KB of commands, all sent before any is read
        s.sendall(command("GET", "tide") * count)
        s.shutdown(socket.SHUT_WR)
        came = read_to_end(s)
        assert came == answer * count, f"{len(came)} bytes of {len(answer) * count}"
        assert resident(program) < 32_000_000, f"{resident(program)} bytes in memory"


@check
def the_resp_server_ends_what_is_no_resp():
    with server("resp_server") as (program, port):
        for bad, said in [
            (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b"a request of HTTP came"),
            (b"*1\r\n$99999999\r\n", b"at most 16384 bytes"),
            (b"*99\r\n", b"at most 64 elements"),
            (b"*1000000000\r\n", b"at most 64 elements"),
            (b"*1\r\n:1\r\n", b"expected '$'"),
        ]:
            with connect(port) as s:
                s.sendall(bad)
                answer = read_to_end(s)
                assert answer.startswith(b"-ERR Protocol error: ") and said in answer, answer
        with connect(port) as s:
            s.sendall(command("PING"))
            equal(read_exactly(s, 7), b"+PONG\r\n")


@check
def redis_cli_and_redis_benchmark_talk_to_the_resp_server():
    needs("redis-cli")
    with server("resp_server") as (_, port):
        for words, answer in [
            (["set", "tide", "high water"], "OK"),
            (["get", "tide"], "high water"),
            (["expire", "tide", "60"], "1"),
            (["ttl", "tide"], "60"),
            (["del", "tide"], "1"),
        ]:
            cli = ["redis-cli", "-p", str(port), *words]
            got = subprocess.run(cli, capture_output=True, timeout=PATIENCE, check=True, text=True)
            equal(got.stdout.strip(), answer)
        needs("redis-benchmark")
        load = ["-t", "set,get", "-n", "20000", "-c", "20", "-P", "16", "-q"]
        got = subprocess.run(
            ["redis-benchmark", "-p", str(port), *load],
            capture_output=True, timeout=PATIENCE, check=True, text=True,
        )
        for test in ("SET", "GET"):
            assert re.search(rf"{test}: \S+ requests per second", got.stdout), got


# ---- custom_protocol ----


def protocol_server():
    return server("custom_protocol", "server", "127.0.0.1:0")


def ask(port, *requests):
    return example("custom_protocol", "client", f"127.0.0.1:{port}", *requests)


@check
def the_custom_protocol_answers_out_of_order():
    with protocol_server() as (_, port):
        with ask(port) as client:
            equal(client.status(), 0)
            lines = client.out().splitlines()
            expected = ["put tide high: done", "get tide: high", "get gate: no such key"]
            equal(lines, [*expected, "wait 300: done"])
        with ask(port, "get tide; put gate two words; get gate") as client:
            equal(client.status(), 0)
            expected = "get tide: high\nput gate two words: done\nget gate: two words\n"
            equal(client.out(), expected)


@check
def the_custom_protocol_keeps_its_times():
    with protocol_server() as (program, port):
        # Longer than the server endures silence: the pings keep the connection.
        with ask(port, "wait 1800") as client:
            equal(client.status(), 0)
            equal(client.out(), "wait 1800: done\n")
        # The client has ended its side before the answer is due.
        with connect(port) as s:
            s.sendall(b"\0\x09" + struct.pack(">IBI", 7, 3, 200))
            s.shutdown(socket.SHUT_WR)
            equal(read_to_end(s), b"\0\x05" + struct.pack(">IB", 7, 0))
        # Longer than the client waits for an answer.
        with ask(port, "wait 60000; put a b") as client:
            one_line(client, "^custom_protocol: 1 without an answer$")
            equal(client.out(), "put a b: done\nwait 60000: no answer within 2s\n")
        # Silence.
        with connect(port) as silent:
            before = time.monotonic()
            equal(read_to_end(silent), b"")
            assert time.monotonic() - before > 1.4, "closed too early"
        program.wait_for("nothing heard for 1.5s", "err")


@check
def the_custom_protocol_survives_malformed_messages():
    bad = [
        b"\0\0",
        b"\0\x05\0\0\0\1\x09",
        b"\0\x06\0\0\0\1\2\xff",
        b"\0\x06\0\0\0\1\0x",
        b"\xff\xff",
        b"GET / HTTP/1.1\r\n\r\n",
    ]
    with protocol_server() as (program, port):
        for message in bad:
            with connect(port) as s:
                s.sendall(message)
                equal(read_to_end(s), b"")
        program.wait_for("a malformed request", "err")
        with ask(port, "nonsense") as client:
            one_line(client, "^custom_protocol: expected 'get KEY', .* not 'nonsense'")
        # More waits than one connection may have.
        with connect(port) as s:
            s.sendall(b"".join(b"\0\x09" + struct.pack(">IBI", n, 3, 60000) for n in range(1, 18)))
            equal(read_exactly(s, 7), b"\0\x05" + struct.pack(">IB", 17, 2))
        with ask(port) as client:
            equal(client.status(), 0)


# ---- feed ----


def value(symbol, number):
    """A frame of the feed, as its publishers send it."""
    return struct.pack(">HIQQ12x", 32, symbol, number, time.time_ns())


def read_values(connection, enough):
    """Symbols and numbers, until `enough` of the newest numbers is true. Each symbol's only rise."""
    left, newest, count = b"", {}, 0
    while not enough(newest):
        piece = connection.recv(1 << 16)
        assert piece, f"the end came after {count} values"
        left += piece
        whole = len(left) - len(left) % 34
        for length, symbol, number, _ in struct.iter_unpack(">HIQQ12x", left[:whole]):
            equal(length, 32)
            assert newest.get(symbol, 0) < number, f"{symbol}: {number} after {newest[symbol]}"
            newest[symbol] = number
            count += 1
        left = left[whole:]
    return newest, count


@contextlib.contextmanager
def relay():
    """The feed's server; yields it and its ports for publishers and for subscribers."""
    with server("feed") as (program, port):
        yield program, port, int(program.wait_for(r"listening on \S+:(\d+), subscribers").group(1))


@check
def a_fast_subscriber_of_the_feed_misses_nothing_and_a_late_one_gets_the_newest():
    symbols, numbers = 100, 600
    with relay() as (program, inward, outward), socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE)
        slow.connect(("127.0.0.1", outward))
        with connect(inward) as publisher, connect(outward) as fast:
            # What both get first says that they are subscribed.
            publisher.sendall(value(0, 1))
            for reader in (slow, fast):
                read_values(reader, lambda newest: newest)
            for number in range(1, numbers + 1):  # 60,000 values; the slow one reads none of them
                publisher.sendall(b"".join(value(symbol, number) for symbol in range(1, symbols + 1)))
                newest, count = read_values(
                    fast, lambda newest: len(newest) == symbols and min(newest.values()) == number
                )
                equal(count, symbols)
            last = {symbol: numbers for symbol in range(1, symbols + 1)}
            newest, count = read_values(slow, lambda newest: newest == last)
            assert count < symbols * numbers / 4, f"{count} values: nothing was replaced"
            with connect(outward) as late:
                newest, count = read_values(late, lambda newest: len(newest) == symbols + 1)
                equal(newest, {0: 1, **last})
            assert resident(program) < 32_000_000, f"{resident(program)} bytes in memory"


@check
def the_feed_ends_what_is_no_frame_of_its_own():
    with relay() as (_, inward, outward):
        for bad in (b"\0\2ab", b"\0\4\0\0\x27\x10", b"\xff\xff", b"GET / HTTP/1.1\r\n\r\n"):
            with connect(inward) as s:
                s.sendall(bad)
                equal(read_to_end(s), b"")
        with connect(outward) as s:
            s.sendall(b"\0\1x")
            equal(read_to_end(s), b"")
        with connect(inward) as publisher, connect(outward) as subscriber:
            publisher.sendall(value(9999, 7))
            equal(read_values(subscriber, lambda newest: newest)[0], {9999: 7})


@check
def the_feeds_own_bots_agree_with_it():
    for option in ((), ("--spin",)):
        arguments = ("server", *ADDRESSES["feed"][1:], *option)
        with server("feed", *arguments) as (program, inward):
            outward = int(program.wait_for(r"listening on \S+:(\d+), subscribers").group(1))
            at, said = f"127.0.0.1:{outward}", r"^feed: (\d+) values, (\d+) missed, 0 out of order, age"
            with (
                example("feed", "subscribe", at, "--seconds", "3") as fast,
                example("feed", "subscribe", at, "--bytes-per-second", "20000", "--seconds", "3") as slow,
                example("feed", "publish", f"127.0.0.1:{inward}", "--seconds", "2") as publisher,
            ):
                equal(publisher.status(), 0)
                for subscriber in (fast, slow):
                    equal(subscriber.status(), 0)
                values = int(re.match(r"feed: (\d+) values", publisher.out()).group(1))
                assert values >= 20_000, publisher.out()
                got, missed = map(int, re.match(said, slow.out()).groups())
                assert got < values / 2 < missed, (slow.out(), publisher.out())
                assert int(re.match(said, fast.out()).group(1)) > values / 2, (fast.out(), publisher.out())


# ---- figures for Prometheus ----

# The parser is installed once, under target/, in a venv of its own.
KEPT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "examples-kept")
PROMETHEUS_CLIENT = "prometheus_client==0.22.1"
PARSE = """
import json, sys
from prometheus_client.parser import text_string_to_metric_families
families = text_string_to_metric_families(sys.stdin.read())
print(json.dumps({f.name: [f.type, [[s.name, s.labels, s.value] for s in f.samples]] for f in families}))
"""


def parsed_by_prometheus(page):
    """What Prometheus's own parser finds in a page."""
    folder = os.path.join(KEPT, PROMETHEUS_CLIENT)
    python = os.path.join(folder, "bin", "python")
    if not os.path.exists(os.path.join(folder, "installed")):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            for command in (
                (sys.executable, "-m", "venv", folder),
                (python, "-m", "pip", "install", "--quiet", PROMETHEUS_CLIENT),
            ):
                subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        except subprocess.SubprocessError as e:
            why = f"{PROMETHEUS_CLIENT} cannot be installed: {e}"
            if os.environ.get("CI"):
                raise AssertionError(f"{why}; in CI this check must not be left out") from e
            raise Skip(why) from e
        open(os.path.join(folder, "installed"), "w").close()
    found = subprocess.run(
        [python, "-c", PARSE], input=page, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    equal(found.stderr, "")
    return json.loads(found.stdout)


def scrape(port):
    needs("curl")
    url = f"http://127.0.0.1:{port}/metrics"
    command = ["curl", "-sS", "--fail", "--noproxy", "*", url]
    got = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return got.stdout


def answer_to(port, request):
    with connect(port) as s:
        s.sendall(request)
        return read_to_end(s)


@check
def channels_bring_back_what_must_arrive():
    with server("channels") as (_, port):
        clients = [example("channels", f"127.0.0.1:{port}", "150") for _ in range(2)]
        # Datagrams of others, which are no packets.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(PATIENCE)
            for datagram in (b"", b"nonsense", b"\xff" * 1_400, b"\0" * 20, b"c" + bytes(12)):
                stranger.sendto(datagram, ("127.0.0.1", port))
            # Only a hello has an answer, and that is shorter.
            stranger.sendto(b"channels/1 hello", ("127.0.0.1", port))
            cookie = stranger.recv(2000)
            equal((len(cookie), cookie[:1]), (13, b"c"))
            # Whoever has shown it has a session. A slice that renet 2.0.1 would panic at costs nothing.
            stranger.sendto(cookie, ("127.0.0.1", port))
            equal(stranger.recv(2000), b"c")
            slice = b"\x02\0\x02\x01\x09\x02\x44\xb0" + bytes(1_200)
            stranger.sendto(slice, ("127.0.0.1", port))
            stranger.sendto(cookie, ("127.0.0.1", port))
            equal(stranger.recv(2000), b"c")
        for client in clients:
            with client:
                equal(client.status(), 0)
                assert "150 of 150 came back in order" in client.out(), client.out()
    with example("channels", "127.0.0.1:0", "many") as program:
        one_line(program, "^channels: expected a count, got 'many'")


@check
def curl_and_the_parser_of_prometheus_read_the_metrics():
    with server("metrics") as (program, port):
        at = int(program.wait_for(r"listening on \S+:(\d+), http").group(1))
        with connect(port) as s:
            s.sendall(b"one\ntwo\n")
            equal(read_exactly(s, 8), b"one\ntwo\n")
            page = parsed_by_prometheus(scrape(at))
        equal(page["echo_lines"], ["counter", [["echo_lines_total", {}, 2.0]]])
        # Of the echo; what curl has sent was read, and its answer is not written yet.
        equal(page["tidegate_bytes_written"][1][0][2], 8.0)
        equal(page["tidegate_connections"], ["gauge", [["tidegate_connections", {}, 2.0]]])
        kind, samples = page["tidegate_callback_seconds"]
        equal(kind, "summary")
        assert any(name.endswith("_count") and value >= 2 for name, _, value in samples), samples
        page = parsed_by_prometheus(scrape(at))
        closed = {labels["reason"]: value for _, labels, value in page["tidegate_closed"][1]}
        assert sum(closed.values()) >= 1 and "idle_timeout" in closed, closed


@check
def a_bad_scrape_gets_a_status_and_costs_nobody_else():
    with server("metrics") as (program, _):
        at = int(program.wait_for(r"listening on \S+:(\d+), http").group(1))
        for request, status in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"404 Not Found"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed"),
            (b"nonsense\r\n\r\n", b"400 Bad Request"),
            (b"GET /metrics SMTP\r\n\r\n", b"400 Bad Request"),
            (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 5000, b"400 Bad Request"),
            (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK"),
        ):
            answer = answer_to(at, request)
            assert answer.startswith(b"HTTP/1.0 " + status + b"\r\n"), (request[:40], answer[:80])
        head, _, body = answer.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}\r\n".encode() in head + b"\r\n", head


@check
def the_chat_has_figures_for_prometheus_and_for_its_members():
    with server("chat", *ADDRESSES["chat"], "--metrics", "127.0.0.1:0") as (program, port):
        at = int(program.wait_for(r"listening on \S+:(\d+), figures").group(1))
        with Person(port) as anna:
            anna.say("hello")
            anna.say("/stats")
            told = anna.line()
            assert re.match(r"\* 1 here, 1 lines said; the server has read \d+ bytes", told), told
            anna.say("/stats")
            anna.line()
            told = anna.line()
            assert told.startswith("* You: "), told
            page = parsed_by_prometheus(scrape(at))
        equal(page["chat_members"][1][0][2], 1.0)
        equal(page["chat_lines"][1][0][2], 1.0)


# ---- the run ----


def main():
    missing = [name for name in EXAMPLES if not os.path.exists(os.path.join(DIRECTORY, name))]
    if missing:
        sys.exit(f"{DIRECTORY} has no {', '.join(missing)}: cargo build --release --examples")
    if not shutil.which("nc"):
        sys.exit("nc is missing: apt-get install netcat-openbsd")
    run()


if __name__ == "__main__":
    main()
