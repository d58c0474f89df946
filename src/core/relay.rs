//! Pairs: each connection is not read while the other one's queue is above its mark. Relays: pairs whose
//! bytes the reactor passes on.
//!
//! In a relay the input of one goes straight into the output queue of the other, its end becomes the
//! other's half-close, and both end together.

use super::Core;
use crate::connection::{Filled, Phase, SendStatus, Stream, Transfer};
use crate::error::{CloseReason, Limit};
use crate::layer::{LayerError, LayerErrorKind, MessageKind};
use crate::token::Token;

/// After a read of at least this much the next transfer is a splice.
const BIG: usize = 64 * 1024;

/// After a splice of less than this the next transfer is a read, which is cheaper for small amounts.
const SMALL: usize = 16 * 1024;

impl Core {
    /// Pairs two connections: each one's reads wait for the other's queue. `false` if one is gone.
    pub(crate) fn pair_up(&mut self, a: Token, b: Token) -> bool {
        let exists = |token| self.stream(token).is_some_and(|s| !s.is_dead());
        let paired = a != b && exists(a) && exists(b);
        if paired {
            self.pair(a, b, None);
        }
        paired
    }

    /// Makes a relay of two connections. `false` if one of them is gone or ending.
    pub(crate) fn relay(&mut self, a: Token, b: Token) -> bool {
        let is_live = |token| self.stream(token).is_some_and(Stream::is_live);
        if a == b || !is_live(a) || !is_live(b) {
            return false;
        }
        self.pair(a, b, Some(Transfer::Copied));
        #[cfg(feature = "sim")]
        crate::witness::relayed([a, b].map(|token| self.stream(token)?.simulated()));
        for (one, other) in [(a, b), (b, a)] {
            if self.with(one, |conn| conn.end_was_delivered()) == Some(true) {
                self.with_settled(other, |conn| conn.half_close());
            }
        }
        true
    }

    /// Pairs two connections that exist. Their earlier pairs are dissolved.
    fn pair(&mut self, a: Token, b: Token, relay: Option<Transfer>) {
        // Both before either is paired: they may have been each other's partners.
        for one in [a, b] {
            self.with(one, |conn| conn.unpair());
        }
        for (one, other) in [(a, b), (b, a)] {
            self.with(one, |conn| conn.pair_with(other, relay));
        }
        self.with(a, |conn| conn.push_hold());
    }

    pub(crate) fn relayed_to(&self, token: Token) -> Option<Token> {
        self.stream(token)?.relayed_to()
    }

    /// Transfers one read's or one splice's worth from one socket towards the other.
    pub(crate) fn carry(&mut self, from: Token, to: Token, buffer: &mut [u8]) {
        if !self.may_pass(from, to) {
            return;
        }
        let most = self.room(to).min(buffer.len());
        if self.stream(from).is_some_and(Stream::may_be_piped)
            && self.stream(to).is_some_and(Stream::takes_pipes)
            && self.splice(from, to, most)
        {
            return;
        }
        let read = self.with(from, |conn| {
            let len = conn.read_to_relay(&mut buffer[..most]);
            if len >= BIG {
                conn.stream.transfer_by(Transfer::Piped);
            }
            len
        });
        if let Some(len @ 1..) = read {
            self.pass_on(to, &buffer[..len], MessageKind::Default);
        }
    }

    /// Transfers through a pipe, `most` bytes at most. `false` if a copy has to do it.
    fn splice(&mut self, from: Token, to: Token, most: usize) -> bool {
        let Some(pipe) = self.pipes.take() else { return false };
        match self.with(from, |conn| conn.fill_pipe(pipe, most, SMALL)) {
            Some(Filled::Pipe(pipe)) => {
                self.with(to, |conn| conn.queue_piped(pipe));
                true
            }
            Some(Filled::Nothing) | None => true,
            Some(Filled::Refused) => false,
        }
    }

    /// Whether bytes of one may go to the other now. Messages published to that one go first: they take
    /// room, and may end it.
    fn may_pass(&mut self, from: Token, to: Token) -> bool {
        if !self.groups.has_pending() {
            return true;
        }
        self.settle_groups_before_direct(to);
        self.relayed_to(from) == Some(to) && self.stream(from).is_some_and(Stream::may_read)
    }

    /// Passes on kept input: what the handler had left, or what found no room since.
    pub(crate) fn pass_unread(&mut self, from: Token, to: Token) {
        if !self.may_pass(from, to) {
            return;
        }
        let room = self.room(to).max(1);
        let Some(mut tail) = self.with(from, |conn| conn.take_kept()).flatten() else { return };
        let n = tail.len().min(room);
        self.pass_on(to, &tail.unread()[..n], MessageKind::Default);
        tail.consume(n);
        self.with(from, |conn| {
            conn.count_relayed(n);
            conn.give_back(tail, true);
        });
    }

    /// The end of one becomes the other's half-close, behind what was passed on. Not where its output
    /// has failed: the system reports a reset once, to the write, and reads return an end after it.
    pub(crate) fn pass_end(&mut self, from: Token, to: Token) {
        if self.stream(from).is_some_and(|stream| stream.phase() != Phase::Failing) {
            self.with_settled(to, |conn| conn.half_close());
        }
        self.with(from, |conn| conn.end_passed());
    }

    /// How much fits below the output limit of `to`; unlimited if it would be dropped anyway.
    fn room(&mut self, to: Token) -> usize {
        self.with(to, |conn| conn.room()).unwrap_or(usize::MAX)
    }

    /// Queues input of the partner. A relay must not drop anything: what cannot be passed on ends both.
    pub(crate) fn pass_on(&mut self, to: Token, bytes: &[u8], kind: MessageKind) {
        match self.send(to, bytes, kind) {
            // `Gone`: this direction was ended from this side, or both connections are ending.
            SendStatus::Queued
            | SendStatus::AboveHighWater
            | SendStatus::Replaced
            | SendStatus::Gone => {}
            SendStatus::Full => {
                let limit = self.stream(to).map_or(0, |s| s.options().output_limit);
                let reason = CloseReason::LimitExceeded(Limit::QueuedOutput, limit);
                self.with(to, |conn| conn.finish(reason));
            }
            SendStatus::Unencodable => {
                let layer = self.stream(to).and_then(|s| s.wire()).map_or("", |w| w.layer().name());
                let what = "expected what this format can say, got something else to relay";
                let error = LayerError::new(layer, LayerErrorKind::Unencodable, what);
                self.with(to, |conn| conn.finish(CloseReason::Layer(error)));
            }
        }
    }
}
