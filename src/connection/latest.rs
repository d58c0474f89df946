//! Values of which only the newest counts, between `send_latest` and the queue.
//!
//! They wait unencoded, in a line of their own (`newest.rs`), and join the queue when the socket takes
//! output: in batches, each with one write. So at most one batch and what was sent otherwise is in the
//! queue, which nothing replaces; all else is replaced by what comes later.
//!
//! Where values wait and the connection is open and ready, it has an [`Output`](super::Output), be it
//! empty: the paths that look for a queue find them by that, without a test of their own.

use super::newest::{Newest, NewestStats, Put};
use super::{Conn, Extra, Note, Phase, SendStatus, Stream, WriteSide};
use crate::error::CloseReason;
use crate::layer::{LayerErrorKind, MessageKind};
use crate::token::Group;

/// The units of work of one value that a layer encodes, as of a group's message for one member.
const ENCODED: usize = 4;

impl Extra {
    /// What counts towards the output limit and is not in the queue.
    #[cold]
    pub(super) fn held(&self) -> usize {
        self.wire.as_ref().map_or(0, |wire| wire.waiting_cost())
            + self.newest.as_ref().map_or(0, |newest| newest.cost())
    }
}

impl Stream {
    /// What counts towards the output limit: what counts towards the marks, and values that wait.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.output.as_ref().map_or(0, |output| output.len())
            + self.extra.as_ref().map_or(0, |extra| extra.held())
    }

    pub(super) fn newest(&self) -> Option<&Newest> {
        self.extra.as_ref()?.newest.as_deref()
    }

    fn newest_mut(&mut self) -> &mut Newest {
        self.extra_mut().newest.get_or_insert_with(Box::default)
    }

    /// Whether values wait, or did since it fell behind.
    pub(super) fn has_values(&self) -> bool {
        self.newest().is_some_and(|newest| !newest.is_empty() || newest.behind)
    }

    pub(crate) fn newest_stats(&self) -> NewestStats {
        self.newest().map_or_else(NewestStats::default, Newest::stats)
    }

    /// Whether a group's values have found its queue too long and it has not caught up since, or its
    /// queue is too long now.
    pub(crate) fn is_behind(&self) -> bool {
        self.newest().is_some_and(|newest| newest.behind)
            || self.queued() > self.options().behind_above
    }

    /// Whether values may join the queue: not before the layers are ready, and not behind the end.
    pub(super) fn takes_values(&self) -> bool {
        self.life.phase == Phase::Open
            && self.life.write == WriteSide::Open
            && self.wire().is_none_or(super::Wire::is_ready)
    }
}

impl Conn<'_> {
    /// Keeps a value until the socket takes it, in the place of an older one with this key. A group's is
    /// counted there if it turns out later that it cannot be encoded.
    pub(crate) fn send_latest(
        &mut self,
        key: u64,
        group: Option<Group>,
        bytes: &[u8],
        kind: MessageKind,
    ) -> SendStatus {
        let status = self.put_latest(key, group, bytes, kind);
        self.count_sent(status)
    }

    fn put_latest(
        &mut self,
        key: u64,
        group: Option<Group>,
        bytes: &[u8],
        kind: MessageKind,
    ) -> SendStatus {
        if !self.stream.accepts_output() {
            return SendStatus::Gone;
        }
        let room = self.stream.options().output_limit.saturating_sub(self.stream.queued());
        match self.stream.newest_mut().put(key, group, kind, bytes, room) {
            Put::New => {
                self.values_wait();
                self.status_of_queue()
            }
            Put::Replaced => SendStatus::Replaced,
            Put::Full => {
                self.stream.newest_mut().dropped += 1;
                self.overflow()
            }
        }
    }

    /// Sees to it that values that wait are flushed, now that they may be.
    pub(super) fn values_wait(&mut self) {
        if self.stream.takes_values() && self.stream.newest().is_some_and(|n| !n.is_empty()) {
            self.output();
            self.owe_flush();
        }
    }

    /// A group's value: one for a connection that keeps up is like any other message.
    #[cold]
    pub(crate) fn send_keyed(
        &mut self,
        key: u64,
        group: Group,
        bytes: &[u8],
        kind: MessageKind,
    ) -> SendStatus {
        if self.falls_behind(bytes.len()) {
            self.send_latest(key, Some(group), bytes, kind)
        } else {
            self.send(bytes, kind)
        }
    }

    /// Whether a run of values may be queued as it is: the connection keeps up, and the queue stays short.
    pub(crate) fn queues_values_at_once(&mut self, len: usize) -> bool {
        len <= self.stream.options().behind_above && !self.falls_behind(len)
    }

    /// Whether a group's value of that length has to wait, because the socket does not take what is
    /// queued already.
    fn falls_behind(&mut self, more: usize) -> bool {
        if self.keeps_values() {
            return true;
        }
        let most = self.stream.options().behind_above;
        if self.stream.queued().saturating_add(more) <= most {
            return false;
        }
        // Much may have been queued since the socket was last asked.
        if self.stream.waits_to_flush() {
            self.flush();
        }
        // An empty queue takes a message of any size.
        let queued = self.stream.queued();
        if queued == 0 || queued.saturating_add(more) <= most || !self.stream.accepts_output() {
            return false;
        }
        self.stream.newest_mut().fall_behind();
        true
    }

    /// Whether it has fallen behind, or values wait that the socket does not take now.
    fn keeps_values(&mut self) -> bool {
        let Some(newest) = self.stream.newest() else { return false };
        if !newest.behind && !newest.is_empty() && self.stream.waits_to_flush() {
            self.flush();
        }
        self.stream.has_values()
    }

    /// A group's values that the socket may take at once: writes as much of `bytes` behind the queue as
    /// it takes. `Err` with how much that was, if so much is left that the connection has fallen behind;
    /// else the rest is the caller's to queue.
    pub(crate) fn write_values(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        if self.keeps_values() {
            return Err(0);
        }
        let Some(written) = self.write_now(bytes) else { return Ok(bytes.len()) };
        let left = bytes.len() - written;
        if left > 0
            && self.stream.queued().saturating_add(left) > self.stream.options().behind_above
        {
            self.stream.newest_mut().fall_behind();
            return Err(written);
        }
        Ok(written)
    }

    /// Flushes a connection with values that wait: they join the queue in batches, as long as the socket
    /// takes all.
    #[cold]
    pub(super) fn flush_values(&mut self) {
        let queue_is_empty = self.stream.output.as_ref().is_none_or(|output| output.is_empty());
        if !self.stream.writable && queue_is_empty && self.stream.takes_values() {
            // One of them, so that the stall deadline runs. The others stay replaceable.
            if !self.queue_values(1) {
                return;
            }
        }
        while self.stream.takes_values() && self.stream.writable {
            let batch = self.stream.newest_mut().batch();
            if !self.queue_values(batch) {
                return; // the layer gave up
            }
            if let Err(e) = self.stream.write_queued(self.work) {
                return self.output_failed(e);
            }
            let queued = self.stream.queued();
            let newest = self.stream.newest_mut();
            newest.adapt_batch(queued == 0);
            if queued > 0 {
                break;
            }
            if newest.is_empty() {
                newest.behind = false;
                break;
            }
            if self.work.is_used_up() {
                // It goes on in the next turn: a queue that is not empty says so.
                let batch = self.stream.newest_mut().batch();
                if !self.queue_values(batch) {
                    return;
                }
                self.make_ready_later();
                break;
            }
        }
        if !self.stream.takes_values()
            && let Err(e) = self.stream.write_queued(self.work)
        {
            return self.output_failed(e);
        }
        if self.stream.queued() > self.stream.options().high_water {
            self.set_over_high();
        }
        self.flushed();
    }

    /// Moves values to the queue until that holds `most` bytes. `false` if the layer gave up.
    fn queue_values(&mut self, most: usize) -> bool {
        let plain = self.stream.wire().is_none();
        let (mut bytes, mut units) = (0, 1);
        while self.output().len() < most
            && let Some(value) = self.stream.newest_mut().take()
        {
            bytes += value.bytes.len();
            if plain {
                self.output().push(&value.bytes);
                continue;
            }
            units += ENCODED;
            if let Err(error) = self.encode(&value.bytes, value.kind) {
                let unencodable = error.kind() == LayerErrorKind::Unencodable;
                if unencodable {
                    self.stream.newest_mut().dropped += 1;
                    self.work.notes.extend(value.group.map(Note::Unencodable));
                }
                if self.encode_failed(error) == SendStatus::Gone {
                    return false;
                }
            }
        }
        self.work.charge(units + bytes / 1024);
        true
    }

    /// The write side is about to end: all values that wait go before its end. Where the layers are not
    /// ready, or have given up, they are lost, as other messages are. `false` if the layer gave up now.
    pub(super) fn queue_last_values(&mut self) -> bool {
        if self.stream.newest().is_none_or(Newest::is_empty) {
            return true;
        }
        let ready = self.stream.wire().is_none_or(|wire| wire.is_ready() && wire.owes_end());
        let reason = self.stream.extra.as_ref().and_then(|extra| extra.reason());
        let gave_up = matches!(reason, Some(CloseReason::Layer(_)));
        gave_up || !ready || self.queue_values(usize::MAX)
    }

    /// Drops all values that wait. Returns how many.
    pub(crate) fn discard_values(&mut self) -> usize {
        if self.stream.newest().is_none() {
            return 0;
        }
        let queued = self.stream.queued();
        let newest = self.stream.newest_mut();
        newest.behind &= queued > 0;
        newest.discard()
    }
}
