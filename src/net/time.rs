//! The time, and timers.

use std::time::{Duration, Instant};

use super::Net;
use crate::connection::Due;
use crate::core::Entity;
use crate::timers::Timer;
use crate::token::Token;

/// Time.
impl<S> Net<S> {
    /// When this turn began. The clock is read once a turn; outside turns, by
    /// [`Reactor::net`](crate::Reactor::net).
    pub fn now(&self) -> Instant {
        self.core.work.now
    }

    /// Sets a timer that belongs to a connection or socket and dies with it. `tag` comes back in
    /// `on_timer` and says what it is for. Time is rounded up to whole milliseconds; a timer never
    /// fires early, and fires once. For a token that is
    /// gone, or names something whose handler has no `on_timer`, nothing is set.
    pub fn set_timer(&mut self, token: Token, after: Duration, tag: u64) -> Timer {
        let told = matches!(
            self.core.entity(token),
            Some(Entity::Stream(_) | Entity::Datagram(_)) // who else has an `on_timer`?
        );
        let key =
            told.then(|| self.core.set_timer(token, after, Due::Handler(token, tag))).flatten();
        Timer { owner: Some(token), key, tag }
    }

    /// Moves a timer that has not fired to a new time. `false` if it has fired, was cancelled, or
    /// died: then set a new one.
    pub fn rearm_timer(&mut self, timer: Timer, after: Duration) -> bool {
        let at = self.core.work.tick_after_this_moment(after);
        timer.key.is_some_and(|key| self.core.work.timers.rearm(key, at))
    }

    /// Cancels a timer. `false` if it has fired, was cancelled, or died.
    pub fn cancel_timer(&mut self, timer: Timer) -> bool {
        let Some(key) = timer.key else { return false };
        if let Some(owner) = timer.owner {
            return self.core.cancel_timer(owner, key);
        }
        let work = &mut self.core.work;
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
    /// Runs a closure on the reactor's thread once `after` has passed, rounded up to whole milliseconds;
    /// never early. It runs once: to repeat it, the closure calls `run_after` again.
    pub fn run_after(
        &mut self,
        after: Duration,
        call: impl FnOnce(&mut S, &mut Net<S>) + 'static,
    ) -> Timer {
        let index = self.calls.insert(Box::new(call));
        let at = self.core.work.tick_after_this_moment(after);
        let work = &mut self.core.work;
        let key = work.timers.insert(&mut work.own_timers, at, Due::Call(index));
        Timer { owner: None, key: Some(key), tag: 0 }
    }
}
