//! The thread of a worker: set up, run, and where that was chosen, built again.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::handle::{RunningWorkers, WorkersHandle};
use super::team::{Team, lock};
use super::{GRACE, OnFailure, Worker, Workers};
use crate::config::Config;
use crate::error::Error;
use crate::guard::{drop_guarded, guarded};
use crate::net::{Interconnect, Net};
use crate::reactor::{Reactor, ShutdownReport};
use crate::sys::{self, Thread};

/// How many failures in a row end all.
const FAILURES: u32 = 5;
/// Failures that are further apart are not in a row.
const APART: Duration = Duration::from_secs(60);
/// By how much the wait before another attempt grows.
const STEP: Duration = Duration::from_millis(100);

/// Holds the workers back until all are set up, so that none takes connections while another may still fail.
#[derive(Default)]
struct Gate {
    open: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Gate {
    /// `false`: the start has failed.
    fn open(&self, go: bool) {
        *lock(&self.open) = Some(go);
        self.changed.notify_all();
    }

    fn wait(&self) -> bool {
        let open = lock(&self.open);
        let open = self.changed.wait_while(open, |open| open.is_none());
        open.is_ok_and(|open| *open == Some(true))
    }
}

/// Starts one thread after the other, so that errors are those of the first worker that has one.
pub(super) fn start<S, F>(workers: Workers, set_up: F) -> Result<RunningWorkers<S>, Error>
where
    S: 'static,
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + Send + Sync + 'static,
{
    let team = Team::new(&workers, sys::Clock::Os);
    let (gate, set_up, workers) = (Arc::new(Gate::default()), Arc::new(set_up), Arc::new(workers));
    let running = Arc::new(Mutex::new(workers.count));
    let mut threads = Vec::new();
    for index in 0..workers.count {
        let (ready, is_ready) = mpsc::channel();
        let life = Life {
            team: Arc::clone(&team),
            index,
            workers: Arc::clone(&workers),
            set_up: Arc::clone(&set_up),
        };
        let (of_thread, running) = (Arc::clone(&gate), Arc::clone(&running));
        // 15 bytes are what Linux shows of a name.
        let started = Thread::start(format!("tidegate-{index}"), move || {
            let _counted = Counted { running, team: Arc::clone(&life.team) };
            life.live(&ready, &of_thread)
        });
        let set_up = match started {
            Ok(thread) => {
                threads.push(thread);
                is_ready.recv().unwrap_or_else(|_| Err(died(index, "its thread has ended")))
            }
            Err(e) => Err(Error::new(format!("cannot start worker {index}"), e)),
        };
        if let Err(error) = set_up {
            gate.open(false);
            for thread in threads {
                thread.join();
            }
            team.close_ports();
            return Err(error);
        }
    }
    gate.open(true);
    Ok(RunningWorkers { handle: WorkersHandle::new(&team), threads })
}

/// A thread of a worker. With the last one all ports are closed.
struct Counted<S: 'static> {
    running: Arc<Mutex<usize>>,
    team: Arc<Team<S>>,
}

impl<S: 'static> Drop for Counted<S> {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        *running -= 1;
        if *running == 0 {
            self.team.close_ports();
        }
    }
}

fn died(index: usize, why: impl Into<String>) -> Error {
    Error::new(format!("worker {index} has died"), io::Error::other(why.into()))
}

/// A worker has died.
struct Death {
    error: Error,
    /// All workers were to end already.
    during_the_end: bool,
}

impl Death {
    fn before_the_end(error: Error) -> Self {
        Death { error, during_the_end: false }
    }
}

/// Sets a reactor up. The worker can be reached then.
pub(super) fn build<S, F>(
    team: &Arc<Team<S>>,
    index: usize,
    life: u32,
    config: Config,
    set_up: &F,
) -> Result<Reactor<S>, Error>
where
    S: 'static,
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error>,
{
    let desk = Desk::new(Arc::clone(team), index, life);
    let worker = Worker::new(team, index);
    let built = guarded(|| {
        Reactor::build_within(config, Some(Interconnect::of_worker(desk)), |net| {
            net.core.groups.removed_names.get_or_insert_default();
            set_up(&worker, net)
        })
    });
    let what = format!("cannot set up worker {index}");
    let error = match built {
        Ok(Ok(mut reactor)) => {
            reactor.net().enter_team();
            team.awaits(index, false);
            return Ok(reactor);
        }
        // Of one worker alone nobody needs its number.
        Ok(Err(error)) if team.count() == 1 => error,
        Ok(Err(error)) => error.within(&what),
        Err(text) => Error::new(what, io::Error::other(format!("it panicked: {text}"))),
    };
    team.forget_names(index);
    Err(error)
}

/// One worker's thread.
struct Life<S: 'static, F> {
    team: Arc<Team<S>>,
    index: usize,
    workers: Arc<Workers>,
    set_up: Arc<F>,
}

impl<S, F> Life<S, F>
where
    S: 'static,
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + Send + Sync + 'static,
{
    fn live(
        &self,
        ready: &Sender<Result<(), Error>>,
        gate: &Gate,
    ) -> Result<ShutdownReport, Error> {
        self.pin();
        let reactor = match self.build(0) {
            Ok(reactor) => reactor,
            Err(error) => {
                // Whoever starts the workers returns it.
                let _ = ready.send(Err(error));
                return Ok(ShutdownReport::default());
            }
        };
        let _ = ready.send(Ok(()));
        if !gate.wait() {
            self.end(reactor);
            return Ok(ShutdownReport::default());
        }
        let (mut next, mut life, mut failures) = (Ok(reactor), 0, 0);
        loop {
            let begun = sys::Clock::Os.now();
            let returns = self.workers.on_failure == OnFailure::Rebuild && failures < FAILURES;
            let ran = next.map_err(Death::before_the_end);
            let death = match ran.and_then(|reactor| self.run(reactor, returns)) {
                Ok(report) => return Ok(report),
                Err(death) => death,
            };
            let error = death.error;
            if death.during_the_end {
                log::error!("{error}, while all workers end");
                self.team.awaits(self.index, false);
                return Err(error);
            }
            failures = if self.lived(begun) > APART { 1 } else { failures + 1 };
            let grace = match self.workers.on_failure {
                OnFailure::EndAll(grace) => Some(grace),
                OnFailure::Rebuild if failures > FAILURES => Some(GRACE),
                OnFailure::Rebuild => None,
            };
            if let Some(grace) = grace {
                log::error!("{error}; all workers end");
                self.team.awaits(self.index, false);
                self.team.end(Some(grace));
                return Err(error);
            }
            log::error!("{error}; it is built again");
            if self.team.wait_for_end(STEP * (failures - 1)) {
                self.team.awaits(self.index, false);
                return Ok(ShutdownReport::default());
            }
            life += 1;
            next = self.build(life);
        }
    }

    fn lived(&self, begun: Instant) -> Duration {
        sys::Clock::Os.now().saturating_duration_since(begun)
    }

    fn build(&self, life: u32) -> Result<Reactor<S>, Error> {
        build(&self.team, self.index, life, self.workers.config.clone(), &*self.set_up)
    }

    /// Runs it to its end. `returns`: if it dies it is built again.
    fn run(&self, mut reactor: Reactor<S>, returns: bool) -> Result<ShutdownReport, Death> {
        let ran = guarded(|| {
            // What the set-up has said is not to wait for the first event.
            if let std::ops::ControlFlow::Break(report) = reactor.turn(Some(Duration::ZERO))? {
                return Ok(report);
            }
            #[cfg(test)]
            return super::death_tests::run(&mut reactor);
            #[cfg(not(test))]
            reactor.run()
        });
        if returns && !matches!(ran, Ok(Ok(_))) {
            self.team.awaits(self.index, true);
        }
        let during_the_end = self.team.ending().is_some();
        self.end(reactor);
        let error = match ran {
            Ok(Ok(report)) => return Ok(report),
            Ok(Err(error)) => died(self.index, error.to_string()),
            Err(text) => died(self.index, format!("it panicked: {text}")),
        };
        Err(Death { error, during_the_end })
    }

    /// The reactor ends, and with it what the others know of it.
    fn end(&self, reactor: Reactor<S>) {
        self.team.leave(self.index);
        drop_guarded(reactor);
        self.team.forget_names(self.index);
    }

    fn pin(&self) {
        #[cfg(all(feature = "affinity", any(target_os = "linux", target_os = "android")))]
        if self.workers.pinned
            && let Err(e) = sys::pin(self.index)
        {
            log::warn!("cannot pin worker {}: {e}", self.index);
        }
    }
}
