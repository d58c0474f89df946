//! Streams and listeners of the simulated world: TCP, and Unix sockets within one host. How they come to
//! be is in `connect.rs`, what they carry in `data.rs`, how they end in `close.rs`.
//!
//! Linux' habits are kept where programs have stumbled over them: data and end may come in one edge;
//! the poll reports room for output when a third of the buffer is free, though a write would be taken
//! earlier; closing with unread input resets; after a reset what was received can still be read.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use super::faults::Fault;
use super::sockets::{Id, Kind};
use super::stream::{End, Progress};
use super::world::World;
use crate::address::Address;
use crate::socket_options::SocketOptions;
use crate::sys::Ready;

/// Linux' least time until a segment is sent again, in nanoseconds.
pub(super) const RETRANSMISSION: u64 = 200_000_000;

/// Linux' time until a SYN is sent again.
pub(super) const SYN_RETRANSMISSION: u64 = 1_000_000_000;

/// How often a SYN is sent again (`tcp_syn_retries`).
pub(super) const SYN_RETRIES: u32 = 6;

/// How often a segment is sent again before the connection counts as dead (`tcp_retries2`).
pub(super) const RETRIES: u32 = 15;

/// No pause between two attempts is longer.
const LONGEST: u64 = 120_000_000_000;

/// What a socket's buffers hold without an option, in bytes.
const BUFFER: usize = 128 * 1024;

/// The most one segment carries: what the system's offloads join.
pub(super) const SEGMENT: usize = 32 * 1024;

/// A connection that is in a backlog, or accepted, or connecting.
#[derive(Debug)]
pub(super) struct TcpSocket {
    pub(super) end: End,
    pub(super) local: Address,
    pub(super) peer: Address,
    /// The other end, while it exists.
    pub(super) other: Option<Id>,
    /// In whose backlog it is.
    pub(super) listener: Option<Id>,
    /// The coming close is a reset (`SO_LINGER` zero).
    pub(super) resets_on_close: bool,
    /// The local port is counted.
    pub(super) holds_port: bool,
    pub(super) retries: u32,
    /// What was read and not yet taken by the handler, where that is compared.
    pub(super) read_log: Option<VecDeque<u8>>,
    /// What its handler sent and was not written yet, where that is compared.
    pub(super) output: Output,
}

pub(super) fn port(address: &Address) -> u16 {
    address.socket_addr().map_or(0, |address| address.port())
}

impl TcpSocket {
    pub(super) fn new(end: End, local: Address, peer: Address) -> Self {
        TcpSocket {
            end,
            local,
            peer,
            other: None,
            listener: None,
            resets_on_close: false,
            holds_port: false,
            retries: 0,
            read_log: None,
            output: Output::Untouched,
        }
    }

    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        (self.local.socket_addr(), self.peer.socket_addr())
    }

    pub(super) fn is_connected(&self) -> bool {
        self.end.progress == Progress::Connected
    }

    pub(super) fn bits(&self) -> u8 {
        let end = &self.end;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        if end.progress == Progress::Connecting {
            return 0;
        }
        bit(end.is_readable(), Ready::READABLE)
            | bit(end.is_writable(), Ready::WRITABLE)
            | bit(end.ended || end.error.is_some(), Ready::READ_CLOSED)
            | bit(end.error.is_some(), Ready::ERROR)
            | bit(end.is_urgent(), Ready::URGENT)
    }
}

/// What is to be written next on a stream.
#[derive(Debug)]
pub(super) enum Output {
    /// Nothing was sent yet.
    Untouched,
    Compared(VecDeque<u8>),
    /// Other bytes than those that are sent leave, too.
    Mixed,
}

#[derive(Debug)]
pub(super) struct ListenerSocket {
    pub(super) on: Address,
    pub(super) backlog: VecDeque<Id>,
    pub(super) limit: usize,
    pub(super) only_v6: bool,
    pub(super) reuse_port: bool,
    pub(super) send_buffer: Option<usize>,
    pub(super) receive_buffer: Option<usize>,
    /// How many descriptors there are of it.
    pub(super) handles: u32,
}

impl ListenerSocket {
    /// How well it fits a destination: a socket on the very address before one on all of them.
    pub(super) fn fit(&self, to: IpAddr) -> Option<u8> {
        let on = self.on.socket_addr()?.ip();
        fit(on, self.only_v6, to)
    }
}

/// How well a socket bound to `on` fits a destination.
pub(super) fn fit(on: IpAddr, only_v6: bool, to: IpAddr) -> Option<u8> {
    if super::names::plain(on) == super::names::plain(to) {
        return Some(2);
    }
    let dual = on.is_ipv6() && !only_v6;
    (on.is_unspecified() && (on.is_ipv4() == to.is_ipv4() || dual)).then_some(1)
}

/// Whether two sockets on these addresses would get each other's packets.
pub(super) fn overlap((a, a_only): (IpAddr, bool), (b, b_only): (IpAddr, bool)) -> bool {
    let covers = |any: IpAddr, only_v6: bool, one: IpAddr| {
        any.is_unspecified() && (any.is_ipv4() == one.is_ipv4() || any.is_ipv6() && !only_v6)
    };
    a == b || covers(a, a_only, b) || covers(b, b_only, a)
}

/// The pause before attempt `attempt`, twice as long each time, and not the same for all.
pub(super) fn back_off(first: u64, attempt: u32, world: &mut World) -> u64 {
    let time = (first << attempt.min(10)).min(LONGEST);
    time + world.network.below(time / 8 + 1)
}

impl World {
    pub(super) fn tcp(&self, id: Id) -> Option<&TcpSocket> {
        match &self.sock(id)?.kind {
            Kind::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    pub(super) fn tcp_mut(&mut self, id: Id) -> Option<&mut TcpSocket> {
        match &mut self.sock_mut(id)?.kind {
            Kind::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    pub(super) fn listener_mut(&mut self, id: Id) -> Option<&mut ListenerSocket> {
        match &mut self.sock_mut(id)?.kind {
            Kind::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    pub(super) fn host_of(&self, id: Id) -> u32 {
        self.sock(id).map_or(0, |sock| sock.host)
    }

    /// The host at the other end, whether the connection still exists there or not. A Unix socket's
    /// is its own.
    pub(super) fn far_host(&self, id: Id) -> Option<u32> {
        let host = self.host_of(id);
        match self.tcp(id)?.peer.socket_addr() {
            Some(peer) => self.owner_of(peer.ip(), host),
            None => Some(self.home(host)),
        }
    }

    /// The buffers of a new connection: small ones are a fault like any other.
    pub(super) fn new_end(
        &mut self,
        host: u32,
        progress: Progress,
        send: Option<usize>,
        receive: Option<usize>,
    ) -> End {
        let (mut send, mut receive) = (send.unwrap_or(BUFFER), receive.unwrap_or(BUFFER));
        if self.fault(host, Fault::SmallBuffers) {
            let rng = self.dice.of(Fault::SmallBuffers);
            let most = 1 << rng.between(3, 13);
            (send, receive) = (rng.between(1, most) as usize, rng.between(1, most) as usize);
        }
        End::new(progress, send, receive)
    }

    pub(super) fn take_error(&mut self, index: u32) -> Option<io::Error> {
        self.call();
        let id = self.id(index);
        self.tcp_mut(id)?.end.error.take().map(io::Error::from)
    }

    pub(super) fn peer_addr(&self, index: u32) -> io::Result<Address> {
        match self.tcp(self.id(index)) {
            Some(tcp) if tcp.is_connected() && !tcp.end.is_dead() => Ok(tcp.peer.clone()),
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn local_addr(&self, index: u32) -> io::Result<Address> {
        let tcp = self.tcp(self.id(index));
        tcp.map(|tcp| tcp.local.clone()).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    pub(super) fn set_resets_on_close(&mut self, index: u32) {
        self.call();
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.resets_on_close = true;
        }
    }

    pub(super) fn set_buffers(&mut self, index: u32, options: &SocketOptions) {
        self.call();
        if let Some(tcp) = self.tcp_mut(self.id(index)) {
            tcp.end.set_buffers(options.send_buffer, options.receive_buffer);
        }
    }

    /// Whether this socket is ready for these kinds of input or output, and no poll will say so.
    pub(crate) fn is_lost(&self, index: u32, bits: u8) -> bool {
        let Some(sock) = self.sock(self.id(index)) else { return false };
        let Kind::Tcp(tcp) = &sock.kind else { return false };
        !sock.queued
            && sock.token != usize::MAX
            && tcp.bits() & bits != 0
            // Room after a write that was cut for want of memory is reported a little later.
            && !(bits == Ready::WRITABLE && tcp.end.no_space)
    }
}
