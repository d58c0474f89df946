//! A turn that keeps a deadline.
//!
//! The steps are those of [`Reactor::turn`], each in a form that stops when the deadline has passed. What
//! a step leaves stays where a full budget would leave it: on the ready list, in the inbox, in the wheel,
//! on the dirty list. The next turn goes on with the step behind the one that was cut, so that no step
//! starves where every turn is cut.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::{Reactor, ShutdownReport};
use crate::core::Stopping;
use crate::error::Error;

/// How much later than the alarm a poll times out that the alarm ends. Any time that is not due together
/// with the alarm does.
const BEHIND_THE_ALARM: Duration = Duration::from_millis(100);

/// The steps that a deadline can cut, in the order of the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Messages,
    Events,
    Leftovers,
    Notifications,
    Timers,
    Groups,
    Flush,
    Reap,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Messages,
        Step::Events,
        Step::Leftovers,
        Step::Notifications,
        Step::Timers,
        Step::Groups,
        Step::Flush,
        Step::Reap,
    ];
}

impl<S: 'static> Reactor<S> {
    /// Runs one turn that keeps a deadline: it waits for work until `deadline` at most, and what it
    /// does stops there and goes on in the next turn. For a loop with a tick of its own, as a game
    /// server has:
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use tidegate::Reactor;
    /// # let mut reactor = Reactor::new()?;
    /// # let mut ticks = 0;
    /// let mut tick = Instant::now();
    /// loop {
    ///     tick += Duration::from_micros(16_667);
    ///     // Two milliseconds at least, also where the last tick took all of its time.
    ///     let until = tick.max(Instant::now() + Duration::from_millis(2));
    ///     loop {
    ///         if reactor.turn_until(until)?.is_break() {
    ///             return Ok(());
    ///         }
    ///         if Instant::now() >= until {
    ///             break;
    ///         }
    ///     }
    ///     // simulate(reactor.parts());
    /// #   ticks += 1;
    /// #   if ticks == 3 { reactor.net().stop(); }
    /// }
    /// # #[allow(unreachable_code)]
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    ///
    /// A turn ends late by one item at most. These are one item each:
    /// - a callback with the write of its reply; and those of one connection that follow from one event:
    ///   `on_open` and its first input, the end of a batch, `on_eof`, `on_drain` behind input;
    /// - a write of one connection's queue, of as much as its socket takes (at most its send buffer:
    ///   tcp(7), `tcp_wmem`, 4 MiB; [`SocketOptions::send_buffer`](crate::SocketOptions::send_buffer)
    ///   makes it smaller);
    /// - 16 datagrams of one UDP socket, before and after a callback of its handler; all that wait for one
    ///   that closes;
    /// - one accepted connection; one read of a relay; the encoding of eight messages for one member.
    ///
    /// Everything else stops: reads, posts, timers, datagrams, the errors and drains of a UDP socket and
    /// its sessions, and the flushes of large groups. Order holds across the cut, and fairness: where
    /// every turn is cut, the next one begins with the step behind the cut. The turn that ends the
    /// loop is not cut. Nothing is gathered before the flush of a large group, as
    /// [`turn`](Self::turn) does under load (step 9).
    ///
    /// How exactly it waits depends on the system. On Linux with the feature `timerfd`, and on kqueue,
    /// without rounding; what is added is what the scheduler takes to run the thread. Elsewhere poll(2) and
    /// epoll_wait(2) round up to whole milliseconds.
    /// [`Config::spin_before_deadline`](crate::Config::spin_before_deadline) avoids both, at the cost
    /// of a core for that time.
    ///
    /// A deadline that has passed does not wait. The turn then handles one item (an event, a post, a
    /// timer, a write), so that a loop that is always late goes on; but one that calls it once for each
    /// tick serves nobody any more. Give it some time in each tick, as above, whatever the rest takes.
    ///
    /// # Errors
    /// The poll itself fails, which no peer can cause.
    pub fn turn_until(&mut self, deadline: Instant) -> Result<ControlFlow<ShutdownReport>, Error> {
        self.woken |= self.poll_until(deadline)?;
        self.dispatch.net.core.begin_turn();
        self.dispatch.net.core.work.keep_deadline(deadline);
        let cut = self.next_step.take().filter(|_| !self.is_last_turn());
        let first = cut.unwrap_or(Step::Messages);
        if first > Step::Events {
            // What was reported meanwhile is known to the steps behind the cut.
            self.put_off_events();
        }
        if !self.steps_until(first) && first > Step::Messages {
            // Nothing was left to do behind the cut.
            self.steps_until(Step::Messages);
        }
        self.put_off_events();
        if self.dispatch.net.core.work.was_late() && !self.is_anything_left() {
            // The deadline has cut nothing.
            self.next_step = None;
            self.dispatch.net.core.work.forgive();
        }
        self.dispatch.net.core.work.forget_deadline();
        if self.dispatch.net.interconnect.is_some() {
            self.dispatch.net.reach_beyond();
        }
        self.publish_backlog(0);
        let draining = matches!(self.dispatch.net.core.stopping, Stopping::Draining(_));
        let verdict = if draining && self.next_step.is_some() {
            ControlFlow::Continue(()) // what was cut may be the last bytes
        } else {
            self.verdict()
        };
        self.wake_for_fine_timers();
        if self.dispatch.net.core.work.timed {
            self.turn_ends();
        }
        Ok(verdict)
    }

    /// The steps of a turn from `first` on, up to the one at which the deadline has passed. Returns whether
    /// any had something to do.
    fn steps_until(&mut self, first: Step) -> bool {
        let mut did_anything = false;
        for step in Step::ALL.into_iter().filter(|&step| step >= first) {
            if self.is_last_turn() {
                self.dispatch.net.core.work.forget_deadline();
            }
            let did_something = match step {
                Step::Messages => self.messages_until(),
                Step::Events => self.events_until(),
                Step::Leftovers => self.leftovers_until(),
                Step::Notifications => self.notifications_until(),
                Step::Timers => self.timers_until(),
                Step::Groups => self.groups_until(),
                Step::Flush => self.flush_until(),
                Step::Reap => self.reap_until(),
            };
            did_anything |= did_something;
            if did_something && !self.is_last_turn() && self.is_late() {
                self.next_step = Step::ALL.into_iter().find(|&next| next > step);
                break;
            }
        }
        did_anything
    }

    fn is_last_turn(&self) -> bool {
        self.dispatch.net.core.is_last_turn()
    }

    /// Whether there is something that this turn would have done without its deadline.
    fn is_anything_left(&self) -> bool {
        let core = &self.dispatch.net.core;
        core.has_work()
            || !self.inbox.is_empty()
            || self.next_timer().is_some_and(|at| at <= core.work.now)
    }

    fn is_late(&mut self) -> bool {
        self.dispatch.net.core.work.is_late()
    }

    /// Polls until there is work, or until `deadline`: asleep at first, awake for the last part of the
    /// time if the configuration says so.
    fn poll_until(&mut self, deadline: Instant) -> Result<bool, Error> {
        if self.has_work() {
            return self.poll(Some(Duration::ZERO));
        }
        let until = self.next_timer().map_or(deadline, |timer| timer.min(deadline));
        let awake = self.dispatch.net.core.config.spin_before_deadline;
        let awake = if until == deadline { awake } else { Duration::ZERO };
        loop {
            self.interrupted = false;
            let left = self.time_asleep(until, awake);
            let mut woken = self.poll(Some(left))?;
            let asleep = self.interrupted;
            while !(awake.is_zero() || asleep) && self.goes_on_waiting(woken, until) {
                std::hint::spin_loop();
                woken = self.poll(Some(Duration::ZERO))?;
            }
            // A signal has ended the poll, and nothing has come: the rest of the time is still to be waited.
            if !(asleep && self.goes_on_waiting(woken, until)) {
                return Ok(woken);
            }
        }
    }

    fn goes_on_waiting(&self, woken: bool, until: Instant) -> bool {
        !woken && self.events.is_empty() && self.dispatch.net.core.work.this_moment() < until
    }

    /// How long the poll may sleep so that it ends `awake` before `until`.
    fn time_asleep(&mut self, until: Instant, awake: Duration) -> Duration {
        let core = &mut self.dispatch.net.core;
        let now = core.work.this_moment();
        let left = until.saturating_duration_since(now).saturating_sub(awake);
        if left.is_zero() {
            return left;
        }
        if core.sys.set_alarm(now, left) {
            // The alarm ends the poll. A timeout close behind it would be a second one, which the
            // kernel has to take back before the thread runs: 10 µs of a virtual machine.
            return if core.config.spin.is_zero() { left + BEHIND_THE_ALARM } else { left };
        }
        if !awake.is_zero() && core.sys.rounds_up() {
            // Up to a millisecond more, which would be beyond the deadline.
            return Duration::from_millis(left.as_millis() as u64);
        }
        left
    }

    // Each step returns whether it had something to do, and has then done one thing at least.

    /// Messages from other threads.
    fn messages_until(&mut self) -> bool {
        self.take_messages();
        let waiting = self.messages_left().min(self.dispatch.net.core.config.posts_per_turn);
        for _ in 0..waiting {
            self.run_messages(1);
            if self.is_late() {
                break;
            }
        }
        self.count_messages_left();
        waiting > 0
    }

    /// Readiness events.
    fn events_until(&mut self) -> bool {
        let mut handled = 0;
        for &ready in &self.events {
            self.dispatch.event(ready, &mut self.scratch);
            handled += 1;
            if self.dispatch.net.core.work.is_late() {
                break;
            }
        }
        self.events.drain(..handled);
        handled > 0
    }

    /// An edge is reported once: those that this turn has not come to are recorded, and their sockets are
    /// served from the ready list.
    fn put_off_events(&mut self) {
        for ready in self.events.drain(..) {
            self.dispatch.put_off_event(ready);
        }
    }

    fn leftovers_until(&mut self) -> bool {
        let waiting = self.dispatch.net.core.work.line.len();
        for _ in 0..waiting {
            if self.dispatch.net.core.work.is_used_up() {
                break;
            }
            self.dispatch.serve_next(&mut self.scratch);
            if self.is_late() {
                break;
            }
        }
        waiting > 0
    }

    /// A step of its own: a cut of the one before puts every socket on its list, which would never let
    /// this one begin.
    fn notifications_until(&mut self) -> bool {
        let core = &self.dispatch.net.core;
        let notifications = core.notifications.len().min(core.config.posts_per_turn);
        for _ in 0..notifications {
            self.dispatch.notify_next();
            if self.is_late() {
                break;
            }
        }
        notifications > 0
    }

    fn timers_until(&mut self) -> bool {
        if self.puts_timers_off() {
            return false;
        }
        let core = &mut self.dispatch.net.core;
        core.work.advance_timers();
        let most = core.config.timers_per_turn;
        let mut fired = 0;
        while fired < most && self.dispatch.fire_due(1) {
            fired += 1;
            if self.is_late() {
                break;
            }
        }
        self.dispatch.count_timers_left();
        fired > 0
    }

    /// Groups, and then the dirty list, as in any turn. Each is a step of its own, or groups to which
    /// somebody always publishes would starve the list.
    fn groups_until(&mut self) -> bool {
        self.dispatch.install_pending_handlers();
        let core = &mut self.dispatch.net.core;
        let pending = core.groups.has_pending();
        core.flush_groups_of_turn::<true>();
        pending
    }

    fn flush_until(&mut self) -> bool {
        self.dispatch.install_pending_handlers();
        let core = &mut self.dispatch.net.core;
        let mut dirty = std::mem::take(&mut core.work.dirty);
        let mut flushed = 0;
        for &token in &dirty {
            self.dispatch.flush_one(token);
            flushed += 1;
            if self.dispatch.net.core.work.is_late() {
                break;
            }
        }
        dirty.drain(..flushed);
        // A flush may end a connection and so queue for others: those are flushed in the next turn.
        dirty.append(&mut self.dispatch.net.core.work.dirty);
        self.dispatch.net.core.work.dirty = dirty;
        flushed > 0
    }

    fn reap_until(&mut self) -> bool {
        self.dispatch.install_pending_handlers();
        let mut dead = std::mem::take(&mut self.dispatch.net.core.work.dead).into_iter();
        let mut reaped = 0;
        for (token, reason) in dead.by_ref() {
            self.dispatch.finalize(token, reason);
            reaped += 1;
            if self.dispatch.net.core.work.is_late() {
                break;
            }
        }
        let mut left: Vec<_> = dead.collect();
        left.append(&mut self.dispatch.net.core.work.dead);
        self.dispatch.net.core.work.dead = left;
        reaped > 0
    }
}
