//! Workers: several reactors of one machine, each a host.

use std::rc::Rc;
use std::time::Duration;

use super::host::{Host, Process, Running, SetUp};
use super::{Entry, Installed, Sim, What, wrong};
use crate::config::Config;
use crate::error::Error;
use crate::net::Net;
use crate::sys::sim::trace::Event;
use crate::workers::{Machine, OnFailure, Worker, Workers};

/// What the workers of a machine have in common.
pub(super) trait Crew {
    fn process_starts(&self);
    fn process_dies(&self);
    fn process_is_gone(&self);
    fn starts(&self) -> u64;
    /// Whether it is to be built again.
    fn worker_dies(&self, process: Box<dyn Process>) -> bool;
    fn wants_another_life(&self) -> bool;
    fn worker_ends(&self, end: &mut dyn FnMut());
    fn leftovers(&self) -> Option<String>;
}

/// Makes the reactor of one worker.
struct WorkerOf<S: 'static, F> {
    machine: Rc<Machine<S, F>>,
    index: usize,
}

impl<S, F> SetUp for WorkerOf<S, F>
where
    S: 'static,
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error>,
{
    fn start(&self, config: Config) -> Result<Box<dyn Process>, Error> {
        Ok(Box::new(Running(self.machine.build(self.index, config)?)))
    }

    fn crew(&self) -> Option<&dyn Crew> {
        Some(self)
    }
}

impl<S, F> Crew for WorkerOf<S, F>
where
    S: 'static,
    F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error>,
{
    fn process_starts(&self) {
        self.machine.process_starts();
    }

    fn process_dies(&self) {
        self.machine.process_dies();
    }

    fn process_is_gone(&self) {
        self.machine.process_is_gone();
    }

    fn starts(&self) -> u64 {
        self.machine.starts()
    }

    fn worker_dies(&self, process: Box<dyn Process>) -> bool {
        let Ok(running) = process.into_any().downcast::<Running<S>>() else { return false };
        self.machine.worker_dies(self.index, running.0)
    }

    fn wants_another_life(&self) -> bool {
        self.machine.wants_another_life(self.index)
    }

    fn worker_ends(&self, end: &mut dyn FnMut()) {
        self.machine.worker_ends(self.index, end);
    }

    fn leftovers(&self) -> Option<String> {
        self.machine.leftovers()
    }
}

impl Entry {
    pub(super) fn crew(&self) -> Option<&dyn Crew> {
        self.set_up.as_ref()?.crew()
    }
}

impl Sim {
    /// Adds a machine whose process has so many [`Workers`], and starts them: one name and address, one set of
    /// ports, one table of descriptors. Each worker is a host of its own in all else: it has its clock, its
    /// turns and its [`state`](Self::state), and the seed decides how their turns interleave. `set_up` makes
    /// each as in [`Workers::run`]; it runs again after a crash, and when a
    /// [worker that died](Self::worker_dies) is built again.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidegate::sim::Sim;
    /// # use tidegate::{Context, Handler, HandlerResult, Input};
    /// # struct Echo;
    /// # impl Handler<u32> for Echo {
    /// #     fn on_open(&mut self, cx: &mut Context<'_, u32>) -> HandlerResult {
    /// #         *cx.state += 1;
    /// #         Ok(())
    /// #     }
    /// #     fn on_data(&mut self, cx: &mut Context<'_, u32>, input: &mut Input<'_>) -> HandlerResult {
    /// #         cx.send(input.take_all());
    /// #         Ok(())
    /// #     }
    /// # }
    /// # let mut sim = Sim::new(1);
    /// let workers = sim.workers("server", 3, |_worker, net| {
    ///     net.listen("0.0.0.0:80", |_peer| Echo)?;
    ///     Ok(0)
    /// })?;
    /// for name in ["a", "b", "c"] {
    ///     let peer = sim.peer(name)?;
    ///     sim.raw(peer).connect("server:80")?;
    /// }
    /// sim.run_for(Duration::from_secs(1))?;
    /// assert!(workers.iter().all(|&worker| *sim.state(worker) == 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A worker takes the number of a host, but only the first one's has addresses.
    ///
    /// # Errors
    /// As [`host`](Self::host).
    pub fn workers<S, F>(
        &mut self,
        name: &str,
        count: usize,
        set_up: F,
    ) -> Result<Vec<Host<S>>, Error>
    where
        S: 'static,
        F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + 'static,
    {
        let workers = Workers::new(count).config(self.config.clone());
        self.workers_with(name, workers.on_failure(OnFailure::Rebuild), set_up)
    }

    /// The same with settings of its own: number, configuration, balance, limits, and what follows when a
    /// worker dies.
    ///
    /// # Errors
    /// As [`host`](Self::host).
    pub fn workers_with<S, F>(
        &mut self,
        name: &str,
        workers: Workers,
        set_up: F,
    ) -> Result<Vec<Host<S>>, Error>
    where
        S: 'static,
        F: Fn(&Worker<S>, &mut Net<S>) -> Result<S, Error> + 'static,
    {
        self.check_name(name)?;
        let count = workers.count();
        let home = self.world_mut().add_workers(name, count as u32);
        // Workers run their loops themselves, without deadlines.
        let (config, _) = self.swarm_config(home, workers.settings().clone());
        let machine = Rc::new(Machine::new(workers, set_up));
        for index in 0..count {
            let set_up: Box<dyn SetUp> = Box::new(WorkerOf { machine: Rc::clone(&machine), index });
            self.hosts.push(Entry::new(Some(set_up), config.clone(), None, What::Crashed));
        }
        self.start_machine(home)?;
        Ok((home..home + count as u32).map(|worker| Host::new(worker, self.number)).collect())
    }

    /// A worker dies, as by a panic outside callbacks: its connections are lost, and
    /// [`Workers::on_failure`] decides what follows. One that is built again comes back within 300 ms, with
    /// new state and its next life.
    ///
    /// # Errors
    /// The host is no worker, or does not run.
    ///
    /// # Panics
    /// The host belongs to another simulation.
    #[track_caller]
    pub fn worker_dies<S>(&mut self, worker: Host<S>) -> Result<(), Error> {
        let runs = self.is_running(worker);
        let index = worker.index as usize;
        if !runs || self.hosts[index].crew().is_none() {
            let what = format!("{} cannot die alone", self.name_of(worker));
            return Err(wrong(what, "expected a worker that runs"));
        }
        self.one_dies(worker.index);
        Ok(())
    }

    fn one_dies(&mut self, host: u32) {
        let index = host as usize;
        let world = self.world_mut();
        world.leave();
        world.note(host, Event::Crash);
        world.current = Some(host);
        let now = world.now;
        let place = &mut world.hosts[index];
        place.clock = place.clock.max(now);
        let Sim { world, hosts, .. } = self;
        let entry = &mut hosts[index];
        entry.due = u64::MAX;
        let What::Running(process) = std::mem::replace(&mut entry.what, What::Crashed) else {
            return;
        };
        let Some(crew) = entry.crew() else { return };
        let (starts, rebuilds) = {
            let _world = Installed::new(world);
            (crew.starts(), crew.worker_dies(process))
        };
        let world = self.world_mut();
        world.drop_edges(host);
        world.forget_process(host);
        world.current = None;
        self.plan_next(host);
        if rebuilds {
            let back = now.saturating_add(self.rng.between(1_000, 300_000_000));
            self.at(Duration::from_nanos(back), move |sim| sim.is_built_again(host, starts));
        }
    }

    /// The next life of a worker, unless its process has been killed or is ending.
    fn is_built_again(&mut self, host: u32, starts: u64) {
        self.world_mut().current = Some(host);
        let Sim { world, hosts, .. } = self;
        let Some(crew) = hosts[host as usize].crew() else { return };
        let wanted = {
            let _world = Installed::new(world);
            crew.starts() == starts && crew.wants_another_life()
        };
        self.world_mut().current = None;
        if wanted && let Err(e) = self.start(host) {
            self.world_mut().violated(host, format!("a worker is not built again: {e}"));
        }
    }

    /// Starts the process of a host, with all its workers.
    pub(super) fn start_machine(&mut self, home: u32) -> Result<(), Error> {
        if let Some(crew) = self.hosts[home as usize].crew() {
            crew.process_starts();
        }
        for worker in self.world().workers_of(home) {
            if let Err(error) = self.start(worker) {
                if self.hosts[home as usize].crew().is_some() {
                    self.kill(home, false);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}
