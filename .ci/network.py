#!/usr/bin/env python3
"""Runs the backplane over a bad network: packets are lost, and the link is cut for a while.

    .ci/network.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. It needs redis-server and root: Redis and one process of
the service are in one network namespace, another process is in a second one. Where that is not
permitted the checks are skipped. Packets are lost by netem or, where the kernel has none, by nft.

Prints what failed and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import contextlib
import sys
import tempfile

sys.dont_write_bytecode = True
from checks import check, run  # noqa: E402
from namespaces import two_namespaces  # noqa: E402
from programs import equal  # noqa: E402
from service import Member, Redis, Topics, subscribers  # noqa: E402

LOSS, DELAY = 5, 2
# Longer than TCP needs when it loses a segment three times (1.4 s), or a loss would be taken for a cut.
SILENCE = ("--silence", "3000")
LINES = 300


class Torn:
    """Anna beside Redis and Ben behind the link, who talk whether it is there or not."""

    def __init__(self, link, stack, *options):
        self.link = link
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        self.redis = stack.enter_context(
            Redis(
                *("--appendonly", "yes", "--appendfsync", "always", "--dir", directory),
                *("--protected-mode", "no"),
                host=link.near.address,
                within=link.near.within,
            )
        )
        self.processes, self.members = [], []
        for end in (link.near, link.far):
            process = stack.enter_context(
                Topics(self.redis.url(), *SILENCE, *options, host=end.address, within=end.within)
            )
            process.connected()
            connection = end.connect(process.at)
            self.processes.append(process)
            self.members.append(stack.enter_context(Member(process, "tide", connection=connection)))
        self.said = 0

    def begin(self):
        """Both are there when both have heard this: who joins a kept topic waits for its history."""
        self.members[0].tell("say tide begin")
        equal([member.line() for member in self.members], ["begin"] * 2)

    def talk(self):
        for number in range(self.said, self.said + LINES):
            for name, member in zip(("anna", "ben"), self.members):
                member.tell(f"say tide {name} {number}")
        self.said += LINES

    def through_a_cut(self, end):
        near, far = self.processes
        lost = far.out().count("topics: lost")
        self.link.cut(end)
        self.talk()
        far.told("lost: the server has said nothing for 3s", 1)
        far.told("lost", lost + 1)
        self.talk()
        self.link.mend(end)
        far.told("resumed after", lost + 1)
        self.talk()
        assert "lost" not in near.out(), near.out()

    def came(self):
        """What each has heard of each."""
        for name, member in zip(("anna", "ben"), self.members):
            member.tell(f"say tide {name} end")
        heard = []
        for member in self.members:
            numbers, ended = {"anna": [], "ben": []}, set()
            while len(ended) < 2:
                name, words = member.line().split()
                if words == "end":
                    ended.add(name)
                else:
                    assert name not in ended, f"{name} {words} came behind the end"
                    numbers[name].append(int(words))
            heard.append(numbers)
        return heard


def whole(numbers, count):
    """All of them, each once and in order. Says what is missing, which of a thousand nobody finds."""
    missing, first = set(range(count)).difference(numbers), numbers[:1]
    assert numbers == list(range(count)), f"{len(numbers)} from {first}, missing {sorted(missing)[:20]}"


@check
def of_kept_topics_no_line_is_lost_over_a_bad_link_that_is_cut_twice():
    with two_namespaces() as link, contextlib.ExitStack() as stack:
        link.lose(LOSS, DELAY)
        print(f"         {link.faults}", flush=True)
        torn = Torn(link, stack, "--keep", "100000")
        torn.begin()
        torn.talk()
        for end in (link.near, link.far):
            torn.through_a_cut(end)
        for heard in torn.came():
            for name, numbers in heard.items():
                whole(numbers, torn.said)


@check
def of_plain_topics_the_order_stays_over_a_bad_link_that_is_cut():
    with two_namespaces() as link, contextlib.ExitStack() as stack:
        link.lose(LOSS, DELAY)
        torn = Torn(link, stack)
        subscribers(torn.redis, 2)
        torn.talk()
        torn.through_a_cut(link.near)
        at_anna, at_ben = torn.came()
        # One's own process has everything, cut or not.
        whole(at_anna["anna"], torn.said)
        whole(at_ben["ben"], torn.said)
        for numbers in (at_anna["ben"], at_ben["anna"]):
            equal(numbers, sorted(set(numbers)))
        # Ben's lines waited on his side; of Anna's, those that she said meanwhile are his gap.
        whole(at_anna["ben"], torn.said)
        last = list(range(torn.said - LINES, torn.said))
        equal(at_ben["anna"][-LINES:], last)
        assert len(at_ben["anna"]) < torn.said, "the link was not cut"


if __name__ == "__main__":
    run()
