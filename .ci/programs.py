"""Programs under test, the sockets to talk to them with, and how a check says what it expected."""

import contextlib
import hashlib
import os
import re
import socket
import struct
import subprocess
import threading
import time

from checks import DIRECTORY

# How long anything may take before a check gives up. Never waited for when things work.
PATIENCE = 30

# ---- programs ----


class Program:
    """A program that was started here. What it prints is collected; its input is `send`."""

    def __init__(self, *command):
        self.command = command
        # Bytes, unbuffered: what is sent leaves at once.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.printed = {"out": b"", "err": b""}
        self.changed = threading.Condition()
        self.threads = [
            threading.Thread(target=self._collect, args=(which, stream), daemon=True)
            for which, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for thread in self.threads:
            thread.start()

    def _collect(self, which, stream):
        while piece := stream.read(65536):
            with self.changed:
                self.printed[which] += piece
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def out(self):
        return self.printed["out"].decode(errors="replace")

    def err(self):
        return self.printed["err"].decode(errors="replace")

    def wait_for(self, pattern, which="out"):
        """Waits until the pattern has been printed; answers the match."""
        return self.wait_until(
            lambda: re.search(pattern, self.printed[which].decode(errors="replace")), pattern
        )

    def wait_until(self, done, what="more"):
        """Waits until what has been printed is enough for `done`; answers what that says."""
        deadline = time.monotonic() + PATIENCE
        with self.changed:
            while True:
                if found := done():
                    return found
                left = deadline - time.monotonic()
                ended = not any(thread.is_alive() for thread in self.threads)
                if left <= 0 or ended:
                    raise AssertionError(
                        f"{self.command}: expected {what!r}, printed {self.printed!r}"
                    )
                self.changed.wait(min(left, 0.5))

    def send(self, text):
        self.process.stdin.write(text.encode() if isinstance(text, str) else text)

    def end_input(self):
        self.process.stdin.close()

    def status(self):
        """Waits for the program's own end."""
        status = self.process.wait(PATIENCE)
        for thread in self.threads:
            thread.join(PATIENCE)
        return status

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for thread in self.threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def example(name, *arguments):
    return Program(os.path.join(DIRECTORY, name), *arguments)


# Each on a port that the system chooses.
ADDRESSES = {
    "chat": ("127.0.0.1:0", "--tls", "127.0.0.1:0", "--web", "127.0.0.1:0"),
    "metrics": ("127.0.0.1:0", "127.0.0.1:0"),
    "feed": ("server", "127.0.0.1:0", "127.0.0.1:0"),
}


@contextlib.contextmanager
def server(name, *arguments):
    """An example that listens on a port of the system's choice; yields it and the port."""
    with example(name, *(arguments or ADDRESSES.get(name, ("127.0.0.1:0",)))) as program:
        port = int(program.wait_for(r"listening on \S+:(\d+)").group(1))
        yield program, port


def nc(port):
    # -N: the end of the input is passed on.
    return Program("nc", "-N", "127.0.0.1", str(port))


# ---- sockets ----


def connect(port, receive_buffer=None):
    """A socket that is connected. A small buffer has to be set before."""
    made = socket.socket()
    if receive_buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    made.settimeout(PATIENCE)
    made.connect(("127.0.0.1", port))
    return made


def listen():
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(PATIENCE)
    return listener


def accept(listener):
    connection, _ = listener.accept()
    connection.settimeout(PATIENCE)
    return connection


def read_to_end(connection):
    pieces = []
    while piece := connection.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def read_exactly(connection, size):
    """So many bytes. (MSG_WAITALL does not wait on a socket with a timeout, which does not block.)"""
    came = b""
    while len(came) < size:
        piece = connection.recv(size - len(came))
        assert piece, f"the end came after {came!r}"
        came += piece
    return came


def closed_port():
    """A port on which nobody listens: it is bound, so that nobody else takes it."""
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    return holder, holder.getsockname()[1]


class Person:
    """Somebody in the chat, over a plain socket."""

    def __init__(self, port, receive_buffer=None):
        self.socket = connect(port, receive_buffer)
        self.lines = self.socket.makefile("rb")
        welcome = self.line()
        self.name = re.match(r"\* Welcome\. You are (\w+)\.", welcome).group(1)
        assert self.line().startswith("* Here now: ")

    def line(self):
        line = self.lines.readline()
        assert line.endswith(b"\n"), f"expected a line, got {line!r}"
        return line[:-1].decode()

    def say(self, text):
        self.socket.sendall(text.encode() + b"\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.lines.close()
        self.socket.close()


# ---- what is expected ----


def equal(got, expected):
    assert got == expected, f"expected {expected!r}, got {got!r}"


def one_line(program, pattern, status=1):
    """The program ends with this status and prints one line, which matches."""
    equal(program.status(), status)
    lines = program.err().splitlines()
    assert len(lines) == 1, f"expected one line on standard error, got {lines}"
    assert re.search(pattern, lines[0]), f"expected {pattern!r}, got {lines[0]!r}"


def pattern_bytes(size):
    """Bytes in which nothing repeats soon, so that a loss or a swap is noticed."""
    block = b"".join(hashlib.sha256(struct.pack(">I", n)).digest() for n in range(1 << 15))
    return (block * (size // len(block) + 1))[:size]


def until(done, what):
    """Asks again and again until the answer is yes."""
    deadline = time.monotonic() + PATIENCE
    while not (found := done()):
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.02)
    return found
