//! Datagrams with what the system tells of them, through quinn-udp: their local addresses, their ECN
//! marks, when they were received; and the same for those that leave.
//!
//! The calls of `single.rs` and `batch/` are cheaper. A socket uses these only if it asked for them.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::time::SystemTime;

use mio::net::UdpSocket;
use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};

use super::datagram::{Arrived, Mark, Outgoing, send_one};
use super::uninterrupted;
use crate::packet_info::{Ecn, PacketInfo};

/// The most messages that one call receives. Each has room for a train of datagrams, because the system
/// hands those over as one (GRO).
const BATCH: usize = 8;

/// The longest train: what an IP packet holds.
const TRAIN: usize = 1 << 16;

/// The calls for one socket.
#[derive(Debug)]
pub(super) struct Packets {
    state: UdpSocketState,
    peer: Option<SocketAddr>,
}

/// Where such datagrams arrive. The room, 512 KiB, is made when it is first needed; only the pages that
/// datagrams have lain in are memory.
#[derive(Debug, Default)]
pub(super) struct PacketInbox {
    /// The last call was for such a socket.
    pub(super) active: bool,
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
    pub(super) fn len(&self) -> usize {
        self.arrived.len()
    }

    pub(super) fn get(&self, index: usize, most: usize) -> Option<Arrived<'_>> {
        let &Place { start, len, from, ref info } = self.arrived.get(index)?;
        let bytes = &self.room[start..][..len.min(most)];
        Some(Arrived { bytes, from, truncated: len > most, info: Some(info) })
    }
}

impl Packets {
    /// Switches on what the system can tell. Forbids it to fragment datagrams, too.
    pub(super) fn new(socket: &UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(socket))?;
        Ok(Packets { state, peer: socket.peer_addr().ok() })
    }

    /// Receives up to `most` messages, which is not zero: datagrams, or trains of up to 64. Returns
    /// `false`: whether anything is left is unknown.
    pub(super) fn receive(
        &self,
        socket: &UdpSocket,
        inbox: &mut PacketInbox,
        most: usize,
    ) -> io::Result<bool> {
        inbox.active = true;
        inbox.arrived.clear();
        if inbox.room.is_empty() {
            inbox.room = vec![0; BATCH * TRAIN];
        }
        let mut metas = [RecvMeta::default(); BATCH];
        let mut slots = inbox.room.chunks_exact_mut(TRAIN);
        let mut slots: [_; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(slots.next().unwrap_or_default()));
        let asked = most.min(BATCH);
        let came = uninterrupted(|| {
            let socket = UdpSockRef::from(socket);
            self.state.recv(socket, &mut slots[..asked], &mut metas[..asked])
        })?;
        for (slot, meta) in metas[..came].iter().enumerate() {
            let info = info_of(meta);
            let segment = meta.stride.max(1);
            // An empty datagram is one, too.
            for start in (0..meta.len.max(1)).step_by(segment) {
                let len = segment.min(meta.len - start);
                inbox.arrived.push(Place {
                    start: slot * TRAIN + start,
                    len,
                    from: meta.addr,
                    info,
                });
            }
        }
        Ok(false)
    }

    /// Sends the first one of the queue.
    pub(super) fn send(
        &self,
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
        let Mark { local, ecn } = mark;
        let ecn = ecn.map(|mark| match mark {
            Ecn::Ect0 => EcnCodepoint::Ect0,
            Ecn::Ect1 => EcnCodepoint::Ect1,
            Ecn::Ce => EcnCodepoint::Ce,
        });
        let it = Transmit { destination, ecn, contents, segment_size: None, src_ip: local };
        uninterrupted(|| self.state.try_send(UdpSockRef::from(socket), &it)).map(|()| 1)
    }
}

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
