//! What the checks of a simulation ask of a connection.

use super::{Phase, ReadSide, Stream};
use crate::sys::{self, Ready};

impl Stream {
    /// The number of its simulated socket.
    pub(crate) fn simulated(&self) -> Option<u32> {
        match &self.socket {
            sys::Stream::Sim(socket) => Some(socket.index()),
            _ => None,
        }
    }

    /// Whether its bytes go from the socket to the handler as they are.
    pub(crate) fn is_unlayered(&self) -> bool {
        self.wire().is_none() && self.relayed_to().is_none()
    }

    /// Work of it that no event will announce, while it is on no list: an edge that was not used up,
    /// or that the socket has not reported and never will.
    pub(crate) fn forgotten(&self) -> Option<&'static str> {
        if self.is_in_ready() || self.in_dirty {
            return None;
        }
        let lost = |bits| {
            let index = self.simulated()?;
            sys::sim::with(|world| world.is_lost(index, bits))
        };
        let opens = matches!(self.life.phase, Phase::Open);
        let reads = opens && self.life.read == ReadSide::Open && self.may_read();
        if reads && (self.readable || lost(Ready::READABLE) == Some(true)) {
            return Some("input waits");
        }
        if opens && self.may_read() && self.unread_changed && self.unread() > 0 {
            return Some("input that its handler left is to be offered again");
        }
        if opens && self.may_read() && self.wire().is_some_and(|wire| wire.pull) {
            return Some("input waits to be decoded");
        }
        let writes = matches!(self.life.phase, Phase::Open | Phase::Closing);
        if writes && self.output.is_some() {
            if self.writable {
                return Some("output waits, and the socket takes some");
            }
            if lost(Ready::WRITABLE) == Some(true) {
                return Some("output waits, and no edge of its socket is to come");
            }
        }
        if self.output.is_none() && self.takes_values() && self.has_values() {
            return Some("values wait, and nothing will flush them");
        }
        if opens && self.owes_batch_end() {
            return Some("on_batch_end is due");
        }
        if opens && self.drained {
            return Some("on_drain is due");
        }
        None
    }

    /// What is wrong with a call of `on_batch_end` now, if anything is.
    pub(crate) fn batch_end_is_wrong(&self, tick: u64) -> Option<&'static str> {
        if !self.owes_batch_end() {
            return Some("though nobody has asked for it");
        }
        let reads = self.life.read == ReadSide::Open && self.relayed_to().is_none();
        if !reads || !self.may_read() || self.batch_ends_by(tick) {
            return None;
        }
        let lost = |index| sys::sim::with(|world| world.is_lost(index, Ready::READABLE));
        if self.readable || self.simulated().and_then(lost) == Some(true) {
            return Some("though its socket has input");
        }
        let undecoded = self.wire().is_some_and(|wire| wire.pull);
        undecoded.then_some("though its layer has input")
    }

    /// Whether its queue may hold more than the limits allow. One read may take it over its limit.
    pub(crate) fn exceeds_limits(&self, read_buffer: usize) -> bool {
        self.unsent() > self.options().output_limit.saturating_add(read_buffer)
    }
}

impl Stream {
    /// How many sockets it has: one, or those of its attempts to connect.
    pub(crate) fn socket_count(&self) -> usize {
        let attempts = self.extra.as_ref().and_then(|extra| extra.route.as_ref());
        let attempts = attempts.map_or(0, |route| route.attempts.len());
        usize::from(self.simulated().is_some()) + attempts
    }
}
