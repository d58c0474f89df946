//! From the logs to the members' sockets and queues.

use super::take::{Batch, Bytes, Take};
use super::work;
use crate::connection::{Conn, SendStatus};
use crate::core::Core;
use crate::token::Token;

/// What one member gets at a time in a turn with a deadline, where a layer encodes each message: eight
/// messages.
const PIECE: usize = 8 * work::ENCODED;

impl Core {
    /// Something is about to be queued for `member` directly: messages published before go first. O(1)
    /// if none is pending.
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
                self.with(member, |conn| {
                    conn.queue_copies(batch.parts.iter().map(|p| &batch.bytes()[p.start..p.end]));
                });
            }
            Some(_) => self.give_each(member, &batch),
        }
        let cost = batch.work(each.unwrap_or(work::COPIED));
        self.groups.work += cost;
        // Callbacks cause it, so that their budget pays for it as well: a peer whose every line is
        // published and answered must not make the turn long.
        self.work.charge(self.groups.whole_units(cost));
        self.groups.give_back(batch);
    }

    /// Writes what is pending for a member to its socket, or a part of it that costs about `limit`.
    /// What the socket does not take is queued. Returns what that cost.
    pub(super) fn deliver(&mut self, member: Token, limit: usize) -> usize {
        let Some((batch, each)) = self.take(member, limit) else { return work::COPIED };
        if each.is_some() {
            self.give_each(member, &batch);
            self.with(member, |conn| conn.flush());
        } else {
            self.with(member, |conn| write_batch(conn, &batch));
        }
        let cost = work::WRITE + batch.work(each.unwrap_or(work::COPIED));
        self.groups.give_back(batch);
        cost
    }

    /// The common case of [`deliver`](Self::deliver): one run of one log is pending, and is written
    /// without a batch. `None` in any other case.
    #[inline]
    fn deliver_one_run(&mut self, member: Token, id: u32) -> Option<usize> {
        let Core { table, work, groups, .. } = self;
        let (run, log) = groups.only_run(id)?;
        let stream = table.stream_mut(member)?;
        let bytes = run.end - run.start;
        if !stream.takes_log(bytes) {
            return None;
        }
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        conn.write_shared_part(log, run.start, run.end);
        groups.took_run(&run);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Some(work::WRITE + work::COPIED + work::bytes(bytes))
    }

    /// Takes what is pending for a member; `None` if there is nothing, or nothing can be delivered.
    /// With it, for a member that is given its messages one by one, what each costs beside its bytes.
    fn take(&mut self, member: Token, limit: usize) -> Option<(Batch, Option<usize>)> {
        let stream = self.table.stream(member).filter(|stream| stream.accepts_output());
        let Some(stream) = stream else {
            let lost = self.groups.pending_bytes_of(member);
            if let Some(stream) = self.table.stream_mut(member).filter(|stream| !stream.is_live()) {
                stream.lose(lost);
            }
            self.groups.forget(member);
            return None;
        };
        let room = stream.options().output_limit.saturating_sub(stream.queued());
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

    /// Gives a member its messages one by one: its limit, or its layer, decides about each.
    fn give_each(&mut self, member: Token, batch: &Batch) {
        for part in &batch.parts {
            let message = &batch.bytes()[part.start..part.end];
            let status = self.with(member, |conn| conn.send(message, part.kind));
            if matches!(status, Some(SendStatus::Full | SendStatus::Unencodable)) {
                self.groups.count_dropped(part.group);
            }
        }
    }

    /// The end of the turn: delivers to members until the turn's budget is used up, or with `UNTIL` its
    /// deadline has passed.
    pub(crate) fn flush_groups_of_turn<const UNTIL: bool>(&mut self) {
        let worth = self.groups.gather.worth();
        let mut left = self.group_work_left();
        while left > 0 {
            let Some((member, id)) = self.groups.next_member() else { break };
            let most = if UNTIL { left.min(PIECE) } else { left };
            let cost = self.deliver_one_run(member, id);
            left = left.saturating_sub(cost.unwrap_or_else(|| self.deliver(member, most)));
            if UNTIL && self.work.is_late() {
                break;
            }
        }
        self.groups.gather.was_cut = self.groups.has_pending();
        self.groups.remove_empty();
        if !worth.is_zero() {
            self.groups.gather.flushed(worth, self.work.this_moment());
        }
    }

    /// What is left of this turn's budget. Deliveries that callbacks caused count, but an eighth of the
    /// budget is always left, so that members are served whatever callbacks do. The last flush before
    /// the loop ends has no budget: no turn may follow it.
    fn group_work_left(&mut self) -> usize {
        let spent = std::mem::take(&mut self.groups.work);
        if self.is_last_turn() {
            return usize::MAX;
        }
        let budget = self.config.work_per_turn.saturating_mul(work::UNIT);
        budget.saturating_sub(spent).max(budget / 8)
    }
}

/// Writes the parts of a batch that one member gets. Most members take all, and for those there is
/// neither a queue nor a reference.
fn write_batch(conn: &mut Conn<'_>, batch: &Batch) {
    let log = match &batch.bytes {
        Bytes::Log(_, log) => Some(log),
        Bytes::Copied(_) => None,
    };
    // The common case: all members that no message excludes.
    let alone = batch.parts.len() == 1;
    for part in &batch.parts {
        let bytes = &batch.bytes()[part.start..part.end];
        match log {
            Some(log) if alone => return conn.write_shared_part(log, part.start, part.end),
            Some(log) => conn.queue_log(log, part.start, part.end),
            None => conn.queue_copies([bytes]),
        }
    }
    conn.flush();
}
