//! What one connection has moved, for [`Net::connection_stats`](crate::Net::connection_stats). Only
//! those that were asked to count have it, in their box of rare things; a connection that counts is not
//! a plain one and takes the general steps.

use std::time::{Duration, Instant};

use super::{Conn, SendStatus, Stream};
use crate::layer::MessageKind;
use crate::stats::ConnectionStats;

#[derive(Debug)]
pub(super) struct Tally {
    /// When it began to count, and when a byte last moved.
    since: Instant,
    moved: Instant,
    bytes_received: u64,
    bytes_sent: u64,
    messages_received: u64,
    messages_sent: u64,
    messages_replaced: u64,
    messages_dropped: u64,
    queued_peak: usize,
}

impl Tally {
    fn new(now: Instant) -> Box<Self> {
        Box::new(Tally {
            since: now,
            moved: now,
            bytes_received: 0,
            bytes_sent: 0,
            messages_received: 0,
            messages_sent: 0,
            messages_replaced: 0,
            messages_dropped: 0,
            queued_peak: 0,
        })
    }

    pub(super) fn received(&mut self, bytes: usize, now: Instant) {
        self.bytes_received += bytes as u64;
        self.moved = now;
    }

    pub(super) fn sent(&mut self, bytes: usize, now: Instant) {
        self.bytes_sent += bytes as u64;
        self.moved = now;
    }

    /// A message that a layer has decoded, or a piece of input.
    pub(super) fn message_received(&mut self) {
        self.messages_received += 1;
    }

    pub(super) fn queue_is(&mut self, queued: usize) {
        self.queued_peak = self.queued_peak.max(queued);
    }
}

impl Stream {
    pub(super) fn tally_mut(&mut self) -> Option<&mut Tally> {
        self.extra.as_mut()?.tally.as_deref_mut()
    }

    /// Whether it counts what it moves.
    #[inline]
    pub(crate) fn has_tally(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.tally.is_some())
    }

    /// What it has counted; `queued` is what waits to be written now.
    pub(crate) fn stats(&self, queued: usize, now: Instant) -> Option<ConnectionStats> {
        let tally = self.extra.as_ref()?.tally.as_ref()?;
        let since = |then: Instant| now.checked_duration_since(then).unwrap_or(Duration::ZERO);
        Some(ConnectionStats {
            bytes_received: tally.bytes_received,
            bytes_sent: tally.bytes_sent,
            messages_received: tally.messages_received,
            messages_sent: tally.messages_sent,
            messages_replaced: tally.messages_replaced,
            messages_dropped: tally.messages_dropped,
            queued: queued as u64,
            queued_peak: tally.queued_peak.max(queued) as u64,
            age: since(tally.since),
            idle: since(tally.moved),
        })
    }
}

impl Conn<'_> {
    /// Begins or ends the counting, as the options say. One that counts already goes on.
    pub(super) fn tally_as_told(&mut self) {
        let counts = self.stream.options().statistics;
        if counts == self.stream.has_tally() {
            return;
        }
        let now = self.work.now;
        self.stream.extra_mut().tally = counts.then(|| Tally::new(now));
        self.stream.drop_empty_extra();
    }

    /// A send of a connection that counts.
    #[cold]
    pub(super) fn send_counted(&mut self, bytes: &[u8], kind: MessageKind) -> SendStatus {
        let status = self.send_now(bytes, kind);
        self.count_sent(status)
    }

    pub(super) fn count_sent(&mut self, status: SendStatus) -> SendStatus {
        if let Some(tally) = self.stream.tally_mut() {
            if status == SendStatus::Replaced {
                tally.messages_replaced += 1;
            } else if status.is_accepted() {
                tally.messages_sent += 1;
            } else {
                tally.messages_dropped += 1;
            }
        }
        status
    }
}
