"""A Redis Cluster of six nodes, three masters and three replicas, whose nodes can be killed and stopped."""

import os
import re
import signal
import subprocess
import tempfile

from checks import Skip
from programs import PATIENCE, until
from service import Redis, free_port

NODE_TIMEOUT_MS = 1000
SLOTS = 16384


class Node(Redis):
    """One of them. It has a directory, so that it is the same node after a restart."""

    def __init__(self, directory, port=None, bus=None):
        self.directory, self.bus = directory, bus or free_port()
        super().__init__(
            *("--cluster-enabled", "yes", "--cluster-port", str(self.bus)),
            *("--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
            # Three masters with a replica each, whatever happens; and a replica that was stopped for long
            # may take over.
            *("--cluster-allow-replica-migration", "no", "--cluster-replica-validity-factor", "0"),
            *("--repl-diskless-sync-delay", "0", "--dir", directory),
            *("--appendonly", "yes", "--appendfsync", "always"),
            port=port,
        )
        self.id = self.cli("CLUSTER", "MYID")

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def alive(self):
        return self.process.poll() is None

    def view(self):
        """How it sees the cluster: of each node's id its flags, its master's id, and its slots."""
        seen = {}
        for line in self.cli("CLUSTER", "NODES").splitlines():
            identity, _, flags, master, *_ = line.split()
            # Slots that are on their way are listed as [slot->-id].
            ranges = [word for word in line.split()[8:] if not word.startswith("[")]
            slots = set()
            for one in ranges:
                first, _, last = one.partition("-")
                slots.update(range(int(first), int(last or first) + 1))
            seen[identity] = (flags.split(","), master, slots)
        return seen

    def channels(self):
        """What is subscribed here with SSUBSCRIBE."""
        return set(self.cli("PUBSUB", "SHARDCHANNELS").split())


class Cluster:
    def __enter__(self):
        told = subprocess.run(["redis-server", "--version"], capture_output=True, text=True).stdout
        if int(re.search(r"v=(\d+)", told).group(1)) < 7:
            raise Skip(f"sharded pub/sub needs Redis 7: {told.strip()}")
        self.folder = tempfile.TemporaryDirectory()
        self.nodes = []
        try:
            for number in range(6):
                directory = os.path.join(self.folder.name, str(number))
                os.mkdir(directory)
                self.nodes.append(Node(directory))
            addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
            create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1"]
            subprocess.run(
                [*create, "--cluster-yes"], check=True, capture_output=True, timeout=PATIENCE
            )
            self.wait_ok()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            node.__exit__()  # SIGKILL ends a stopped one as well
        self.folder.cleanup()

    def url(self, node=None):
        return (node or self.nodes[0]).url()

    # ---- what it is ----

    def alive(self):
        return [node for node in self.nodes if node.alive()]

    def by_id(self, identity):
        return next(node for node in self.nodes if node.id == identity)

    def masters(self):
        """Those that serve slots, as the first living node sees it."""
        view = self.alive()[0].view()
        return [self.by_id(identity) for identity, (_, _, slots) in view.items() if slots]

    def replica_of(self, master):
        view = self.alive()[0].view()
        return next(self.by_id(one) for one, (_, its, _) in view.items() if its == master.id)

    def slot(self, channel):
        """The slot of a channel or a key, with its prefix. Its hash tag counts, if it has one."""
        return int(self.alive()[0].cli("CLUSTER", "KEYSLOT", channel))

    def owner(self, channel):
        slot = self.slot(channel)
        view = self.alive()[0].view()
        return next(self.by_id(one) for one, (_, _, slots) in view.items() if slot in slots)

    # ---- what happens to it ----

    def kill(self, node):
        node.kill()

    def restart(self, node):
        """The same node again, which was killed."""
        node.__exit__()
        again = Node(node.directory, node.port, node.bus)
        self.nodes[self.nodes.index(node)] = again
        return again

    def move(self, slot, target):
        """Moves a slot with its keys to another master, in the order that the documentation asks for."""
        view = target.view()
        source = next(self.by_id(one) for one, (_, _, slots) in view.items() if slot in slots)
        assert source is not target, f"slot {slot} is there already"
        slot = str(slot)
        assert target.cli("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id) == "OK"
        assert source.cli("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id) == "OK"
        while keys := source.cli("CLUSTER", "GETKEYSINSLOT", slot, "100").split():
            migrate = ("MIGRATE", target.host, str(target.port), "", "0", "5000", "KEYS", *keys)
            assert source.cli(*migrate) in ("OK", "NOKEY")
        # The target first: if it fell between the two, the slot would have no owner.
        others = [node for node in self.masters() if node not in (target, source)]
        for node in (target, source, *others):
            assert node.cli("CLUSTER", "SETSLOT", slot, "NODE", target.id) == "OK"

    def wait_ok(self):
        """Until every living node says that all slots are served, and by whom: all say the same."""

        def agreed():
            views = []
            for node in self.alive():
                if "cluster_state:ok" not in node.cli("CLUSTER", "INFO"):
                    return False
                view = node.view()
                views.append({one: slots for one, (_, _, slots) in view.items() if slots})
            return all(view == views[0] for view in views) and sum(map(len, views[0].values())) == SLOTS

        until(agreed, "cluster_state:ok at all, who agree")

    def wait_replicas(self):
        """Until each replica has what its master has."""

        def linked():
            for node in self.alive():
                told = node.cli("INFO", "replication")
                if "role:slave" in told and "master_link_status:up" not in told:
                    return False
                if "role:master" in told and "state=online" not in told:
                    return False
            return True

        until(linked, "every master has a replica that is online")
