//! Input: read, offered, kept, ended. Connections without a wire layer; those with one share the
//! offering.

use super::dispatch::Dispatch;
use super::scratch::Scratch;
use crate::config::Config;
use crate::connection::{Input, Phase, ReadSide, Received, WriteSide};
use crate::error::{CloseReason, Limit};
use crate::token::Token;

/// How much one connection may still do in this turn.
pub(super) struct Budget {
    pub(super) reads: usize,
    pub(super) calls: usize,
    /// It has had a wire layer from the beginning of this turn's work on it.
    pub(super) layered: bool,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Self {
        Budget { reads: config.reads_per_turn, calls: config.messages_per_turn, layered: false }
    }
}

/// What is next for a connection's input.
enum Next {
    /// Nothing: it is held back, or the socket has nothing.
    Rest,
    /// Something, but the budget is used up.
    Later,
    Read,
    /// What the handler left may be offered again.
    OfferUnread,
    TellEnd,
    /// There is a wire layer.
    Decode,
    /// It is for another connection.
    Relay,
    /// It is closing.
    Discard,
    /// Its output has failed, and its input is used up.
    Finish,
}

impl<S: 'static> Dispatch<S> {
    /// Reads and offers until nothing is left, reading is held back, or the budget is used up;
    /// what is left then goes on the ready queue, because its edge will not come again.
    pub(super) fn take_input(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) {
        loop {
            match self.next_input(token, budget) {
                Next::Rest => return,
                Next::Later => return self.net.core.make_ready_later(token),
                Next::Read => {
                    budget.reads -= 1;
                    if !self.read_and_offer(token, budget, scratch) {
                        return;
                    }
                }
                Next::OfferUnread => {
                    self.offer_unread(token, budget);
                    self.net.core.unread_to_new_layer(token);
                }
                Next::TellEnd => return self.tell_end(token),
                Next::Decode => {
                    budget.layered = true;
                    return self.take_layered_input(token, budget, scratch);
                }
                Next::Relay => return self.relay_input(token, budget, scratch),
                Next::Discard => return self.discard_input(token, scratch),
                Next::Finish => {
                    return self.net.core.kill_in_order(token, CloseReason::Finished);
                }
            }
        }
    }

    fn next_input(&self, token: Token, budget: &Budget) -> Next {
        let Some(stream) = self.net.core.stream(token) else { return Next::Rest };
        match stream.phase {
            Phase::Connecting | Phase::Dead => return Next::Rest,
            Phase::Closing | Phase::Lingering => return Next::Discard,
            Phase::Handshaking | Phase::Open | Phase::Failing => {}
        }
        if stream.extra.is_some() {
            if stream.wire().is_some() {
                return Next::Decode;
            }
            if stream.relayed_to().is_some() {
                return Next::Relay;
            }
        }
        if !self.net.core.lets_read(stream) {
            return Next::Rest;
        }
        if stream.fresh && stream.unread() > 0 {
            if budget.calls == 0 { Next::Later } else { Next::OfferUnread }
        } else if stream.read == ReadSide::Ended {
            Next::TellEnd
        } else if !stream.readable || stream.read == ReadSide::Told {
            if stream.phase == Phase::Failing { Next::Finish } else { Next::Rest }
        } else if budget.reads == 0 || budget.calls == 0 {
            Next::Later
        } else {
            Next::Read
        }
    }

    /// One read into the reactor's buffer; an error ends the connection.
    #[inline]
    pub(super) fn read(&mut self, token: Token, scratch: &mut Scratch) -> Option<Received> {
        let tick = self.net.core.tick;
        match self.net.core.stream_mut(token)?.receive(&mut scratch.read, tick) {
            Ok(read) => read,
            Err(e) => {
                self.net.core.kill_in_order(token, CloseReason::Io(e));
                None
            }
        }
    }

    /// Answers whether there may be something left to do. What the handler itself left to do (to
    /// close, to start a layer) is on the ready queue.
    fn read_and_offer(&mut self, token: Token, budget: &mut Budget, scratch: &mut Scratch) -> bool {
        let Some(Received { len, more }) = self.read(token, scratch) else { return true };
        let all = self.offer(token, &scratch.read[..len], budget);
        if !all {
            self.net.core.unread_to_new_layer(token);
        }
        more || !all
    }

    /// Offers bytes that have just come, behind those that wait, if any. Answers whether all were
    /// taken.
    #[inline]
    pub(super) fn offer(&mut self, token: Token, bytes: &[u8], budget: &mut Budget) -> bool {
        !self.net.core.stash_behind_unread(token, bytes) && self.offer_alone(token, bytes, budget)
    }

    /// Offers bytes that have just come to a connection of which nothing waits.
    #[inline]
    pub(super) fn offer_alone(&mut self, token: Token, bytes: &[u8], budget: &mut Budget) -> bool {
        let (taken, progress) = self.offer_while_taken(token, bytes, budget);
        let all = taken == bytes.len();
        if !all {
            self.keep(token, &bytes[taken..], progress);
        }
        all
    }

    /// Offers what waits. It leaves the connection for as long as the handler has it.
    pub(super) fn offer_unread(&mut self, token: Token, budget: &mut Budget) {
        if let Some(to) = self.net.core.relayed_to(token) {
            return self.net.core.pass_unread(token, to);
        }
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
    #[inline(always)]
    fn offer_while_taken(
        &mut self,
        token: Token,
        bytes: &[u8],
        budget: &mut Budget,
    ) -> (usize, bool) {
        let left = self.offer_once(token, bytes, budget);
        if left == 0 { (bytes.len(), true) } else { self.offer_rest(token, bytes, left, budget) }
    }

    /// One call of `on_data`; answers how much it left.
    #[inline(always)]
    fn offer_once(&mut self, token: Token, bytes: &[u8], budget: &mut Budget) -> usize {
        budget.calls = budget.calls.saturating_sub(1);
        let mut input = Input::new(bytes);
        self.call(token, |handler, cx| handler.on_data(cx, &mut input));
        input.len()
    }

    /// The first call has left the last `left` of `bytes`.
    fn offer_rest(
        &mut self,
        token: Token,
        bytes: &[u8],
        mut left: usize,
        budget: &mut Budget,
    ) -> (usize, bool) {
        let mut before = bytes.len();
        while left > 0 {
            let progress = left < before;
            // What the handler left before it put a layer on belongs to that, or to the other
            // connection of a relay.
            let switched = || {
                !budget.layered && self.has_layer(token)
                    || self.net.core.relayed_to(token).is_some()
            };
            let over = !progress || budget.calls == 0;
            if over || switched() || !self.is_open(token) || !self.net.core.may_read(token) {
                return (bytes.len() - left, progress);
            }
            before = left;
            left = self.offer_once(token, &bytes[bytes.len() - left..], budget);
        }
        (bytes.len(), true)
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
        let progress = progress || stream.relayed_to().is_some();
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
        match stream.relayed_to() {
            Some(to) => self.net.core.shutdown_write(to),
            None => self.call(token, |handler, cx| handler.on_eof(cx)),
        }
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
        self.net.core.make_ready_later(token);
    }

    fn has_layer(&self, token: Token) -> bool {
        self.net.core.stream(token).is_some_and(|stream| stream.wire().is_some())
    }

    fn is_open(&self, token: Token) -> bool {
        self.net.core.stream(token).is_some_and(super::super::connection::Stream::is_open)
    }
}
