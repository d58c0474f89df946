//! Relays: two connections whose bytes the reactor passes on by itself.
//!
//! A relay is a pair of linked connections (so that each is paced by the other's queue) with nobody
//! between them: what one brings goes straight into the other's output queue, its end becomes the
//! other's, and they end together.

use std::io;

use super::{Core, SendStatus};
use crate::connection::{Carriage, Link, Phase, ReadSide, Received, Stream, Wire};
use crate::error::{CloseReason, Deadline, Limit};
use crate::layer::{Kind, LayerError, LayerErrorKind};
use crate::sys::Pipe;
use crate::token::Token;

/// A read that brings this much says that splicing pays.
const BIG: usize = 64 * 1024;

/// A splice that brings less says that it does not: what is left of a big block is read.
const SMALL: usize = 16 * 1024;

/// What the end of one connection means for the other one of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The other one closes as well, after flushing.
    Orderly,
    /// The other peer must not take it for a proper end.
    Cut,
    /// Everything ends, and each for this same reason.
    Common,
}

impl End {
    pub(crate) fn of(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Finished | CloseReason::Closed => End::Orderly,
            CloseReason::TimedOut(Deadline::Shutdown) | CloseReason::ReactorGone => End::Common,
            _ => End::Cut,
        }
    }
}

impl Core {
    /// Makes a relay of two connections. `false` if one of them is gone or on its way out.
    pub(crate) fn relay(&mut self, a: Token, b: Token) -> bool {
        let lasts = |token| self.stream(token).is_some_and(|s| !s.is_over());
        if a == b || !lasts(a) || !lasts(b) {
            return false;
        }
        self.pair(a, b, Some(Carriage::Copied));
        for (one, other) in [(a, b), (b, a)] {
            let Some(stream) = self.stream_mut(one) else { continue };
            // What its handler has left is the first to be passed on.
            stream.fresh = true;
            if stream.read == ReadSide::Told {
                self.shutdown_write(other);
            }
        }
        true
    }

    pub(crate) fn relayed_to(&self, token: Token) -> Option<Token> {
        self.stream(token)?.relayed_to()
    }

    /// Whether `stream` has to wait for the other one of its pair: that one's queue is full; or, in
    /// a relay, its output is dead, and both end once its input has been passed on. A handshake
    /// goes on meanwhile: what fills the queue may be waiting for it.
    pub(super) fn holds_back(&self, link: &Link, stream: &Stream) -> bool {
        let Some(other) = self.stream(link.other) else { return false };
        let dying = link.relay.is_some() && other.phase == Phase::Failing;
        (other.over_high || dying) && stream.wire().is_none_or(Wire::is_ready)
    }

    /// Brings what there is to bring from one socket towards the other: one read's worth.
    pub(crate) fn carry(&mut self, from: Token, to: Token, buffer: &mut [u8]) {
        let tick = self.tick;
        // What groups have for the other one goes first, takes room, and may end it.
        if self.groups.has_pending() {
            self.settle_groups_before_direct(to);
            if self.relayed_to(from) != Some(to) {
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
        let Some(stream) = self.stream_mut(from) else { return };
        match stream.receive(&mut buffer[..most], tick) {
            Ok(Some(Received { len, .. })) => {
                if len >= BIG {
                    stream.carry_by(Carriage::Piped);
                }
                self.pass_on(to, &buffer[..len], Kind::Default);
            }
            Ok(None) => {}
            Err(e) => self.kill_in_order(from, CloseReason::Io(e)),
        }
    }

    /// Moves what there is through a pipe, `most` bytes at most. Answers whether that was done; else
    /// it is to be copied.
    fn splice(&mut self, from: Token, to: Token, most: usize) -> bool {
        let Some(mut pipe) = self.pipes.take() else { return false };
        let tick = self.tick;
        let Some(stream) = self.stream_mut(from) else { return true };
        match pipe.fill(&mut stream.socket, most) {
            Ok(Some(n)) => {
                stream.moved(tick);
                if n < SMALL {
                    stream.carry_by(Carriage::Copied);
                }
                self.queue_piped(to, pipe);
            }
            Ok(None) => {
                stream.carry_by(Carriage::OnlyCopied);
                return false;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => stream.readable = false,
            Err(e) => self.kill_in_order(from, CloseReason::Io(e)),
        }
        true
    }

    /// Queues what is in a pipe, and writes it if its turn has come.
    fn queue_piped(&mut self, to: Token, pipe: Pipe) {
        self.output_of(to, |output| output.push_pipe(pipe));
        let tick = self.tick;
        let Some(stream) = self.stream_mut(to) else { return };
        if let Err(e) = stream.write_queued(tick) {
            return self.write_failed(to, e);
        }
        self.queued_more(to);
    }

    /// What a handler had left when its connection became a relay's, or what was held back since.
    pub(crate) fn pass_unread(&mut self, from: Token, to: Token) {
        let room = self.room(to).max(1);
        let Some(mut tail) = self.stream_mut(from).and_then(|s| s.input.take()) else { return };
        let n = tail.len().min(room);
        self.pass_on(to, &tail.unread()[..n], Kind::Default);
        tail.consume(n);
        match self.stream_mut(from) {
            Some(stream) if stream.is_open() && !tail.is_empty() => stream.input = Some(tail),
            _ => self.recycle_tail(tail),
        }
    }

    /// How much fits below the cap of `to`. All, if it is dropped anyway.
    fn room(&self, to: Token) -> usize {
        match self.stream(to) {
            Some(stream) if stream.accepts_output() => {
                stream.options().output_cap.saturating_sub(stream.queued())
            }
            _ => usize::MAX,
        }
    }

    /// Queues what the other one has brought. A relay has no holes: what cannot be passed on ends
    /// both.
    pub(crate) fn pass_on(&mut self, to: Token, bytes: &[u8], kind: Kind) {
        match self.send(to, bytes, kind) {
            SendStatus::Queued => {
                // What waits for a handshake paces the other one like any output.
                if let Some(stream) = self.stream_mut(to) {
                    let queued = stream.queued();
                    stream.passes_high_mark(queued);
                }
            }
            // `Gone`: this direction was ended from this side, or both connections are ending.
            SendStatus::AboveHigh | SendStatus::Gone => {}
            SendStatus::Full => {
                let cap = self.stream(to).map_or(0, |s| s.options().output_cap);
                self.fail(to, CloseReason::LimitExceeded(Limit::QueuedOutput, cap));
            }
            SendStatus::Unencodable => {
                let layer = self.stream(to).and_then(|s| s.wire()).map_or("", |w| w.layer.name());
                let what = "expected what this format can say, got something else to relay";
                let error = LayerError::new(layer, LayerErrorKind::Unencodable, what);
                self.fail(to, CloseReason::Layer(error));
            }
        }
    }

    /// One of a relay has ended; the relay is taken apart already.
    pub(super) fn end_with(&mut self, other: Token, end: End) {
        match end {
            End::Orderly => {
                // If it has heard its own peer to the end, flushing is all that is left to it.
                if self.stream(other).is_some_and(|s| s.read == ReadSide::Told) {
                    self.shutdown_write(other);
                } else {
                    self.close(other, None);
                }
            }
            End::Cut => {
                // What the system takes at once may still arrive.
                self.flush(other);
                self.abort(other);
            }
            End::Common => {}
        }
    }
}
