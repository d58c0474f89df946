//! The loop. One turn reads like its list of steps; each step has a file of its own.

use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Config;
use crate::connection::Phase;
use crate::core::{Core, QUIET_GAP, Stopping};
use crate::error::{Deadline, Error};
use crate::guard::drop_each;
use crate::net::Net;
use crate::remote::{Post, Remote, Shared};
use crate::sys::Ready;

mod accept;
mod datagram;
mod dispatch;
mod layered;
mod open;
mod reap;
mod relay;
mod scratch;
mod stream;
mod timers;

#[cfg(all(test, target_os = "linux"))] // they name the system's errors by their numbers
mod accept_tests;
#[cfg(test)]
mod batching_tests;
#[cfg(test)]
mod close_tests;
#[cfg(test)]
mod deadline_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(all(test, feature = "splice", target_os = "linux"))]
mod relay_tests;
#[cfg(test)]
mod scripted;

use dispatch::Dispatch;
use scratch::Scratch;

/// Owns the poll, the sockets, the timers, the handlers and the shared state `S`.
///
/// Single-threaded by design: make it on the thread that runs it, and give other threads a
/// [`Remote`]. A service with a loop of its own calls [`turn`](Self::turn) from it; everyone else
/// calls [`run`](Self::run).
///
/// # One turn
///
/// 1. work out the timeout: zero while work is left over, else until the next timer or the caller's
///    limit;
/// 2. poll (in low-latency mode: without sleeping for a set time first);
/// 3. read the clock, once; the whole turn uses that time;
/// 4. messages from other threads, up to a budget;
/// 5. readiness events: token, generation, socket, layers, callbacks;
/// 6. what is left over from earlier turns (a connection is served here or in 5; in both only if its
///    queue drained in 5), and signals;
/// 7. due timers, unless more events are known to wait: what they bring may cancel some;
/// 8. pending_handlers: sockets that callbacks made get their handlers;
/// 9. gather: before a big group's flush, and only while several messages wait for it at a time, more
///    input is taken for a moment, so that it leaves in the same writes (4 and 5 once more, with
///    budgets of their own);
/// 10. flush: what was sent to others, one write for each;
/// 11. reap: `on_close`, the handler is dropped, the slot is free.
///
/// What step 11 itself sends, opens or closes is work left over: the next turn begins at once.
///
/// ```no_run
/// use tidegate::{Context, Handler, HandlerResult, Input, Reactor};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
///         cx.send(input.take_all());
///         Ok(())
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let mut reactor = Reactor::new()?;
///     reactor.net().listen("127.0.0.1:8888", |_peer| Echo)?;
///     reactor.run()?;
///     Ok(())
/// }
/// ```
pub struct Reactor<S: 'static = ()> {
    dispatch: Dispatch<S>,
    scratch: Scratch,
    /// This turn's readiness events.
    events: Vec<Ready>,
    /// The last poll brought as many as it may, and there may be more, which nothing else announces.
    more_events: bool,
    /// In how many turns in a row due timers have been put off, because input waits that may cancel
    /// them.
    put_off: usize,
    /// Messages from other threads that are not handled yet, the next one last.
    inbox: Vec<Post<S>>,
    /// What other threads were told of how many of their messages wait here.
    noted: usize,
    /// A wake has announced messages behind those in `inbox`; it does not come twice.
    woken: bool,
}

/// What a shutdown had to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Connections that were still open when the time was up.
    pub connections_cut: usize,
    /// Bytes that were queued on those and not handed to the system.
    pub bytes_unsent: usize,
}

impl Reactor<()> {
    /// A reactor without shared state, with the default settings.
    ///
    /// # Errors
    /// The system has no descriptors or memory for a poll.
    pub fn new() -> Result<Self, Error> {
        Self::with_state(())
    }
}

impl<S: 'static> Reactor<S> {
    /// A reactor whose handlers share `state`.
    ///
    /// # Errors
    /// The system has no descriptors or memory for a poll.
    pub fn with_state(state: S) -> Result<Self, Error> {
        Self::build(Config::default(), |_| Ok(state))
    }

    /// A reactor with settings of your own, and with a state that is made with the network at hand:
    /// listeners, groups and timers can be set up here, and the state can hold their names.
    ///
    /// ```
    /// use tidegate::{Config, Group, Reactor};
    ///
    /// struct Room {
    ///     everyone: Group,
    /// }
    ///
    /// let reactor = Reactor::build(Config::new(), |net| Ok(Room { everyone: net.create_group() }))?;
    /// # let _ = reactor;
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    ///
    /// # Errors
    /// The system has no descriptors or memory for a poll; or `set_up` fails, with its error.
    pub fn build(
        config: Config,
        set_up: impl FnOnce(&mut Net<S>) -> Result<S, Error>,
    ) -> Result<Self, Error> {
        let failed = |e| Error::new("cannot make the poll", e);
        let core = Core::new(config).map_err(failed)?;
        let shared = Shared::new(core.sys.waker().map_err(failed)?, core.config.post_limit);
        let scratch = Scratch::new(&core.config);
        let mut net = Net { core, pending_handlers: Vec::new(), calls: Slab::new(), shared };
        let state = set_up(&mut net)?;
        Ok(Reactor {
            dispatch: Dispatch::new(net, state),
            scratch,
            events: Vec::new(),
            more_events: false,
            put_off: 0,
            inbox: Vec::new(),
            noted: 0,
            woken: false,
        })
    }

    /// The network, for set-up outside callbacks. The clock is read: deadlines that begin now must
    /// not be reckoned from the last turn, which may be long ago.
    pub fn net(&mut self) -> &mut Net<S> {
        self.dispatch.net.core.work.read_clock();
        &mut self.dispatch.net
    }

    /// The shared state.
    pub fn state(&self) -> &S {
        &self.dispatch.state
    }

    /// The shared state, to change it between turns.
    pub fn state_mut(&mut self) -> &mut S {
        &mut self.dispatch.state
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.dispatch.net.remote()
    }

    /// Turns until [`Net::stop`] or a shutdown ends it. With nothing to do it sleeps; it does not
    /// end by itself, because another thread may still post.
    ///
    /// # Errors
    /// The poll itself fails, which no peer can cause.
    pub fn run(&mut self) -> Result<ShutdownReport, Error> {
        loop {
            if let ControlFlow::Break(report) = self.turn(None)? {
                return Ok(report);
            }
        }
    }

    /// One turn. It waits for something to do for `timeout` at most (`None`: without limit) and does
    /// what there is to do.
    ///
    /// # Errors
    /// The poll itself fails, which no peer can cause.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<ControlFlow<ShutdownReport>, Error> {
        let timeout = self.timeout(timeout); // 1
        let woken = self.poll(timeout)?; // 2
        self.dispatch.net.core.begin_turn(); // 3
        self.messages(woken); // 4
        self.events(); // 5
        self.dispatch.leftovers(&mut self.scratch); // 6
        self.due_timers(); // 7
        self.dispatch.install_pending_handlers(); // 8
        self.gather()?; // 9
        self.dispatch.flush(); // 10
        self.dispatch.reap(); // 11
        let verdict = self.verdict();
        self.note_taken(0);
        Ok(verdict)
    }

    /// When the next turn is due at the latest if nothing arrives: now, while work is left over;
    /// `None`, if it may wait forever. For an embedding loop, beside the descriptor.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.has_work() { Some(self.dispatch.net.core.work.now) } else { self.next_timer() }
    }

    fn next_timer(&self) -> Option<Instant> {
        let core = &self.dispatch.net.core;
        let timers = core.work.timers.next_wake();
        let stop = match core.stopping {
            Stopping::Draining(tick) => Some(tick),
            Stopping::No | Stopping::Now => None,
        };
        core.work.instant_of(timers.into_iter().chain(stop).min()?)
    }

    fn has_work(&self) -> bool {
        let net = &self.dispatch.net;
        net.core.has_work()
            || !net.pending_handlers.is_empty()
            || !self.inbox.is_empty()
            || self.woken
            || self.more_events
            || match net.core.stopping {
                Stopping::No => false,
                Stopping::Now => true,
                Stopping::Draining(_) => net.core.streams == 0,
            }
    }

    fn timeout(&self, limit: Option<Duration>) -> Option<Duration> {
        if self.has_work() {
            return Some(Duration::ZERO);
        }
        let Some(deadline) = self.next_timer() else { return limit };
        let until = deadline.saturating_duration_since(self.dispatch.net.core.work.this_moment());
        Some(limit.map_or(until, |limit| limit.min(until)))
    }

    fn poll(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        self.events.clear();
        let woken = self.wait(timeout).map_err(|e| Error::new("cannot wait for readiness", e))?;
        let most = self.dispatch.net.core.config.events_per_turn;
        self.more_events = self.events.len() + usize::from(woken) >= most;
        Ok(woken)
    }

    /// Without sleeping at first, if that is asked for. Answers whether another thread woke the loop.
    fn wait(&mut self, mut timeout: Option<Duration>) -> std::io::Result<bool> {
        let core = &mut self.dispatch.net.core;
        if !core.config.spin.is_zero() && timeout != Some(Duration::ZERO) {
            let spin = timeout.map_or(core.config.spin, |t| t.min(core.config.spin));
            let start = core.work.this_moment();
            let mut spent = Duration::ZERO;
            while spent < spin {
                let woken = core.sys.poll(&mut self.events, Some(Duration::ZERO))?;
                if woken || !self.events.is_empty() {
                    return Ok(woken);
                }
                std::hint::spin_loop();
                spent = core.work.this_moment().saturating_duration_since(start);
            }
            timeout = timeout.map(|timeout| timeout.saturating_sub(spent));
        }
        core.sys.poll(&mut self.events, timeout)
    }

    /// Handles messages from other threads; what the budget does not cover is left for the next
    /// turn, before anything newer.
    fn messages(&mut self, woken: bool) {
        self.woken |= woken;
        if self.inbox.is_empty() && std::mem::take(&mut self.woken) {
            let net = &self.dispatch.net;
            let untold = net.core.undelivered_notifications();
            net.shared.take(&mut self.inbox, untold);
            self.noted = self.inbox.len() + untold;
            self.inbox.reverse();
        }
        let budget = self.dispatch.net.core.config.posts_per_turn.min(self.inbox.len());
        self.note_taken(budget);
        for _ in 0..budget {
            let Some(message) = self.inbox.pop() else { break };
            self.dispatch.message(message);
        }
        self.note_taken(0);
    }

    /// What was taken out and not handled yet counts against the limit of what may wait, but for the
    /// `handled` that are handled now. Told once for all of them and only when it changes: whoever
    /// posts meanwhile reads what this writes, and has the line of memory taken away each time. Said
    /// at the end of each turn too: whoever was refused may be the only one to wake a loop that
    /// sleeps.
    fn note_taken(&mut self, handled: usize) {
        let net = &self.dispatch.net;
        let left = self.inbox.len() - handled + net.core.undelivered_notifications();
        if std::mem::replace(&mut self.noted, left) != left {
            net.shared.still_taken(left);
        }
    }

    fn events(&mut self) {
        for &ready in &self.events {
            self.dispatch.event(ready, &mut self.scratch);
        }
    }

    /// Fires due timers, deadlines among them; not while input is known to wait that may cancel them.
    /// After a turn that was long, or a process that stood still, everything is due at once, and what
    /// peers sent in time has not been looked at. The turns that follow at once fetch it: as many as
    /// it takes to see every socket once. More they are not put off, whatever arrives meanwhile.
    fn due_timers(&mut self) {
        let core = &self.dispatch.net.core;
        let input_waits = self.more_events || core.work.units == 0;
        if input_waits && self.put_off < core.turns_for_all_sockets() {
            self.put_off += 1;
            return;
        }
        self.put_off = 0;
        self.dispatch.due_timers();
    }

    /// Takes more input for as long as it keeps coming and waiting for it is cheap beside the flush.
    ///
    /// That flush costs some microseconds for each member, however many messages it carries; those
    /// that are on their way now would cost it a second time. Several messages in one turn are the
    /// sign that the loop is behind: at light load there is one, and nothing waits.
    fn gather(&mut self) -> Result<(), Error> {
        let core = &self.dispatch.net.core;
        let budget = core.groups.gather.budget(core.work.now);
        if budget.is_zero() {
            return Ok(());
        }
        let (mut published, mut last) = (core.groups.published_count(), core.work.this_moment());
        let (mut now, until) = (last, last + budget);
        while self.dispatch.net.core.groups.has_pending() && now < until && now < last + QUIET_GAP {
            let woken = self.poll(Some(Duration::ZERO))?;
            self.messages(woken);
            self.events();
            let core = &self.dispatch.net.core;
            now = core.work.this_moment();
            let count = core.groups.published_count();
            if std::mem::replace(&mut published, count) != count {
                last = now;
            }
        }
        Ok(())
    }

    /// Whether the loop goes on; what a shutdown cuts is cut here.
    fn verdict(&mut self) -> ControlFlow<ShutdownReport> {
        let core = &mut self.dispatch.net.core;
        match core.stopping {
            Stopping::No => ControlFlow::Continue(()),
            Stopping::Now => {
                core.close_draining();
                core.stopping = Stopping::No;
                ControlFlow::Break(ShutdownReport::default())
            }
            Stopping::Draining(deadline) => {
                // The end of the grace is a deadline like any other.
                let waits = core.streams > 0 || core.drains_listeners();
                if waits && (core.work.tick < deadline || self.put_off > 0) {
                    return ControlFlow::Continue(());
                }
                core.close_draining();
                let mut report = ShutdownReport::default();
                for token in core.tokens() {
                    let Some(stream) = core.stream(token) else { continue };
                    // Of one that lingers everything was flushed: nothing of it is cut.
                    if !matches!(stream.phase(), Phase::Lingering | Phase::Dead) {
                        report.connections_cut += 1;
                        report.bytes_unsent += stream.unsent();
                    }
                    core.with_settled(token, |conn| conn.time_up(Deadline::Shutdown));
                }
                core.stopping = Stopping::No;
                self.dispatch.reap();
                ControlFlow::Break(report)
            }
        }
    }
}

impl<S: 'static> Drop for Reactor<S> {
    /// Every connection that had `on_open` gets its `on_close` here too. A handler that opens the
    /// next connection in its `on_close` gets an error for it: there would be no end otherwise.
    fn drop(&mut self) {
        let posted = self.dispatch.net.shared.close();
        self.dispatch.close_everything();
        // What was posted or set and never ran may own anything.
        drop_each(posted);
        drop_each(std::mem::take(&mut self.inbox));
        drop_each(std::mem::take(&mut self.dispatch.net.calls));
        drop_each(std::mem::take(&mut self.dispatch.net.core.notifications));
    }
}

/// The poll's descriptor: readable when a turn has something to do (but for timers and work left
/// over, see [`Reactor::next_deadline`]).
#[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
impl<S: 'static> std::os::fd::AsFd for Reactor<S> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dispatch.net.core.sys.as_fd()
    }
}

impl<S: 'static> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("net", &self.dispatch.net).finish_non_exhaustive()
    }
}

const _: () = {
    /// A remote crosses threads whatever the state is made of.
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Remote<std::rc::Rc<()>>>();
};
