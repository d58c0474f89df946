//! Receiving: a batch of datagrams, or a train.

use std::array;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, recvmmsg, recvmsg,
};

use super::{BATCH, DatagramIo, Name};
use crate::sys::datagram::Arrived;
use crate::sys::{SHORT_IO_DRAINS, uninterrupted};

/// The longest train: what an IP packet holds.
const TRAIN: usize = 1 << 16;

/// Room for control messages: a train's segment size takes 24 bytes; the rest is for those that an
/// adopted socket may have switched on besides (time stamps and marks, 200).
const CONTROL: usize = 512;

/// The fewest datagrams a call has room for. Two would do to see that one was the last.
const LEAST: usize = 4;

/// Slots begin at different lines of the processor's cache: of a short datagram only the first
/// lines are touched, and with 65,536 bytes between them all of those would compete for one place.
const SPREAD: usize = 64;

/// Where datagrams arrive. All is made when it is first needed, so that a reactor without UDP does
/// not pay for it.
#[derive(Debug)]
pub(crate) struct Inbox {
    slots: Slots,
    v4: Option<MultiHeaders<SockaddrIn>>,
    v6: Option<MultiHeaders<SockaddrIn6>>,
}

#[derive(Debug)]
struct Slots {
    room: Vec<u8>,
    /// How long a datagram may be; a slot has one byte more: a datagram that fills it was cut.
    most: usize,
    count: usize,
    /// The control messages of a train.
    control: Vec<u8>,
    arrived: Vec<Place>,
}

/// Where in the room a datagram lies, and how long it was as far as is known.
#[derive(Debug)]
struct Place {
    start: usize,
    len: usize,
    from: SocketAddr,
}

impl Inbox {
    /// For datagrams of up to `most` bytes, of which a turn takes `a_turn` from one socket.
    pub(crate) fn new(most: usize, a_turn: usize) -> Self {
        let slots = Slots {
            room: Vec::new(),
            most,
            count: a_turn.min(BATCH),
            control: Vec::new(),
            arrived: Vec::new(),
        };
        Inbox { slots, v4: None, v6: None }
    }

    /// How many datagrams the last call has brought.
    pub(crate) fn len(&self) -> usize {
        self.slots.arrived.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<Arrived<'_>> {
        let Slots { room, most, arrived, .. } = &self.slots;
        let &Place { start, len, from } = arrived.get(index)?;
        Some(Arrived {
            bytes: &room[start..][..len.min(*most)],
            from,
            truncated: len > *most,
            info: None,
        })
    }
}

impl Slots {
    fn make_room(&mut self, len: usize) {
        if self.room.len() < len {
            self.room = vec![0; len];
        }
    }

    /// Receives up to `most` datagrams, which is not zero. Returns whether none is left.
    fn receive_batch<S: Name>(
        &mut self,
        socket: &UdpSocket,
        headers: &mut Option<MultiHeaders<S>>,
        most: usize,
        expected: &mut usize,
    ) -> io::Result<bool> {
        let len = self.most + 1;
        let stride = len.next_multiple_of(SPREAD) + SPREAD;
        self.make_room(self.count * stride);
        let headers = headers.get_or_insert_with(|| MultiHeaders::preallocate(self.count, None));
        let asked = (*expected).clamp(LEAST, BATCH).min(self.count).min(most);
        uninterrupted(|| {
            socket.try_io(|| {
                let mut slots: [_; BATCH] = array::from_fn(|_| [IoSliceMut::new(&mut [])]);
                let slots = &mut slots[..asked];
                for (slot, room) in slots.iter_mut().zip(self.room.chunks_exact_mut(stride)) {
                    *slot = [IoSliceMut::new(&mut room[..len])];
                }
                let came = recvmmsg(socket.as_raw_fd(), headers, slots, MsgFlags::empty(), None)?;
                self.arrived.extend(came.enumerate().filter_map(|(index, message)| {
                    let from = message.address?.into();
                    Some(Place { start: index * stride, len: message.bytes, from })
                }));
                Ok(())
            })
        })?;
        let all_came = self.arrived.len() == asked;
        *expected = if all_came { 2 * asked } else { self.arrived.len().max(*expected / 2) };
        // A call that brings fewer has found the socket empty; or it has found an error, which the
        // system keeps for the next call and has announced by an event.
        Ok(SHORT_IO_DRAINS && !all_came)
    }

    /// Receives a datagram, or a train of them. Returns `false`: whether anything is left is unknown.
    fn receive_train<S: Name>(&mut self, socket: &UdpSocket) -> io::Result<bool> {
        self.make_room(TRAIN);
        self.control.resize(CONTROL, 0);
        let (len, segment, from) = uninterrupted(|| {
            socket.try_io(|| {
                let mut room = [IoSliceMut::new(&mut self.room[..TRAIN])];
                let control = Some(&mut self.control[..]);
                let flags = MsgFlags::empty();
                let message = recvmsg::<S>(socket.as_raw_fd(), &mut room, control, flags)?;
                let segment = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
                    _ => None,
                });
                Ok((message.bytes, segment, message.address))
            })
        })?;
        let Some(from) = from.map(Into::into) else { return Ok(false) };
        let segment = segment.unwrap_or(len).max(1);
        // An empty datagram is one, too.
        for start in (0..len.max(1)).step_by(segment) {
            self.arrived.push(Place { start, len: segment.min(len - start), from });
        }
        Ok(false)
    }
}

impl DatagramIo {
    /// Receives up to `most` datagrams (of a train all, whatever their number). Returns whether
    /// none is left.
    pub(in crate::sys) fn receive(
        &mut self,
        socket: &UdpSocket,
        inbox: &mut Inbox,
        most: usize,
    ) -> io::Result<bool> {
        let Inbox { slots, v4, v6 } = inbox;
        slots.arrived.clear();
        match (self.coalesced, self.kind(socket).v6) {
            (false, false) => slots.receive_batch(socket, v4, most, &mut self.expected),
            (false, true) => slots.receive_batch(socket, v6, most, &mut self.expected),
            (true, false) => slots.receive_train::<SockaddrIn>(socket),
            (true, true) => slots.receive_train::<SockaddrIn6>(socket),
        }
    }
}
