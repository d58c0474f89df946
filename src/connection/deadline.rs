//! Deadlines: one watchdog timer for each connection.
//!
//! Moving bytes stores the turn's tick in the connection. When the watchdog fires it computes the next
//! deadline; if that lies ahead, the timer is set again. So a deadline costs one store per read or
//! write, and no timer operation.
//!
//! A deadline judges the peer and never this side. While reading is held back, no input deadline runs.
//! Output progress is checked by trying a write, not by readiness: Linux reports a socket as writable
//! only when a third of its buffer is free (`sk_stream_write_space`), which a peer that reads slowly and
//! steadily may not reach for minutes.

use std::time::Duration;

use super::life::Event;
use super::{Conn, Due, Phase, Stream, Work};
use crate::error::{CloseReason, Deadline};

/// How long, beyond `close_timeout`, input is discarded from a peer that goes on sending after the
/// flush: unread input would make close(2) a reset, which destroys what the peer has not read yet.
const LINGER_LONGER: Duration = Duration::from_secs(60);

/// What the core has to do after a watchdog fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fired {
    Nothing,
    /// The attempt to connect took too long; another address may be left.
    AttemptTimedOut,
}

impl Stream {
    /// The tick at which there may be something to do: a deadline, or the call that the layer asked
    /// for; `None` if there is neither.
    fn deadline(&self, work: &Work) -> Option<u64> {
        let called = matches!(self.life.phase, Phase::Handshaking | Phase::Open);
        let layer = self.wire().filter(|_| called).and_then(|wire| wire.call_at);
        let layer = layer.map(|at| work.tick_of(at));
        self.peers_deadline().into_iter().chain(layer).min()
    }

    /// The tick at which the peer's time may be up; `None` if no deadline is running.
    fn peers_deadline(&self) -> Option<u64> {
        let options = self.options();
        let stall = self
            .output
            .as_ref()
            .filter(|output| !output.is_empty())
            .map(|output| after(output.progress, options.stall_timeout));
        match self.life.phase {
            Phase::Open => {
                let idle = options.idle_timeout.filter(|_| self.may_read());
                let idle = idle.map(|idle| after(self.clock, idle));
                let upgrade = self.wire().and_then(super::Wire::deadline);
                let message = options.message_timeout.and_then(|limit| self.message_due(limit));
                [idle, stall, upgrade, message].into_iter().flatten().min()
            }
            // While the socket takes output, only the stall deadline runs.
            Phase::Closing => Some(stall.unwrap_or(self.clock)),
            Phase::Dead => None,
            Phase::Connecting | Phase::Handshaking | Phase::Failing | Phase::Lingering => {
                Some(self.clock)
            }
        }
    }

    fn is_stalled(&self, tick: u64) -> bool {
        let queued = self.output.as_ref().filter(|output| !output.is_empty());
        queued.is_some_and(|o| after(o.progress, self.options().stall_timeout) <= tick)
    }

    /// Whether the peer acted in time and only the loop is late: an edge was reported, and the
    /// connection is on the ready list. That does not excuse stalled output, since the write was tried.
    fn waits_for_us(&self, tick: u64) -> bool {
        self.is_in_ready()
            && match self.life.phase {
                Phase::Connecting => self.writable || self.error,
                Phase::Handshaking => self.readable,
                Phase::Open => self.readable && self.may_read() && !self.is_stalled(tick),
                _ => false,
            }
    }

    /// When a message that has begun to arrive has to be whole.
    fn message_due(&self, limit: Duration) -> Option<u64> {
        let kept = self.input.as_ref().filter(|tail| !tail.is_empty()).map(|tail| tail.since());
        let undecoded = self.wire().and_then(|wire| wire.undecoded.as_deref());
        let held = self.wire().and_then(|wire| wire.part_since);
        let since = kept.into_iter().chain(undecoded.map(super::Tail::since)).chain(held).min()?;
        self.may_read().then(|| after(since, limit))
    }
}

/// The tick after `time`. One more, because `tick` may have been almost over: nothing is early.
fn after(tick: u64, time: Duration) -> u64 {
    tick.saturating_add(crate::timer::ticks_ceil(time)).saturating_add(1)
}

impl Conn<'_> {
    /// Sets the watchdog to the next deadline. Called when a deadline begins, never per byte: the
    /// watchdog itself finds a deadline that has moved.
    pub(super) fn watch(&mut self) {
        self.watch_from(0);
    }

    /// The same, but not before tick `first`.
    fn watch_from(&mut self, first: u64) {
        let Some(at) = self.stream.deadline(self.work) else { return };
        let at = at.max(first);
        match self.stream.watchdog {
            Some(key) => {
                self.work.timers.rearm(key, at);
            }
            None => {
                let due = Due::Watchdog(self.token);
                let key = self.work.timers.insert(&mut self.stream.timers, at, due);
                self.stream.watchdog = Some(key);
            }
        }
    }

    /// The watchdog fired: a deadline has passed, or it has moved and the watchdog is set again.
    pub(crate) fn watchdog_fired(&mut self) -> Fired {
        self.stream.watchdog = None;
        // An empty queue has no stall deadline yet: the one that it gets has to be set.
        if let Some(output) = &mut self.stream.output {
            output.stall_watched = !output.is_empty();
        }
        let passed =
            |conn: &Self| conn.stream.deadline(conn.work).is_some_and(|at| at <= conn.work.tick);
        if passed(self) {
            // The kernel accepts bytes well before it reports the socket as writable.
            self.try_to_write();
        }
        if passed(self) && self.stream.waits_for_us(self.work.tick) {
            let due = Due::Watchdog(self.token);
            let next = self.work.tick + 1;
            let key = self.work.timers.insert(&mut self.stream.timers, next, due);
            self.stream.watchdog = Some(key);
            return Fired::Nothing;
        }
        if passed(self) {
            if self.stream.phase() == Phase::Connecting {
                return Fired::AttemptTimedOut;
            }
            self.call_layer_on_time();
        }
        // A layer may ask for a time that is over: it is called in the next turn, and no deadline of
        // the peer's has passed by that.
        if self.stream.peers_deadline().is_some_and(|at| at <= self.work.tick) {
            self.deadline_passed();
        }
        if self.stream.watchdog.is_none() {
            self.watch_from(self.work.tick + 1);
        }
        Fired::Nothing
    }

    /// Tries to write. What the kernel accepts is progress, also without an edge.
    fn try_to_write(&mut self) {
        if self.stream.phase() == Phase::Connecting {
            return; // "writable" means established there
        }
        if self.stream.output.is_some() && !self.stream.is_dead() {
            self.stream.writable = true;
            self.flush();
        } else if self.stream.phase() == Phase::Closing {
            // With a timeout of zero the flush at the end of this turn would be too late.
            self.flush();
        }
    }

    fn deadline_passed(&mut self) {
        let tick = self.work.tick;
        let stream = &*self.stream;
        let options = stream.options();
        let which = match stream.phase() {
            Phase::Connecting | Phase::Handshaking => Deadline::Handshake,
            Phase::Lingering => return self.lingered_long_enough(),
            Phase::Closing | Phase::Failing | Phase::Dead => Deadline::Close,
            Phase::Open => {
                let stalled = stream.is_stalled(tick);
                let upgrade =
                    stream.wire().and_then(super::Wire::deadline).is_some_and(|at| at <= tick);
                let message = options.message_timeout.and_then(|limit| stream.message_due(limit));
                match (stalled, upgrade, message.is_some_and(|at| at <= tick)) {
                    (true, ..) => Deadline::Stall,
                    (_, true, _) => Deadline::Handshake,
                    (.., true) => Deadline::Message,
                    _ => Deadline::Idle,
                }
            }
        };
        self.time_up(which);
    }

    /// A deadline has passed. A reason that was recorded before is kept.
    pub(crate) fn time_up(&mut self, which: Deadline) {
        // A lingering connection has flushed everything: a shutdown ends it in order.
        let quiet = self.stream.phase() == Phase::Lingering && which == Deadline::Shutdown;
        let event = if quiet { Event::Quiet } else { Event::TimeUp };
        self.happens(event, Some(CloseReason::TimedOut(which)));
    }

    /// Everything is with the kernel, and the peer has not ended its side within `close_timeout`.
    /// close(2) destroys nothing now, unless the peer goes on sending: with unread input it sends a
    /// reset. Then input is discarded for up to [`LINGER_LONGER`].
    fn lingered_long_enough(&mut self) {
        let tick = self.work.tick;
        let close = self.stream.options().close_timeout;
        let longer = crate::timer::ticks_ceil(LINGER_LONGER);
        let ending = self.stream.extra_mut().ending_mut();
        if !std::mem::take(&mut ending.input_since_deadline) {
            return self.happens(Event::Quiet, None);
        }
        let end = *ending.linger_end.get_or_insert(tick.saturating_add(longer));
        if tick >= end {
            return self.time_up(Deadline::Close);
        }
        self.stream.clock = after(tick, close).min(end);
    }
}
