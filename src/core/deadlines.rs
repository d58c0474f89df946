//! Timers: the user's, and the one watchdog of each connection.

use std::time::Duration;

use super::{Core, Entity, Table};
use crate::connection::Phase;
use crate::error::{CloseReason, Deadline};
use crate::timer::{Chain, Key, Owned};
use crate::token::Token;

/// The tick of timers that wait for their connection to stand. No delay comes to it: what does not
/// fit saturates one tick later.
const PUT_OFF: u64 = u64::MAX - 1;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A handler's own, with its tag.
    Handler(Token, u64),
    /// A connection's deadline may have passed.
    Watchdog(Token),
    /// A closure of the reactor's, by its index.
    Call(usize),
    /// A listener that backed off tries again.
    Accept(Token),
}

impl Owned for Due {
    /// `None` is the reactor itself.
    type Owner = Option<Token>;

    fn owner(&self) -> Option<Token> {
        match *self {
            Due::Handler(token, _) | Due::Watchdog(token) | Due::Accept(token) => Some(token),
            Due::Call(_) => None,
        }
    }
}

/// The timers that belong to `token`, unless it is on its way out.
fn chain_mut(table: &mut Table, token: Token) -> Option<&mut Chain> {
    match table.entity_mut(token)? {
        Entity::Stream(s) => (s.phase != Phase::Dead).then_some(&mut s.timers),
        Entity::Listener(l) => (!l.dead).then_some(&mut l.timers),
        Entity::Datagram(d) => (!d.dead).then_some(&mut d.timers),
        Entity::Source(s) => (!s.dead).then_some(&mut s.timers),
    }
}

impl Core {
    /// Sets a timer that belongs to `token`; `None` if that is gone.
    pub(crate) fn set_timer(&mut self, token: Token, after: Duration, due: Due) -> Option<Key> {
        let at = self.tick_after_this_moment(after);
        self.set_timer_at(token, at, due)
    }

    fn set_timer_at(&mut self, token: Token, at: u64, due: Due) -> Option<Key> {
        Some(self.timers.insert(chain_mut(&mut self.table, token)?, at, due))
    }

    pub(crate) fn cancel_timer(&mut self, token: Token, key: Key) -> bool {
        chain_mut(&mut self.table, token)
            .is_some_and(|chain| self.timers.cancel(chain, key).is_some())
    }

    /// A due timer has been popped: takes it from its owner. `None` if the owner is gone.
    pub(crate) fn finish_timer(&mut self, token: Token, key: Key) -> Option<Due> {
        self.timers.finish(chain_mut(&mut self.table, token)?, key)
    }

    /// A due timer of a connection that does not stand yet waits until it has been told `on_open`.
    pub(crate) fn put_off_timer(&mut self, token: Token, key: Key) -> bool {
        let stream = self.stream(token);
        let early =
            stream.is_some_and(|s| matches!(s.phase, Phase::Connecting | Phase::Handshaking));
        if early {
            self.timers.put_off(key, PUT_OFF);
        }
        early
    }

    /// It stands: what has become due meanwhile is due now.
    pub(crate) fn recall_timers(&mut self, token: Token) {
        if let Some(chain) = chain_mut(&mut self.table, token) {
            self.timers.recall(chain, PUT_OFF);
        }
    }

    /// All timers of `token` die, the watchdog among them.
    pub(crate) fn cancel_timers(&mut self, token: Token) {
        let chain = match self.table.entity_mut(token) {
            Some(Entity::Stream(s)) => {
                s.watchdog = None;
                &mut s.timers
            }
            Some(Entity::Listener(l)) => &mut l.timers,
            Some(Entity::Datagram(d)) => &mut d.timers,
            Some(Entity::Source(s)) => &mut s.timers,
            None => return,
        };
        self.timers.cancel_all(chain);
    }

    /// Makes sure that the connection is looked at by its next deadline. Called when a deadline
    /// begins, never per byte: one that moves later is found out when the watchdog fires.
    pub(crate) fn watch(&mut self, token: Token) {
        let Some(stream) = self.stream(token) else { return };
        let Some(at) = stream.deadline() else { return };
        match stream.watchdog {
            Some(key) => {
                self.timers.rearm(key, at);
            }
            None => {
                let key = self.set_timer_at(token, at, Due::Watchdog(token));
                if let Some(stream) = self.stream_mut(token) {
                    stream.watchdog = key;
                }
            }
        }
    }

    /// The watchdog fired: a deadline has passed, or it moved and is watched on.
    pub(crate) fn watchdog_fired(&mut self, token: Token) {
        let tick = self.tick;
        let Some(stream) = self.stream_mut(token) else { return };
        stream.watchdog = None;
        stream.stall_watched = stream.output.is_some();
        match stream.deadline() {
            Some(at) if at <= tick => self.deadline_passed(token),
            Some(_) => self.watch(token),
            None => {}
        }
    }

    fn deadline_passed(&mut self, token: Token) {
        let tick = self.tick;
        if self.next_attempt(token) {
            return;
        }
        // What would have left at the end of this turn may leave, also where there was no time at all.
        if self.stream(token).is_some_and(|stream| stream.phase == Phase::Closing) {
            self.flush(token);
        }
        let Some(stream) = self.stream(token) else { return };
        let which = match stream.phase {
            Phase::Connecting => Deadline::Connect,
            Phase::Handshaking => Deadline::Handshake,
            Phase::Closing | Phase::Lingering | Phase::Failing | Phase::Dead => Deadline::Close,
            Phase::Open => {
                let stall = crate::timer::ticks_ceil(stream.options().stall_timeout);
                let stalled = stream
                    .output
                    .as_ref()
                    .is_some_and(|o| !o.is_empty() && o.progress.saturating_add(stall) <= tick);
                let late = stream.wire().and_then(|w| w.deadline).is_some_and(|at| at <= tick);
                match (stalled, late) {
                    (true, _) => Deadline::Stall,
                    (false, true) => Deadline::Handshake,
                    (false, false) => Deadline::Idle,
                }
            }
        };
        self.cut(token, which);
    }

    /// Its time is up. An error that was to end it stays the reason, also where its last words do
    /// not get out.
    pub(crate) fn cut(&mut self, token: Token, which: Deadline) {
        let Some(stream) = self.stream(token) else { return };
        let ordinary = match stream.phase {
            // All was flushed, only the peer's end did not come: an orderly close for this side.
            Phase::Lingering => CloseReason::Closed,
            _ => CloseReason::TimedOut(which),
        };
        self.kill_in_order(token, ordinary);
    }
}
