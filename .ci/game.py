#!/usr/bin/env python3
"""Plays the game with clients of Python's standard library: two players over UDP, a chat over TCP and a
WebSocket; and lets its own bots play.

    .ci/game.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. Prints what failed and "N passed, N failed"; the exit
status is 0 if nothing failed.
"""

import contextlib
import re
import socket
import struct
import sys
import time

sys.dont_write_bytecode = True
from browser import RawSocket  # noqa: E402
from checks import check, run  # noqa: E402
from programs import PATIENCE, Person, connect, equal, example  # noqa: E402

COOKIE, SNAPSHOT, HEAD = 12, 1200, 12
NOBODY = (-32768, -32768)


@contextlib.contextmanager
def game(*options):
    """The game on ports of the system's choice; yields it and those of players, lines and browsers."""
    any_port = "127.0.0.1:0"
    with example("game", any_port, "--chat", any_port, "--web", any_port, *options) as program:
        words = ("players", "chat lines", "browsers")
        ports = [program.wait_for(rf"listening on \S+:(\d+), {word}").group(1) for word in words]
        yield program, *map(int, ports)


class Player:
    """Somebody who plays, over a UDP socket."""

    def __init__(self, port):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self.number, self.cookie, self.tick = 0, b"", 0

    def join(self):
        """A cookie for an input; from then on it comes before each, until a snapshot is there."""
        self.move(0, 0)
        self.cookie = self.socket.recv(2000)
        equal(len(self.cookie), COOKIE)
        self.move(0, 0)
        self.snapshot()
        self.cookie = b""

    def move(self, x, y):
        self.number += 1
        self.socket.send(self.cookie + struct.pack(">Iff", self.number, x, y))

    def snapshot(self):
        """The next one: the newest input that it knows of, and all positions."""
        bytes = self.socket.recv(2000)
        equal(len(bytes), SNAPSHOT)
        tick, newest, self.place = struct.unpack_from(">III", bytes)
        assert tick > self.tick, f"tick {tick} behind {self.tick}"
        self.tick = tick
        return newest, list(struct.iter_unpack(">hh", bytes[HEAD:]))

    def until(self, condition):
        """The first snapshot whose positions are so."""
        begin = time.monotonic()
        while time.monotonic() - begin < PATIENCE:
            newest, positions = self.snapshot()
            if condition(newest, positions):
                return positions
        raise AssertionError("no such snapshot came")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


class Chatter(Person):
    """Somebody in the chat, over a plain socket."""

    def __init__(self, port):
        self.socket = connect(port)
        self.lines = self.socket.makefile("rb")
        self.name = re.fullmatch(r"\* you are guest (\d+); \d+ play", self.line()).group(1)


@check
def two_players_see_each_other_and_the_chat_hears_of_them():
    with game() as (_, players, lines, web):
        with Chatter(lines) as anna, RawSocket(web) as ben:
            equal(ben.line(), "* you are guest 2; 0 play")
            with Player(players) as one, Player(players) as two:
                one.join()
                two.join()
                equal([anna.line(), anna.line()], ["* player 0 has joined", "* player 1 has joined"])
                equal([ben.line(), ben.line()], ["* player 0 has joined", "* player 1 has joined"])
                equal((one.place, two.place), (0, 1))
                one.move(100, -100)
                two.move(7.9, 1e9)
                seen = one.until(lambda newest, at: at[0] == (100, -100) and at[1] == (7, 32767))
                equal(seen[2:], [NOBODY] * (len(seen) - 2))
                two.until(lambda newest, at: newest == two.number and at[0] == (100, -100))
                # An input that was overtaken changes nothing.
                one.number -= 2
                one.move(5, 5)
                one.number += 1
                two.move(8, 8)
                seen = two.until(lambda newest, at: at[1] == (8, 8))
                equal(seen[0], (100, -100))
            # They have left without a word.
            said = {anna.line(), anna.line()}
            equal(said, {"* player 0 has left", "* player 1 has left"})
            with Player(players) as three:
                three.join()
                equal(anna.line(), "* player 0 has joined")
                # What is not an input, or has a number far ahead, may be of anybody: it changes nothing.
                for forged in (b"", b"x", b"x" * 100, struct.pack(">Iff", 2**32 - 1, 9, 9)):
                    three.socket.send(forged)
                three.move(50, 60)
                three.until(lambda newest, at: newest == three.number and at[0] == (50, 60))


@check
def sixty_snapshots_a_second():
    with game() as (_, players, _, _), Player(players) as player:
        player.join()
        first, begin = player.tick, time.monotonic()
        for _ in range(60):
            player.snapshot()
        took, ticks = time.monotonic() - begin, player.tick - first
        # On a busy machine ticks are late or left out, and never early.
        assert ticks / 60 - 0.1 < took < PATIENCE, f"{ticks} ticks in {took} s"


@check
def strangers_get_no_more_than_they_send_and_nothing_is_kept_for_them():
    with game() as (_, players, lines, _), Player(players) as stranger:
        stranger.socket.send(b"short")  # shorter than a cookie: no answer
        stranger.socket.send(bytes(COOKIE) + struct.pack(">Iff", 1, 0, 0))  # a wrong one
        equal(len(stranger.socket.recv(2000)), COOKIE)
        with Chatter(lines) as anna:
            anna.say("is anybody here?")
            equal(anna.line(), "<1> is anybody here?")


@check
def a_line_is_the_same_over_tcp_and_over_a_websocket():
    with game() as (_, _, lines, web), Chatter(lines) as anna, RawSocket(web) as ben:
        ben.line()
        anna.say("hello\x07 browser")
        equal([anna.line(), ben.line()], ["<1> hello browser"] * 2)
        ben.send("hello terminal ☺".encode())
        equal([anna.line(), ben.line()], ["<2> hello terminal ☺"] * 2)


@check
def bots_play_and_miss_nothing():
    with game("--seconds", "8") as (program, players, lines, _):
        options = ("--chat", f"127.0.0.1:{lines}", "--players", "20", "--seconds", "5")
        with example("game", "bots", f"127.0.0.1:{players}", *options) as bots:
            equal(bots.status(), 0)
            told = re.match(
                r"playing 20 snapshots (\d+) lost (\d+) wrong 0 chatting 20 said (\d+) heard (\d+) "
                r"answers: (\d+) values, p50 .*, p99 .*, max .*\n",
                bots.out(),
            )
            snapshots, _, said, heard, answers = map(int, told.groups())
            assert snapshots > 20 * 60 and answers > 20 * 30, told.group()  # in five seconds, however busy
            assert 20 * said - 20 <= heard <= 20 * said and said > 10, told.group()
        equal(program.status(), 0)
        ticks = re.search(
            r"^ticks (\d+) late_us p50 (\d+\.\d) p99 (\d+\.\d) max (\d+\.\d)\n", program.out(), re.M
        )
        p50, p99, most = (float(late) for late in ticks.groups()[1:])
        assert 0 < p50 <= p99 <= most and int(ticks.group(1)) > 60, ticks.group()
        assert re.search(r"^game: \d+ players, \d+ chat; 300 values, p50 ", program.out(), re.M)


@check
def bots_without_a_game_say_so():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))  # it does not answer
        at = f"127.0.0.1:{holder.getsockname()[1]}"
        with example("game", "bots", at, "--seconds", "1") as bots:
            equal(bots.status(), 1)
            assert "game: not every bot plays" in bots.err(), bots.err()


if __name__ == "__main__":
    run()
