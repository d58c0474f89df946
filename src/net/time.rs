//! The time, and timers.

use std::time::{Duration, Instant, SystemTime};

use super::Net;
use crate::connection::Due;
use crate::core::Entity;
use crate::timers::Timer;
use crate::token::Token;

/// Time.
impl<S> Net<S> {
    /// The time at the start of this turn. The clock is read once per turn; outside turns, by
    /// [`Reactor::net`](crate::Reactor::net).
    pub fn now(&self) -> Instant {
        self.core.work.now
    }

    /// The time of day, for what people or other programs read: a log, a `Date` field, the expiry
    /// of a certificate. Each call reads the system's clock.
    ///
    /// It may jump forwards and backwards, when the clock is set or a leap second is inserted. For
    /// durations and deadlines use [`now`](Self::now), which does not.
    pub fn system_time(&self) -> SystemTime {
        self.core.work.system_time()
    }

    /// Sets a timer that belongs to a connection, UDP socket or session and is cancelled when that closes.
    /// `on_timer` is called with it once, never early; the time is rounded up to whole
    /// milliseconds, counted from this call. On a connection that is not open yet, a timer that
    /// expires earlier fires after `on_open`. `tag` is the caller's number for what the timer is
    /// for ([`Timer::tag`]).
    ///
    /// Nothing is set if the token no longer exists, or names something without `on_timer` (a
    /// listener, a UDP socket whose peers have sessions, a custom source).
    pub fn set_timer(&mut self, token: Token, after: Duration, tag: u64) -> Timer {
        let key = self.core.set_handler_timer(token, after, tag);
        self.core.work.counts.timers_set += u64::from(key.is_some());
        Timer { owner: Some(token), key, tag, fine: false }
    }

    /// The same, not rounded up to milliseconds: for pacing, audio, market data. Never early either, and
    /// late by what the system takes to wake the thread, and by what the turn does before. Fine timers fire in the
    /// order of their deadlines, and ordinary ones in that of theirs. Of those that become due for one turn
    /// the fine ones come first, as a rule; but what the turn before has left over, and an ordinary one that
    /// was set in the millisecond in which that turn began and without a delay, comes before them.
    ///
    /// On Linux this needs the feature `timerfd`: without it, and where mio uses poll(2), the poll itself
    /// rounds up to whole milliseconds. kqueue does not round. A fine timer costs more than an ordinary
    /// one: its place in a heap, O(log n), and one system call for each deadline that is the next one
    /// (timerfd_settime(2)). One that was cancelled may still wake the loop at its time. Use it where a
    /// millisecond matters.
    pub fn set_fine_timer(&mut self, token: Token, after: Duration, tag: u64) -> Timer {
        let due = Due::Handler(token, tag);
        let told = matches!(
            self.core.entity(token),
            Some(Entity::Stream(_) | Entity::Datagram(_) | Entity::Session(_))
        );
        let key = told.then(|| self.core.set_fine_timer(token, after, due)).flatten();
        self.core.work.counts.timers_set += u64::from(key.is_some());
        Timer { owner: Some(token), key, tag, fine: true }
    }

    /// Moves a pending timer to `after` from now. `false` if it has fired, was cancelled, or its
    /// owner has closed: set a new one then.
    pub fn rearm_timer(&mut self, timer: Timer, after: Duration) -> bool {
        let work = &mut self.core.work;
        let exactly = timer.fine.then(|| work.this_moment().checked_add(after)).flatten();
        let rearmed = timer.key.filter(|&key| match exactly {
            Some(at) => work.fine_timers.rearm(&mut work.timers, key, at),
            None => work.timers.rearm(key, work.tick_after_this_moment(after)),
        });
        #[cfg(feature = "sim")]
        rearmed.inspect(|&key| crate::witness::timer_set(key, after));
        rearmed.is_some()
    }

    /// Cancels a pending timer. `false` if it has fired, was cancelled already, or its owner has
    /// closed.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        let Some(key) = timer.key else { return false };
        if let Some(owner) = timer.owner {
            return self.core.cancel_timer(owner, key);
        }
        let work = &mut self.core.work;
        #[cfg(feature = "sim")]
        crate::witness::timer_cancelled(key);
        match work.timers.cancel(&mut work.own_timers, key) {
            Some(Due::Call(index)) => {
                self.calls.try_remove(index);
                true
            }
            other => other.is_some(),
        }
    }
}

impl<S: 'static> Net<S> {
    /// Runs a closure on the reactor's thread after the given time, rounded up to whole
    /// milliseconds, and never early. The timer belongs to no connection;
    /// [`cancel_timer`](Self::cancel_timer) drops the closure.
    pub fn run_after(
        &mut self,
        after: Duration,
        call: impl FnOnce(&mut S, &mut Net<S>) + 'static,
    ) -> Timer {
        let index = self.calls.insert(Box::new(call));
        let at = self.core.work.tick_after_this_moment(after);
        let work = &mut self.core.work;
        let key = work.timers.insert(&mut work.own_timers, at, Due::Call(index));
        work.counts.timers_set += 1;
        #[cfg(feature = "sim")]
        crate::witness::timer_set(key, after);
        Timer { owner: None, key: Some(key), tag: 0, fine: false }
    }
}
