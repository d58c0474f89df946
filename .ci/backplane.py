#!/usr/bin/env python3
"""Runs the backplane with a real Redis, which is killed, stopped and restarted.

    .ci/backplane.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. It needs redis-server (6 or newer) and openssl.

Prints what failed and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

sys.dont_write_bytecode = True
from examples import PATIENCE, Program, connect, equal, example, one_line  # noqa: E402

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def free_port():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


class Redis(Program):
    """A redis-server that keeps nothing, on a free port or on one that it had before."""

    def __init__(self, *options, port=None, tls=False):
        self.port = port or free_port()
        where = ["--port", "0", "--tls-port", str(self.port)] if tls else ["--port", str(self.port)]
        super().__init__(
            "redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", tempfile.gettempdir(), *where, *options,
        )
        self.wait_for("Ready to accept connections")

    def url(self, login="", scheme="redis"):
        return f"{scheme}://{login}127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cli(self, *words):
        command = ["redis-cli", "-p", str(self.port), *words]
        got = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return got.stdout.strip()


class Topics(Program):
    """A process of the service."""

    def __init__(self, url, *options):
        made = example("topics", "127.0.0.1:0", "--backplane", url, *options)
        self.__dict__ = made.__dict__
        self.at = int(self.wait_for(r"listening on \S+:(\d+)").group(1))

    def connected(self):
        self.wait_for(r"topics: connected")
        return self


class Member:
    """Somebody who is connected to one of them with a socket."""

    def __init__(self, process, *topics):
        self.socket = connect(process.at)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")
        for topic in topics:
            self.tell(f"join {topic}")
            equal(self.line(), "* joined")

    def tell(self, *lines):
        self.socket.sendall("".join(line + "\n" for line in lines).encode())

    def line(self):
        return self.stream.readline().decode().rstrip("\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()


def until(done, what):
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def subscribers(redis, count, topic="tide"):
    name = f"topics/{topic}"
    until(lambda: redis.cli("PUBSUB", "NUMSUB", name).split() == [name, str(count)], f"{count} of {topic}")


@check
def three_processes_are_one_service_with_one_subscription_each():
    with Redis() as redis:
        with Topics(redis.url()) as a, Topics(redis.url()) as b, Topics(redis.url()) as c:
            for process in (a, b, c):
                process.connected()
            with Member(a, "tide") as anna, Member(a, "tide") as adam, Member(b, "tide") as ben:
                with Member(c, "tide", "gate") as carla:
                    subscribers(redis, 3)
                    anna.tell("say tide hello")
                    for member in (anna, adam, ben, carla):
                        equal(member.line(), "hello")
                    # Everyone talks at once: of each speaker every line comes, once and in order.
                    count = 2000
                    for number in range(count):
                        for name, member in (("anna", anna), ("ben", ben), ("carla", carla)):
                            member.tell(f"say tide {name} {number}")
                    for member in (anna, adam, ben, carla):
                        came = {"anna": [], "ben": [], "carla": []}
                        for _ in range(3 * count):
                            name, number = member.line().split()
                            came[name].append(int(number))
                        for name in came:
                            equal(came[name], list(range(count)))
                    redis.cli("PUBLISH", "topics/gate", "from another program")
                    equal(carla.line(), "from another program")
                subscribers(redis, 2)
            subscribers(redis, 0)
            equal(a.out().count("topics: "), 2)  # listening, connected


@check
def while_redis_is_killed_local_talk_goes_on_and_the_rest_follows():
    with Redis() as redis:
        port = redis.port
        with Topics(redis.url()) as a, Topics(redis.url()) as b:
            a.connected(), b.connected()
            with Member(a, "tide") as anna, Member(a, "tide") as adam, Member(b, "tide") as ben:
                subscribers(redis, 2)
                redis.kill()
                for process in (a, b):
                    process.wait_for("topics: lost: ")
                anna.tell(*(f"say tide {number}" for number in range(1000)))
                for member in (anna, adam):
                    equal([member.line() for _ in range(1000)], [str(n) for n in range(1000)])
                a.wait_for("Connection refused.*again in")
                with Redis(port=port) as redis:
                    for process in (a, b):
                        process.wait_for("topics: resumed after")
                    # What went out before the other one was back is its gap. All else comes in order.
                    anna.tell("say tide end")
                    came = [ben.line()]
                    while came[-1] != "end":
                        came.append(ben.line())
                    numbers = [int(line) for line in came[:-1]]
                    equal(numbers, sorted(set(numbers)))
                    equal([anna.line(), adam.line()], ["end", "end"])


@check
def a_redis_that_is_stopped_is_noticed_in_time_and_found_again():
    with Redis() as redis, Topics(redis.url(), "--silence", "1000") as a:
        a.connected()
        with Member(a, "tide") as anna, Member(a, "tide") as adam:
            time.sleep(1.5)  # idle, and not lost: there is PING
            assert "lost" not in a.out()
            begin = time.monotonic()
            redis.process.send_signal(signal.SIGSTOP)
            try:
                a.wait_for("topics: lost: the server has said nothing for 1s")
                took = time.monotonic() - begin
                assert took < 1.3, f"noticed after {took:.1f} s"
                anna.tell("say tide meanwhile")
                equal([anna.line(), adam.line()], ["meanwhile"] * 2)
            finally:
                redis.process.send_signal(signal.SIGCONT)
            a.wait_for("topics: resumed after")
            until(lambda: "cmdstat_publish:calls=1," in redis.cli("INFO", "commandstats"), "it goes out")


@check
def what_is_published_through_many_restarts_comes_in_order_and_once():
    """A speaker goes on, and the engine is killed under it five times."""
    redis = Redis()
    port = redis.port
    try:
        with Topics(redis.url()) as a, Topics(redis.url()) as b:
            a.connected(), b.connected()
            with Member(a, "tide") as anna, Member(b, "tide") as ben:
                subscribers(redis, 2)
                number = 0
                for restart in range(5):
                    for _ in range(50):
                        anna.tell(f"say tide {number}")
                        number += 1
                        time.sleep(0.001)
                    redis.kill()
                    with redis:
                        pass
                    redis = Redis(port=port)
                    for process in (a, b):
                        process.wait_until(
                            lambda p=process: p.out().count("resumed after") > restart, "resumed"
                        )
                anna.tell("say tide end")
                equal([anna.line() for _ in range(number)], [str(n) for n in range(number)])
                came = [ben.line()]
                while came[-1] != "end":
                    came.append(ben.line())
                numbers = [int(line) for line in came[:-1]]
                equal(numbers, sorted(set(numbers)))
                assert len(numbers) >= 50, f"{len(numbers)} of {number}"
    finally:
        with redis:
            pass


@check
def of_kept_topics_nothing_is_lost_whatever_is_killed():
    """Lines go on in both directions while Redis is killed five times; it keeps its streams in a file."""
    with tempfile.TemporaryDirectory() as directory:
        keeping = ["--appendonly", "yes", "--appendfsync", "always", "--dir", directory]
        redis = Redis(*keeping)
        port = redis.port
        try:
            options = ("--keep", "100000")
            with Topics(redis.url(), *options) as a, Topics(redis.url(), *options) as b:
                a.connected(), b.connected()
                with Member(a, "tide") as anna, Member(b, "tide") as ben:
                    anna.tell("say tide begin")  # until both read
                    equal([anna.line(), ben.line()], ["begin"] * 2)
                    number = 0
                    for restart in range(5):
                        for _ in range(200):
                            anna.tell(f"say tide anna {number}")
                            ben.tell(f"say tide ben {number}")
                            number += 1
                            if number % 200 == 100:
                                redis.kill()
                        with redis:
                            pass
                        redis = Redis(*keeping, port=port)
                        for process in (a, b):
                            process.wait_until(
                                lambda p=process: p.out().count("resumed after") > restart, "resumed"
                            )
                    for member in (anna, ben):
                        came = {"anna": [], "ben": []}
                        for _ in range(2 * number):
                            name, told = member.line().split()
                            came[name].append(int(told))
                        for name in came:
                            equal(came[name], list(range(number)))
                    # A newcomer, and one to a process that was not there.
                    with Topics(redis.url(), *options) as c:
                        c.connected()
                        until(lambda: len(redis.cli("CLIENT", "LIST").splitlines()) >= 7, "c reads")
                        with Member(c, "tide") as carla, Member(b, "tide") as dora:
                            anna.tell("say tide end")
                            for member in (carla, dora):
                                came = [member.line()]
                                while came[-1] != "end":
                                    came.append(member.line())
                                assert len(came) >= 10, came
                                equal(came, list(dict.fromkeys(came)))  # nothing twice
        finally:
            with redis:
                pass


class Chat(Program):
    def __init__(self, redis, *options):
        made = example(
            "chat", "127.0.0.1:0", "--tls", "127.0.0.1:0", "--web", "127.0.0.1:0",
            "--backplane", redis.url(), *options,
        )
        self.__dict__ = made.__dict__
        self.at = int(self.wait_for(r"listening on \S+:(\d+), lines").group(1))
        self.wait_for("backplane .*: connected", "err")


class Guest(Member):
    """Somebody in the chat, who knows their name."""

    def __init__(self, chat):
        super().__init__(chat)
        self.name = self.until("* Welcome. You are ").split()[4].rstrip(".")
        self.until("* Here now: ")

    def until(self, beginning):
        """The next line that begins so."""
        while not (line := self.line()).startswith(beginning):
            assert line, f"the end came before {beginning!r}"
        return line

    def here(self):
        self.tell("/who")
        return sorted(self.until("* Here now: ")[len("* Here now: "):].split(", "))


@check
def two_chats_are_one_room_of_two_processes():
    with Redis() as redis, Chat(redis, "--workers", "2") as one, Chat(redis) as two:
        with Guest(one) as anna, Guest(one) as adam, Guest(two) as ben:
            equal(len({anna.name, adam.name, ben.name}), 3)
            for guest, name in ((anna, "Anna"), (adam, "Adam"), (ben, "Ben")):
                guest.tell(f"/nick {name}")
            for guest in (anna, adam, ben):
                until(lambda g=guest: g.here() == ["Adam", "Anna", "Ben"], "all are known everywhere")
            ben.tell("/nick anna")
            ben.until("* anna is taken")
            ben.tell(*(f"line {number}" for number in range(500)))
            for guest in (anna, adam):
                equal([guest.until("<Ben>") for _ in range(500)], [f"<Ben> line {n}" for n in range(500)])
            anna.tell("and back")
            for guest in (adam, ben):
                equal(guest.until("<Anna>"), "<Anna> and back")
            adam.tell("/quit")
            ben.until("* Adam has left")
            # Redis away, and back.
            redis.kill()
            for guest in (anna, ben):
                guest.until("* Those on other servers are out of reach")
            with Guest(one) as dora:
                dora.tell("only here")
                anna.until(f"<{dora.name}> only here")
                with Redis(port=redis.port):
                    for guest in (anna, ben):
                        guest.until("* Those on other servers are back")
                    until(lambda: ben.here() == sorted(["Anna", "Ben", dora.name]), "all are known again")
                    # A process that dies without a word is missed after a while.
                    one.process.kill()
                    ben.until("* Here now: Ben")
                    equal(ben.here(), ["Ben"])


@check
def a_login_is_accepted_or_refused_with_one_line():
    with Redis("--requirepass", "geh@im") as redis:
        with Topics(redis.url(":geh%40im@")) as a:
            a.connected()
        with Topics(redis.url()) as a:
            a.wait_for("topics: the server wants a login: redis://user:password@host; again in")
        with Topics(redis.url(":wrong@")) as a:
            line = a.wait_for("topics: the server refused the login: WRONGPASS.*").group(0)
            assert "wrong@" not in line
            assert "wrong" not in a.err(), a.err()
    with Redis() as redis:
        redis.cli("ACL", "SETUSER", "anna", "on", ">pass", "+@all", "resetchannels", "&topics/tide")
        with Topics(redis.url("anna:pass@")) as a:
            a.connected()
            with Member(a, "gate", "tide") as anna:
                a.wait_for("topics: the server refused SUBSCRIBE: NOPERM")
                anna.tell("say gate closed")
                a.wait_for("topics: the server refused PUBLISH: NOPERM")
                equal(anna.line(), "closed")
        with Topics(redis.url() + "/99") as a:
            a.wait_for("topics: the server refused database 99: ERR DB index is out of range")


@check
def a_wrong_url_is_one_line():
    for url, said in [
        ("http://127.0.0.1", "http:// came, not redis://"),
        ("redis://geheim@127.0.0.1", "a login is user:password"),
    ]:
        with example("topics", "127.0.0.1:0", "--backplane", url) as program:
            one_line(program, said)
    with example("topics", "127.0.0.1:0", "--backplane", "redis://no.such.host.invalid") as program:
        program.wait_for("topics: cannot resolve no.such.host.invalid: .*again in")


@check
def redis_behind_tls():
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = (os.path.join(directory, name) for name in ("key.pem", "cert.pem"))
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=redis",
             "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:false"],
            capture_output=True, check=True, timeout=PATIENCE,
        )
        tls = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"]
        with Redis(*tls, tls=True) as redis:
            url = redis.url(scheme="rediss")
            with Topics(url, "--ca", certificate) as a, Topics(url, "--ca", certificate) as b:
                a.connected(), b.connected()
                with Member(a, "tide") as anna, Member(b, "tide") as ben:
                    deadline = time.monotonic() + PATIENCE
                    ben.socket.settimeout(0.2)
                    while True:  # until b has subscribed
                        anna.tell("say tide hello")
                        equal(anna.line(), "hello")
                        try:
                            equal(ben.socket.recv(6), b"hello\n")
                            break
                        except TimeoutError:
                            assert time.monotonic() < deadline
            with Topics(redis.url(), "--silence", "2000") as plain:
                plain.wait_for("topics: .*; again in")


def main():
    wanted = sys.argv[2:]
    passed, failed = 0, 0
    for function in CHECKS:
        name = function.__name__
        if wanted and not any(word in name for word in wanted):
            continue
        begin = time.monotonic()
        try:
            function()
        except Exception:
            failed += 1
            print(f"FAILED   {name}\n{traceback.format_exc()}", flush=True)
        else:
            passed += 1
            print(f"passed   {name} ({time.monotonic() - begin:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
