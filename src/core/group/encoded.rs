//! From the logs to members with layers: in a form that all members of a class share, or in runs.

use std::rc::Rc;

use super::deliver::Give;
use super::form::Lent;
use super::take::{Batch, OnlyRun, Take};
use super::work;
use crate::connection::{Conn, Sharing};
use crate::core::Core;
use crate::layer::{LayerError, MessageKind, WireClass};
use crate::token::Token;

impl Sharing {
    fn class(&self) -> Option<&Rc<WireClass>> {
        match self {
            Sharing::Whole(class) | Sharing::Inner(class) => Some(class),
            Sharing::Runs | Sharing::Nothing => None,
        }
    }

    fn is_inner(&self) -> bool {
        matches!(self, Sharing::Inner(_))
    }
}

/// Lends a member's layers to `with`.
fn lend<T>(
    conn: &mut Conn<'_>,
    sharing: &Sharing,
    limit: usize,
    with: impl FnOnce(Option<&mut Lent<'_>>) -> T,
) -> (T, Outcome) {
    let Some(class) = sharing.class() else { return (with(None), Outcome::default()) };
    let (inner, room) = (sharing.is_inner(), conn.stream.room());
    let mut encode = |message: &[u8], kind: MessageKind, form: &mut Vec<u8>| {
        conn.encode_shared(inner, (message, kind), form)
    };
    let class = Rc::clone(class);
    let (encode, cost, refused, told, failed) = (&mut encode as _, 0, false, false, None);
    let mut lent = Lent { class, encode, limit, room, cost, refused, told, failed };
    let result = with(Some(&mut lent));
    let Lent { cost, refused, told, failed, .. } = lent;
    (result, Outcome { cost, refused, told, failed })
}

/// What came of lending a member's layers: see [`Lent`].
#[derive(Default)]
struct Outcome {
    cost: usize,
    refused: bool,
    told: bool,
    failed: Option<LayerError>,
}

impl Core {
    /// As [`take`](Self::take), for a member with layers.
    pub(super) fn take_encoded(&mut self, member: Token, limit: usize) -> Option<(Batch, Give)> {
        let Core { table, work, groups, .. } = self;
        let stream = table.stream_mut(member)?;
        let room = stream.room();
        // Members that count do so message by message, and a limit decides about each.
        let each =
            stream.has_tally() || groups.has_keys(member) || groups.pending_bytes(member) > room;
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        let sharing = if each { Sharing::Nothing } else { conn.sharing(&mut groups.classes) };
        let by_message = Take::ByMessage { limit, each: work::COPIED };
        let (how, give) = match &sharing {
            Sharing::Whole(_) => (Take::Joined, Give::InWireForm),
            Sharing::Inner(_) => (by_message, Give::Runs { inner: true }),
            Sharing::Runs => (by_message, Give::Runs { inner: false }),
            Sharing::Nothing => return self.take_each(member, limit, 0),
        };
        let (batch, outcome) =
            lend(&mut conn, &sharing, limit, |lent| groups.take(member, how, lent));
        let batch = Batch { encoded: outcome.cost, ..batch? };
        if let Some(error) = outcome.failed {
            // What was encoded before counts as unsent, like all that is behind it.
            let parts = batch.parts.iter();
            conn.stream.lose(parts.map(|part| part.end - part.start).sum());
            conn.encode_failed(error);
            groups.give_back(batch);
            self.apply_notes();
            return self.take(member, limit);
        }
        if outcome.refused && batch.parts.is_empty() {
            groups.give_back(batch);
            return self.take_each(member, limit, outcome.cost);
        }
        if outcome.told {
            conn.sent_shared();
        }
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Some((batch, give))
    }

    /// For a member whose own layer, or whose limit, decides about each message.
    fn take_each(&mut self, member: Token, limit: usize, encoded: usize) -> Option<(Batch, Give)> {
        let each = work::ENCODED;
        let batch = self.groups.take(member, Take::ByMessage { limit, each }, None)?;
        Some((Batch { encoded, ..batch }, Give::Each(each)))
    }

    /// The common case for a member with layers: one run of one log is pending. `Err` in any other case,
    /// with what has been done for it all the same.
    pub(super) fn deliver_one_run_encoded(
        &mut self,
        member: Token,
        run: OnlyRun,
        limit: usize,
    ) -> Result<usize, usize> {
        let result = self.try_one_run_encoded(member, run, limit);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        result
    }

    fn try_one_run_encoded(
        &mut self,
        member: Token,
        run: OnlyRun,
        limit: usize,
    ) -> Result<usize, usize> {
        let Core { table, work, groups, .. } = self;
        let Some(stream) = table.stream_mut(member) else { return Err(0) };
        let room = stream.room();
        if !stream.accepts_output() || stream.has_tally() || run.end - run.start > room {
            return Err(0);
        }
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        let sharing = conn.sharing(&mut groups.classes);
        let mut cost = 0;
        if let Some(class) = sharing.class()
            && groups.log_of(&run).0.whole_form(class).is_none()
        {
            let with = |lent: Option<&mut Lent<'_>>| {
                if let Some(lent) = lent {
                    groups.encode_run(&run, lent);
                }
            };
            let ((), outcome) = lend(&mut conn, &sharing, limit, with);
            cost = outcome.cost;
            if let Some(error) = outcome.failed {
                conn.encode_failed(error);
            }
        }
        let (log, from) = groups.log_of(&run);
        let class = sharing.class();
        let view = match class {
            Some(class) => log.whole_form(class).ok_or(cost)?,
            None if sharing == Sharing::Nothing => return Err(cost),
            None => log.view(None),
        };
        let (start, bytes, keyed) = (view.start(from), view.bytes(), log.has_keys());
        let marked = view.has_marks();
        // The layers are told between what is encoded before and behind the run: flushing and asking whether
        // values may be queued both encode those that wait.
        let told = marked && groups.marked(&run, class, u32::MAX).told;
        let part = &bytes[start..];
        if part.len() > room {
            return Err(cost);
        }
        let written = work::WRITE + work::COPIED + work::bytes(part.len());
        if let Sharing::Whole(_) = sharing {
            let left = if part.is_empty() { None } else { conn.write_part(part) };
            if let Some(written_now) = left
                && keyed
            {
                let rest = start + written_now;
                self.rest_of_values(member, run, class, rest);
                return Ok(cost + written);
            }
            if told {
                conn.sent_shared();
            }
            if let Some(written_now) = left {
                conn.write_part_behind(bytes, start + written_now, bytes.len());
            }
        } else {
            // A run that has to be encoded costs more than one that is written.
            if written > limit || keyed && !conn.queues_values_at_once(part.len()) {
                return Err(cost);
            }
            if told {
                conn.sent_shared();
                if !conn.stream.accepts_output() {
                    return Err(cost);
                }
            }
            let lost = conn.queue_run(sharing.is_inner(), part);
            conn.stream.lose(lost);
            conn.flush();
        }
        if marked {
            groups.count_unencodable(&run, class, u32::MAX);
        }
        groups.took_run(&run);
        Ok(cost + written)
    }

    /// Queues the parts of a batch for a member whose layers encode runs. Returns how many runs those are.
    pub(super) fn queue_runs(&mut self, member: Token, batch: &Batch, inner: bool) -> usize {
        let mut runs = 0;
        let mut parts = batch.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let mut end = part.end;
            while let Some(next) = parts.next_if(|next| next.start == end) {
                end = next.end;
            }
            let run = &batch.bytes()[part.start..end];
            self.with(member, |conn| {
                let lost = if conn.stream.accepts_output() {
                    conn.queue_run(inner, run)
                } else {
                    run.len()
                };
                conn.stream.lose(lost);
            });
            runs += 1;
        }
        runs
    }
}
