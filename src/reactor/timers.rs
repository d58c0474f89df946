//! Due timers.

use super::call::Dispatch;
use crate::connection::Due;
use crate::core::Entity;
use crate::stats::Callback;
use crate::timer::Key;
use crate::timers::Timer;
use crate::token::Token;

impl<S: 'static> Dispatch<S> {
    /// Fires due timers within the budget. The rest stays due, so the next turn begins at once.
    pub(super) fn due_timers(&mut self) {
        self.net.core.work.advance_timers();
        self.fire_due(self.net.core.config.timers_per_turn);
        self.count_timers_left();
    }

    /// Fires the next timers that are due, `most` at most. `false` if fewer are.
    pub(super) fn fire_due(&mut self, most: usize) -> bool {
        for _ in 0..most {
            let Some((key, &due)) = self.net.core.work.timers.pop_due() else { return false };
            match due {
                Due::Handler(token, tag) => {
                    if self.net.core.park_timer(token, key) {
                        continue;
                    }
                    self.times_timer(key);
                    if self.net.core.finish_timer(token, key).is_some() {
                        #[cfg(feature = "sim")]
                        crate::witness::timer_fires(key);
                        self.net.core.work.counts.timers_fired += 1;
                        self.fire(
                            token,
                            Timer { owner: Some(token), key: Some(key), tag, fine: false },
                        );
                    }
                }
                Due::Watchdog(token) => {
                    if self.net.core.finish_timer(token, key).is_some() {
                        self.net.core.watchdog_fired(token);
                    }
                }
                Due::Accept(token) => {
                    if self.net.core.finish_timer(token, key).is_some() {
                        if let Some(listener) = self.net.core.listener_mut(token) {
                            listener.retry = None;
                            listener
                                .sockets
                                .iter_mut()
                                .for_each(|listening| listening.resting = false);
                        }
                        self.accept(token);
                    }
                }
                Due::Call(index) => {
                    self.times_timer(key);
                    #[cfg(feature = "sim")]
                    crate::witness::timer_fires(key);
                    let work = &mut self.net.core.work;
                    work.counts.timers_fired += 1;
                    work.timers.finish(&mut work.own_timers, key);
                    if let Some(call) = self.net.calls.try_remove(index) {
                        self.run_call(Callback::RunAfter, call);
                    }
                }
            }
        }
        true
    }

    /// The turn fires no more timers: those that are due wait for the next one.
    pub(super) fn count_timers_left(&mut self) {
        let work = &mut self.net.core.work;
        work.counts.timers_exhausted += u64::from(work.timers.is_any_due());
    }

    /// How late a timer is, if that is measured.
    fn times_timer(&mut self, key: Key) {
        let work = &mut self.net.core.work;
        if work.timed {
            work.timer_fires(key);
        }
    }

    fn fire(&mut self, token: Token, timer: Timer) {
        match self.net.core.entity(token) {
            Some(Entity::Stream(stream)) if stream.has_callbacks() => {
                self.call(token, Callback::Timer, |handler, cx| handler.on_timer(cx, timer));
                self.net.core.flush(token);
            }
            Some(Entity::Datagram(_)) => {
                if !self.open_datagram(token) {
                    return;
                }
                self.call_datagram(token, Callback::Timer, |handler, cx| {
                    handler.on_timer(cx, timer)
                });
                self.net.core.flush_datagrams(token);
            }
            Some(Entity::Session(session)) if !session.dead => {
                self.call_datagram(token, Callback::Timer, |handler, cx| {
                    handler.on_timer(cx, timer)
                });
            }
            _ => {}
        }
    }
}
