"""Two network namespaces with a bad link between them.

They are held by processes and have no names: whatever ends this script, the kernel removes them.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess

from checks import Skip
from programs import PATIENCE, Program

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


def command(*words):
    return subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)


class Namespace:
    """One of them, with an address on its end of the link."""

    def __init__(self, address):
        self.address = address
        # Ends with its input, which ends with this script.
        self.holder = Program("unshare", "--net", "sh", "-c", "ip link set lo up && echo there && exec cat")
        try:
            self.holder.wait_for("there")
        except AssertionError:
            why = self.holder.err().strip().splitlines() or ["unshare does not work"]
            self.holder.__exit__()
            raise Skip(f"no network namespace can be made: {why[-1]}") from None
        self.path = f"/proc/{self.holder.process.pid}/ns/net"
        self.within = ("nsenter", f"--net={self.path}", "--")

    def run(self, *words, check=True):
        done = command(*self.within, *words)
        assert not check or done.returncode == 0, (words, done.stderr)
        return done

    def connect(self, port):
        """A connection inside: a socket stays where it was made, whoever uses it."""
        with open("/proc/self/ns/net") as ours, open(self.path) as theirs:
            enter(theirs)
            try:
                return socket.create_connection((self.address, port), timeout=PATIENCE)
            finally:
                enter(ours)


def enter(namespace):
    if LIBC.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Link:
    """Two namespaces, `near` and `far`, and a pair of virtual interfaces."""

    def __init__(self, near, far):
        self.near, self.far = near, far
        self.faults = "none"
        there = str(far.holder.process.pid)
        pair = ("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", there)
        done = near.run(*pair, check=False)
        if done.returncode != 0:
            raise Skip(f"no pair of virtual interfaces can be made: {done.stderr.strip()}")
        for end in (near, far):
            end.run("ip", "address", "add", f"{end.address}/24", "dev", "wire")
            end.run("ip", "link", "set", "wire", "up")

    def lose(self, percent, delay_ms):
        """From now on packets are lost in both directions, by what this kernel has for it."""
        netem = ("netem", "loss", f"{percent}%", "delay", f"{delay_ms}ms")
        for end in (self.near, self.far):
            if end.run("tc", "qdisc", "add", "dev", "wire", "root", *netem, check=False).returncode == 0:
                self.faults = f"loss of {percent} %, delay of {delay_ms} ms (netem)"
                continue
            if not shutil.which("nft"):
                self.faults = "no loss: the kernel has no netem, and nft is not installed"
                continue
            rules = (
                "table ip bad { chain entry { type filter hook input priority 0;"
                f" iifname wire numgen random mod 100 < {percent} drop; }}; }}"
            )
            done = end.run("nft", rules, check=False)
            self.faults = (
                f"loss of {percent} % (nft, as the kernel has no netem), no delay"
                if done.returncode == 0
                else f"no loss: the kernel has no netem, and nft says {done.stderr.strip()}"
            )

    def cut(self, end):
        """Takes the link down on one side. The other one hears nothing of it."""
        end.run("ip", "link", "set", "wire", "down")

    def mend(self, end):
        end.run("ip", "link", "set", "wire", "up")


@contextlib.contextmanager
def two_namespaces():
    """A link between two; skips the check where that is not permitted."""
    if os.geteuid() != 0:
        raise Skip("network namespaces need root")
    for tool in ("ip", "tc", "unshare", "nsenter"):
        if not shutil.which(tool):
            raise Skip(f"{tool} is missing: apt-get install iproute2 util-linux")
    with contextlib.ExitStack() as stack:
        ends = []
        for address in ("10.213.7.1", "10.213.7.2"):
            ends.append(Namespace(address))
            stack.enter_context(ends[-1].holder)
        yield Link(*ends)
