//! From the logs to members with layers: in a form that all members of a class share, or in runs.

use std::rc::Rc;

use super::deliver::Give;
use super::registry::Groups;
use super::take::{Batch, OnlyRun, Take};
use super::work;
use crate::connection::{Conn, SendStatus, Sharing};
use crate::core::Core;
use crate::layer::LayerError;
use crate::token::Token;

/// What is pending for a member, encoded for all of its class.
struct Encoded {
    sharing: Sharing,
    /// Nothing is left to encode.
    whole: bool,
    cost: usize,
}

impl Core {
    /// As [`take`](Self::take), for a member with layers.
    pub(super) fn take_encoded(&mut self, member: Token, limit: usize) -> Option<(Batch, Give)> {
        let Some(encoded) = self.encode_pending(member, limit) else {
            // Its layer has failed, which has ended the connection: nothing can be delivered.
            return self.take(member, limit);
        };
        let by_message = Take::ByMessage { limit, each: work::COPIED };
        let (class, how, give) = match &encoded.sharing {
            Sharing::Whole(class) => {
                let how = if encoded.whole { Take::Joined } else { by_message };
                (Some(class), how, Give::InWireForm)
            }
            Sharing::Inner(class) => (Some(class), by_message, Give::Runs { inner: true }),
            Sharing::Runs => (None, by_message, Give::Runs { inner: false }),
            Sharing::Nothing => return self.take_each(member, limit, encoded.cost),
        };
        if self.groups.pending_bytes(member, class) > self.table.stream(member)?.room() {
            return self.take_each(member, limit, encoded.cost);
        }
        let batch = self.groups.take(member, how, class)?;
        Some((Batch { encoded: encoded.cost, ..batch }, give))
    }

    /// For a member whose own layer, or whose limit, decides about each message.
    fn take_each(&mut self, member: Token, limit: usize, encoded: usize) -> Option<(Batch, Give)> {
        let each = work::ENCODED;
        let batch = self.groups.take(member, Take::ByMessage { limit, each }, None)?;
        Some((Batch { encoded, ..batch }, Give::Each(each)))
    }

    /// Encodes what is pending for a member in the form that it shares with others, as far as that has
    /// not been done and costs about `limit`. `None` if its layer has failed.
    fn encode_pending(&mut self, member: Token, limit: usize) -> Option<Encoded> {
        let Core { table, work, groups, .. } = self;
        let stream = table.stream_mut(member)?;
        let mut encoded = Encoded { sharing: Sharing::Nothing, whole: true, cost: 0 };
        if stream.has_tally() || groups.has_keys(member) {
            return Some(encoded);
        }
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        encoded.sharing = conn.sharing();
        let mut failed = false;
        if let Sharing::Whole(_) | Sharing::Inner(_) = encoded.sharing {
            for group in groups.pending_groups(member) {
                match groups.encode(&mut conn, group, &mut encoded, limit) {
                    Ok(()) => {}
                    Err(error) => {
                        conn.encode_failed(error);
                        failed = true;
                        break;
                    }
                }
            }
        }
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        (!failed).then_some(encoded)
    }

    /// The common case for a member with layers: one run of one log is pending. `Err` in any
    /// other case, with what has been done for it all the same.
    pub(super) fn deliver_one_run_encoded(
        &mut self,
        member: Token,
        run: OnlyRun,
        limit: usize,
    ) -> Result<usize, usize> {
        let Core { table, work, groups, .. } = self;
        let Some(stream) = table.stream_mut(member) else { return Err(0) };
        if !stream.accepts_output() || stream.has_tally() {
            return Err(0);
        }
        let mut conn = Conn { token: member, stream, work };
        conn.spill();
        let mut encoded = Encoded { sharing: conn.sharing(), whole: true, cost: 0 };
        if let Sharing::Whole(class) | Sharing::Inner(class) = &encoded.sharing
            && groups.log_of(&run).0.whole_form(class).is_none()
        {
            let failed = groups.encode(&mut conn, run.group(), &mut encoded, limit).err();
            if let Some(error) = failed {
                conn.encode_failed(error);
                self.apply_notes();
                return Err(encoded.cost);
            }
        }
        let (class, whole) = match &encoded.sharing {
            Sharing::Whole(class) if encoded.whole => (Some(class), true),
            Sharing::Inner(class) if encoded.whole => (Some(class), false),
            Sharing::Runs => (None, false),
            _ => return Err(encoded.cost),
        };
        let (log, from) = groups.log_of(&run);
        let (view, keyed) = (log.view(class), log.has_keys());
        let (start, bytes) = (view.start(from), view.bytes());
        let part = &bytes[start..];
        let cost = encoded.cost + work::WRITE + work::COPIED + work::bytes(part.len());
        if conn.stream.room() < part.len() {
            return Err(encoded.cost);
        }
        if whole {
            if !part.is_empty()
                && let Some(written) = conn.write_part(part)
            {
                if keyed {
                    self.rest_of_values(member, run, class, start + written);
                    return Ok(cost);
                }
                conn.write_part_behind(bytes, start + written, bytes.len());
            }
        } else {
            // A run that has to be encoded costs more than one that is written.
            if cost > limit || keyed && !conn.takes_run_of_values(part.len()) {
                return Err(encoded.cost);
            }
            match conn.queue_run(class.is_some(), part) {
                SendStatus::Gone => {
                    self.apply_notes();
                    return Err(encoded.cost);
                }
                status @ SendStatus::Unencodable => groups.count(groups.group_of(&run), status),
                _ => conn.flush(),
            }
        }
        groups.took_run_in_form(&run, class);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Ok(cost)
    }

    /// Queues the parts of a batch for a member whose layers encode runs.
    pub(super) fn queue_runs(&mut self, member: Token, batch: &Batch, inner: bool) {
        let mut parts = batch.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let mut end = part.end;
            while let Some(next) = parts.next_if(|next| next.start == end) {
                end = next.end;
            }
            let run = &batch.bytes()[part.start..end];
            let status = self.with(member, |conn| conn.queue_run(inner, run));
            if let Some(status @ SendStatus::Unencodable) = status {
                self.groups.count(part.group, status);
            }
        }
    }
}

impl Groups {
    /// Encodes messages of a group in the form that a member shares with others.
    fn encode(
        &mut self,
        conn: &mut Conn<'_>,
        group: u32,
        encoded: &mut Encoded,
        limit: usize,
    ) -> Result<(), LayerError> {
        let inner = matches!(encoded.sharing, Sharing::Inner(_));
        let (Sharing::Whole(class) | Sharing::Inner(class)) = &mut encoded.sharing else {
            return Ok(());
        };
        let log = &mut self.slots[group as usize].log;
        let left = limit.saturating_sub(encoded.cost);
        let known = Rc::as_ptr(class);
        let cost = log.encode(class, left, |message, kind, form| {
            conn.encode_shared(inner, (message, kind), form)
        })?;
        let Some(cost) = cost else {
            encoded.sharing = Sharing::Nothing;
            return Ok(());
        };
        encoded.cost += cost;
        encoded.whole &= log.view(Some(class)).is_whole();
        if Rc::as_ptr(class) != known {
            conn.set_sharing(&encoded.sharing);
        }
        Ok(())
    }
}
