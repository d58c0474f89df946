"""The rounds and the tables of tools/realtime.sh, which builds the programs. Standard library alone."""

import contextlib
import os
import re
import statistics
import subprocess
import sys
import time

C_PROGRAMS, RUST_PROGRAMS = sys.argv[1:3]
WORDS = sys.argv[3:]
REALTIME = "--realtime" in WORDS
SECTIONS = [word for word in WORDS if word != "--realtime"]
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PATIENCE = 60

FIFO = ["chrt", "-f", "50"]
PINNED = ["taskset", "-c", "0"]
ORDINARY = FIFO if REALTIME else []
# Players are elsewhere: they must not stand in the way of the two loops that are compared.
BELOW = ["chrt", "-f", "40"] if REALTIME else []

BARE = os.path.join(C_PROGRAMS, "bare")
RELAY = os.path.join(C_PROGRAMS, "relay")
FEED = os.path.join(RUST_PROGRAMS, "examples", "feed")
GAME = os.path.join(RUST_PROGRAMS, "examples", "game")
WAITS = os.path.join(RUST_PROGRAMS, "waits")

LATE = re.compile(r"(?:late|age)_us p50 (\S+) p99 (\S+) max (\S+)")
# What `examples/game` says each five seconds.
REPORT = re.compile(r"^game: .* values, p50 (\S+), p99 (\S+), max (\S+) late;")
UNITS = {"ns": 1e-3, "µs": 1.0, "ms": 1e3, "s": 1e6}


def late(text):
    """p50, p99 and max in microseconds, as a program has printed them last."""
    found = LATE.findall(text)
    if not found:
        raise SystemExit(f"expected 'late_us p50 .. p99 .. max ..', got {text!r}")
    return [float(number) for number in found[-1]]


def micros(text):
    """A duration as Rust prints it, in microseconds."""
    number, unit = re.fullmatch(r"([\d.]+)(\D+)", text).groups()
    return float(number) * UNITS[unit]


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Started:
    """A program that runs until the end of its block."""

    def __init__(self, *command, quiet=False):
        err = subprocess.DEVNULL if quiet else None
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, text=True)

    def ports(self, count):
        """Those of the first lines that say `listening on`."""
        found = []
        while len(found) < count:
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit(f"{self.process.args} has ended")
            if match := re.search(r"listening on \S+:(\d+)", line):
                found.append(match.group(1))
        return found

    def report(self):
        """p50, p99 and max in microseconds, as the game says next."""
        for line in self.process.stdout:
            if match := REPORT.search(line):
                return [micros(text) for text in match.groups()]
        raise SystemExit(f"{self.process.args} has ended without a report")

    def rest(self):
        return self.process.communicate(timeout=PATIENCE)[0]

    def resident(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+)", status.read()).group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def permitted(*command):
    """Whether this user may: a container may have neither root's rights nor chrt."""
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def busy(count):
    """So many processes that compute all the time, each for two minutes of CPU at most."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(Started("sh", "-c", "ulimit -t 120; while :; do :; done"))
        yield


def median(values, digits=0):
    """The median, and the quartiles in brackets."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def table(heads, rows):
    print(f"\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def percentiles(what, programs, before=lambda: None):
    """Runs each of the programs (name: function that measures) once a round; a table."""
    measured = {name: [] for name in programs}
    for _ in range(ROUNDS):
        before()
        for name, measure in programs.items():
            measured[name].append(measure())
    rows = {name: [median(column) for column in zip(*runs)] for name, runs in measured.items()}
    table([what, "p50", "p99", "max"], rows)
    return measured


def waits():
    print("## Waits: how late, µs")

    def bare(us, count):
        return lambda: late(run(*ORDINARY, BARE, "wait", str(us), str(count)))

    def ours(how, us, count, *options):
        return lambda: late(run(*ORDINARY, WAITS, *options, how, str(us), str(count)))

    percentiles("2.3 ms", {
        "bare `ppoll`": bare(2300, 200),
        "`turn_until`": ours("until", 2300, 200),
        "`turn_until`, `spin_before_deadline` of 300 µs": ours("until", 2300, 200, "--spin", "300"),
        "`set_fine_timer`": ours("fine", 2300, 200),
        "`turn(timeout)`": ours("turn", 2300, 200),
    })
    percentiles("100 µs", {
        "bare `ppoll`": bare(100, 500),
        "`turn_until`": ours("until", 100, 500),
        "`turn_until`, `spin_before_deadline` of 100 µs": ours("until", 100, 500, "--spin", "100"),
        "`set_fine_timer`": ours("fine", 100, 500),
        "`turn(timeout)`": ours("turn", 100, 500),
    })
    percentiles("1 ms", {
        "bare `ppoll`": bare(1000, 200),
        "`set_fine_timer`": ours("fine", 1000, 200),
        "`set_timer`": ours("timer", 1000, 200),
    })


def ticks():
    print("## Ticks: how late a loop of 60 Hz is, µs: 200 players, chat, beside a loop that does nothing else")
    seconds = 5  # as the game's reports

    def measure(spin):
        anywhere = ["127.0.0.1:0", "--chat", "127.0.0.1:0", "--web", "127.0.0.1:0"]
        with Started(*ORDINARY, GAME, *anywhere, "--spin", str(spin), quiet=True) as game:
            players, chat, _ = (f"127.0.0.1:{port}" for port in game.ports(3))
            load = ["--players", "200", "--chat", chat, "--seconds", str(2 * seconds + 1)]
            with Started(*BELOW, GAME, "bots", players, *load) as bots:
                game.report()  # in these five seconds the players came; from here on both are under load
                with Started(*ORDINARY, BARE, "tick", str(seconds)) as bare:
                    measured = game.report(), late(bare.rest())
                bots.rest()
                if bots.process.returncode:
                    print("the bots say that something was wrong")
            return measured

    measured = {"bare `ppoll`": [], "`examples/game`": [], "bare `ppoll` beside the next": [],
                "`examples/game --spin 200`": []}
    for _ in range(ROUNDS):
        for spin, names in ((0, list(measured)[:2]), (200, list(measured)[2:])):
            game, bare = measure(spin)
            measured[names[0]].append(bare)
            measured[names[1]].append(game)
    rows = {name: [median(column) for column in zip(*runs)] for name, runs in measured.items()}
    table(["60 Hz", "p50", "p99", "max"], rows)
    bare, game = list(measured.values())[:2]
    apart = [[b - a for a, b in zip(one, other)] for one, other in zip(bare, game)]
    print("later than the bare loop beside it:", ", ".join(
        f"{name} {median(column)} µs" for name, column in zip(("p50", "p99", "max"), zip(*apart))), "\n")


@contextlib.contextmanager
def publishing(relay, seconds, prefix):
    """A relay with a publisher; yields it and where its subscribers connect."""
    with Started(*prefix, *relay, quiet=True) as server:
        inward, outward = server.ports(2)
        publisher = [FEED, "publish", f"127.0.0.1:{inward}", "--seconds", str(seconds)]
        with Started(*ORDINARY, *publisher, quiet=True):
            time.sleep(0.2)
            yield server, f"127.0.0.1:{outward}"


def deliver(relay, prefix=None, seconds=4, bots=None):
    """How old a value is at the one subscriber of a relay."""
    with publishing(relay, seconds + 1, ORDINARY if prefix is None else prefix) as (_, outward):
        subscribe = [FEED, "subscribe", outward, "--seconds", str(seconds)]
        return late(run(*(ORDINARY if bots is None else bots), *subscribe))


def relay():
    server = [FEED, "server", "127.0.0.1:0", "127.0.0.1:0"]
    print("## Relay: age of a value at its subscriber, µs; 20,000 a second in bursts of 500, one subscriber")
    programs = {"in C, epoll": lambda: deliver([RELAY]), "`examples/feed`": lambda: deliver(server)}
    if not REALTIME:
        # Under SCHED_FIFO the system stops what spins for 50 ms in each second (sched_rt_runtime_us).
        programs["`examples/feed --spin`"] = lambda: deliver([*server, "--spin"])
    found = percentiles("one subscriber", programs)
    in_c, feed = found["in C, epoll"], found["`examples/feed`"]
    ratios = [[b / a for a, b in zip(one, other)] for one, other in zip(in_c, feed)]
    print("ratio of feed to C in the same round:", ", ".join(
        f"{name} {median(column, 2)}" for name, column in zip(("p50", "p99", "max"), zip(*ratios))))

    print("\n## Relay: 195 fast subscribers and 5 that read 20 KB/s")
    seconds, rows = 8, {}
    for number in range(min(ROUNDS, 3)):
        with publishing(server, seconds + 1, ORDINARY) as (program, outward):
            subscribe = [*ORDINARY, FEED, "subscribe", outward, "--seconds", str(seconds)]
            with Started(*subscribe, "--connections", "195") as fast:
                with Started(*subscribe, "--connections", "5", "--bytes-per-second", "20000") as slow:
                    time.sleep(2)
                    resident = [program.resident()]
                    time.sleep(seconds - 3)
                    resident.append(program.resident())
                    said = [fast.rest(), slow.rest()]
        counts = [re.search(r"(\d+) values, (\d+) missed, (\d+) out", text).groups() for text in said]
        rows[str(number + 1)] = [
            f"{int(counts[0][0]):,}", counts[0][1], f"{int(counts[1][0]):,}",
            "{} + {}".format(counts[0][2], counts[1][2]),
            *("{:,.0f} / {:,.0f}".format(*(us / 1000 for us in late(text)[1:])) for text in said),
            "{:,} → {:,}".format(*resident),
        ]
    table(["run", "values, fast", "missed", "values, slow", "out of order", "age ms p99 / max, fast",
           "age ms p99 / max, slow", "KiB resident after 2 s → at the end"], rows)


def measures():
    print("## What the system can do: how late, µs, of `turn_until` in waits of 2.3 ms")
    prefixes = {"as any program": [], "pinned to a core": PINNED}
    if permitted(*FIFO, "true"):
        prefixes |= {"`SCHED_FIFO`": FIFO, "`SCHED_FIFO`, pinned": [*FIFO, *PINNED]}
    else:
        print("chrt -f is not permitted: left out")

    def ours(prefix, *options):
        return lambda: late(run(*prefix, WAITS, *options, "until", "2300", "200"))

    programs = {name: ours(prefix) for name, prefix in prefixes.items()}
    if permitted(WAITS, "--lock", "until", "1", "1"):
        programs["memory locked"] = ours([], "--lock")
        if permitted(*FIFO, "true"):
            programs["all three"] = ours([*FIFO, *PINNED], "--lock")
    else:
        print("mlockall(2) is not permitted (ulimit -l): left out")
    cores = os.cpu_count()
    for count in (0, 2 * cores):
        with busy(count):
            percentiles(f"beside {count} busy processes" if count else "no other load of ours", programs)
    if permitted(*FIFO, "true"):
        print("Age of a value, µs, one subscriber; the bots under SCHED_FIFO, the relay as the row says")
        server = [FEED, "server", "127.0.0.1:0", "127.0.0.1:0"]
        with busy(2 * cores):
            percentiles(f"beside {2 * cores} busy processes", {
                name: lambda prefix=prefix: deliver(server, prefix, 3, ["chrt", "-f", "60"])
                for name, prefix in prefixes.items()
            })


if __name__ == "__main__":
    ALL = {"waits": waits, "ticks": ticks, "relay": relay, "measures": measures}
    unknown = [word for word in SECTIONS if word not in ALL]
    if unknown or ROUNDS < 1:
        sys.exit(f"expected {', '.join(ALL)} or --realtime, and ROUNDS of 1 or more, not {unknown}")
    if REALTIME and not permitted(*FIFO, "true"):
        sys.exit("--realtime needs chrt -f (root, or CAP_SYS_NICE)")
    print(f"{time.strftime('%Y-%m-%d')}, Linux {os.uname().release}, {os.cpu_count()} cores, load average "
          f"{os.getloadavg()[0]:.1f}, {ROUNDS} rounds{', SCHED_FIFO' if REALTIME else ''}\n", flush=True)
    for name, section in ALL.items():
        if not SECTIONS or name in SECTIONS:
            section()
