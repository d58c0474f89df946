//! Datagrams many a call, on Linux and Android: `recvmmsg(2)` and `sendmmsg(2)`; and trains, which
//! are datagrams of one size between the same two sockets that pass through the system as one
//! (GSO and GRO, `UDP_SEGMENT` and `UDP_GRO`, udp(7)).
//!
//! Rules for nix's `MultiHeaders`, which no type enforces:
//!
//! - Those that have received are never used to send, nor the other way round: sending leaves
//!   pointers to the caller's addresses in them, which receiving would write to.
//! - Receiving leaves the length of the last address in them, and what it took of the room for
//!   control messages, as the next call's limits. So there are some for each family of addresses,
//!   and none with control messages is received by: the segment size of `UDP_GRO` is received by `recvmsg(2)`.
//! - Control messages are the call's, not the datagram's. So a call sends trains of one segment
//!   size, to any number of peers.
//! - How many messages were sent shows only by counting the results. Those hold addresses that
//!   were never written; they are not read.

use std::net::SocketAddr;

use mio::net::UdpSocket;
use nix::sys::socket::{SockaddrIn, SockaddrIn6, SockaddrLike, setsockopt, sockopt};

mod receive;
mod send;

pub(crate) use receive::Inbox;
pub(crate) use send::Outbox;

/// The most datagrams, or trains, one call moves: half of what a turn takes from one socket by
/// default. Twice as many would save each datagram a sixty-fourth of a system call, and take twice
/// the room: that is [`Config::datagram_size`](crate::Config::datagram_size) for each, by default
/// 2 MiB in all for one reactor, of which only the pages that datagrams have lain in are memory.
const BATCH: usize = 32;

/// Moves datagrams, and remembers of a socket what that takes.
#[derive(Debug, Default)]
pub(super) struct DatagramIo {
    /// Asked of the system when it is first needed.
    kind: Option<Kind>,
    /// `UDP_GRO` is on, for good: what was joined before it was switched off could not be taken
    /// apart any more.
    coalesced: bool,
    /// Batch size to try next: doubles when the last one was full, else shrinks to what arrived, by half
    /// at most. (The headers of a batch cost 200 instructions, too much for a single datagram.)
    expected: usize,
    /// Datagrams shorter than this leave as trains; `None` if that has not been tried yet.
    segments_below: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Kind {
    v6: bool,
    connected: bool,
}

/// The system's form of an address of one family.
trait Name: SockaddrLike + Copy + Into<SocketAddr> {
    /// `None`: of the other family.
    fn of(address: SocketAddr) -> Option<Self>;
}

impl Name for SockaddrIn {
    fn of(address: SocketAddr) -> Option<Self> {
        match address {
            SocketAddr::V4(address) => Some(address.into()),
            SocketAddr::V6(_) => None,
        }
    }
}

impl Name for SockaddrIn6 {
    fn of(address: SocketAddr) -> Option<Self> {
        match address {
            SocketAddr::V4(_) => None,
            SocketAddr::V6(address) => Some(address.into()),
        }
    }
}

impl DatagramIo {
    /// Lets the system hand over a train as one, where it can.
    pub(super) fn receive_trains(&mut self, socket: &UdpSocket) {
        match setsockopt(socket, sockopt::UdpGroSegment, &true) {
            Ok(()) => self.coalesced = true,
            Err(e) => log::debug!("this system hands over no trains of datagrams: {e}"),
        }
    }

    fn kind(&mut self, socket: &UdpSocket) -> Kind {
        *self.kind.get_or_insert_with(|| Kind {
            v6: socket.local_addr().is_ok_and(|address| address.is_ipv6()),
            connected: socket.peer_addr().is_ok(),
        })
    }
}
