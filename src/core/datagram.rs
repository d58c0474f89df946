//! UDP sockets: the send queue, the errors to report, the end.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Core, Entity};
use crate::connection::SendStatus;
use crate::error::{CloseReason, DatagramError, Error};
use crate::packet_info::PacketInfo;
#[cfg(feature = "packet-info")]
use crate::packet_info::SendTo;
use crate::socket_options::MulticastInterface;
use crate::sys::{self, Mark, Outgoing};
use crate::timer::Chain;
use crate::token::Token;

/// How many errors are kept for the handler; more are logged at debug level and dropped.
const ERRORS_KEPT: usize = 64;

/// One UDP socket.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    pub(crate) socket: sys::Datagram,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The handler has paused receiving.
    pub(crate) paused: bool,
    /// The queue: the bytes of the datagrams one after the other, behind `gone` bytes of datagrams that
    /// have left, and the destination and length of each.
    bytes: Vec<u8>,
    gone: usize,
    waiting: VecDeque<Outgoing>,
    limit: usize,
    /// A send was refused, by the system or by the queue's limit, since the queue was last empty.
    blocked: bool,
    /// `on_drain` is pending.
    pub(crate) drained: bool,
    pub(crate) errors: VecDeque<DatagramError>,
    pub(crate) timers: Chain,
    /// `on_open` has been called.
    pub(crate) opened: bool,
    /// It is on the list of those with work left.
    pub(crate) in_ready: bool,
    /// It is on the dirty list, to be flushed at the end of the turn.
    in_dirty: bool,
    /// Until this tick no further warning about errors of `on_datagram`.
    pub(crate) silent_until: u64,
    /// A deadline has come between errors or the drain and the input: that comes first next time.
    pub(crate) input_first: bool,
    /// The rest of a batch that arrived when the time of a turn was up: it is offered first.
    pub(crate) put_off: VecDeque<PutOff>,
    pub(crate) dead: bool,
    /// It was asked to tell what the system knows of each datagram.
    #[cfg(feature = "packet-info")]
    pub(crate) has_packet_info: bool,
    /// It is bound to the unspecified address and tells to which one each datagram was sent.
    #[cfg(feature = "packet-info")]
    pub(crate) has_any_address: bool,
    /// Datagrams that the system took, and those that it refused, since they were counted last.
    sent: u64,
    dropped: u64,
}

/// A datagram that has been received and not offered.
#[derive(Debug)]
pub(crate) struct PutOff {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) from: SocketAddr,
    pub(crate) truncated: bool,
    pub(crate) info: Option<PacketInfo>,
}

impl From<sys::Arrived<'_>> for PutOff {
    fn from(arrived: sys::Arrived<'_>) -> Self {
        let sys::Arrived { bytes, from, truncated, info } = arrived;
        PutOff { bytes: bytes.into(), from, truncated, info: info.copied() }
    }
}

impl DatagramSocket {
    pub(crate) fn new(socket: sys::Datagram, limit: usize) -> Self {
        DatagramSocket {
            socket,
            readable: false,
            writable: true,
            paused: false,
            bytes: Vec::new(),
            gone: 0,
            waiting: VecDeque::new(),
            limit,
            blocked: false,
            drained: false,
            errors: VecDeque::new(),
            timers: Chain::default(),
            opened: false,
            in_ready: false,
            in_dirty: false,
            silent_until: 0,
            input_first: false,
            put_off: VecDeque::new(),
            dead: false,
            sent: 0,
            dropped: 0,
            #[cfg(feature = "packet-info")]
            has_packet_info: false,
            #[cfg(feature = "packet-info")]
            has_any_address: false,
        }
    }

    /// Lets the system tell of each datagram what it knows.
    #[cfg(feature = "packet-info")]
    pub(crate) fn ask_for_packet_info(&mut self) -> io::Result<()> {
        self.socket.ask_for_packet_info()?;
        self.has_packet_info = true;
        self.has_any_address = self.socket.local_addr()?.ip().is_unspecified();
        Ok(())
    }

    /// Records an edge. The flags stay until a call uses them up: an edge is reported once.
    pub(crate) fn note(&mut self, ready: sys::Ready) {
        self.readable |= ready.has(sys::Ready::READABLE | sys::Ready::ERROR);
        self.writable |= ready.has(sys::Ready::WRITABLE | sys::Ready::ERROR);
    }

    /// Whether datagrams are known to wait, or may.
    pub(crate) fn has_known_input(&self) -> bool {
        self.readable || !self.put_off.is_empty()
    }

    /// Whether there is something to tell the handler beside datagrams.
    pub(crate) fn has_news(&self) -> bool {
        !self.dead && (self.drained || !self.errors.is_empty())
    }

    pub(crate) fn queued(&self) -> usize {
        self.bytes.len() - self.gone
    }

    /// Whether a datagram of `len` bytes fits into the queue. Empty ones take room too.
    #[inline]
    pub(crate) fn has_room_for(&self, len: usize) -> bool {
        self.queued().max(self.waiting.len()) + len.max(1) <= self.limit
    }

    /// Whether `on_drain` follows once the queue is empty.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// How many bytes are queued for a peer.
    pub(crate) fn queued_for(&self, peer: SocketAddr) -> usize {
        self.waiting.iter().filter(|d| d.to == Some(peer)).map(|d| d.len).sum()
    }

    /// Drops what is queued for a peer, or all. Returns how many bytes that were. Costs a pass over the
    /// queue, and nothing if it is empty.
    pub(crate) fn clear(&mut self, peer: Option<SocketAddr>) -> usize {
        let before = self.queued();
        let (mut read, mut write) = (self.gone, self.gone);
        self.waiting.retain(|&Outgoing { to, len, .. }| {
            let stays = peer.is_some() && to != peer;
            if stays {
                self.bytes.copy_within(read..read + len, write);
                write += len;
            }
            read += len;
            stays
        });
        self.bytes.truncate(write);
        self.took_from_queue();
        before - self.queued()
    }

    /// Datagrams have left the queue: gives back their room, and notes if it is empty now.
    #[inline]
    fn took_from_queue(&mut self) {
        // The rest moves to the front once it is the smaller part: each byte moves once on average.
        if 2 * self.gone >= self.bytes.len() {
            self.bytes.drain(..self.gone);
            self.gone = 0;
        }
        if self.waiting.is_empty() {
            self.drained |= std::mem::take(&mut self.blocked);
        }
    }

    pub(crate) fn report(&mut self, error: DatagramError) {
        if self.errors.len() < ERRORS_KEPT {
            self.errors.push_back(error);
        } else {
            log::debug!("more errors on a UDP socket than its handler takes: {error}");
        }
    }

    /// How many were sent, and how many the system refused, since the last call.
    fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.dropped))
    }

    /// The same, not taken.
    pub(crate) fn uncounted(&self) -> (u64, u64) {
        (self.sent, self.dropped)
    }

    /// Whether more could be sent at once.
    pub(crate) fn has_more(&self) -> bool {
        self.writable && !self.waiting.is_empty()
    }

    /// Sends from the queue what the system takes, up to `most` datagrams.
    pub(crate) fn flush(&mut self, outbox: &mut sys::Outbox, most: usize) {
        let mut left = most;
        // A pending error belongs to an earlier datagram, and the system has not tried to send this
        // one: each is tried twice.
        let mut tried = false;
        while let Some(&Outgoing { to, .. }) = self.waiting.front() {
            if !self.writable || left == 0 {
                break;
            }
            let bytes = &self.bytes[self.gone..];
            let finished = match self.socket.send(outbox, &self.waiting, bytes, left) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.blocked = true;
                    break;
                }
                Err(error) => {
                    let pending = is_pending(error.kind(), to.is_none());
                    self.report(DatagramError::System {
                        error,
                        to: if pending { None } else { to },
                    });
                    if pending && !tried {
                        tried = true;
                        continue;
                    }
                    self.dropped += 1;
                    1
                }
                Ok(sent) => {
                    self.sent += sent as u64;
                    sent
                }
            };
            tried = false;
            left -= finished;
            for _ in 0..finished {
                self.gone += self.waiting.pop_front().map_or(0, |datagram| datagram.len);
            }
        }
        self.took_from_queue();
    }
}

/// Whether an error of a send may be an ICMP error about an earlier datagram. Most of those become
/// pending on connected sockets only.
fn is_pending(kind: io::ErrorKind, connected: bool) -> bool {
    use io::ErrorKind as Kind;
    kind == Kind::ConnectionRefused
        || connected && matches!(kind, Kind::HostUnreachable | Kind::NetworkUnreachable)
}

impl Core {
    /// Queues a datagram; it leaves when the callback returns, or at the end of the turn.
    pub(crate) fn send_datagram(
        &mut self,
        token: Token,
        to: Option<SocketAddr>,
        bytes: &[u8],
    ) -> SendStatus {
        self.send_marked(token, to, Mark::default(), bytes)
    }

    /// The same, from a given address or with an ECN mark.
    #[inline]
    pub(crate) fn send_marked(
        &mut self,
        token: Token,
        to: Option<SocketAddr>,
        mark: Mark,
        bytes: &[u8],
    ) -> SendStatus {
        let current = self.work.current == Some(token);
        let Some(socket) = self.datagram_mut(token) else { return SendStatus::Gone };
        if socket.dead {
            return SendStatus::Gone;
        }
        if !socket.has_room_for(bytes.len()) {
            // A sender that is refused because of the queue gets `on_drain`.
            socket.blocked |= !socket.waiting.is_empty();
            self.work.counts.datagrams_dropped += 1;
            return SendStatus::Full;
        }
        socket.bytes.extend_from_slice(bytes);
        socket.waiting.push_back(Outgoing { to, len: bytes.len(), mark });
        if !current && !std::mem::replace(&mut socket.in_dirty, true) {
            self.work.dirty.push(token);
        }
        SendStatus::Queued
    }

    /// The same, for a user's choice of these, which only a socket with packet information can have.
    #[cfg(feature = "packet-info")]
    pub(crate) fn send_chosen(&mut self, token: Token, to: SendTo, bytes: &[u8]) -> SendStatus {
        let SendTo { to, mark } = to;
        let can = self.datagram(token).is_none_or(|socket| socket.has_packet_info);
        if mark != Mark::default() && !can {
            log::debug!("{token}: an address or a mark was chosen, and `Udp::packet_info` is off");
            return SendStatus::Unencodable;
        }
        self.send_marked(token, to, mark, bytes)
    }

    /// A `send` to something that is no stream.
    pub(crate) fn send_elsewhere(&mut self, token: Token, bytes: &[u8]) -> SendStatus {
        match self.entity(token) {
            Some(Entity::Session(_)) => self.send_to_session(token, bytes),
            // It has no peer of its own.
            Some(Entity::SessionSocket(_)) => SendStatus::Gone,
            _ => self.send_datagram(token, None, bytes),
        }
    }

    /// Sends from the queue up to the budget; the rest is sent in the next turn, which begins at once.
    pub(crate) fn flush_datagrams(&mut self, token: Token) {
        let most = self.work.sends_at_once;
        let Some((socket, outbox)) = self.datagram_and_outbox(token) else { return };
        socket.in_dirty = false;
        if socket.dead {
            return;
        }
        socket.flush(outbox, most);
        let more = socket.has_more();
        let news = socket.drained || !socket.errors.is_empty();
        let (sent, dropped) = socket.take_counts();
        self.work.counts.datagrams_sent += sent;
        self.work.counts.datagrams_dropped += dropped;
        if news {
            self.make_ready(token);
        } else if more {
            self.send_more(token);
        }
    }

    /// More could be sent: by a turn with a deadline, in pieces, until that has passed. What is above the
    /// budget is sent in the next turn.
    #[cold]
    fn send_more(&mut self, token: Token) {
        let mut left = self.work.sends_per_turn.saturating_sub(self.work.sends_at_once);
        let mut news = false;
        while left > 0 && !news && self.work.keeps_deadline() && !self.work.is_late() {
            let most = left.min(self.work.sends_at_once);
            let Some((socket, outbox)) = self.datagram_and_outbox(token) else { return };
            socket.flush(outbox, most);
            news = socket.drained || !socket.errors.is_empty();
            let more = socket.has_more();
            let (sent, dropped) = socket.take_counts();
            self.work.counts.datagrams_sent += sent;
            self.work.counts.datagrams_dropped += dropped;
            if !more && !news {
                return;
            }
            left -= most;
        }
        if news {
            self.make_ready(token);
        } else {
            self.make_ready_later(token);
        }
    }

    /// A UDP socket ends: sends the queue, unless it was aborted, and closes the socket, which frees
    /// its address. Only `on_close` is called after this, so an error of this last flush, or a queue
    /// that the system did not take, becomes the reason.
    pub(crate) fn close_datagram(&mut self, token: Token, reason: CloseReason) -> CloseReason {
        let Core { sys, table, outbox, work, .. } = self;
        let socket = match table.entity_mut(token) {
            Some(Entity::Datagram(socket)) => &mut **socket,
            Some(Entity::SessionSocket(owner)) => &mut owner.socket,
            _ => return reason,
        };
        socket.errors.clear(); // `on_error` is not called any more
        if !matches!(reason, CloseReason::Aborted) {
            socket.flush(outbox, usize::MAX);
        }
        let (sent, dropped) = socket.take_counts();
        work.counts.datagrams_sent += sent;
        work.counts.datagrams_dropped += dropped + socket.waiting.len() as u64;
        sys.deregister(&mut socket.socket, false);
        socket.socket.close();
        if !reason.is_orderly() {
            return reason;
        }
        let failed = socket.errors.pop_front();
        match failed {
            Some(DatagramError::System { error, .. }) => CloseReason::Io(error),
            _ if socket.queued() > 0 || !socket.waiting.is_empty() => {
                let what = "the system took no more of the datagrams that waited";
                CloseReason::Io(io::Error::new(io::ErrorKind::WouldBlock, what))
            }
            _ => reason,
        }
    }

    /// Joins or leaves a multicast group.
    pub(crate) fn multicast(
        &mut self,
        token: Token,
        group: IpAddr,
        interface: MulticastInterface,
        join: bool,
    ) -> Result<(), Error> {
        let what = || format!("cannot {} {group}", if join { "join" } else { "leave" });
        let Some(socket) = self.datagram(token) else {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the token names no UDP socket");
            return Err(Error::new(what(), gone));
        };
        socket.socket.multicast(group, interface, join).map_err(|e| Error::new(what(), e))
    }
}
