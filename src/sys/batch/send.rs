//! Sending: a batch of datagrams and trains.

use std::collections::{VecDeque, vec_deque};
use std::io::{self, IoSlice};
use std::iter::Peekable;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, SockaddrIn6, getsockopt, sendmmsg, sockopt,
};

use super::{BATCH, DatagramIo, Kind, Name};
use crate::sys::datagram::{Outgoing, send_one};
use crate::sys::uninterrupted;

/// The most datagrams one train holds (`UDP_MAX_SEGMENTS`; newer systems take 128).
const SEGMENTS: usize = 64;

/// The most bytes one train holds: what UDP carries over IPv4.
const TRAIN: usize = 65_507;

/// What sending works in. All is made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    v4: Option<Box<Headers<SockaddrIn>>>,
    v6: Option<Box<Headers<SockaddrIn6>>>,
}

#[derive(Debug)]
struct Headers<S> {
    plain: MultiHeaders<S>,
    /// With room for the segment size.
    trains: MultiHeaders<S>,
    names: Vec<Option<S>>,
}

/// What one call may take.
#[derive(Debug, Clone, Copy)]
struct Limits {
    messages: usize,
    segments_below: usize,
}

type Queue<'a> = Peekable<vec_deque::Iter<'a, Outgoing>>;

/// What leaves as one message: a datagram, or a train of datagrams that follow one another to one
/// destination and have one size, but for the last one, which may be shorter.
#[derive(Debug, Clone, Copy)]
struct Train {
    to: Option<SocketAddr>,
    segment: usize,
    len: usize,
    count: usize,
}

impl Train {
    /// Takes the longest one that the queue begins with.
    fn next(queue: &mut Queue<'_>, segments_below: usize) -> Option<Train> {
        let &Outgoing { to, len, .. } = queue.next()?;
        let mut train = Train { to, segment: len, len, count: 1 };
        if len == 0 || len >= segments_below {
            return Some(train);
        }
        while train.count < SEGMENTS {
            let joins = |next: &&Outgoing| {
                next.to == to && (1..=len).contains(&next.len) && train.len + next.len <= TRAIN
            };
            let Some(next) = queue.next_if(joins) else { break };
            train.len += next.len;
            train.count += 1;
            if next.len < len {
                break;
            }
        }
        Some(train)
    }

    fn is_single(&self) -> bool {
        self.count == 1
    }

    /// Whether it may leave with the same call, which has one segment size for all.
    fn goes_with(&self, first: &Train) -> bool {
        if first.is_single() {
            self.is_single()
        } else if self.is_single() {
            self.len <= first.segment
        } else {
            self.segment == first.segment
        }
    }
}

/// What leaves with one call.
struct Batch<'a> {
    messages: [[IoSlice<'a>; 1]; BATCH],
    /// How many datagrams each message is.
    counts: [usize; BATCH],
    len: usize,
    /// The size of its trains' segments, if it has any.
    segment: Option<u16>,
}

impl<'a> Batch<'a> {
    /// Takes up to `most` messages that the queue begins with, whose datagrams are `bytes`, and
    /// their addresses, as far as those are of this family.
    fn gather<S: Name>(
        mut queue: Queue<'_>,
        mut bytes: &'a [u8],
        names: &mut Vec<Option<S>>,
        limits: Limits,
    ) -> Self {
        let messages = [[IoSlice::new(&[])]; BATCH];
        let mut batch = Batch { messages, counts: [0; BATCH], len: 0, segment: None };
        let mut first = None;
        names.clear();
        while batch.len < limits.messages {
            let mut behind = queue.clone();
            let Some(train) = Train::next(&mut behind, limits.segments_below) else { break };
            let first = first.get_or_insert(train);
            let name = train.to.map(S::of);
            if !train.goes_with(first) || name.is_some_and(|name| name.is_none()) {
                break;
            }
            if !train.is_single() {
                batch.segment = u16::try_from(train.segment).ok();
            }
            let (message, rest) = bytes.split_at(train.len);
            batch.messages[batch.len] = [IoSlice::new(message)];
            batch.counts[batch.len] = train.count;
            batch.len += 1;
            names.push(name.flatten());
            bytes = rest;
            queue = behind;
        }
        batch
    }

    fn datagrams(&self, messages: usize) -> usize {
        self.counts[..messages].iter().sum()
    }
}

impl<S: Name> Headers<S> {
    fn new() -> Box<Self> {
        Box::new(Headers {
            plain: MultiHeaders::preallocate(BATCH, None),
            trains: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(u16))),
            names: Vec::with_capacity(BATCH),
        })
    }

    /// Returns how many datagrams were sent; none if the first one has to be sent by itself. An error is
    /// the first message's.
    fn send(
        &mut self,
        socket: &UdpSocket,
        queue: Queue<'_>,
        bytes: &[u8],
        limits: Limits,
    ) -> io::Result<usize> {
        let Headers { plain, trains, names } = self;
        let batch = Batch::gather(queue, bytes, names, limits);
        if batch.datagrams(batch.len) <= 1 {
            return Ok(0);
        }
        let messages = &batch.messages[..batch.len];
        let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
        let sent = uninterrupted(|| {
            socket.try_io(|| {
                Ok(match &batch.segment {
                    None => sendmmsg(fd, plain, messages, &names[..], [], flags)?.count(),
                    Some(size) => {
                        let size = [ControlMessage::UdpGsoSegments(size)];
                        sendmmsg(fd, trains, messages, &names[..], size, flags)?.count()
                    }
                })
            })
        })?;
        Ok(batch.datagrams(sent))
    }
}

impl DatagramIo {
    /// Sends from the front of the queue what one call takes, up to `most`.
    pub(in crate::sys) fn send(
        &mut self,
        socket: &UdpSocket,
        outbox: &mut Outbox,
        waiting: &VecDeque<Outgoing>,
        bytes: &[u8],
        most: usize,
    ) -> io::Result<usize> {
        let Some(&Outgoing { to, len, .. }) = waiting.front() else { return Ok(0) };
        let alone = || send_one(socket, &bytes[..len], to).map(|_| 1);
        let most = most.min(waiting.len());
        if most == 1 {
            return alone();
        }
        let Kind { v6, connected } = self.kind(socket);
        let limits = Limits {
            // An error in the middle of a batch is not returned: the next call begins with that
            // message and fails again. But a pending error is lost then. Only connected sockets have
            // those, so they send one message a call, which mostly is a train.
            messages: if connected { 1 } else { BATCH },
            segments_below: self.segments_below(socket),
        };
        let queue = || waiting.range(..most).peekable();
        let sent = if v6 {
            outbox.v6.get_or_insert_with(Headers::new).send(socket, queue(), bytes, limits)
        } else {
            outbox.v4.get_or_insert_with(Headers::new).send(socket, queue(), bytes, limits)
        };
        match sent {
            Ok(0) => alone(),
            Err(e) if is_about_trains(&e) && starts_with_train(queue(), limits) => {
                // If the datagram leaves by itself, the train was to blame.
                let sent = alone()?;
                self.give_up_trains(&e, len);
                Ok(sent)
            }
            sent => sent,
        }
    }

    /// Datagrams shorter than this are sent as trains. A system that does not know trains would
    /// take one for a single large datagram (Linux before 4.18), so it is asked first.
    fn segments_below(&mut self, socket: &UdpSocket) -> usize {
        *self.segments_below.get_or_insert_with(|| {
            match getsockopt(socket, sockopt::UdpGsoSegment) {
                Ok(_) => usize::MAX,
                Err(e) => {
                    log::debug!("this system sends no trains of datagrams: {e}");
                    0
                }
            }
        })
    }

    /// A train was refused, its datagrams are not: they are too long for the path unfragmented, or this
    /// socket cannot send trains.
    fn give_up_trains(&mut self, error: &io::Error, segment: usize) {
        let below = if error.raw_os_error() == Some(Errno::EIO as i32) { 0 } else { segment };
        log::debug!("datagrams of {below} bytes and more leave one by one: {error}");
        self.segments_below = Some(below);
    }
}

fn starts_with_train(mut queue: Queue<'_>, limits: Limits) -> bool {
    Train::next(&mut queue, limits.segments_below).is_some_and(|first| !first.is_single())
}

/// Whether an error may refuse the train and not the datagram: no way to do it (EIO), or
/// longer than the path takes whole (EMSGSIZE, EINVAL before Linux 6.14).
fn is_about_trains(error: &io::Error) -> bool {
    let errors = [Errno::EIO, Errno::EMSGSIZE, Errno::EINVAL];
    errors.iter().any(|&known| error.raw_os_error() == Some(known as i32))
}
