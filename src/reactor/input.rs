//! Input: read, offered, kept, ended. Connections without a wire layer; those with one share the
//! offering.

use std::io;

use super::Scratch;
use super::dispatch::Dispatch;
use crate::connection::{Input, Phase, ReadSide, WriteSide};
use crate::error::{CloseReason, Limit};
use crate::sys;
use crate::token::Token;

/// How much one connection may still do in this turn.
pub(super) struct Budget {
    pub(super) reads: usize,
    pub(super) calls: usize,
}

/// What a read came to.
pub(super) enum Read {
    Bytes(usize),
    /// End-of-stream, an error, or nothing there: noted on the connection.
    Nothing,
}

impl<S: 'static> Dispatch<S> {
    /// Reads and offers until nothing is left, reading is held back, or the budget is used up;
    /// what is left then goes on the ready queue, because its edge will not come again.
    pub(super) fn take_input(&mut self, token: Token, scratch: &mut Scratch) {
        let config = &self.net.core.config;
        let mut budget = Budget { reads: config.reads_per_turn, calls: config.messages_per_turn };
        loop {
            let Some(stream) = self.net.core.stream(token) else { return };
            match stream.phase {
                Phase::Connecting | Phase::Dead => return,
                Phase::Closing | Phase::Lingering => return self.discard_input(token, scratch),
                Phase::Handshaking | Phase::Open | Phase::Failing => {}
            }
            if stream.wire().is_some() {
                return self.take_layered_input(token, &mut budget, scratch);
            }
            if !self.net.core.may_read(token) {
                return;
            }
            let Some(stream) = self.net.core.stream(token) else { return };
            if stream.fresh && stream.unread() > 0 {
                if budget.calls == 0 {
                    return self.net.core.make_ready(token);
                }
                self.offer_unread(token, &mut budget);
                self.net.core.unread_to_new_layer(token);
            } else if stream.read == ReadSide::Ended {
                return self.tell_end(token);
            } else if !stream.readable || stream.read == ReadSide::Told {
                return self.nothing_more(token);
            } else if budget.reads == 0 || budget.calls == 0 {
                return self.net.core.make_ready(token);
            } else {
                budget.reads -= 1;
                self.read_and_offer(token, &mut budget, scratch);
            }
        }
    }

    /// One read into the reactor's buffer, and what it says about the socket.
    pub(super) fn read(&mut self, token: Token, scratch: &mut Scratch) -> Read {
        let tick = self.net.core.tick;
        let Some(stream) = self.net.core.stream_mut(token) else { return Read::Nothing };
        match stream.socket.read(&mut scratch.read) {
            Ok(0) => {
                stream.readable = false;
                stream.exhausted = true;
                if stream.read == ReadSide::Open && !stream.is_closing() {
                    stream.read = ReadSide::Ended;
                }
                // What the handler left is offered once more, now that nothing will follow.
                stream.fresh = true;
                Read::Nothing
            }
            Ok(n) => {
                // A short read has emptied the system's buffer, unless urgent data cut it short or
                // the end came with the data in one edge: then the end is still to be read.
                if n < scratch.read.len()
                    && sys::SHORT_IO_DRAINS
                    && !stream.read_closed
                    && !stream.urgent
                {
                    stream.readable = false;
                }
                if stream.phase == Phase::Open {
                    stream.clock = tick;
                }
                Read::Bytes(n)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                stream.readable = false;
                stream.urgent = false;
                Read::Nothing
            }
            Err(e) => {
                self.net.core.kill_in_order(token, CloseReason::Io(e));
                Read::Nothing
            }
        }
    }

    fn read_and_offer(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        if let Read::Bytes(n) = self.read(token, scratch) {
            self.offer(token, &scratch.read[..n], budget);
            self.net.core.unread_to_new_layer(token);
        }
    }

    /// Offers bytes that have just come, behind those that wait, if any.
    pub(super) fn offer(&mut self, token: Token, bytes: &[u8], budget: &mut Budget) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        if stream.unread() > 0 {
            stream.fresh = true;
            return self.net.core.stash_input(token, bytes);
        }
        let (taken, progress) = self.offer_while_taken(token, bytes, budget);
        self.keep(token, &bytes[taken..], progress);
    }

    /// Offers what waits. It leaves the connection for as long as the handler has it.
    pub(super) fn offer_unread(&mut self, token: Token, budget: &mut Budget) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        let Some(mut tail) = stream.input.take() else { return };
        let (taken, progress) = self.offer_while_taken(token, tail.unread(), budget);
        tail.consume(taken);
        match self.net.core.stream_mut(token) {
            Some(stream) if stream.is_open() && !tail.is_empty() => {
                stream.input = Some(tail);
                self.keep(token, &[], progress);
            }
            _ => self.net.core.recycle_tail(tail),
        }
    }

    /// Calls `on_data` again and again while it takes some and some is left. Answers how much was
    /// taken, and whether the last call took anything.
    fn offer_while_taken(
        &mut self,
        token: Token,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> (usize, bool) {
        let mut taken = 0;
        let layered = self.is_layered(token);
        loop {
            budget.calls = budget.calls.saturating_sub(1);
            let mut input = Input::new(&bytes[taken..]);
            self.call(token, |handler, cx| handler.on_data(cx, &mut input));
            let now_taken = bytes.len() - input.len();
            let progress = now_taken > taken;
            taken = now_taken;
            let over = taken == bytes.len() || !progress || budget.calls == 0;
            if over || !self.is_open(token) || !self.net.core.may_read(token) {
                return (taken, progress);
            }
            if self.is_layered(token) != layered {
                return (taken, progress); // what is left belongs to the layer just put on
            }
        }
    }

    /// Keeps what the handler left. If it took nothing although it could have, the limit counts.
    fn keep(&mut self, token: Token, rest: &[u8], progress: bool) {
        if !self.is_open(token) {
            return;
        }
        if !rest.is_empty() {
            self.net.core.stash_input(token, rest);
        }
        let held_back = !self.net.core.may_read(token);
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        stream.fresh = progress;
        let limit = stream.options().unread_limit;
        if !progress && !held_back && stream.unread() > limit {
            self.net.core.fail(token, CloseReason::LimitExceeded(Limit::UnreadInput, limit));
        }
    }

    /// The peer has ended and everything has been offered.
    pub(super) fn tell_end(&mut self, token: Token) {
        let Some(stream) = self.net.core.stream_mut(token) else { return };
        stream.read = ReadSide::Told;
        // What the handler has left it was offered for the last time: `resume` must not bring it
        // back behind the end.
        if let Some(tail) = stream.input.take() {
            self.net.core.recycle_tail(tail);
        }
        let Some(stream) = self.net.core.stream(token) else { return };
        if stream.phase == Phase::Failing {
            return self.net.core.kill_in_order(token, CloseReason::Finished);
        }
        self.call(token, |handler, cx| handler.on_eof(cx));
        let Some(stream) = self.net.core.stream(token) else { return };
        if stream.phase == Phase::Open && stream.write == WriteSide::Ended {
            self.net.core.both_ended(token);
        }
    }

    /// The socket has nothing now. For one whose output has failed that is the end.
    pub(super) fn nothing_more(&mut self, token: Token) {
        if self.net.core.stream(token).is_some_and(|s| s.phase == Phase::Failing) {
            self.net.core.kill_in_order(token, CloseReason::Finished);
        }
    }

    /// A closing connection's input: read, so that the peer is not left waiting and no reset
    /// destroys what was flushed; and dropped.
    pub(super) fn discard_input(&mut self, token: Token, scratch: &mut Scratch) {
        for _ in 0..self.net.core.config.reads_per_turn {
            let Some(stream) = self.net.core.stream(token) else { return };
            let lingering = match stream.phase {
                Phase::Lingering => true,
                Phase::Closing => false,
                _ => return,
            };
            if stream.exhausted {
                if lingering {
                    self.net.core.lingered(token);
                }
                return;
            }
            if !stream.readable {
                return;
            }
            self.read(token, scratch);
        }
        self.net.core.make_ready(token);
    }

    fn is_layered(&self, token: Token) -> bool {
        self.net.core.stream(token).is_some_and(|stream| stream.wire().is_some())
    }

    fn is_open(&self, token: Token) -> bool {
        self.net.core.stream(token).is_some_and(super::super::connection::Stream::is_open)
    }
}
