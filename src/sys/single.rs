//! One datagram per call: what every system has.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;

use super::datagram::{Arrived, Outgoing, send_one};
use super::uninterrupted;

/// Moves datagrams; a socket needs no state for that.
#[derive(Debug, Default)]
pub(super) struct DatagramIo {}

/// Nothing is needed to send.
#[derive(Debug, Default)]
pub(crate) struct Outbox {}

/// Buffer for a received datagram. It is allocated with the first one, so that a reactor without UDP
/// does not pay for it.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// One byte more than the limit: a datagram that fills it was cut.
    room: Vec<u8>,
    most: usize,
    arrived: Option<(usize, SocketAddr)>,
}

impl Inbox {
    /// For datagrams of up to `most` bytes.
    pub(crate) fn new(most: usize, _a_turn: usize) -> Self {
        Inbox { room: Vec::new(), most, arrived: None }
    }

    /// How many datagrams the last call received.
    pub(crate) fn len(&self) -> usize {
        usize::from(self.arrived.is_some())
    }

    pub(crate) fn get(&self, index: usize) -> Option<Arrived<'_>> {
        let (n, from) = self.arrived.filter(|_| index == 0)?;
        Some(Arrived {
            bytes: &self.room[..n.min(self.most)],
            from,
            truncated: n > self.most,
            info: None,
        })
    }
}

impl DatagramIo {
    /// Receives a datagram. Returns `false`: whether it was the last one is unknown.
    pub(super) fn receive(
        &mut self,
        socket: &UdpSocket,
        inbox: &mut Inbox,
        _most: usize,
    ) -> io::Result<bool> {
        inbox.arrived = None;
        if inbox.room.is_empty() {
            inbox.room = vec![0; inbox.most + 1];
        }
        inbox.arrived = Some(uninterrupted(|| socket.recv_from(&mut inbox.room))?);
        Ok(false)
    }

    /// Sends the first one of the queue.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        _outbox: &mut Outbox,
        waiting: &VecDeque<Outgoing>,
        bytes: &[u8],
        _most: usize,
    ) -> io::Result<usize> {
        let Some(first) = waiting.front() else { return Ok(0) };
        send_one(socket, &bytes[..first.len], first.to).map(|_| 1)
    }

    /// There are none.
    pub(super) fn receive_trains(&mut self, _socket: &UdpSocket) {}
}
