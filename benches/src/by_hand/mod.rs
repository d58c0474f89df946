//! The services for loops that only tell readiness (mio, calloop): one copy of the reading and writing, so that
//! these two peers differ in their loop and in nothing else.

mod chat;
mod outbox;
mod stream;
mod udp;

pub use chat::Chat;
pub use outbox::Outbox;
pub use stream::{Echo, Sink};
pub use udp::{Datagrams, UdpEcho};

use slab::Slab;
use std::io::{self, IoSlice};

/// A non-blocking stream socket, used through a shared reference.
pub trait Socket {
    /// As `std::io::Read::read`.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// As `std::io::Write::write`.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// As `std::io::Write::write_vectored`.
    fn write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// What an edge said.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// There is something to read, or the stream ended or broke.
    pub readable: bool,
    /// The peer ended its side: a short read is no proof any more that the socket is drained.
    pub ended: bool,
}

/// What a service wants with the connection after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Keep it.
    Keep,
    /// Close it.
    Close,
}

/// A connection as the loop stores it.
#[derive(Debug)]
pub struct Peer<S, C> {
    /// The socket, registered once, edge-triggered, for both directions.
    pub socket: S,
    /// What the service keeps for it.
    pub state: C,
}

/// One of the TCP services.
pub trait Service {
    /// What it keeps for each connection.
    type State: Default;

    /// Serves one edge. An error closes the connection.
    fn ready<S: Socket>(
        &mut self,
        key: usize,
        peer: &mut Peer<S, Self::State>,
        ready: Ready,
    ) -> io::Result<Then>;

    /// Called after all events of one poll.
    fn turn_ends<S: Socket>(&mut self, peers: &mut Slab<Peer<S, Self::State>>) {
        let _ = peers;
    }
}

/// What one read gave.
pub(crate) enum Read {
    Bytes(usize),
    End,
    Blocked,
}

pub(crate) fn read_some<S: Socket>(socket: &S, buffer: &mut [u8]) -> io::Result<Read> {
    loop {
        return match socket.read(buffer) {
            Ok(0) => Ok(Read::End),
            Ok(n) => Ok(Read::Bytes(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

/// Runs one write; a full socket took zero bytes.
pub(crate) fn taken(mut write: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        return match write() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other,
        };
    }
}

/// What is known about a socket's unread input between two edges.
#[derive(Debug, Default)]
pub(crate) struct Edge {
    /// The last edge said "readable" and no read has said "drained" since.
    pub(crate) unread: bool,
    ended: bool,
}

impl Edge {
    pub(crate) fn note(&mut self, ready: Ready) {
        self.unread |= ready.readable;
        self.ended |= ready.ended;
    }

    /// A read shorter than its buffer emptied the socket, unless the end of the stream lies behind the bytes.
    pub(crate) fn after_read(&mut self, read: &Read, room: usize) {
        self.unread = match read {
            Read::Bytes(n) => *n == room || self.ended,
            Read::End | Read::Blocked => false,
        };
    }
}
