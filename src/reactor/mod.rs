//! The loop: [`Reactor::turn`] is its list of steps, and the steps are in the other files.
//!
//! `route.rs` finds the step for a token and `call.rs` calls handlers, guarded. `accept.rs`, `open.rs`,
//! `messages.rs`, `stream.rs`, `layered.rs`, `relay.rs`, `datagram.rs`, `session.rs` and `timers.rs`
//! are the steps, `reap.rs` the end; `scratch.rs` holds the buffers that the steps share.

use std::collections::VecDeque;
use std::fmt;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use slab::Slab;

use crate::config::Config;
use crate::connection::Phase;
use crate::core::{Core, QUIET_GAP, Stopping};
use crate::error::{CloseReason, Deadline, Error};
use crate::guard::drop_each;
use crate::net::{Interconnect, Net, Slow};
use crate::remote::{Post, Remote, Shared};
use crate::sys::Ready;

mod accept;
mod call;
mod datagram;
mod layered;
mod messages;
mod open;
mod reap;
mod relay;
mod route;
mod scratch;
mod session;
mod stream;
mod timers;
mod times;
mod until;

#[cfg(all(test, target_os = "linux"))] // they name the system's errors by their numbers
mod accept_tests;
#[cfg(test)]
mod batch_tests;
#[cfg(test)]
mod batching_tests;
#[cfg(test)]
mod close_tests;
#[cfg(test)]
mod deadline_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod kept_tests;
#[cfg(test)]
mod latest_tests;
#[cfg(all(test, feature = "splice", target_os = "linux"))]
mod relay_tests;
#[cfg(test)]
mod scripted;
#[cfg(all(test, feature = "sim", feature = "cookies"))]
mod session_tests;

use call::Dispatch;
use scratch::Scratch;
use until::Step;

/// Owns the poll, the sockets, the timers, the handlers and the shared state `S`.
///
/// Single-threaded by design: create it on the thread that runs it, and give other threads a
/// [`Remote`]. A service with a loop of its own calls [`turn`](Self::turn) from it; any other
/// program calls [`run`](Self::run).
///
/// # One turn
///
/// 1. Compute the timeout: zero while work is left over, else until the next timer or the caller's
///    limit.
/// 2. Poll for readiness (in low-latency mode, first without sleeping for a set time).
/// 3. Read the clock, once. The whole turn uses that time.
/// 4. Handle messages from other threads, up to a budget.
/// 5. Handle readiness events: token, generation, socket, layers, callbacks.
/// 6. Continue work left over from earlier turns, and deliver notifications. A connection is served
///    here or in step 5; in both only if its queue drained in step 5, or its handler asked for the end of
///    its batch there.
/// 7. Fire due timers, unless more events are known to be pending: their input may cancel some.
/// 8. Install the pending handlers of sockets that callbacks created.
/// 9. Gather: before the flush of a large group, and only if several messages are pending for it, take
///    more input for up to two milliseconds, so that it leaves in the same writes (steps 4 and 5 again,
///    with budgets of their own).
/// 10. Flush what was sent to other connections, one write for each.
/// 11. Reap closed connections: call `on_close`, drop the handler, free the slot.
///
/// Anything that step 11 itself sends, opens or closes is work left over: the next turn begins at once.
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
    /// The last poll returned as many events as it may: more may wait, which only the next poll shows.
    more_events: bool,
    /// How many turns in a row have postponed due timers, because pending input may cancel them.
    put_off: usize,
    /// For how many turns they may be.
    put_off_limit: usize,
    /// Messages from other threads that are not handled yet.
    inbox: VecDeque<Post<S>>,
    /// How many messages the runs among them hold beyond one each.
    in_runs: usize,
    /// When each of them was posted, if that is measured.
    stamps: VecDeque<Instant>,
    /// The backlog last published to posters.
    published_backlog: usize,
    /// A wake has announced messages behind those in `inbox`; it is not repeated.
    woken: bool,
    /// Where to go on after a turn that its deadline has cut.
    next_step: Option<Step>,
    /// A signal has ended a poll: `turn_until` goes on waiting.
    interrupted: bool,
}

/// What a shutdown cut off when its grace period ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Connections that were still open at the end of the grace period.
    pub connections_cut: usize,
    /// Bytes that were queued on those connections and never handed to the system.
    pub bytes_unsent: usize,
}

impl Reactor<()> {
    /// A reactor without shared state, with the default settings.
    ///
    /// # Errors
    /// The system has no descriptor or no memory left for a poll.
    pub fn new() -> Result<Self, Error> {
        Self::with_state(())
    }
}

impl<S: 'static> Reactor<S> {
    /// A reactor whose handlers share `state`, with the default settings.
    ///
    /// # Errors
    /// The system has no descriptor or no memory left for a poll.
    pub fn with_state(state: S) -> Result<Self, Error> {
        Self::build(Config::default(), |_| Ok(state))
    }

    /// A reactor with settings of your own. `set_up` makes the shared state and has the network: it
    /// can create listeners, groups and timers, and the state can hold their tokens.
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
    /// The system has no descriptor or no memory left for a poll, or `set_up` returns an error,
    /// which is passed on.
    pub fn build(
        config: Config,
        set_up: impl FnOnce(&mut Net<S>) -> Result<S, Error>,
    ) -> Result<Self, Error> {
        Self::build_within(config, None, set_up)
    }

    /// The same as a part of something larger.
    pub(crate) fn build_within(
        config: Config,
        interconnect: Option<Box<Interconnect<S>>>,
        set_up: impl FnOnce(&mut Net<S>) -> Result<S, Error>,
    ) -> Result<Self, Error> {
        let failed = |e| Error::new("cannot make the poll", e);
        let core = Core::new(config).map_err(failed)?;
        let stamps = core.config.measure.then(|| core.sys.clock());
        let shared = Shared::new(core.sys.waker().map_err(failed)?, core.config.post_limit, stamps);
        let scratch = Scratch::new(&core.config);
        let mut net = Net {
            workers: core.sys.workers(core.config.offload_threads),
            core,
            pending_handlers: Vec::new(),
            calls: Slab::new(),
            offloads: Slab::new(),
            shared,
            slow: Slow::default(),
            interconnect,
        };
        let state = set_up(&mut net)?;
        Ok(Reactor {
            dispatch: Dispatch::new(net, state),
            scratch,
            events: Vec::new(),
            more_events: false,
            put_off: 0,
            put_off_limit: 0,
            inbox: VecDeque::new(),
            in_runs: 0,
            stamps: VecDeque::new(),
            published_backlog: 0,
            woken: false,
            next_step: None,
            interrupted: false,
        })
    }

    /// The network, for use outside callbacks. This call reads the clock, so that a deadline set
    /// here counts from now and not from the last turn.
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

    /// The shared state and the network at once, for a loop of your own between turns. As
    /// [`net`](Self::net) it reads the clock.
    ///
    /// ```
    /// # use tidegate::{Reactor, Token};
    /// # #[derive(Default)]
    /// # struct Game { players: Vec<Token> }
    /// # let mut reactor = Reactor::with_state(Game::default())?;
    /// let (game, net) = reactor.parts();
    /// for &player in &game.players {
    ///     net.send(player, b"snapshot");
    /// }
    /// # Ok::<(), tidegate::Error>(())
    /// ```
    pub fn parts(&mut self) -> (&mut S, &mut Net<S>) {
        self.dispatch.net.core.work.read_clock();
        (&mut self.dispatch.state, &mut self.dispatch.net)
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote<S> {
        self.dispatch.net.remote()
    }

    /// Runs turns until [`Net::stop`] or a shutdown ends it. It sleeps when there is nothing to do,
    /// and does not end by itself, because another thread may still post. The report is empty
    /// unless a shutdown cut something.
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

    /// Runs one turn. It waits for work for `timeout` at most (`None`: without limit), and handles
    /// what there is. Returns [`ControlFlow::Break`] when `stop` or a shutdown ends the loop.
    ///
    /// # Errors
    /// The poll itself fails, which no peer can cause.
    // `run` is its usual caller, and a call with its result costs 2 % of a small message.
    #[inline(always)]
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<ControlFlow<ShutdownReport>, Error> {
        self.wake_for_fine_timers();
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
        if self.dispatch.net.interconnect.is_some() {
            self.dispatch.net.reach_beyond();
        }
        let verdict = self.verdict();
        self.publish_backlog(0);
        self.wake_for_fine_timers();
        if self.dispatch.net.core.work.timed {
            self.turn_ends();
        }
        Ok(verdict)
    }

    /// When the next turn is due at the latest if no event arrives: the time of this turn while
    /// work is left over, else that of the next timer; `None` if there is no timer. An outer loop
    /// uses it beside the poll's descriptor (`AsFd`, on Unix).
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
        let ticks = timers.into_iter().chain(stop).min();
        let coarse = ticks.and_then(|tick| core.work.instant_of(tick));
        coarse.into_iter().chain(core.work.fine_timers.next()).min()
    }

    /// Sets the alarm for the next fine timer: before the poll, for one that was set between turns, and
    /// behind the turn, for a loop that waits for the descriptor.
    #[inline]
    fn wake_for_fine_timers(&mut self) {
        if let Some(at) = self.dispatch.net.core.work.fine_timers.next() {
            self.set_alarm(at);
        }
    }

    #[cold]
    fn set_alarm(&mut self, at: Instant) {
        let core = &mut self.dispatch.net.core;
        let now = core.work.this_moment();
        if at > now {
            core.sys.set_alarm(now, at - now);
        }
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
                Stopping::Draining(_) => net.core.streams == 0 && !net.core.waits_for_its_port(),
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

    fn poll(&mut self, mut timeout: Option<Duration>) -> Result<bool, Error> {
        self.events.clear();
        let woken = loop {
            match self.wait(timeout) {
                // A process that was stopped (SIGSTOP) goes on with an interrupted epoll_wait(2), whatever
                // has come meanwhile (signal(7)): it is looked for, or timers would fire before it.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                    timeout = Some(Duration::ZERO);
                    self.interrupted = true;
                }
                woken => break woken.map_err(|e| Error::new("cannot wait for readiness", e))?,
            }
        };
        let most = self.dispatch.net.core.config.events_per_turn;
        self.more_events = self.events.len() + usize::from(woken) >= most;
        let counts = &mut self.dispatch.net.core.work.counts;
        counts.events += self.events.len() as u64;
        counts.events_exhausted += u64::from(self.more_events);
        counts.wakes += u64::from(woken);
        Ok(woken)
    }

    /// Polls; with `Config::spin`, without sleeping for that long first. Returns whether another thread
    /// woke the loop.
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

    fn events(&mut self) {
        for &ready in &self.events {
            self.dispatch.event(ready, &mut self.scratch);
        }
    }

    /// Fires due timers, deadlines among them, unless input is known to wait that may cancel them: after
    /// a long turn, or a stopped process, everything is due at once, and input that came in time has not
    /// been read. The next turns, which begin at once, read it. Timers are put off for as many turns as
    /// it takes to see every socket once, and no longer.
    fn due_timers(&mut self) {
        if !self.puts_timers_off() {
            self.dispatch.due_timers();
        }
    }

    fn puts_timers_off(&mut self) -> bool {
        let core = &mut self.dispatch.net.core;
        let input_waits = self.more_events || core.work.is_used_up();
        if input_waits {
            // Sockets that are closed meanwhile were among those before the others.
            self.put_off_limit = self.put_off_limit.max(core.turns_for_all_sockets());
            if self.put_off < self.put_off_limit {
                self.put_off += 1;
                return true;
            }
        }
        self.put_off = 0;
        self.put_off_limit = 0;
        false
    }

    /// Takes more input before a big group flush, while it keeps coming and the wait is short beside the
    /// flush.
    ///
    /// A flush costs a write for each member, however many messages it carries; messages that arrive a
    /// moment later would cost it a second time. Several messages in one turn show that the loop is
    /// behind. At light load there is one, and the flush does not wait.
    fn gather(&mut self) -> Result<(), Error> {
        let core = &self.dispatch.net.core;
        let budget = core.groups.gather.budget(core.work.now);
        if budget.is_zero() {
            return Ok(());
        }
        self.dispatch.net.core.work.counts.gathers += 1;
        let core = &self.dispatch.net.core;
        let (mut published, mut last) = (core.groups.published_count(), core.work.this_moment());
        let (mut now, until) = (last, last + budget);
        while self.dispatch.net.core.groups.has_pending() && now < until && now < last + QUIET_GAP {
            let woken = self.poll(Some(Duration::ZERO))?;
            if self.dispatch.net.core.work.timed {
                self.dispatch.net.core.work.polled_again();
            }
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

    /// Whether the loop goes on. A shutdown whose grace is over ends the remaining connections here.
    fn verdict(&mut self) -> ControlFlow<ShutdownReport> {
        self.close_bridge();
        let core = &mut self.dispatch.net.core;
        match core.stopping {
            Stopping::No => ControlFlow::Continue(()),
            Stopping::Now => {
                // What `on_close` has sent, and where a deadline has cut, what it has cut off.
                self.dispatch.flush();
                let core = &mut self.dispatch.net.core;
                core.close_draining();
                core.stopping = Stopping::No;
                ControlFlow::Break(ShutdownReport::default())
            }
            Stopping::Draining(deadline) => {
                // The end of the grace period is a deadline like any other.
                let waits = core.streams > 0 || core.drains_listeners();
                if waits && (core.work.tick < deadline || self.put_off > 0) {
                    return ControlFlow::Continue(());
                }
                core.close_draining();
                let mut report = ShutdownReport::default();
                for token in core.tokens() {
                    core.finish_sessions(token, || CloseReason::TimedOut(Deadline::Shutdown));
                    let Some(stream) = core.stream(token) else { continue };
                    // A lingering connection has flushed everything: nothing is cut.
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

impl<S: 'static> Reactor<S> {
    /// A bridge to other processes ends by itself never. In a shutdown it serves until every other
    /// connection has ended and what they have said at last is handed on, and is then closed: it does not
    /// use up the grace.
    fn close_bridge(&mut self) {
        let net = &mut self.dispatch.net;
        if !matches!(net.core.stopping, Stopping::Draining(_)) || net.interconnect.is_none() {
            return;
        }
        let connections = net.bridge_connections();
        let is_last = connections.len() == net.core.streams;
        if is_last && !net.core.drains_listeners() && net.is_bridge_done() {
            for connection in connections {
                net.close(connection);
            }
        }
    }
}

#[cfg(feature = "sim")]
mod simulated;

impl<S: 'static> Drop for Reactor<S> {
    /// Every connection that had `on_open` gets its `on_close` here too. A handler that opens
    /// another connection in it gets an error, or the drop might never end. Jobs that run on other
    /// threads are not waited for: one that hangs would hang the drop.
    fn drop(&mut self) {
        self.end();
    }
}

impl<S: 'static> Reactor<S> {
    /// Ends everything; the state stays.
    fn end(&mut self) {
        let posted = self.dispatch.net.shared.close();
        let jobs = self.dispatch.net.workers.close();
        self.dispatch.close_everything();
        if self.dispatch.net.interconnect.is_some() {
            self.dispatch.net.reach_beyond();
        }
        // Posts and jobs that never ran hold user values, whose drops may panic. The network's own
        // drop does the same for the rest.
        drop_each(posted);
        drop_each(jobs);
        drop_each(std::mem::take(&mut self.inbox));
    }
}

/// The poll's descriptor: readable when a turn has something to do, except for timers and work left
/// over (see [`Reactor::next_deadline`]).
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
    /// A remote is `Send` and `Sync` whatever the state is made of.
    const fn crosses_threads<T: Send + Sync>() {}
    crosses_threads::<Remote<std::rc::Rc<()>>>();
};
