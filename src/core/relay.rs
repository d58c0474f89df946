//! Pairs: two connections of which one is not read while the other's queue is full; and relays, pairs
//! whose bytes the reactor passes on by itself.
//!
//! What one of a relay brings goes straight into the other's output queue, its end becomes the
//! other's, and they end together.

use super::Core;
use crate::connection::{Filled, SendStatus, Stream, Transfer};
use crate::error::{CloseReason, Limit};
use crate::layer::{LayerError, LayerErrorKind, MessageKind};
use crate::token::Token;

/// A read that brings this much says that splicing pays.
const BIG: usize = 64 * 1024;

/// A splice that brings less says that it does not: what is left of a big block is read.
const SMALL: usize = 16 * 1024;

impl Core {
    /// Pairs two connections: each one's reads wait for the other's queue. `false` if one is gone.
    pub(crate) fn pair_up(&mut self, a: Token, b: Token) -> bool {
        let lives = |token| self.stream(token).is_some_and(|s| !s.is_dead());
        let linked = a != b && lives(a) && lives(b);
        if linked {
            self.pair(a, b, None);
        }
        linked
    }

    /// Makes a relay of two connections. `false` if one of them is gone or on its way out.
    pub(crate) fn relay(&mut self, a: Token, b: Token) -> bool {
        let lasts = |token| self.stream(token).is_some_and(Stream::is_live);
        if a == b || !lasts(a) || !lasts(b) {
            return false;
        }
        self.pair(a, b, Some(Transfer::Copied));
        for (one, other) in [(a, b), (b, a)] {
            if self.with(one, |conn| conn.end_was_delivered()) == Some(true) {
                self.with_settled(other, |conn| conn.half_close());
            }
        }
        true
    }

    /// Makes a pair of two that live. Partners that they had are on their own again.
    fn pair(&mut self, a: Token, b: Token, relay: Option<Transfer>) {
        // Both first: what one of them had as a partner may be the other.
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

    /// Brings what there is to bring from one socket towards the other: one read's worth.
    pub(crate) fn carry(&mut self, from: Token, to: Token, buffer: &mut [u8]) {
        // What groups have for the other one goes first, takes room, and may end it.
        if self.groups.has_pending() {
            self.settle_groups_before_direct(to);
            if self.relayed_to(from) != Some(to) || !self.stream(from).is_some_and(Stream::may_read)
            {
                return;
            }
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

    /// Moves what there is through a pipe, `most` bytes at most. Returns whether that was done; else
    /// it is to be copied.
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

    /// What a handler had left when its connection became a relay's, or what was held back since.
    pub(crate) fn pass_unread(&mut self, from: Token, to: Token) {
        let room = self.room(to).max(1);
        let Some(mut tail) = self.with(from, |conn| conn.take_kept()).flatten() else { return };
        let n = tail.len().min(room);
        self.pass_on(to, &tail.unread()[..n], MessageKind::Default);
        tail.consume(n);
        self.with(from, |conn| conn.give_back(tail, true));
    }

    /// The end of one becomes the other's, behind what was passed on.
    pub(crate) fn pass_end(&mut self, from: Token, to: Token) {
        self.with_settled(to, |conn| conn.half_close());
        self.with(from, |conn| conn.end_passed());
    }

    /// How much fits below the cap of `to`. All, if it is dropped anyway.
    fn room(&mut self, to: Token) -> usize {
        self.with(to, |conn| conn.room()).unwrap_or(usize::MAX)
    }

    /// Queues what the other one has brought. A relay has no holes: what cannot be passed on ends
    /// both.
    pub(crate) fn pass_on(&mut self, to: Token, bytes: &[u8], kind: MessageKind) {
        match self.send(to, bytes, kind) {
            // `Gone`: this direction was ended from this side, or both connections are ending.
            SendStatus::Queued | SendStatus::AboveHighWater | SendStatus::Gone => {}
            SendStatus::Full => {
                let cap = self.stream(to).map_or(0, |s| s.options().output_limit);
                let reason = CloseReason::LimitExceeded(Limit::QueuedOutput, cap);
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
