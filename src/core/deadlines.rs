//! Timers by token: those of handlers, and the watchdogs of connections.

use std::time::Duration;

use super::{Core, Entity};
use crate::connection::{Due, Fired, PARKED, Work};
use crate::timer::{Chain, Key};
use crate::token::Token;

impl Core {
    /// The timers that belong to `token`, unless it has ended; and the wheel.
    fn chain_and_work(&mut self, token: Token) -> Option<(&mut Chain, &mut Work)> {
        let chain = match self.table.entity_mut(token)? {
            Entity::Stream(s) => s.timers_mut()?,
            Entity::Listener(l) if !l.dead => &mut l.timers,
            Entity::Datagram(d) if !d.dead => &mut d.timers,
            Entity::Session(s) if !s.dead => &mut s.timers,
            Entity::Source(s) if !s.dead => &mut s.timers,
            _ => return None,
        };
        Some((chain, &mut self.work))
    }

    /// Sets a timer that belongs to `token`; `None` if that is gone.
    pub(crate) fn set_timer(&mut self, token: Token, after: Duration, due: Due) -> Option<Key> {
        let (chain, work) = self.chain_and_work(token)?;
        let at = work.tick_after_this_moment(after);
        let key = work.timers.insert(chain, at, due);
        #[cfg(feature = "sim")]
        crate::witness::timer_set(key, after);
        Some(key)
    }

    /// Sets a timer that `on_timer` is called for; `None` if `token` is gone or names something without
    /// `on_timer`. One look-up; the reply of a running callback stays where it is.
    #[inline]
    pub(crate) fn set_handler_timer(
        &mut self,
        token: Token,
        after: Duration,
        tag: u64,
    ) -> Option<Key> {
        let chain = match self.table.entity_mut(token)? {
            Entity::Stream(s) => s.timers_mut()?,
            Entity::Datagram(d) if !d.dead => &mut d.timers,
            Entity::Session(s) if !s.dead => &mut s.timers,
            _ => return None,
        };
        let at = self.work.tick_after_this_moment(after);
        let key = self.work.timers.insert(chain, at, Due::Handler(token, tag));
        #[cfg(feature = "sim")]
        crate::witness::timer_set(key, after);
        Some(key)
    }

    /// The same as [`set_timer`](Self::set_timer), to the exact time.
    pub(crate) fn set_fine_timer(
        &mut self,
        token: Token,
        after: Duration,
        due: Due,
    ) -> Option<Key> {
        let (chain, work) = self.chain_and_work(token)?;
        let Some(at) = work.this_moment().checked_add(after) else {
            return Some(work.timers.insert(chain, u64::MAX, due)); // outlives the reactor
        };
        let key = work.fine_timers.insert(&mut work.timers, chain, at, due);
        #[cfg(feature = "sim")]
        crate::witness::timer_set(key, after);
        Some(key)
    }

    pub(crate) fn cancel_timer(&mut self, token: Token, key: Key) -> bool {
        let Some((chain, work)) = self.chain_and_work(token) else { return false };
        let cancelled = work.timers.cancel(chain, key).is_some();
        #[cfg(feature = "sim")]
        crate::witness::timer_cancelled(key);
        cancelled
    }

    /// A due timer has been popped: takes it from its owner. `None` if the owner is gone.
    pub(crate) fn finish_timer(&mut self, token: Token, key: Key) -> Option<Due> {
        let (chain, work) = self.chain_and_work(token)?;
        work.timers.finish(chain, key)
    }

    /// A due timer of a connection that is not open yet is parked until `on_open` has returned.
    pub(crate) fn park_timer(&mut self, token: Token, key: Key) -> bool {
        let opening = self.stream(token).is_some_and(crate::connection::Stream::is_opening);
        if opening {
            self.work.timers.put_off(key, PARKED);
        }
        opening
    }

    /// Cancels all timers of an entity that is no connection.
    pub(crate) fn cancel_timers(&mut self, token: Token) {
        let chain = match self.table.entity_mut(token) {
            Some(Entity::Listener(l)) => &mut l.timers,
            Some(Entity::Datagram(d)) => &mut d.timers,
            Some(Entity::Session(s)) => &mut s.timers,
            Some(Entity::Source(s)) => &mut s.timers,
            Some(Entity::Stream(_) | Entity::SessionSocket(_)) | None => return,
        };
        self.work.timers.cancel_all(chain);
    }

    /// The watchdog of a connection or session fired.
    pub(crate) fn watchdog_fired(&mut self, token: Token) {
        match self.with_settled(token, |conn| conn.watchdog_fired()) {
            Some(Fired::AttemptTimedOut) => self.attempt_timed_out(token),
            Some(_) => {}
            None => self.session_watchdog(token),
        }
    }
}
