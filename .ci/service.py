"""A service of several processes: a Redis, the examples topics and chat, and who is connected to them."""

import os
import signal
import socket
import ssl
import subprocess
import tempfile

from checks import DIRECTORY
from programs import PATIENCE, Program, connect, equal, until


def free_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


class Redis(Program):
    """A redis-server that keeps nothing, on a free port or on one that it had before.

    `within` is what its commands begin with: a network namespace, say.
    """

    def __init__(self, *options, port=None, tls=False, host="127.0.0.1", within=()):
        self.port = port or free_port()
        self.host, self.within, self.tls = host, within, tls
        where = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        super().__init__(
            *within, "redis-server", "--bind", host, "--save", "", "--appendonly", "no",
            "--dir", tempfile.gettempdir(), *where, *options,
        )  # fmt: skip
        self.wait_for("Ready to accept connections")

    def url(self, login="", scheme="redis"):
        return f"{scheme}://{login}{self.host}:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cli(self, *words):
        trust = ["--tls", "--insecure"] if self.tls else []
        command = [*self.within, "redis-cli", "-h", self.host, "-p", str(self.port), *trust, *words]
        got = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return got.stdout.strip()

    def calls(self, command):
        """How often this command has been called, refused ones not counted."""
        for line in self.cli("INFO", "commandstats").splitlines():
            if line.startswith(f"cmdstat_{command}:calls="):
                return int(line.split("=")[1].split(",")[0])
        return 0


class Topics(Program):
    """A process of the service."""

    def __init__(self, url, *options, host="127.0.0.1", within=()):
        command = os.path.join(DIRECTORY, "topics")
        super().__init__(*within, command, f"{host}:0", "--backplane", url, *options)
        self.at = int(self.wait_for(r"listening on \S+:(\d+)").group(1))

    def connected(self):
        self.wait_for(r"topics: connected")
        return self

    def told(self, event, count=1):
        """Waits until it has told of so many of these."""
        self.wait_until(lambda: self.out().count(f"topics: {event}") >= count, f"{count} of {event}")


class Member:
    """Somebody who is connected to one of them with a socket."""

    def __init__(self, process, *topics, connection=None):
        self.socket = connection or connect(process.at)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        for topic in topics:
            self.tell(f"join {topic}")
            equal(self.line(), "* joined")

    def tell(self, *lines):
        self.socket.sendall("".join(line + "\n" for line in lines).encode())

    def line(self):
        return self.stream.readline().decode().rstrip("\n")

    def lines_until(self, last):
        """What comes before this line."""
        came = []
        while (line := self.line()) != last:
            assert line, f"the end came before {last!r}, after {came[-3:]}"
            came.append(line)
        return came

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()


def subscribers(redis, count, topic="tide"):
    name = f"topics/{topic}"
    until(lambda: redis.cli("PUBSUB", "NUMSUB", name).split() == [name, str(count)], f"{count} of {topic}")


class Chat(Program):
    """The chat, on ports that the system chooses, or on those that it had before."""

    def __init__(self, *options, ports=(0, 0, 0)):
        lines, tls, web = (f"127.0.0.1:{port}" for port in ports)
        command = os.path.join(DIRECTORY, "chat")
        super().__init__(command, lines, "--tls", tls, "--web", web, *options)
        self.lines = int(self.wait_for(r"listening on \S+:(\d+), lines").group(1))
        self.tls = int(self.wait_for(r"listening on \S+:(\d+), TLS").group(1))
        self.web = int(self.wait_for(r"listening on \S+:(\d+), the web").group(1))
        self.ports = (self.lines, self.tls, self.web)
        self.at = self.lines
        self.url = f"http://127.0.0.1:{self.web}/"

    def stop(self, number=signal.SIGINT):
        self.process.send_signal(number)
        return self.status()


def shared_chat(redis, *options):
    """A chat that is one room with all that have the same Redis, and that has been there.

    It reads what is kept, too: until then, what others say is history to it, and not for those who are there."""
    readers = lambda: redis.cli("CLIENT", "LIST").count("cmd=xread")
    before = readers()
    chat = Chat("--backplane", redis.url(), *options)
    chat.wait_for("backplane .*: connected", "err")
    until(lambda: readers() > before, "it reads what is kept")
    return chat


def over_tls(chat):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connect(chat.tls))


class Guest(Member):
    """Somebody in the chat, who knows their name, and what was said `before`."""

    def __init__(self, chat, tls=False):
        super().__init__(chat, connection=over_tls(chat) if tls else None)
        self.name = self.until("* Welcome. You are ").split()[4].rstrip(".")
        self.before = []
        while not (line := self.line()).startswith("* Here now: "):
            assert line, "the end came before who is here"
            self.before.append(line)
        if self.before:
            equal(self.before.pop(0), "* Before you came:")

    @classmethod
    def shown(cls, chat):
        """How many lines a newcomer is shown."""
        with cls(chat) as newcomer:
            return len(newcomer.before)

    def until(self, beginning):
        """The next line that begins so."""
        while not (line := self.line()).startswith(beginning):
            assert line, f"the end came before {beginning!r}"
        return line

    def here(self):
        self.tell("/who")
        return sorted(self.until("* Here now: ")[len("* Here now: "):].split(", "))
