//! How connections end: half-closes, resets, peers that are gone, close(2).

use std::io::{self, ErrorKind};

use super::arrivals::Arrival;
use super::faults::Fault;
use super::sockets::{Id, Kind};
use super::stream::{Progress, Segment};
use super::tcp::{RETRANSMISSION, RETRIES, TcpSocket, back_off, port};
use super::trace::Event;
use super::world::World;
use crate::address::Address;

impl World {
    /// The peer's system has the end: a closed socket that had nothing else to do is gone.
    pub(super) fn end_was_delivered(&mut self, sender: Option<Id>) {
        let Some(sender) = sender else { return };
        if let Some(tcp) = self.tcp_mut(sender) {
            tcp.end.end_delivered = true;
        }
        self.free_if_over(sender);
    }

    pub(super) fn free_if_over(&mut self, id: Id) {
        let Some(tcp) = self.tcp(id) else { return };
        if !tcp.end.open && tcp.listener.is_none() && tcp.end.end_delivered {
            self.free_tcp(id);
        }
    }

    pub(super) fn free_tcp(&mut self, id: Id) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp(id) else { return };
        let port = tcp.holds_port.then(|| port(&tcp.local));
        let TcpSocket { end, other, .. } = tcp;
        // What is on its way here meets no socket: its sender gets a reset. An end alone is
        // acknowledged.
        let unheard = end.incoming.iter().any(|(_, segment)| segment.has_bytes()) || end.owes_ack;
        let ends = end.incoming.iter().any(|(_, segment)| segment.ends());
        let (received, lost, other) = (end.received(), end.lost_acks, *other);
        if let Some(port) = port {
            let ports = &mut self.machine(host).tcp_ports;
            if let Some(count) = ports.get_mut(&port) {
                *count -= 1;
                if *count == 0 {
                    ports.remove(&port);
                }
            }
        }
        self.remove_sock(id);
        let Some(other) = other else { return };
        let Some(tcp) = self.tcp_mut(other) else { return };
        tcp.end.heard = received;
        if unheard {
            self.probe_after(other, lost);
        } else if ends {
            self.end_was_delivered(Some(other));
        }
    }

    /// This end resets the connection.
    pub(super) fn reset(&mut self, id: Id) {
        self.transmit(id, Segment::Reset);
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.drop_unsent();
        if tcp.end.open || tcp.listener.is_some() {
            self.reset_arrives_at(id);
        } else {
            self.free_tcp(id);
        }
    }

    /// A reset for an end whose other one is gone.
    pub(super) fn send_reset(&mut self, host: u32, to: Id) {
        if self.tcp(to).is_some() {
            let at = self.arrival_of(host, self.host_of(to), 40);
            self.put(to, at, Segment::Reset);
        }
    }

    pub(super) fn reset_arrives_at(&mut self, id: Id) {
        let host = self.host_of(id);
        let label = self.label(id);
        self.note(host, Event::ResetArrives(label));
        self.fail(id, ErrorKind::ConnectionReset);
    }

    /// What this end has sent was not acknowledged for too long.
    pub(super) fn gives_up(&mut self, id: Id) {
        let at = self.at;
        if self.tcp_mut(id).is_some_and(|tcp| tcp.end.is_unacknowledged(at)) {
            self.fail(id, ErrorKind::TimedOut);
        }
    }

    /// The connection is dead at this end.
    fn fail(&mut self, id: Id, error: ErrorKind) {
        let host = self.host_of(id);
        let Some(tcp) = self.tcp(id) else { return };
        if !tcp.end.open && tcp.listener.is_none() {
            return self.free_tcp(id);
        }
        if tcp.end.is_dead() {
            return;
        }
        let discards = self.fault(host, Fault::DiscardingResets);
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.fail(error, discards);
        self.edge(id);
    }

    /// This end sends something to an end that is no more.
    pub(super) fn meets_nobody(&mut self, from: Id, segment: &Segment) {
        let Some(tcp) = self.tcp(from) else { return };
        let only_ends = segment.ends() && !segment.has_bytes() && tcp.end.ended;
        match segment {
            Segment::Reset => {}
            // Both have ended: the other system remembers that for long enough to acknowledge it.
            Segment::Data { .. } if only_ends && self.hears_far_host(from) => {
                self.end_was_delivered(Some(from));
            }
            Segment::Data { .. } => self.start_probing(from),
        }
    }

    /// Whether the machine at the other end runs and can be reached.
    fn hears_far_host(&mut self, id: Id) -> bool {
        let host = self.host_of(id);
        let at = self.at;
        self.far_host(id).is_some_and(|far| {
            self.hosts[far as usize].up
                && self.way(host, far).blocked_until <= at
                && self.way(far, host).blocked_until <= at
        })
    }

    /// The other end vanished without a word: ask for a sign of life.
    pub(super) fn start_probing(&mut self, from: Id) {
        self.probe_after(from, 0);
    }

    /// The same for an end that has repeated itself so many times already.
    fn probe_after(&mut self, from: Id, attempts: u32) {
        let host = self.host_of(from);
        let Some(tcp) = self.tcp_mut(from) else { return };
        if tcp.retries == 0 {
            tcp.retries = 1;
            let at = self.at + RETRANSMISSION / 4;
            self.send_at(host, at, Arrival::Probe { from, attempt: attempts.max(1) });
        }
    }

    pub(super) fn probe(&mut self, from: Id, attempt: u32) {
        let host = self.host_of(from);
        if self.tcp(from).is_none() {
            return;
        }
        if self.hears_far_host(from) {
            let Some(tcp) = self.tcp_mut(from) else { return };
            if tcp.end.take_last_ack() {
                // Its system had received everything before the connection ended there.
                tcp.retries = 0;
                self.end_was_delivered(Some(from));
                self.room_again(from);
            } else {
                // Its system knows no such connection.
                self.reset_arrives_at(from);
            }
        } else if attempt >= RETRIES {
            self.fail(from, ErrorKind::TimedOut);
        } else {
            let at = self.at + back_off(RETRANSMISSION, attempt, self);
            self.send_at(host, at, Arrival::Probe { from, attempt: attempt + 1 });
        }
    }

    pub(super) fn shutdown_write(&mut self, index: u32) -> io::Result<()> {
        self.call();
        let id = self.id(index);
        let Some(tcp) = self.tcp_mut(id) else { return Err(ErrorKind::NotConnected.into()) };
        if tcp.end.progress != Progress::Connected || tcp.end.is_dead() {
            return Err(ErrorKind::NotConnected.into());
        }
        tcp.end.ending = true;
        self.check_end(id);
        self.pump(id);
        self.await_ack(id);
        Ok(())
    }

    /// close(2).
    pub(super) fn close(&mut self, index: u32) {
        self.call();
        let id = self.id(index);
        let Some(sock) = self.sock(id) else { return };
        let host = sock.host;
        if self.is_one_of_several(id) {
            return self.close_handle(id);
        }
        self.socks[index as usize].token = usize::MAX;
        let label = self.label(id);
        self.note(host, Event::Closes(label));
        let descriptors = &mut self.machine(host).descriptors;
        *descriptors = descriptors.saturating_sub(1);
        match self.sock(id).map(|sock| &sock.kind) {
            Some(Kind::Tcp(_)) => self.close_stream(id),
            Some(Kind::Listener(_)) => self.close_listener(id),
            Some(Kind::Udp(_)) => self.close_udp(id),
            Some(Kind::Free) | None => {}
        }
    }

    pub(super) fn close_stream(&mut self, id: Id) {
        let Some(tcp) = self.tcp_mut(id) else { return };
        tcp.end.open = false;
        tcp.read_log = None;
        let connected = tcp.end.progress == Progress::Connected && !tcp.end.is_dead();
        if !connected || tcp.other.is_none() {
            return self.free_tcp(id);
        }
        if tcp.resets_on_close || tcp.end.has_unread() {
            return self.reset(id);
        }
        tcp.end.ending = true;
        self.pump(id);
        self.await_ack(id);
        self.free_if_over(id);
    }

    pub(super) fn close_listener(&mut self, id: Id) {
        let host = self.host_of(id);
        let Some(listener) = self.listener_mut(id) else { return };
        let (on, backlog) = (listener.on.clone(), std::mem::take(&mut listener.backlog));
        for waiting in backlog {
            if let Some(tcp) = self.tcp_mut(waiting) {
                tcp.listener = None;
                self.reset(waiting);
            }
        }
        let listeners = self.machine(host);
        match on {
            Address::Ip(addr) => {
                if let Some(there) = listeners.listeners.get_mut(&addr.port()) {
                    there.retain(|&other| other != id);
                    if there.is_empty() {
                        listeners.listeners.remove(&addr.port());
                    }
                }
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                listeners.paths.remove(&path.unwrap_or_default());
            }
        }
        self.remove_sock(id);
    }
}
