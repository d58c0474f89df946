//! From the logs to the members' sockets and queues.

use super::take::{Batch, Bytes, Part, Take};
use super::work;
use crate::core::{Core, SendStatus, Stopping};
use crate::token::Token;

/// From this size on a part of a log is queued by reference. Each reference takes about a hundred
/// bytes of bookkeeping beside what it names.
const LEAST_REFERENCE: usize = 1024;

impl Core {
    /// Something is about to be queued for `member` directly: what was published to it before goes
    /// first. O(1) if nothing is pending for it.
    pub(crate) fn settle_groups_before_direct(&mut self, member: Token) {
        if self.groups.is_pending(member) {
            self.settle(member);
        }
    }

    /// Moves what is pending for `member` into its own queue, by copy: a reference would make the
    /// next message copy the log.
    fn settle(&mut self, member: Token) {
        let Some((batch, each)) = self.take(member, usize::MAX) else { return };
        match each {
            None => {
                self.output_of(member, |output| {
                    for part in &batch.parts {
                        output.push(&batch.bytes()[part.start..part.end]);
                    }
                });
                self.queued_more(member);
            }
            Some(_) => self.give_each(member, &batch),
        }
        self.groups.work += batch.work(each.unwrap_or(work::COPIED));
        self.groups.give_back(batch);
    }

    /// Writes what is pending for a member to its socket, or a part of it that costs about `limit`.
    /// What the socket does not take is queued. Returns what that cost.
    pub(super) fn deliver(&mut self, member: Token, limit: usize) -> usize {
        let Some((batch, each)) = self.take(member, limit) else { return work::COPIED };
        match (each, &batch.bytes, &batch.parts[..]) {
            (Some(_), ..) => self.give_each(member, &batch),
            // The common case: all members that no message excludes.
            (None, bytes, [part]) => self.write_part(member, bytes, part),
            (None, bytes, parts) => {
                for part in parts {
                    self.queue_part(member, bytes, part.start, part.end);
                }
            }
        }
        self.flush(member);
        let cost = work::WRITE + batch.work(each.unwrap_or(work::COPIED));
        self.groups.give_back(batch);
        cost
    }

    /// Takes what is pending for a member; `None` if there is nothing, or nothing can be delivered.
    /// With it, for a member that is given its messages one by one, what each costs beside its bytes.
    fn take(&mut self, member: Token, limit: usize) -> Option<(Batch, Option<usize>)> {
        let stream = self.table.stream(member).filter(|stream| stream.accepts_output());
        let Some(stream) = stream else {
            self.groups.forget(member);
            return None;
        };
        let room = stream.options().output_cap.saturating_sub(stream.queued());
        let each = if stream.wire().is_some() {
            Some(work::ENCODED)
        } else if self.groups.pending_bytes(member) > room {
            // Its limit decides message by message, as it does for direct sends.
            Some(work::COPIED)
        } else {
            None
        };
        let how = each.map_or(Take::Joined, |each| Take::ByMessage { limit, each });
        Some((self.groups.take(member, how)?, each))
    }

    fn give_each(&mut self, member: Token, batch: &Batch) {
        for part in &batch.parts {
            if !self.give(member, &batch.bytes()[part.start..part.end], part) {
                self.groups.count_dropped(part.group);
            }
        }
    }

    /// Queues a copy of one message for a member, encoded by its layer if it has one. `false` if it
    /// was refused.
    fn give(&mut self, member: Token, bytes: &[u8], part: &Part) -> bool {
        let Some(stream) = self.stream_mut(member) else { return true };
        if !stream.accepts_output() {
            return true;
        }
        let status = if stream.queued() + bytes.len() > stream.options().output_cap {
            self.overflow(member)
        } else if stream.wire().is_some() {
            self.send_encoded(member, bytes, part.kind)
        } else {
            self.output_of(member, |output| output.push(bytes));
            self.queued_more(member)
        };
        !matches!(status, SendStatus::Full | SendStatus::Unencodable)
    }

    /// Writes one part; what the socket does not take is queued. Most members take all, and for
    /// those there is neither a queue nor a reference.
    fn write_part(&mut self, member: Token, bytes: &Bytes, part: &Part) {
        let tick = self.tick;
        let Some(stream) = self.stream_mut(member) else { return };
        let mut written = part.start;
        if stream.is_open() {
            match stream.write_through(&bytes.all()[part.start..part.end], tick) {
                Ok(n) => written += n,
                Err(e) => return self.write_failed(member, e),
            }
        }
        if written < part.end {
            self.queue_part(member, bytes, written, part.end);
        }
    }

    /// Queues bytes for a member: by reference, if that is worth what it keeps alive. A small part,
    /// also one of a log whose memory once was large, is copied: what waits may not take many times
    /// the memory that its limit counts.
    fn queue_part(&mut self, member: Token, bytes: &Bytes, start: usize, end: usize) {
        let part = end - start;
        self.output_of(member, |output| match bytes {
            Bytes::Log(_, log) if part >= LEAST_REFERENCE && part >= log.capacity() / 4 => {
                output.push_log(log, start, end);
            }
            bytes => output.push(&bytes.all()[start..end]),
        });
        self.queued_more(member);
    }

    /// The end of the turn: members get what is pending for them, until the turn's budget is used up.
    pub(crate) fn flush_groups_of_turn(&mut self) {
        let worth = self.groups.gather.worth();
        let mut left = self.group_work_left();
        while left > 0 {
            let Some(member) = self.groups.next_member() else { break };
            left = left.saturating_sub(self.deliver(member, left));
        }
        self.groups.gather.was_cut = self.groups.has_pending();
        self.groups.remove_empty();
        if !worth.is_zero() {
            self.groups.gather.flushed(worth, self.sys.now());
        }
    }

    /// What is left of this turn's budget. What callbacks caused counts, but an eighth of the budget
    /// is always left, so that the members are served whatever callbacks do. The last flush before
    /// the loop ends has no budget: no turn may come after it.
    fn group_work_left(&mut self) -> usize {
        let spent = std::mem::take(&mut self.groups.work);
        let last = match self.stopping {
            Stopping::No => false,
            Stopping::Now => true,
            Stopping::Draining(tick) => tick <= self.tick,
        };
        if last {
            return usize::MAX;
        }
        let budget = self.config.work_per_turn.saturating_mul(work::UNIT);
        budget.saturating_sub(spent).max(budget / 8)
    }
}
