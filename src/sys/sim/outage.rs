//! Hosts that crash, and partitions between hosts.

use std::cmp::Reverse;

use super::faults::Fault;
use super::sockets::Kind;
use super::trace::Event;
use super::world::World;

impl World {
    /// The machine stops: nothing of it answers, and nothing that is on its way to it arrives. The
    /// sockets of its process are closed after this, which no peer notices.
    pub(crate) fn machine_stops(&mut self, host: u32) {
        let workers = self.workers_of(host);
        for worker in workers.clone() {
            self.hosts[worker as usize].up = false;
        }
        for worker in workers {
            let entry = &mut self.hosts[worker as usize];
            let inbox = std::mem::take(&mut entry.inbox);
            entry.edges.clear();
            entry.woken = false;
            for Reverse(due) in inbox.into_sorted_vec() {
                self.arrive(worker, due.what);
            }
        }
        for index in 0..self.socks.len() as u32 {
            let id = self.id(index);
            if self.home(self.host_of(id)) == host || self.far_host(id) != Some(host) {
                continue;
            }
            let now = self.at;
            if self.tcp_mut(id).is_some_and(|tcp| tcp.end.is_unacknowledged(now)) {
                self.start_probing(id);
            }
        }
    }

    /// Its process is gone, and its sockets with it: what its system still held is gone, too. The host is the
    /// home of all its workers.
    pub(crate) fn machine_is_off(&mut self, host: u32) {
        for index in 0..self.socks.len() as u32 {
            let id = self.id(index);
            if self.home(self.socks[index as usize].host) == host
                && !matches!(self.socks[index as usize].kind, Kind::Free)
            {
                self.remove_sock(id);
            }
        }
        let entry = &mut self.hosts[host as usize];
        entry.listeners.clear();
        entry.udp.clear();
        entry.paths.clear();
        entry.tcp_ports.clear();
        entry.descriptors = 0;
        entry.ownerless = 0;
    }

    /// The process of this host is about to be killed: peers see resets.
    pub(crate) fn process_dies(&mut self, host: u32) {
        let workers = self.workers_of(host);
        for sock in &mut self.socks {
            if let Kind::Tcp(tcp) = &mut sock.kind
                && workers.contains(&sock.host)
            {
                tcp.resets_on_close = true;
            }
        }
    }

    pub(crate) fn partition(&mut self, from: u32, to: u32, until: u64) {
        let way = self.way(from, to);
        way.blocked_until = until;
        let event = if until > self.now { Event::Partition(from) } else { Event::Heal(from) };
        self.note(to, event);
    }

    /// Now and then a packet meets a partition that begins with it.
    pub(super) fn maybe_partition(&mut self, from: u32, to: u32) {
        if self.home(from) != self.home(to) && self.fault(to, Fault::Partitions) {
            let rng = self.dice.of(Fault::Partitions);
            let (time, both) = (rng.between(10_000_000, 5_000_000_000), rng.chance(500_000));
            self.partition(from, to, self.at + time);
            if both {
                self.partition(to, from, self.at + time);
            }
        }
    }
}
