//! Datagrams with what the system tells of them, through quinn-udp: their local addresses, their ECN
//! marks, when they were received; and the same for those that leave.
//!
//! The calls of `single.rs` and `batch/` are cheaper. A socket uses these only if it asked for them.
//!
//! Of quinn-udp 0.6 three things matter here:
//!
//! - It has 96 bytes for control messages. A train of datagrams that the system hands over as one (GRO)
//!   needs more, and would lose its ECN mark, so that is switched off again.
//! - After one `EINVAL` it takes the system for one that knows no ECN marks, and sends none any more. So
//!   what cannot be sent is refused before the call, and after an `EINVAL` its state is made anew.
//! - It tells of a datagram to a broadcast address that address, and not the own one.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use mio::net::UdpSocket;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Type};

use super::datagram::{Arrived, Mark, Outgoing, send_one};
use super::uninterrupted;
use crate::packet_info::{Ecn, PacketInfo};

/// The most datagrams that one call receives.
const BATCH: usize = 8;

/// The calls for one socket.
#[derive(Debug)]
pub(super) struct Packets {
    state: UdpSocketState,
    v6: bool,
    peer: Option<SocketAddr>,
}

/// Where such datagrams arrive. The room is made when it is first needed; only the pages that datagrams
/// have lain in are memory.
#[derive(Debug)]
pub(super) struct PacketInbox {
    /// The last call was for such a socket.
    pub(super) active: bool,
    /// How long a datagram may be; its room has one byte more: one that fills it was cut.
    most: usize,
    room: Vec<u8>,
    arrived: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    start: usize,
    len: usize,
    from: SocketAddr,
    info: PacketInfo,
}

impl PacketInbox {
    /// For datagrams of up to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        PacketInbox { active: false, most, room: Vec::new(), arrived: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.arrived.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<Arrived<'_>> {
        let &Place { start, len, from, ref info } = self.arrived.get(index)?;
        let bytes = &self.room[start..][..len.min(self.most)];
        Some(Arrived { bytes, from, truncated: len > self.most, info: Some(info) })
    }
}

impl Packets {
    /// Switches on what the system can tell. Forbids it to fragment datagrams, too.
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(socket))?;
        receive_no_trains(socket);
        let v6 = socket.local_addr()?.is_ipv6();
        Ok(Packets { state, v6, peer: socket.peer_addr().ok() })
    }

    /// Receives up to `most` datagrams, which is not zero. Returns `false`: whether anything is left is
    /// unknown.
    pub(super) fn receive(
        &self,
        socket: &UdpSocket,
        inbox: &mut PacketInbox,
        most: usize,
    ) -> io::Result<bool> {
        let PacketInbox { active, most: longest, room, arrived } = inbox;
        *active = true;
        arrived.clear();
        let stride = *longest + 1;
        if room.is_empty() {
            *room = vec![0; BATCH * stride];
        }
        let mut metas = [RecvMeta::default(); BATCH];
        let mut slots = room.chunks_exact_mut(stride);
        let mut slots: [_; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let asked = most.min(BATCH);
        let came = uninterrupted(|| {
            socket.try_io(|| {
                let socket = UdpSockRef::from(socket);
                self.state.recv(socket, &mut slots[..asked], &mut metas[..asked])
            })
        })?;
        arrived.extend(metas[..came].iter().enumerate().map(|(slot, meta)| Place {
            start: slot * stride,
            len: meta.len,
            from: meta.addr,
            info: info_of(meta),
        }));
        Ok(false)
    }

    /// Sends the first one of the queue.
    pub(super) fn send(
        &mut self,
        socket: &UdpSocket,
        waiting: &VecDeque<Outgoing>,
        bytes: &[u8],
    ) -> io::Result<usize> {
        let Some(&Outgoing { to, len, mark }) = waiting.front() else { return Ok(0) };
        let contents = &bytes[..len];
        let destination = match to.or(self.peer) {
            Some(destination) if mark != Mark::default() => destination,
            _ => return send_one(socket, contents, to).map(|_| 1),
        };
        let Mark { local, ecn, is_hint } = mark;
        let ecn = ecn.map(|mark| match mark {
            Ecn::Ect0 => EcnCodepoint::Ect0,
            Ecn::Ect1 => EcnCodepoint::Ect1,
            Ecn::Ce => EcnCodepoint::Ce,
        });
        let transmit = Transmit { destination, ecn, contents, segment_size: None, src_ip: local };
        match self.transmit(socket, &transmit) {
            // An address that the datagram was sent to, and that none can come from: the broadcast
            // address of a network, which does not show by itself.
            Err(e) if is_hint && e.kind() != ErrorKind::WouldBlock => {
                self.transmit(socket, &Transmit { src_ip: None, ..transmit })?;
            }
            sent => sent?,
        }
        Ok(1)
    }

    fn transmit(&mut self, socket: &UdpSocket, it: &Transmit<'_>) -> io::Result<()> {
        let of_family = |ip: IpAddr| ip.is_ipv6() == self.v6;
        if it.destination.port() == 0 {
            return Err(io::Error::new(ErrorKind::InvalidInput, "no datagram goes to port 0"));
        }
        if !of_family(it.destination.ip()) || !it.src_ip.is_none_or(of_family) {
            let what = "the addresses are of another family than the socket";
            return Err(io::Error::new(ErrorKind::InvalidInput, what));
        }
        let sent =
            uninterrupted(|| socket.try_io(|| self.state.try_send(UdpSockRef::from(socket), it)));
        if sent.as_ref().is_err_and(|e| e.kind() == ErrorKind::InvalidInput) {
            self.remember_nothing();
        }
        sent
    }

    /// Makes the state anew, by a socket that is used for nothing else: it sets options of its socket, and
    /// this one's stay as they are.
    fn remember_nothing(&mut self) {
        let domain = if self.v6 { Domain::IPV6 } else { Domain::IPV4 };
        let made = socket2::Socket::new(domain, Type::DGRAM, None)
            .and_then(|socket| UdpSocketState::new(UdpSockRef::from(&socket)));
        match made {
            Ok(state) => self.state = state,
            Err(e) => log::debug!("ECN marks may be left out from now on: {e}"),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn receive_no_trains(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    if let Err(e) = setsockopt(socket, sockopt::UdpGroSegment, &false) {
        log::debug!("this system has no trains of datagrams: {e}");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn receive_no_trains(_: &UdpSocket) {}

fn info_of(meta: &RecvMeta) -> PacketInfo {
    PacketInfo {
        local: meta.dst_ip,
        interface: meta.interface_index,
        ecn: meta.ecn.map(|mark| match mark {
            EcnCodepoint::Ect0 => Ecn::Ect0,
            EcnCodepoint::Ect1 => Ecn::Ect1,
            EcnCodepoint::Ce => Ecn::Ce,
        }),
        received: meta.timestamp.and_then(|time| SystemTime::UNIX_EPOCH.checked_add(time)),
    }
}
