//! Workers without threads, as a simulation runs them: the steps of `life.rs`, each when the simulation says.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::team::Team;
use super::{OnFailure, Worker, Workers, life};
use crate::config::Config;
use crate::error::Error;
use crate::guard::drop_guarded;
use crate::net::Net;
use crate::reactor::Reactor;
use crate::sys::Clock;

/// The workers of one simulated machine, from one start of their process to the next.
pub(crate) struct Machine<S: 'static, F> {
    workers: Workers,
    set_up: F,
    team: RefCell<Arc<Team<S>>>,
    /// How often each worker was built in this process.
    lives: RefCell<Vec<u32>>,
    /// How many run, or are being built again.
    running: Cell<usize>,
    /// How often the process was started or killed.
    starts: Cell<u64>,
}

impl<S: 'static, F> Machine<S, F>
where
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error>,
{
    pub(crate) fn new(workers: Workers, set_up: F) -> Self {
        let team = RefCell::new(Self::new_team(&workers));
        let lives = RefCell::new(vec![0; workers.count]);
        let (running, starts) = (Cell::new(0), Cell::new(0));
        Machine { workers, set_up, team, lives, running, starts }
    }

    fn new_team(workers: &Workers) -> Arc<Team<S>> {
        Team::new(workers, Clock::Sim)
    }

    fn team(&self) -> Arc<Team<S>> {
        Arc::clone(&self.team.borrow())
    }

    /// The process starts: nothing of an earlier one is known to it.
    pub(crate) fn process_starts(&self) {
        self.team.replace(Self::new_team(&self.workers));
        self.lives.borrow_mut().fill(0);
        self.running.set(self.workers.count);
        self.starts.set(self.starts.get() + 1);
    }

    /// The process is killed: nothing crosses any more.
    pub(crate) fn process_dies(&self) {
        let team = self.team();
        (0..self.workers.count).for_each(|index| team.leave(index));
    }

    /// It is gone, and with it its ports.
    pub(crate) fn process_is_gone(&self) {
        self.team().close_ports();
        self.running.set(0);
        self.starts.set(self.starts.get() + 1); // none of it is built again
    }

    pub(crate) fn starts(&self) -> u64 {
        self.starts.get()
    }

    pub(crate) fn build(&self, index: usize, config: Config) -> Result<Reactor<S>, Error> {
        let life = self.lives.borrow()[index];
        self.lives.borrow_mut()[index] += 1;
        life::build(&self.team(), index, life, config, &self.set_up)
    }

    /// A worker's reactor has failed. Returns whether it is to be built again.
    pub(crate) fn worker_dies(&self, index: usize, reactor: Reactor<S>) -> bool {
        let team = self.team();
        let rebuilds = matches!(self.workers.on_failure, OnFailure::Rebuild);
        if rebuilds {
            team.awaits(index, true);
        }
        team.leave(index);
        drop_guarded(reactor);
        team.forget_names(index);
        if let OnFailure::EndAll(grace) = self.workers.on_failure {
            if team.ending().is_none() {
                team.end(Some(grace));
            }
            self.one_has_ended();
        }
        rebuilds
    }

    /// Whether a worker that is to be built again is still wanted. If not, it has ended.
    pub(crate) fn wants_another_life(&self, index: usize) -> bool {
        let wanted = self.team().ending().is_none();
        if !wanted {
            self.team().awaits(index, false);
            self.one_has_ended();
        }
        wanted
    }

    /// A worker's loop has ended; `end` is what then ends its reactor.
    pub(crate) fn worker_ends(&self, index: usize, end: impl FnOnce()) {
        let team = self.team();
        team.leave(index);
        end();
        team.forget_names(index);
        self.one_has_ended();
    }

    /// What is left over where nothing goes on any more.
    pub(crate) fn leftovers(&self) -> Option<String> {
        let team = self.team();
        let waiting = (0..self.workers.count).map(|worker| (worker, team.waiting(worker)));
        let mut waiting = waiting.filter(|&(_, bytes)| bytes > 0);
        waiting.next().map(|(worker, bytes)| {
            format!("{bytes} bytes count as waiting for worker {worker}, and nothing is on its way")
        })
    }

    fn one_has_ended(&self) {
        self.running.set(self.running.get() - 1);
        if self.running.get() == 0 {
            self.team().close_ports();
        }
    }
}

impl<S> Net<S> {
    /// A name of which the other workers believe what is not so: that this one has members, or none.
    pub(crate) fn misplaced_name(&self) -> Option<String> {
        let desk = self.own_desk()?;
        let (groups, team) = (&self.core.groups, desk.team());
        let has = |name: &[u8]| team.topics.workers_of(name) & (1 << desk.index()) != 0;
        let known = team.topics.names();
        let unknown = groups.all_names().filter(|name| !has(name)).min().map(Vec::from);
        let stale = known.iter().filter(|name| has(name) && groups.find(name).is_none()).min();
        let wrong = unknown.or_else(|| stale.map(|name| name.to_vec()))?;
        let name = String::from_utf8_lossy(&wrong).into_owned();
        Some(format!("the other workers are wrong about {name:?}"))
    }
}
