//! The steps of a connection: open, input, drain, flush.

use super::call::Dispatch;
use super::scratch::Scratch;
use crate::connection::{Budget, Next, Opening};
use crate::stats::Callback;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// The plain case: the input was read on the look-up that found the connection
    /// (`Conn::read_plain`). It is offered here; a second look-up writes the reply and keeps what is
    /// left.
    ///
    /// Returns whether the connection needs no further step.
    #[inline(always)] // into the loop over the events
    pub(super) fn offer_plain(&mut self, token: Token, bytes: &[u8], more: bool) -> bool {
        self.net.core.work.charge(Budget::units_read(bytes.len()));
        let left = self.offer_inlined(token, bytes);
        let done = self.net.core.with_own_reply(token, |conn| {
            conn.write_reply();
            if left == 0 && !more {
                return true;
            }
            conn.keep(&bytes[bytes.len() - left..], left < bytes.len());
            false
        });
        done != Some(false)
    }

    /// There is more to do for a connection of which one read of `len` bytes has been offered.
    #[inline(never)]
    pub(super) fn go_on_from_plain(&mut self, token: Token, len: usize, scratch: &mut Scratch) {
        let mut budget = Budget::new(&self.net.core.config);
        budget.reads -= 1;
        budget.charge(Budget::units_read(len));
        self.serve_in_order(token, &mut budget, scratch);
    }

    /// Serves a connection.
    pub(super) fn serve_stream(&mut self, token: Token, scratch: &mut Scratch) {
        let mut budget = Budget::new(&self.net.core.config);
        self.serve_in_order(token, &mut budget, scratch);
    }

    /// Serves a trunk, with what trunks have.
    pub(super) fn serve_trunk(&mut self, token: Token, scratch: &mut Scratch) {
        let answers = self.net.bridge_answers(token);
        let (mut budget, lent) = self.net.core.work.begin_trunk(answers);
        self.serve_in_order(token, &mut budget, scratch);
        self.net.core.work.end_trunk(&budget, lent);
    }

    /// In the order that keeps the grammar: it opens, its input is offered, its queue drains, its
    /// replies are flushed.
    pub(super) fn serve_in_order(
        &mut self,
        token: Token,
        budget: &mut Budget,
        scratch: &mut Scratch,
    ) {
        let Some(stream) = self.net.core.stream(token) else { return };
        let waits_to_flush = stream.waits_to_flush();
        if stream.may_open() {
            self.step_open(token);
        }
        if waits_to_flush {
            self.net.core.flush(token);
        }
        // Input before `on_drain`: a handler that refills its queue in each `on_drain` would keep its
        // own connection from being read otherwise.
        self.take_input(token, budget, scratch);
        if self.net.core.with(token, |conn| conn.finish_serving()) == Some(false) {
            self.call(token, Callback::Drain, |handler, cx| handler.on_drain(cx));
            self.net.core.with(token, |conn| conn.finish_serving());
        }
        self.net.core.close_if_done(token);
    }

    /// Reads and offers until nothing is left, reading is held back, or the budget is used up. Then the
    /// connection goes on the ready list, because the edge is not reported again.
    fn take_input(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        loop {
            let next = self.net.core.with(token, |conn| conn.next_input(budget, &mut scratch.read));
            match next {
                Some(Next::Rest) | None => return,
                Some(Next::Read { len, more }) => {
                    let bytes = &scratch.read[..len];
                    let (left, taken) = self.offer_while_taken(token, bytes, budget);
                    self.net.core.with(token, |conn| conn.keep(&bytes[len - left..], taken));
                    if !more && left == 0 {
                        return;
                    }
                }
                Some(Next::Kept(mut tail)) => {
                    let (left, taken) = self.offer_while_taken(token, tail.unread(), budget);
                    tail.consume(tail.len() - left);
                    self.net.core.with(token, |conn| conn.give_back(tail, taken));
                }
                Some(Next::End) if self.batch_ends_first(token) => {}
                Some(Next::End) => return self.end(token),
                Some(Next::Layered) => return self.take_layered_input(token, budget, scratch),
                Some(Next::Relayed(to)) => return self.relay_input(token, to, budget, scratch),
            }
        }
    }

    /// Calls `on_data` repeatedly while it takes some and some is left. Returns how much is left and
    /// whether the last call took anything.
    pub(super) fn offer_while_taken(
        &mut self,
        token: Token,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> (usize, bool) {
        let mut before = bytes.len();
        loop {
            let units = Budget::units_read(before);
            budget.charge(units);
            self.net.core.work.charge(units);
            let left = self.offer(token, &bytes[bytes.len() - before..]);
            let taken = left < before;
            let again = taken && left > 0;
            if !again
                || self.net.core.with(token, |conn| conn.may_offer_again(budget)) != Some(true)
            {
                return (left, taken);
            }
            before = left;
        }
    }

    /// The peer has ended, and everything has been offered.
    pub(super) fn end(&mut self, token: Token) {
        self.net.core.with(token, |conn| conn.drop_kept());
        let has_callbacks = self
            .net
            .core
            .stream(token)
            .is_some_and(|s| s.phase() == crate::connection::Phase::Open);
        if has_callbacks {
            self.call(token, Callback::Eof, |handler, cx| handler.on_eof(cx));
        }
        self.net.core.with(token, |conn| conn.end_delivered());
    }

    /// A connection has been served from the ready list: if its batch is over, its handler is called.
    pub(super) fn end_batch(&mut self, token: Token) {
        if self.net.core.with(token, |conn| conn.batch_is_over()) == Some(true) {
            self.call_batch_end(token);
            self.net.core.flush(token);
            self.net.core.close_if_done(token);
        }
    }

    /// A batch ends before the peer's end: behind `on_eof` the handler may be closed. Returns whether it
    /// was called; it may have held back the end.
    #[cold]
    pub(super) fn batch_ends_first(&mut self, token: Token) -> bool {
        let owes = self.net.core.stream(token).is_some_and(|stream| {
            stream.owes_batch_end() && stream.phase() == crate::connection::Phase::Open
        });
        if owes {
            self.call_batch_end(token);
        }
        owes
    }

    fn call_batch_end(&mut self, token: Token) {
        self.call(token, Callback::BatchEnd, |handler, cx| handler.on_batch_end(cx));
        self.net.core.with(token, |conn| conn.batch_has_ended());
    }

    /// The next step towards `on_open`.
    fn step_open(&mut self, token: Token) {
        match self.net.core.step_open(token) {
            Opening::Ready => self.opened(token, None),
            Opening::Waiting => {}
        }
    }
}
