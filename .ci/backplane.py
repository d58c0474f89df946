#!/usr/bin/env python3
"""Runs the backplane with a real Redis, which is killed, stopped and restarted.

    .ci/backplane.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. It needs redis-server (6 or newer) and openssl.

Prints what failed and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
from checks import check, run  # noqa: E402
from programs import PATIENCE, equal, example, one_line, until  # noqa: E402
from service import Guest, Member, Redis, Topics, shared_chat, subscribers  # noqa: E402


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
                    numbers = [int(line) for line in ben.lines_until("end")]
                    equal(numbers, sorted(set(numbers)))
                    equal([anna.line(), adam.line()], ["end", "end"])


@check
def a_redis_that_is_stopped_is_noticed_in_time_and_found_again():
    with Redis() as redis, Topics(redis.url(), "--silence", "1000") as a:
        a.connected()
        with Member(a, "tide") as anna, Member(a, "tide") as adam:
            until(lambda: redis.calls("ping") >= 3, "PING, as nobody talks")
            assert "lost" not in a.out(), a.out()  # in more than that second
            redis.process.send_signal(signal.SIGSTOP)
            try:
                a.wait_for("topics: lost: the server has said nothing for 1s")
                anna.tell("say tide meanwhile")
                equal([anna.line(), adam.line()], ["meanwhile"] * 2)
            finally:
                redis.process.send_signal(signal.SIGCONT)
            a.wait_for("topics: resumed after")
            until(lambda: redis.calls("publish") == 1, "it goes out")


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
                        equal(anna.line(), str(number))
                        number += 1
                    redis.kill()
                    with redis:
                        pass
                    redis = Redis(port=port)
                    for process in (a, b):
                        process.told("resumed", restart + 1)
                anna.tell("say tide end")
                numbers = [int(line) for line in ben.lines_until("end")]
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
                            process.told("resumed", restart + 1)
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
                                came = member.lines_until("end")
                                assert len(came) >= 9, came
                                equal(came, list(dict.fromkeys(came)))  # nothing twice
        finally:
            with redis:
                pass


@check
def two_chats_are_one_room_of_two_processes():
    with Redis() as redis, shared_chat(redis, "--workers", "2") as one, shared_chat(redis) as two:
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
def a_newcomer_to_the_chat_is_shown_what_was_said_before():
    with Redis() as redis:
        with shared_chat(redis, "--workers", "2") as one, shared_chat(redis) as two:
            with Guest(one) as anna, Guest(two) as ben:
                anna.tell("/nick Anna")
                anna.until("* guest")
                for number in range(40):  # by turns, so that there is one order
                    anna.tell(f"line {number}")
                    equal(ben.until("<"), f"<Anna> line {number}")
                    ben.tell(f"line {number}")
                    equal(anna.until("<"), f"<{ben.name}> line {number}")
                said = [f"<{name}> line {number}" for number in range(40) for name in ("Anna", ben.name)]
                for chat in (one, one, two):  # on each worker
                    with Guest(chat) as newcomer:
                        equal(newcomer.before, said[-50:])
        # Both are gone, and so are the names; what was said is not.
        for options in ((), ("--workers", "2")):
            with shared_chat(redis, *options) as three:
                until(lambda chat=three: Guest.shown(chat), "it has the history")
                with Guest(three) as carla, Guest(three) as dora, Guest(three, tls=True) as eve:
                    for guest in (carla, dora, eve):
                        equal(guest.before, said[-50:])


@check
def who_comes_while_people_talk_gets_each_line_once():
    """From the history, or as it is said: on the workers of the speaker's process, and on another one."""
    with Redis() as redis, shared_chat(redis, "--workers", "3") as one, shared_chat(redis) as two:
        with Guest(one) as anna, contextlib.ExitStack() as stack:
            all_are_here = threading.Event()

            def talk():
                number = 0
                while not all_are_here.is_set():
                    anna.tell(*(f"line {number + n}" for n in range(5)), "/ping next")
                    anna.until("* pong next")
                    number += 5
                anna.tell(f"line {number}", "end")

            talking = threading.Thread(target=talk)
            talking.start()
            try:
                guests = [stack.enter_context(Guest((one, two)[n % 2])) for n in range(60)]
            finally:
                all_are_here.set()
                talking.join()
            for guest in guests:
                came = [line for line in guest.lines_until(f"<{anna.name}> end") if line.startswith("<")]
                numbers = [int(line.split()[-1]) for line in guest.before + came]
                equal(numbers, list(range(numbers[0], numbers[-1] + 1)))
                assert len(guest.before) == min(50, numbers[0] + len(guest.before)), guest.before
            assert any(guest.before for guest in guests), "nobody came while Anna talked"


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
                a.wait_for("topics: the server refused PUBLISH: \"topics/gate\": NOPERM")
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
                    subscribers(redis, 2)
                    anna.tell("say tide hello")
                    equal([anna.line(), ben.line()], ["hello"] * 2)
            with Topics(redis.url(), "--silence", "2000") as plain:
                plain.wait_for("topics: .*; again in")


if __name__ == "__main__":
    run()
