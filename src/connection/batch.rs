//! The end of a batch: the handler that asks is called once more when the input is used up.
//!
//! A connection whose handler has asked goes on the ready list and is served from there once more, behind
//! this turn's events; what it finds there decides. So one that never asks has no test for it on its way,
//! and what is asked is kept in the byte that says whether the connection is listed: asking allocates
//! nothing, and the slot keeps its size.

use super::{Conn, Phase, ReadSide, Stream};

/// How many milliseconds after the first turn that had no room for all of it a batch ends nevertheless: a
/// peer that sends without a pause would put it off for ever. Time and not turns, since a deadline may cut
/// a turn behind one message. Three ticks of a loop at 60 Hz, two of which may cut a burst.
const LONGEST: u64 = 50;

/// Its place on the list of those with work left, and what is asked of it there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listed(u8);

impl Listed {
    /// It is on the list.
    const LISTED: u8 = 1 << 7;
    /// The handler has asked for the end of its batch.
    const ASKED: u8 = 1 << 6;
    /// It is being served from the list, where the batch's end is looked for next.
    const SERVED: u8 = 1 << 5;
    /// It is listed in this turn for its batch, and has used up its budget in it: it waits for the next.
    const WAITS: u8 = 1 << 4;

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn put(&mut self, bit: u8, on: bool) {
        self.0 = if on { self.0 | bit } else { self.0 & !bit };
    }

    pub(super) fn is_listed(self) -> bool {
        self.has(Self::LISTED)
    }

    /// Returns whether that changed.
    pub(super) fn set_listed(&mut self, listed: bool) -> bool {
        let changed = self.is_listed() != listed;
        self.put(Self::LISTED, listed);
        changed
    }

    fn forget_batch(&mut self) {
        self.0 &= Self::LISTED;
    }
}

impl Stream {
    /// Whether the handler has asked for the end of its batch and has not been called.
    pub(crate) fn owes_batch_end(&self) -> bool {
        self.listed.has(Listed::ASKED)
    }

    /// Whether its batch has been cut for so long that it ends here.
    pub(super) fn batch_ends_by(&self, tick: u64) -> bool {
        let until = self.extra.as_ref().and_then(|extra| extra.batch_until);
        until.is_some_and(|until| until <= tick)
    }

    /// Its turn on the list has come. `false` if the budget is used up: it is served in the next turn.
    pub(crate) fn take_up_from_list(&mut self) -> bool {
        let waits = self.listed.has(Listed::WAITS);
        self.listed.put(Listed::WAITS, false);
        self.listed.put(Listed::SERVED, !waits);
        !waits
    }

    /// Whether what has arrived is used up, or nothing of it may be offered now: the handler has paused,
    /// its queue or its partner's holds it back, a relay has taken over.
    pub(crate) fn input_is_used_up(&self) -> bool {
        let kept = self.unread_changed && self.unread() > 0;
        let waits = self.readable || kept || self.wire().is_some_and(|wire| wire.pull);
        !waits || !self.may_read() || self.relayed_to().is_some()
    }
}

impl Conn<'_> {
    /// The handler is to be called when its batch has ended. `false` if it can have none any more.
    pub(crate) fn ask_batch_end(&mut self) -> bool {
        let stream = &mut *self.stream;
        if stream.life.phase != Phase::Open || stream.life.read == ReadSide::Delivered {
            return false;
        }
        stream.listed.put(Listed::ASKED, true);
        if !stream.listed.has(Listed::SERVED) {
            self.make_ready();
        }
        true
    }

    /// It has been served from the list. Returns whether `on_batch_end` is due.
    pub(crate) fn batch_is_over(&mut self) -> bool {
        let stream = &mut *self.stream;
        stream.listed.put(Listed::SERVED, false);
        if !stream.owes_batch_end() {
            return false;
        }
        if stream.life.phase != Phase::Open || stream.life.read == ReadSide::Delivered {
            stream.listed.forget_batch();
            return false;
        }
        if stream.input_is_used_up() || stream.batch_ends_by(self.work.tick) {
            return true;
        }
        // The budget of this turn may have put it on the list again.
        if !stream.listed.is_listed() {
            self.goes_on_in_next_turn();
        }
        false
    }

    /// `on_batch_end` has returned. What it has asked for is the batch that has ended.
    pub(crate) fn batch_has_ended(&mut self) {
        self.stream.listed.forget_batch();
        if let Some(extra) = &mut self.stream.extra
            && extra.batch_until.take().is_some()
        {
            self.stream.drop_empty_extra();
        }
    }

    /// The turn's budget is used up. One that is listed in this turn for its batch must not be served
    /// in it once more.
    pub(super) fn goes_on_in_next_turn(&mut self) {
        if self.stream.owes_batch_end() {
            self.cut_batch();
        }
        self.make_ready_later();
    }

    fn cut_batch(&mut self) {
        let listed = self.stream.listed;
        let waits = listed.is_listed() && !listed.has(Listed::SERVED);
        self.stream.listed.put(Listed::WAITS, waits);
        let until = self.work.tick + LONGEST;
        self.stream.extra_mut().batch_until.get_or_insert(until);
    }
}
