#!/usr/bin/env python3
"""Runs the backplane with a real Redis Cluster: slots move, masters are killed, and all of it is away.

    .ci/cluster.py [DIRECTORY [WORD...]]

DIRECTORY is where the built examples are, target/release/examples by default. With WORDs, only the
checks with one of them in their names are run. It needs redis-cli, and redis-server 7 or newer: with an
older one the checks are skipped.

Prints what failed and "N passed, N failed"; the exit status is 0 if nothing failed.
"""

import contextlib
import re
import sys
import threading

sys.dont_write_bytecode = True
from checks import check, run  # noqa: E402
from nodes import Cluster  # noqa: E402
from programs import equal, until  # noqa: E402
from service import Member, Topics  # noqa: E402

TOPICS = [f"tide{number}" for number in range(9)]
PREFIX = "topics/"
KEPT_PREFIX = "{topics}/"  # names that are kept lie on one node: they have a hash tag in their beginning


class Service:
    """Processes on a cluster, each asking another node at first, and a member of all topics on each."""

    def __init__(self, cluster, stack, *options, count=3, prefix=PREFIX):
        self.cluster, self.topics, self.prefix = cluster, TOPICS, prefix
        entries = cluster.alive()
        self.processes = [
            stack.enter_context(
                Topics(cluster.url(entries[number % len(entries)]), "--prefix", prefix, *options)
            )
            for number in range(count)
        ]
        for process in self.processes:
            process.connected()
        self.members = [
            stack.enter_context(Member(process, *self.topics)) for process in self.processes
        ]
        self.said = 0
        self.lock = threading.Lock()

    def channel(self, topic):
        return self.prefix + topic

    def owners(self):
        return {topic: self.cluster.owner(self.channel(topic)) for topic in self.topics}

    def subscribed_at_owners(self):
        """Each topic is subscribed where its slot is, by every process, and nowhere else."""

        def so():
            owners = self.owners()
            for node in self.cluster.alive():
                own = {self.channel(topic) for topic, owner in owners.items() if owner is node}
                # A replica that repeats the slots of its master has no subscriptions of ours.
                if node.channels() != own:
                    return False
                told = node.cli("PUBSUB", "SHARDNUMSUB", *own).split() if own else []
                if any(count != str(len(self.processes)) for count in told[1::2]):
                    return False
            return True

        until(so, "each topic is subscribed at its owner, and only there")

    def talk(self, rounds=50):
        """Each member says so many lines in each topic."""
        with self.lock:
            for number in range(self.said, self.said + rounds):
                for speaker, member in enumerate(self.members):
                    member.tell(*(f"say {topic} {topic} {speaker} {number}" for topic in self.topics))
            self.said += rounds

    def talking(self):
        """Talk that goes on beside something else."""
        return Talk(self)

    def came(self):
        """What came at each member, by topic and speaker, up to the end that each speaker says now."""
        for speaker, member in enumerate(self.members):
            member.tell(*(f"say {topic} {topic} {speaker} end" for topic in self.topics))
        all_heard = []
        for member in self.members:
            heard = {(topic, speaker): [] for topic in self.topics for speaker in range(len(self.members))}
            ended = set()
            while len(ended) < len(heard):
                line = member.line()
                assert line, "the end came"
                topic, speaker, number = line.split()
                key = (topic, int(speaker))
                assert key not in ended, f"{line} came behind its end"
                ended.add(key) if number == "end" else heard[key].append(int(number))
            all_heard.append(heard)
        return all_heard

    def all_came(self, topics=None):
        """Of these topics, all lines of all at all, in order and once; of the others, order and once."""
        topics = self.topics if topics is None else topics
        for member, heard in enumerate(self.came()):
            for (topic, speaker), numbers in heard.items():
                where = f"{topic} of {speaker} at {member}"
                equal((where, numbers == sorted(set(numbers))), (where, True))
                if topic in topics or speaker == member:
                    missing = sorted(set(range(self.said)).difference(numbers))
                    assert not missing, f"{where}: missing {len(missing)}, {missing[:10]}"


class Talk:
    def __init__(self, service):
        self.service, self.over = service, threading.Event()
        self.thread = threading.Thread(target=self._talk)

    def _talk(self):
        while not self.over.is_set():
            self.service.talk(rounds=2)
            self.over.wait(0.005)  # a pace, and nothing that is waited for

    def __enter__(self):
        before = self.service.said
        self.thread.start()
        until(lambda: self.service.said > before, "they talk")
        return self

    def more(self, rounds=20):
        """They have said so many more."""
        before = self.service.said
        until(lambda: self.service.said >= before + rounds, "they go on")

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


@contextlib.contextmanager
def cluster_with(*options, **names):
    with Cluster() as cluster, contextlib.ExitStack() as stack:
        cluster.wait_replicas()
        service = Service(cluster, stack, *options, **names)
        yield cluster, service


def resumed(service, count=1):
    for process in service.processes:
        process.told("resumed", count)


def offset(node):
    told = node.cli("INFO", "replication")
    return int(re.search(r"^(?:slave|master)_repl_offset:(\d+)", told, re.M).group(1))


@check
def topics_are_spread_over_all_masters_and_all_hear_all():
    with cluster_with() as (cluster, service):
        equal(set(service.owners().values()), set(cluster.masters()))
        service.subscribed_at_owners()
        service.talk(300)
        service.all_came()
        for process in service.processes:
            equal(process.out().count("topics: connected"), 1)
            assert "lost" not in process.out(), process.out()


@check
def a_slot_moves_while_they_talk():
    with cluster_with() as (cluster, service):
        service.subscribed_at_owners()
        topic = service.topics[0]
        source = cluster.owner(service.channel(topic))
        target = next(master for master in cluster.masters() if master is not source)
        others = [name for name, owner in service.owners().items() if name != topic]
        with service.talking() as talk:
            cluster.move(cluster.slot(service.channel(topic)), target)
            cluster.wait_ok()
            talk.more()
        assert cluster.owner(service.channel(topic)) is target
        service.subscribed_at_owners()
        for process in service.processes:
            process.told("moved")
        # Those of the slot may have a gap. All that is said from now on arrives.
        begin = service.said
        service.talk()
        heard = service.came()
        for member in heard:
            for (name, speaker), numbers in member.items():
                equal(numbers, sorted(set(numbers)))
                first = 0 if name in others else begin
                equal([n for n in numbers if n >= first], list(range(first, service.said)))


@check
def a_master_is_killed_and_its_replica_takes_over():
    with cluster_with() as (cluster, service):
        service.subscribed_at_owners()
        master = cluster.owner(service.channel(service.topics[0]))
        replica = cluster.replica_of(master)
        others = [name for name, owner in service.owners().items() if owner is not master]
        assert others
        with service.talking() as talk:
            cluster.kill(master)
            for process in service.processes:
                process.told("lost")
            until(lambda: replica in cluster.masters(), "the replica takes over")
            cluster.wait_ok()
            resumed(service)
            talk.more()
        service.subscribed_at_owners()
        begin = service.said
        service.talk()
        for heard in service.came():
            for (name, speaker), numbers in heard.items():
                equal(numbers, sorted(set(numbers)))
                first = 0 if name in others else begin
                equal([n for n in numbers if n >= first], list(range(first, service.said)))
        # The one that was killed is a replica when it comes back, and nobody notices.
        cluster.restart(master)
        cluster.wait_ok()
        service.subscribed_at_owners()
        service_lost = [process.out().count("topics: lost") for process in service.processes]
        equal(service_lost, [1] * len(service.processes))


@check
def kept_topics_lose_nothing_that_a_replica_has():
    with cluster_with("--keep", "100000", prefix=KEPT_PREFIX) as (cluster, service):
        topics = service.topics
        master = cluster.owner(service.channel(topics[0]))
        equal(set(service.owners().values()), {master})
        replica = cluster.replica_of(master)
        # All are there when all have heard this: who joins waits for the history.
        service.members[0].tell(*(f"say {topic} begin" for topic in topics))
        for member in service.members:
            equal([member.line() for _ in topics], ["begin"] * len(topics))
        service.talk(200)
        # What the replica has not got when its master dies is lost by Redis. So wait for it.
        until(
            lambda: sum(int(master.cli("XLEN", service.channel(topic))) for topic in topics)
            >= len(topics) * (1 + len(service.members) * service.said),
            "all is in the streams",
        )
        until(lambda: offset(replica) >= offset(master), "the replica has it")
        cluster.kill(master)
        for process in service.processes:
            process.told("lost")
        service.talk(100)  # waits, and follows
        until(lambda: replica in cluster.masters(), "the replica takes over")
        cluster.wait_ok()
        resumed(service)
        service.talk(100)
        service.all_came()


@check
def a_process_starts_while_a_master_is_down():
    with cluster_with() as (cluster, service), contextlib.ExitStack() as stack:
        entry = cluster.masters()[0]
        down = next(node for node in cluster.masters() if node is not entry)
        replica = cluster.replica_of(down)
        replica.stop()  # nobody takes over
        cluster.kill(down)
        late = stack.enter_context(Topics(cluster.url(entry), "--prefix", service.prefix))
        assert "topics: connected" not in late.out()
        replica.go_on()
        until(lambda: replica in cluster.masters(), "the replica takes over")
        cluster.wait_ok()
        late.connected()
        resumed(service)
        service.processes.append(late)
        service.members.append(stack.enter_context(Member(late, *service.topics)))
        service.subscribed_at_owners()
        service.talk()
        service.all_came()


@check
def a_cluster_goes_down_as_a_whole_and_comes_back():
    with cluster_with() as (cluster, service):
        service.subscribed_at_owners()
        service.talk()
        for node in list(cluster.nodes):
            cluster.kill(node)
        for process in service.processes:
            process.told("lost")
        service.talk(10)  # those of one process hear each other
        for node in list(cluster.nodes):
            cluster.restart(node)
        cluster.wait_ok()
        resumed(service)
        service.subscribed_at_owners()
        begin = service.said
        service.talk()
        for member, heard in enumerate(service.came()):
            for (name, speaker), numbers in heard.items():
                equal(numbers, sorted(set(numbers)))
                first = 0 if speaker == member else begin
                equal([n for n in numbers if n >= first], list(range(first, service.said)))


if __name__ == "__main__":
    run()
