//! Readiness of simulated sockets: edges, and the poll that reports them.

use super::faults::Fault;
use super::sockets::{ALL, Id, Kind, UNREGISTERED};
use super::trace::Event;
use super::world::World;
use crate::sys::Ready;

impl World {
    /// Registers a socket; what it is ready for already is an edge.
    pub(super) fn register(&mut self, host: u32, index: u32, token: usize) {
        self.call();
        let id = self.id(index);
        self.move_sock(id, host);
        if let Some(sock) = self.sock_mut(id) {
            sock.token = token;
            sock.armed = ALL;
        }
        self.edge(id);
    }

    pub(super) fn deregister(&mut self, host: u32, index: u32) {
        self.call();
        let sock = &mut self.socks[index as usize];
        if sock.host == host {
            sock.token = UNREGISTERED;
        }
    }

    /// Something about this socket changed: the next poll reports what it is ready for.
    pub(super) fn edge(&mut self, id: Id) {
        let Some(sock) = self.sock_mut(id) else { return };
        if sock.token == UNREGISTERED || std::mem::replace(&mut sock.queued, true) {
            return;
        }
        let host = sock.host;
        self.hosts[host as usize].edges.push_back(id);
        if self.hosts[host as usize].workers > 1 {
            self.worker_has_edge(host);
        }
    }

    /// A call returned `WouldBlock`: over poll(2) that arms the edges again.
    pub(super) fn would_block(&mut self, id: Id) -> std::io::Error {
        let Some(sock) = self.sock_mut(id) else { return std::io::ErrorKind::WouldBlock.into() };
        if sock.armed != ALL {
            sock.armed = ALL;
            if self.bits(id) != 0 {
                self.edge(id);
            }
        }
        std::io::ErrorKind::WouldBlock.into()
    }

    /// What a socket is ready for.
    fn bits(&self, id: Id) -> u8 {
        match self.sock(id).map(|sock| &sock.kind) {
            Some(Kind::Tcp(tcp)) => tcp.bits(),
            Some(Kind::Listener(listener)) => {
                if listener.backlog.is_empty() {
                    0
                } else {
                    Ready::READABLE
                }
            }
            Some(Kind::Udp(udp)) => udp.bits(),
            Some(Kind::Free) | None => 0,
        }
    }

    /// The poll of a host: it never waits. Without an event it returns as after a signal, and the
    /// scheduler decides when the host runs again.
    pub(super) fn poll(
        &mut self,
        host: u32,
        ready: &mut Vec<Ready>,
        waits: bool,
        most: usize,
    ) -> std::io::Result<bool> {
        self.call();
        let now = self.at;
        self.deliver(host, now);
        self.at = now;
        let stopped = std::mem::take(&mut self.hosts[host as usize].interrupted);
        // Only one that waits can be: what has come meanwhile is there all the same.
        if stopped || waits && self.fault(host, Fault::InterruptedPolls) {
            return Err(std::io::ErrorKind::Interrupted.into());
        }
        if self.hosts[host as usize].edges.len() > 1 && self.fault(host, Fault::ReadyOrder) {
            self.shuffle_edges(host);
        }
        // The waker waits in the same line as the sockets, as in epoll(7): one that is used all the time
        // starves nobody, however few events a poll reports.
        let mut woken = 0;
        while ready.len() + woken < most {
            let Some(id) = self.hosts[host as usize].edges.pop_front() else { break };
            if id == Id::WAKER {
                self.hosts[host as usize].woken = false;
                woken = 1;
            } else {
                self.report(host, id, ready);
            }
        }
        let (most, woken) = (most - woken, woken > 0);
        if ready.len() < most && self.fault(host, Fault::SpuriousReadiness) {
            self.report_nothing(host, ready);
        }
        let host = &mut self.hosts[host as usize];
        let any = woken || !ready.is_empty();
        host.progress |= any;
        Ok(woken)
    }

    fn report(&mut self, host: u32, id: Id, ready: &mut Vec<Ready>) {
        let poll_like = self.hosts[host as usize].poll_like;
        let bits = self.bits(id);
        let Some(sock) = self.sock_mut(id) else { return };
        sock.queued = false;
        let bits = bits & sock.armed;
        if bits == 0 || sock.token == UNREGISTERED {
            return;
        }
        if poll_like {
            sock.armed &= !bits;
        }
        ready.push(Ready { token: sock.token, bits });
        self.events += 1;
        let label = self.label(id);
        self.note(host, Event::Ready(label, bits));
    }

    /// A socket that is not ready is reported as if it were.
    fn report_nothing(&mut self, host: u32, ready: &mut Vec<Ready>) {
        let chosen = self.dice.of(Fault::SpuriousReadiness).below(self.socks.len() as u64);
        let Some(sock) = self.socks.get(chosen as usize) else { return };
        let is_tcp = matches!(&sock.kind, Kind::Tcp(tcp) if tcp.is_connected());
        let is_other = matches!(&sock.kind, Kind::Udp(_) | Kind::Listener(_));
        if sock.host == host && sock.token != UNREGISTERED && (is_tcp || is_other) {
            ready.push(Ready { token: sock.token, bits: Ready::READABLE | Ready::WRITABLE });
        }
    }

    fn shuffle_edges(&mut self, host: u32) {
        let edges = &mut self.hosts[host as usize].edges;
        let rng = self.dice.of(Fault::ReadyOrder);
        for last in (1..edges.len()).rev() {
            edges.swap(last, rng.below(last as u64 + 1) as usize);
        }
    }
}
