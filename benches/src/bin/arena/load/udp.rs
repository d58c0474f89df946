//! UDP: every datagram that comes back must be one that is on its way. Batched system calls keep the generator ahead
//! of the servers.

use super::pattern::Pattern;
use super::{Budget, Load, Tally};
use crate::Result;
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// A datagram that is not back after this long was dropped: loopback delivers within the call.
const LOST: Duration = Duration::from_millis(200);

/// The position in the pattern comes first, so that an answer tells which datagram it answers.
const HEADER: usize = 8;

pub struct Udp {
    poll: Poll,
    events: Events,
    sockets: Vec<Socket>,
    size: usize,
    pattern: Pattern,
    /// The segment size, if all that a socket has to send leaves as one train.
    train: Option<u16>,
    headers: MultiHeaders<SockaddrIn>,
    received: Vec<Vec<u8>>,
}

struct Socket {
    socket: UdpSocket,
    /// One for each datagram on its way, `depth` of them.
    slots: Vec<Slot>,
    sent: u64,
}

struct Slot {
    message: Vec<u8>,
    position: u64,
    since: Option<Instant>,
}

impl Udp {
    pub fn new(addr: SocketAddr, sockets: usize, depth: usize, size: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut opened = Vec::with_capacity(sockets);
        for index in 0..sockets {
            let mut socket = UdpSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            socket.connect(addr)?;
            poll.registry().register(&mut socket, Token(index), Interest::READABLE)?;
            let slot = || Slot { message: vec![0; size], position: 0, since: None };
            let slots = std::iter::repeat_with(slot).take(depth).collect();
            opened.push(Socket { socket, slots, sent: 0 });
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(64),
            sockets: opened,
            size,
            pattern: Pattern::new(),
            train: None,
            headers: MultiHeaders::preallocate(depth, None),
            // One byte longer than a message, so that a longer answer shows.
            received: vec![vec![0; size + 1]; depth],
        })
    }

    pub fn in_trains(mut self) -> Result<Self> {
        self.train = Some(self.size.try_into()?);
        Ok(self)
    }

    /// Sends a new datagram from each free slot of a socket; returns how many.
    fn fill(&mut self, index: usize) -> Result<u64> {
        let Socket { socket, slots, sent } = &mut self.sockets[index];
        let now = Instant::now();
        let mut fresh = Vec::with_capacity(slots.len());
        for slot in slots.iter_mut().filter(|slot| slot.since.is_none()) {
            slot.position = *sent;
            slot.since = Some(now);
            slot.message[..HEADER].copy_from_slice(&sent.to_le_bytes());
            slot.message[HEADER..].copy_from_slice(self.pattern.at(*sent, self.size - HEADER));
            *sent += 1;
            fresh.push([IoSlice::new(&slot.message)]);
        }
        let mut left = 0;
        while left < fresh.len() {
            let none = vec![None; fresh.len() - left];
            let flags = MsgFlags::empty();
            let fd = socket.as_raw_fd();
            let sent = match &self.train {
                Some(size) => {
                    let size = [ControlMessage::UdpGsoSegments(size)];
                    sendmsg::<()>(fd, fresh.as_flattened(), &size, flags, None).map(|_| fresh.len())
                }
                None => sendmmsg(fd, &mut self.headers, &fresh[left..], none, [], flags)
                    .map(Iterator::count),
            };
            match sent {
                Ok(count) => left += count,
                // The send buffer holds far more than a window: what fills it leaves within the same call.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(fresh.len() as u64)
    }

    /// Takes what came back to a socket, and checks it.
    fn drain(&mut self, index: usize, tally: &mut Tally) -> Result<()> {
        let Socket { socket, slots, .. } = &mut self.sockets[index];
        loop {
            let mut room: Vec<_> =
                self.received.iter_mut().map(|bytes| [IoSliceMut::new(bytes)]).collect();
            let capacity = room.len();
            let fd = socket.as_raw_fd();
            let lengths: Vec<_> =
                match recvmmsg(fd, &mut self.headers, &mut room, MsgFlags::empty(), None) {
                    Ok(results) => results.map(|result| result.bytes).collect(),
                    Err(Errno::EAGAIN) => return Ok(()),
                    Err(Errno::EINTR) => continue,
                    Err(error) => return Err(error.into()),
                };
            let now = Instant::now();
            for (bytes, &len) in self.received.iter().zip(&lengths) {
                let (header, rest) = bytes[..len].split_at_checked(HEADER).ok_or("too short")?;
                let position = u64::from_le_bytes(header.try_into()?);
                if len != self.size || !self.pattern.matches(position, rest) {
                    return Err("a datagram came back changed".into());
                }
                // One that was given up for lost has no slot any more.
                let slot = slots.iter_mut().find(|slot| slot.position == position);
                if let Some(since) = slot.and_then(|slot| slot.since.take()) {
                    tally.answered(since, now);
                }
            }
            if lengths.len() < capacity {
                return Ok(());
            }
        }
    }

    fn give_up_late(&mut self, now: Instant, tally: &mut Tally) {
        for slot in self.sockets.iter_mut().flat_map(|socket| &mut socket.slots) {
            if slot.since.is_some_and(|since| now - since > LOST) {
                slot.since = None;
                tally.lost += 1;
            }
        }
    }
}

impl Load for Udp {
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let mut sent = 0;
        for index in 0..self.sockets.len() {
            sent += self.fill(index)?;
        }
        while tally.messages + tally.lost < sent {
            self.poll.poll(&mut self.events, Some(LOST))?;
            let ready: Vec<_> = self.events.iter().map(|event| event.token().0).collect();
            let now = Instant::now();
            for &index in &ready {
                self.drain(index, tally)?;
                if !budget.spent(sent, now) {
                    sent += self.fill(index)?;
                }
            }
            if ready.is_empty() {
                self.give_up_late(now, tally);
            }
        }
        Ok(())
    }
}
