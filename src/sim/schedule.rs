//! Whose turn is next: the loop of the simulation, and the checks between turns.

use std::cmp::Reverse;
use std::panic::Location;
use std::time::Duration;

use super::{Action, Entry, Failure, Installed, Sim, What};
use crate::sys::sim::nanos;
use crate::sys::sim::trace::Event;

/// After so many turns in a row without any progress the loop spins. Some are legal: the next timer's
/// time is a lower bound.
const IDLE_TURNS: u32 = 2_000;

/// After so many steps at one time the run is stuck: something goes on, and time does not.
const STEPS_AT_ONCE: u32 = 1_000_000;

/// The time of what never happens.
const QUIET: u64 = u64::MAX;

/// No run goes on for longer, which is 146 years: so that sums of times have room.
pub(super) const END: u64 = 1 << 62;

impl Sim {
    // ---- running ----

    /// Runs for this much of the simulation's time.
    ///
    /// # Errors
    /// Something happened that must not: see [`Failure`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        let until = self.after(time);
        while self.step(until)? {}
        self.set_now(until);
        self.inspect_all(false)
    }

    /// Runs until the condition holds, which is asked after each step.
    ///
    /// # Errors
    /// The condition does not hold after this much of the simulation's time, or nothing is left that
    /// could happen; or something happened that must not.
    #[track_caller]
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut condition: impl FnMut(&mut Sim) -> bool,
    ) -> Result<(), Failure> {
        let until = self.after(limit);
        let place = Location::caller();
        let whose = format!("the condition at {}:{}", place.file(), place.line());
        while !condition(self) {
            if !self.step(until)? {
                let what = match self.next() {
                    Some(_) => {
                        self.set_now(until);
                        format!("{whose} did not hold within {limit:?}")
                    }
                    None => format!("{whose} does not hold, and nothing is left to happen"),
                };
                let mut failure = self.failed(None, what);
                failure.0.line = Some(place.line());
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Runs until nothing is left to happen, and looks for leftovers: connections that have ended,
    /// handlers without a socket, timers, closures, queued bytes that nobody will ever move.
    ///
    /// # Errors
    /// Something still goes on after this much of the simulation's time (a timer that is set again
    /// and again); something is left over; or something happened that must not.
    pub fn settle(&mut self, limit: Duration) -> Result<(), Failure> {
        let until = self.after(limit);
        while self.step(until)? {}
        if let Some((at, whose)) = self.next() {
            let what = format!(
                "not quiet after {limit:?}: {whose} has something to do at {:?}",
                Duration::from_nanos(at)
            );
            return Err(self.failed(None, what));
        }
        self.inspect_all(true)
    }

    /// Time passes between two steps.
    fn set_now(&mut self, now: u64) {
        let world = self.world_mut();
        world.now = now;
        world.is_left();
    }

    /// The time that comes this much later.
    pub(super) fn after(&self, time: Duration) -> u64 {
        self.world().now.saturating_add(nanos(time)).min(END)
    }

    /// When something happens next, and where.
    fn next(&mut self) -> Option<(u64, String)> {
        let action = self.actions.peek().map(|Reverse(action)| (action.at, "an action".to_owned()));
        let world = self.world_mut();
        let wake = world.next_wake();
        let wake = wake.map(|(at, host)| (at, world.hosts[host as usize].name.clone()));
        action.into_iter().chain(wake).min_by_key(|&(at, _)| at)
    }

    /// One step: an action, or what comes to one host. `false` if nothing happens until then.
    fn step(&mut self, until: u64) -> Result<bool, Failure> {
        let action = self.actions.peek().map_or(QUIET, |Reverse(action)| action.at);
        let world = self.world_mut();
        world.take_outside_wakes();
        let now = world.now;
        let wake = world.next_wake();
        let at = action.max(world.now);
        if action != QUIET && at <= until && wake.is_none_or(|(wake, _)| at <= wake) {
            let Some(Reverse(Action { call, .. })) = self.actions.pop() else { return Ok(false) };
            self.set_now(at);
            self.world_mut().leave();
            call(self);
        } else {
            let Some((at, host)) = wake.filter(|&(at, _)| at <= until) else { return Ok(false) };
            world.take_wake(host);
            world.now = at;
            self.wake(host, at);
        }
        self.steps_at_once = if self.world().now > now { 0 } else { self.steps_at_once + 1 };
        if self.steps_at_once > STEPS_AT_ONCE {
            let what = format!("{STEPS_AT_ONCE} steps, and the time is still the same");
            return Err(self.failed(None, what));
        }
        self.violation().map_or(Ok(()), Err)?;
        let mut always = std::mem::take(&mut self.always);
        always.iter_mut().for_each(|holds| holds(self));
        always.append(&mut self.always);
        self.always = always;
        Ok(true)
    }

    /// What must not happen, and did. It stays: a run cannot go on after that.
    pub(super) fn violation(&self) -> Option<Failure> {
        let (host, what) = self.world().violation.as_ref()?;
        Some(self.failed(Some(*host), what.clone()))
    }

    pub(super) fn failed(&self, host: Option<u32>, what: String) -> Failure {
        Failure::of(self.world(), self.seed, host, what)
    }

    /// Something comes to a host, or its next turn is due.
    fn wake(&mut self, host: u32, at: u64) {
        let index = host as usize;
        let world = self.world_mut();
        world.current = None;
        world.deliver(host, at);
        if !world.hosts[index].up {
            return self.plan_next(host);
        }
        // `SIGSTOP` stops all threads of the process.
        let jobs = world.has_jobs(host) && world.hosts[index].paused_until <= at;
        let ready = world.has_readiness(host);
        let is_busy = world.busy_until(host) > at;
        if jobs {
            self.run_jobs(host);
        }
        let entry = &self.hosts[index];
        match &entry.what {
            What::Running(_) if !ready && entry.due > at => {}
            What::Running(_) if is_busy => {}
            What::Running(_) => {
                if !self.meets_fault(host) {
                    self.turn(host, at);
                }
            }
            What::Raw(_) => self.serve_raw(host),
            What::Ended(_) | What::Crashed => {}
        }
        self.plan_next(host);
    }

    /// When the host is to be looked at next.
    pub(super) fn plan_next(&mut self, host: u32) {
        let Entry { due, what, .. } = &self.hosts[host as usize];
        let (due, runs) = (*due, matches!(what, What::Running(_)));
        let world = self.world_mut();
        // Its process may be busy, or stopped, until then; its system goes on.
        let clock = world.busy_until(host);
        // A poll may have found that a job has come to its end.
        let waits = runs && world.has_readiness(host) || world.has_jobs(host);
        let turn = if waits { clock } else { due.max(clock) };
        let next = turn.min(world.next_arrival(host).unwrap_or(u64::MAX));
        if next != u64::MAX {
            world.plan(host, next);
        }
    }

    /// Its state may have been changed from outside: the next turn is due now.
    pub(super) fn look_again(&mut self, host: u32) {
        let world = self.world_mut();
        let now = world.hosts[host as usize].clock.max(world.now);
        world.leave();
        self.hosts[host as usize].due = now;
        self.plan_next(host);
    }

    /// One turn of a host's reactor.
    fn turn(&mut self, host: u32, at: u64) {
        let index = host as usize;
        let world = self.world_mut();
        world.current = Some(host);
        let place = &mut world.hosts[index];
        place.clock = at;
        place.turns += 1;
        place.progress = false;
        let Sim { world, hosts, .. } = self;
        let Entry { what: What::Running(process), turn, .. } = &mut hosts[index] else { return };
        let (result, left, deadline) = {
            let _world = Installed::new(world);
            let result = process.turn(*turn);
            (result, process.has_leftovers(), process.next_deadline())
        };
        let world = self.world_mut();
        let (clock, progress) = (world.hosts[index].clock, world.hosts[index].progress);
        world.current = None;
        let deadline = deadline.map(|deadline| world.time_of(deadline));
        let due = if left { clock } else { deadline.unwrap_or(u64::MAX).max(clock) };
        let entry = &mut self.hosts[index];
        entry.due = due;
        let spins = due == clock && !progress;
        entry.idle_turns = if spins { entry.idle_turns + 1 } else { 0 };
        if entry.idle_turns > IDLE_TURNS {
            let what = format!("the loop turned {IDLE_TURNS} times in a row without any progress");
            return self.world_mut().violated(host, what);
        }
        match result {
            Err(e) => self.world_mut().violated(host, e.to_string()),
            Ok(false) => self.ended(host),
            Ok(true) if !left => self.before_sleep(host),
            Ok(true) => {}
        }
    }

    /// The loop has ended, and with it the process.
    fn ended(&mut self, host: u32) {
        let index = host as usize;
        let world = self.world_mut();
        world.current = Some(host);
        world.note(host, Event::End);
        let Sim { world, hosts, .. } = self;
        let entry = &mut hosts[index];
        entry.due = u64::MAX;
        let What::Running(mut process) = std::mem::replace(&mut entry.what, What::Crashed) else {
            return;
        };
        {
            let _world = Installed::new(world);
            match entry.set_up.as_ref().and_then(|set_up| set_up.crew()) {
                Some(crew) => crew.worker_ends(&mut || process.finish()),
                None => process.finish(),
            }
        }
        entry.what = What::Ended(process);
        self.world_mut().current = None;
    }

    fn run_jobs(&mut self, host: u32) {
        while let Some(job) = self.world_mut().next_job(host) {
            self.world_mut().job_of = Some(host);
            {
                let _world = Installed::new(&mut self.world);
                job();
            }
            self.world_mut().job_of = None;
        }
    }

    // ---- checks ----

    /// The reactor has nothing to do but to wait: does it forget anything? All sockets and timers are
    /// looked at each time while they are few, and on average one for each turn else.
    fn before_sleep(&mut self, host: u32) {
        let entry = &mut self.hosts[host as usize];
        entry.sleeps += 1;
        let What::Running(process) = &entry.what else { return };
        let due = entry.due;
        let size = self.world.as_ref().map_or(0, |world| world.size_of(host));
        if size > 4 && (entry.sleeps as usize) < size {
            return;
        }
        entry.sleeps = 0;
        let forgotten = {
            let _world = Installed::new(&mut self.world);
            process.forgotten()
        };
        let What::Running(process) = &self.hosts[host as usize].what else { return };
        let stats = process.stats();
        let late = match self.world.as_deref_mut() {
            Some(world) => world.timer_slept(host, due, |key| process.is_live_timer(key)),
            None => None,
        };
        let miscounted = self.world().miscounted(host, &stats);
        if let Some(what) = forgotten.or(late).or(miscounted) {
            self.world_mut().violated(host, what);
        }
    }

    /// Looks at every host: for work that is forgotten, and where nothing goes on any more, for what
    /// is left over.
    fn inspect_all(&mut self, quiet: bool) -> Result<(), Failure> {
        if let Some(failure) = self.violation() {
            return Err(failure);
        }
        // Of the workers of a machine, as far as they have been looked at.
        let mut sockets_of_machine = None;
        for host in 0..self.hosts.len() as u32 {
            let wrong = self.inspect(host, quiet, &mut sockets_of_machine);
            let wrong =
                wrong.or_else(|| self.inspect_machine(host, quiet, &mut sockets_of_machine));
            if let Some(what) = wrong {
                return Err(self.failed(Some(host), what));
            }
        }
        Ok(())
    }

    fn inspect(&mut self, host: u32, quiet: bool, all: &mut Option<usize>) -> Option<String> {
        let Sim { world, hosts, .. } = self;
        let What::Running(process) = &hosts[host as usize].what else { return None };
        let _world = Installed::new(world);
        let busy = process.has_leftovers();
        let forgotten = if busy { None } else { process.forgotten() };
        let left = if quiet { process.leftovers() } else { None };
        *all = Some(all.unwrap_or(0) + process.socket_count());
        forgotten.or(left)
    }

    /// Whether a machine has as many descriptors as its reactors have sockets.
    fn inspect_machine(&self, host: u32, quiet: bool, all: &mut Option<usize>) -> Option<String> {
        let workers = self.world().workers_of(host);
        if workers.end != host + 1 {
            return None; // the last one sees to it
        }
        let crew = self.hosts[host as usize].crew();
        // While none of several workers runs, their port may wait for the next life of one.
        let sockets = all.take().or(crew.map(|_| 0))?;
        let machine = &self.world().hosts[workers.start as usize];
        let (descriptors, ownerless) = (machine.descriptors, machine.ownerless);
        let wrong = (sockets + ownerless != descriptors).then(|| {
            format!("{descriptors} descriptors are open for {} sockets", sockets + ownerless)
        });
        wrong.or_else(|| crew.filter(|_| quiet)?.leftovers())
    }
}
