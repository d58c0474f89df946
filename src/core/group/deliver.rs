//! From the logs to the members' sockets and queues.

use std::rc::Rc;

use super::log::Log;
use super::take::{Batch, Bytes, OnlyRun, Take};
use super::work;
use crate::connection::{Conn, SendStatus};
use crate::core::Core;
use crate::layer::WireClass;
use crate::token::{Group, Token};

/// How a member is given a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Give {
    /// Its parts are in the member's wire form.
    InWireForm,
    /// Touching parts are encoded as one run; with `inner`, they are in the form of the inner layers.
    Runs { inner: bool },
    /// The member's limit, or its layer, decides about each message, which costs so much beside its bytes.
    Each(usize),
}

impl Give {
    /// What each part costs beside its bytes.
    fn each(self) -> usize {
        match self {
            Give::InWireForm | Give::Runs { .. } => work::COPIED,
            Give::Each(each) => each,
        }
    }
}

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
        while let Some((batch, give)) = self.take(member, usize::MAX) {
            let cost = self.queue_batch(member, &batch, give) + batch.work(give.each());
            self.groups.work += cost;
            // Callbacks cause it, so that their budget pays for it as well: a peer whose every line is
            // published and answered must not make the turn long.
            self.work.charge(self.groups.whole_units(cost));
            self.groups.give_back(batch);
        }
    }

    /// Writes what is pending for a member to its socket, or a part of it that costs about `limit`.
    /// What the socket does not take is queued. Returns what that cost.
    pub(super) fn deliver(&mut self, member: Token, limit: usize) -> usize {
        let Some((batch, give)) = self.take(member, limit) else { return work::COPIED };
        let mut cost = work::WRITE + batch.work(give.each());
        if give == Give::InWireForm {
            self.with(member, |conn| write_batch(conn, &batch));
        } else {
            cost += self.queue_batch(member, &batch, give);
            self.with(member, |conn| conn.flush());
        }
        self.groups.give_back(batch);
        cost
    }

    /// Queues what a batch has for a member. Returns what that cost beside its parts.
    fn queue_batch(&mut self, member: Token, batch: &Batch, give: Give) -> usize {
        match give {
            Give::InWireForm => {
                self.with(member, |conn| {
                    conn.queue_copies(batch.parts.iter().map(|p| &batch.bytes()[p.start..p.end]));
                });
            }
            // Each run is encoded, not only copied.
            Give::Runs { inner } => return self.queue_runs(member, batch, inner) * work::UNIT,
            Give::Each(_) => self.give_each(member, batch),
        }
        0
    }

    /// The common case of [`deliver`](Self::deliver): one run of one log is pending, and is written
    /// without a batch. `Err` in any other case, with what has been done all the same.
    #[inline]
    fn deliver_one_run(&mut self, member: Token, id: u32, limit: usize) -> Result<usize, usize> {
        let Core { table, work, groups, .. } = self;
        let Some((run, log)) = groups.only_run(id) else { return Err(0) };
        let Some(stream) = table.stream_mut(member) else { return Err(0) };
        let bytes = run.end - run.start;
        if !stream.takes_log(bytes) {
            let layered = stream.wire().is_some();
            return if layered { self.deliver_one_run_encoded(member, run, limit) } else { Err(0) };
        }
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        if let Some(written) = conn.write_part(&log.bytes()[run.start..run.end]) {
            let rest = run.start + written;
            if log.has_keys() {
                self.rest_of_values(member, run, None, rest);
                return Ok(work::WRITE + work::COPIED + work::bytes(bytes));
            }
            conn.write_part_behind(log.bytes(), rest, run.end);
        }
        groups.took_run(&run);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Ok(work::WRITE + work::COPIED + work::bytes(bytes))
    }

    /// The socket has not taken all of a run of messages of which some have keys; `from` is where the rest
    /// begins. For a member that has fallen behind, those wait outside its queue.
    #[cold]
    pub(super) fn rest_of_values(
        &mut self,
        member: Token,
        run: OnlyRun,
        class: Option<&Rc<WireClass>>,
        from: usize,
    ) {
        let Core { table, work, groups, .. } = self;
        let group = groups.group_of(&run);
        let mut statuses = Vec::new();
        if let Some(stream) = table.stream_mut(member) {
            let mut conn = Conn { token: member, stream, work };
            let told = groups.marked(&run, class, u32::MAX).told;
            let log = groups.log_of(&run).0;
            let end = queue_values(&mut conn, log, group, class, (from, told), &mut statuses);
            groups.count_unencodable(&run, class, end);
        }
        for status in statuses {
            groups.count(group, status);
        }
        groups.took_run(&run);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
    }

    /// Takes what is pending for a member; `None` if there is nothing, or nothing can be delivered.
    pub(super) fn take(&mut self, member: Token, limit: usize) -> Option<(Batch, Give)> {
        if self.session(member).is_some_and(|session| !session.dead) {
            // A datagram for each message.
            let each = work::COPIED;
            let batch = self.groups.take(member, Take::ByMessage { limit, each }, None)?;
            return Some((batch, Give::Each(each)));
        }
        let stream = self.table.stream(member).filter(|stream| stream.accepts_output());
        let Some(stream) = stream else {
            let lost = self.groups.pending_bytes_of(member);
            if let Some(stream) = self.table.stream_mut(member).filter(|stream| !stream.is_live()) {
                stream.lose(lost);
            }
            self.groups.forget(member);
            return None;
        };
        if stream.wire().is_some() {
            return self.take_encoded(member, limit);
        }
        if stream.has_tally()
            || self.groups.pending_bytes(member) > stream.room()
            || self.groups.has_keys(member)
        {
            // They are counted; or its limit decides message by message, as it does for direct sends;
            // or whether it keeps up.
            let each = work::COPIED;
            let batch = self.groups.take(member, Take::ByMessage { limit, each }, None)?;
            return Some((batch, Give::Each(each)));
        }
        Some((self.groups.take(member, Take::Joined, None)?, Give::InWireForm))
    }

    /// Gives a member its messages one by one: its limit, or its layer, decides about each.
    fn give_each(&mut self, member: Token, batch: &Batch) {
        if !self.groups.keys.is_empty() {
            if self.stream(member).is_some() {
                return self.give_each_value(member, batch);
            }
            // A datagram replaces none: each value leaves as one of its own.
            self.groups.keys.clear();
        }
        for part in &batch.parts {
            let message = &batch.bytes()[part.start..part.end];
            let status = match self.with(member, |conn| conn.send(message, part.kind)) {
                Some(status) => status,
                None => self.send_elsewhere(member, message),
            };
            if let SendStatus::Full | SendStatus::Unencodable = status {
                self.groups.count(part.group, status);
            }
        }
    }

    /// The same where some of the messages have keys.
    fn give_each_value(&mut self, member: Token, batch: &Batch) {
        let Core { table, work, groups, .. } = self;
        let mut keys = std::mem::take(&mut groups.keys);
        if let Some(stream) = table.stream_mut(member) {
            let mut conn = Conn { token: member, stream, work };
            conn.spill();
            for (part, key) in batch.parts.iter().zip(&keys) {
                let message = &batch.bytes()[part.start..part.end];
                let status = match *key {
                    Some(key) => conn.send_keyed(key, part.group, message, part.kind),
                    None => conn.send(message, part.kind),
                };
                groups.count(part.group, status);
            }
        }
        keys.clear();
        groups.keys = keys;
        if !self.work.notes.is_empty() {
            self.apply_notes();
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
            let cost = self.deliver_one_run(member, id, most);
            let cost =
                cost.unwrap_or_else(|done| done + self.deliver(member, most.saturating_sub(done)));
            left = left.saturating_sub(cost);
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

/// Writes a log from `from` on to one member, as far as its socket takes it, in the wire form of its class
/// if it has one. If so much is left that it falls behind, the messages that no byte has left of go to it
/// one by one, and those with a key wait outside its queue. Returns the index of the first of those. `told`
/// says that its layers must know of what leaves in the form of the class.
fn queue_values(
    conn: &mut Conn<'_>,
    log: &Log,
    group: Group,
    class: Option<&Rc<WireClass>>,
    (from, told): (usize, bool),
    statuses: &mut Vec<SendStatus>,
) -> u32 {
    let (plain, view) = (log.view(None), log.view(class));
    let (bytes, end) = (view.bytes(), view.bytes().len());
    let result = conn.write_values(&bytes[from..]);
    if told {
        // Not before, since that encodes older values that wait.
        conn.sent_shared();
    }
    let written = match result {
        Ok(written) if from + written == end => {
            conn.flush();
            return view.len();
        }
        Ok(written) => {
            conn.write_part_behind(bytes, from + written, end);
            return view.len();
        }
        Err(written) => written,
    };
    let from = from + written;
    let mut next = view.message_at(from);
    if view.start(next) < from {
        conn.queue_copies([&bytes[from..view.end(next)]]);
        next += 1;
    }
    for message in next..log.len() {
        let bytes = &plain.bytes()[plain.start(message)..plain.end(message)];
        statuses.push(match log.key(message) {
            Some(key) => conn.send_latest(key, Some(group), bytes, log.kind(message)),
            None => conn.send(bytes, log.kind(message)),
        });
    }
    conn.flush();
    next
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
            Some(log) if alone => {
                if let Some(written) = conn.write_part(bytes) {
                    conn.write_part_behind(log, part.start + written, part.end);
                }
                return;
            }
            Some(log) => conn.queue_log(log, part.start, part.end),
            None => conn.queue_copies([bytes]),
        }
    }
    conn.flush();
}
