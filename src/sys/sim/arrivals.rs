//! What comes to hosts, and when: their inboxes, and the line of who is looked at next.

use std::cmp::Reverse;
use std::net::SocketAddr;

use super::connect::Answer;
use super::sockets::Id;
use super::trace::Event;
use super::udp::Packet;
use super::world::{CALL, World};

/// What comes to a host.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The first segment on its way to this end is due.
    Segment(Id),
    /// The first acknowledgement on its way to this end is due.
    Ack(Id),
    /// An acknowledgement of this end did not pass: it is sent again.
    AckAgain(Id),
    /// What this end has sent was not acknowledged for too long.
    GivesUp(Id),
    /// Somebody connects.
    Syn {
        to: SocketAddr,
        from: Id,
        attempt: u32,
    },
    /// The answer to that.
    Answer(Answer),
    /// A SYN was lost: it is sent again.
    Again {
        from: Id,
        attempt: u32,
    },
    /// A peer that is gone is asked for a sign of life.
    Probe {
        from: Id,
        attempt: u32,
    },
    /// There is room again in the send buffer.
    Room(Id),
    Datagram(Box<Packet>),
    Icmp(Id),
    /// A message of another thread.
    Wake,
    /// The job with this number comes to its end.
    Job(u64),
}

/// An arrival, ordered by its time and then by its number.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: u64,
    order: u64,
    pub(super) what: Arrival,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl World {
    /// Something comes to a host at this time.
    pub(super) fn send_at(&mut self, host: u32, at: u64, what: Arrival) {
        self.order += 1;
        let order = self.order;
        self.hosts[host as usize].inbox.push(Reverse(Due { at, order, what }));
        self.plan(host, at);
    }

    /// The host is to be looked at at this time.
    #[inline]
    pub(crate) fn plan(&mut self, host: u32, at: u64) {
        let at = at.max(self.now);
        let planned = &mut self.planned[host as usize];
        if at < *planned {
            *planned = at;
            self.order += 1;
            self.wakes.push(Reverse((at, self.order, host)));
            // Most entries that an earlier one replaced lie far in the future.
            if self.wakes.len() > 64 + 4 * self.planned.len() {
                let planned = &self.planned;
                self.wakes.retain(|Reverse((at, _, host))| planned[*host as usize] == *at);
            }
        }
    }

    /// When the next host is to be looked at.
    pub(crate) fn next_wake(&mut self) -> Option<(u64, u32)> {
        while let Some(&Reverse((at, _, host))) = self.wakes.peek() {
            if self.planned[host as usize] == at {
                return Some((at, host));
            }
            self.wakes.pop();
        }
        None
    }

    /// Takes that one.
    pub(crate) fn take_wake(&mut self, host: u32) {
        self.wakes.pop();
        self.planned[host as usize] = u64::MAX;
    }

    /// When something comes to this host next.
    pub(crate) fn next_arrival(&self, host: u32) -> Option<u64> {
        self.hosts[host as usize].inbox.peek().map(|Reverse(due)| due.at)
    }

    /// The host's system handles what has come by now.
    pub(crate) fn deliver(&mut self, host: u32, until: u64) {
        let before = self.at;
        loop {
            let inbox = &mut self.hosts[host as usize].inbox;
            if inbox.peek().is_none_or(|Reverse(due)| due.at > until) {
                break;
            }
            let Some(Reverse(due)) = inbox.pop() else { break };
            self.at = due.at;
            self.arrive(host, due.what);
        }
        self.at = before.max(self.at);
    }

    pub(super) fn arrive(&mut self, host: u32, what: Arrival) {
        let up = self.hosts[host as usize].up;
        match what {
            // Nobody answers, so that it is sent again.
            Arrival::Syn { from, attempt, .. } if !up => self.send_syn_again(from, attempt),
            _ if !up => {}
            Arrival::Segment(id) => self.segment_arrives(id),
            Arrival::Ack(id) => self.ack_arrives(id),
            Arrival::Syn { to, from, attempt } => self.syn_arrives(host, to, from, attempt),
            Arrival::AckAgain(id) => self.ack_again(id),
            Arrival::GivesUp(id) => self.gives_up(id),
            Arrival::Answer(answer) => self.answer_arrives(host, answer),
            Arrival::Again { from, attempt } => self.send_syn(from, attempt),
            Arrival::Probe { from, attempt } => self.probe(from, attempt),
            Arrival::Room(id) => self.room_again(id),
            Arrival::Datagram(packet) => self.datagram_arrives(host, *packet),
            Arrival::Icmp(id) => self.icmp_arrives(id),
            Arrival::Job(number) => self.jobs[host as usize].ends(number),
            Arrival::Wake => {
                self.events += 1;
                self.note(host, Event::Wake);
                let host = &mut self.hosts[host as usize];
                if !std::mem::replace(&mut host.woken, true) {
                    host.edges.push_back(Id::WAKER);
                }
            }
        }
    }

    /// A peer without a reactor has been served: it needs no readiness.
    pub(crate) fn drop_edges(&mut self, host: u32) {
        while let Some(id) = self.hosts[host as usize].edges.pop_front() {
            if let Some(sock) = self.sock_mut(id) {
                sock.queued = false;
            }
        }
    }

    /// Whether a turn of this host has something to do.
    pub(crate) fn has_readiness(&self, host: u32) -> bool {
        !self.hosts[host as usize].edges.is_empty()
    }

    /// Another thread's message: from the host whose turn runs, or from the simulation itself.
    pub(super) fn wake(&mut self, host: u32) {
        let at = self.time_here() + CALL + self.wake_takes(host);
        self.send_at(host, at, Arrival::Wake);
    }

    /// Messages that were posted between two steps.
    #[inline]
    pub(crate) fn take_outside_wakes(&mut self) {
        for host in self.outside.take() {
            self.leave();
            self.wake(host);
        }
    }
}
