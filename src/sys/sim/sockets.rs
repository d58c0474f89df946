//! The table of sockets, with or without a descriptor.

use std::net::SocketAddr;

use super::faults::Fault;
use super::tcp::{ListenerSocket, TcpSocket};
use super::trace::Socket;
use super::udp::UdpSocket;
use super::world::World;

/// No token: the socket is not registered.
pub(super) const UNREGISTERED: usize = usize::MAX;

/// A socket of the world. The index is used again; the generation is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    pub(crate) index: u32,
    pub(super) generation: u32,
}

impl Id {
    /// No socket.
    pub(super) const NOBODY: Id = Id { index: u32::MAX, generation: 0 };

    /// No socket either: the waker, where a host's edges stand in line.
    pub(super) const WAKER: Id = Id { index: u32::MAX, generation: 1 };
}

#[derive(Debug)]
pub(super) enum Kind {
    Free,
    Listener(Box<ListenerSocket>),
    Tcp(Box<TcpSocket>),
    Udp(Box<UdpSocket>),
}

#[derive(Debug)]
pub(super) struct Sock {
    pub(super) generation: u32,
    pub(super) host: u32,
    pub(super) token: usize,
    /// It is among the host's edges.
    pub(super) queued: bool,
    /// The kinds of readiness that may cause an edge: all, unless edges are those over poll(2).
    pub(super) armed: u8,
    pub(super) kind: Kind,
}

pub(super) const ALL: u8 = u8::MAX;

impl World {
    // ---- sockets ----

    pub(super) fn add_sock(&mut self, host: u32, kind: Kind) -> Id {
        let new = |generation| Sock {
            generation,
            host,
            token: UNREGISTERED,
            queued: false,
            armed: ALL,
            kind: Kind::Free,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.socks.push(new(0));
            (self.socks.len() - 1) as u32
        });
        let sock = &mut self.socks[index as usize];
        *sock = Sock { kind, ..new(sock.generation) };
        Id { index, generation: sock.generation }
    }

    pub(super) fn remove_sock(&mut self, id: Id) {
        let Some(sock) = self.sock_mut(id) else { return };
        sock.generation = sock.generation.wrapping_add(1);
        sock.kind = Kind::Free;
        sock.token = UNREGISTERED;
        self.free.push(id.index);
    }

    /// How many sockets there are, with or without a descriptor.
    #[cfg(test)]
    pub(crate) fn sockets(&self) -> usize {
        self.socks.iter().filter(|sock| !matches!(sock.kind, Kind::Free)).count()
    }

    #[cfg(test)]
    pub(crate) fn places_and_wakes(&self) -> (usize, usize) {
        (self.socks.len(), self.wakes.len())
    }

    pub(super) fn id(&self, index: u32) -> Id {
        Id { index, generation: self.socks[index as usize].generation }
    }

    pub(super) fn sock(&self, id: Id) -> Option<&Sock> {
        self.socks.get(id.index as usize).filter(|sock| sock.generation == id.generation)
    }

    pub(super) fn sock_mut(&mut self, id: Id) -> Option<&mut Sock> {
        self.socks.get_mut(id.index as usize).filter(|sock| sock.generation == id.generation)
    }

    /// The socket by what people know it by.
    pub(super) fn label(&self, id: Id) -> Socket {
        let Some(sock) = self.sock(id) else { return Socket::default() };
        let (local, peer) = match &sock.kind {
            Kind::Tcp(tcp) => tcp.addresses(),
            Kind::Listener(listener) => (listener.on.socket_addr(), None),
            Kind::Udp(udp) => udp.addresses(),
            Kind::Free => (None, None),
        };
        let token = if sock.token == UNREGISTERED { 0 } else { sock.token as u32 + 1 };
        Socket { token, ..self.label_of(sock.host, local, peer) }
    }

    pub(super) fn label_of(
        &self,
        host: u32,
        local: Option<SocketAddr>,
        peer: Option<SocketAddr>,
    ) -> Socket {
        let owner = peer.and_then(|peer| self.owner_of(peer.ip(), host));
        let port = |address: Option<SocketAddr>| address.map_or(0, |address| address.port());
        Socket {
            local: port(local),
            peer: port(peer),
            whose: owner.map_or(0, |owner| owner + 1),
            token: 0,
        }
    }

    /// A descriptor for a connection is taken; `false` if none is left.
    pub(super) fn take_descriptor(&mut self, host: u32) -> bool {
        let is_raw = self.hosts[host as usize].raw; // which has no workers
        (is_raw || !self.fault(host, Fault::Descriptors)) && self.take_own_descriptor(host)
    }

    /// A descriptor of the process's own, for a listener or a UDP socket: a set-up that fails is no
    /// network's fault. Only the limit refuses it.
    pub(super) fn take_own_descriptor(&mut self, host: u32) -> bool {
        let host = self.machine(host);
        if host.descriptors >= host.descriptor_limit {
            return false;
        }
        host.descriptors += 1;
        true
    }
}
