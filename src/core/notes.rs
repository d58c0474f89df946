//! The one place where a step of a connection runs, and where its notes are applied.

use super::Core;
use crate::connection::{Conn, Note, SendStatus};
use crate::token::Token;

impl Core {
    /// Runs one step of a connection: the look-up, the step, the notes that it left. `None` if the
    /// token names no connection.
    #[inline]
    pub(crate) fn with<R>(
        &mut self,
        token: Token,
        step: impl FnOnce(&mut Conn<'_>) -> R,
    ) -> Option<R> {
        let stream = self.table.stream_mut(token)?;
        let mut conn = Conn { token, stream, work: &mut self.work };
        conn.spill();
        let result = step(&mut conn);
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Some(result)
    }

    /// Runs the step that follows a plain connection's callback: it writes the reply, which any other
    /// step would first move into the queue.
    #[inline]
    pub(crate) fn with_own_reply<R>(
        &mut self,
        token: Token,
        step: impl FnOnce(&mut Conn<'_>) -> R,
    ) -> Option<R> {
        let stream = self.table.stream_mut(token)?;
        let result = step(&mut Conn { token, stream, work: &mut self.work });
        if !self.work.notes.is_empty() {
            self.apply_notes();
        }
        Some(result)
    }

    /// The same as [`with`](Self::with) for a step that queues something: messages published to the
    /// connection before are queued first, to keep the order.
    pub(crate) fn with_settled<R>(
        &mut self,
        token: Token,
        step: impl FnOnce(&mut Conn<'_>) -> R,
    ) -> Option<R> {
        if self.groups.has_pending() {
            self.settle_groups_before_direct(token);
        }
        self.with(token, step)
    }

    /// Applying a note is a step of another connection, which may leave notes of its own: they are
    /// applied before the rest of this list.
    #[cold]
    pub(crate) fn apply_notes(&mut self) {
        let mut notes = std::mem::take(&mut self.work.notes);
        for note in notes.drain(..) {
            match note {
                Note::Hold { partner, held } => {
                    self.with(partner, |conn| conn.hold(held));
                }
                Note::Unpaired { partner } => {
                    self.with(partner, |conn| conn.partner_left());
                }
                Note::Ended { partner, end } => {
                    self.with_settled(partner, |conn| conn.partner_ended(end));
                }
                Note::EndAttempts(attempts) => {
                    for mut attempt in attempts {
                        self.sys.deregister(&mut attempt.socket, true);
                    }
                }
                Note::Unencodable(group) => self.groups.count(group, SendStatus::Unencodable),
                Note::LeavesGroups(token) => {
                    // Where the end did not come from a handler, this was not delivered before.
                    let lost = self.published_to(token);
                    if let Some(stream) = self.table.stream_mut(token) {
                        stream.lose(lost);
                    }
                    self.groups.leave_all(token);
                }
            }
        }
        if self.work.notes.is_empty() {
            self.work.notes = notes; // for its memory
        }
    }
}
