//! What happens to a host: its process ends, stands still or comes back, its machine is off, its limits
//! and its time of day change.

use std::time::Duration;

use super::{Entry, Installed, Sim, What, wrong};
use crate::config::Config;
use crate::error::Error;
use crate::guard::drop_guarded;
use crate::sys::sim::trace::Event;
use crate::sys::sim::{Fault, with};

impl Sim {
    /// Kills the process of a host: no callback of it runs any more, its peers get resets. Its
    /// machine stays, and refuses connections.
    ///
    /// # Errors
    /// No host has that name, or it is a raw peer.
    pub fn crash(&mut self, name: &str) -> Result<(), Error> {
        let index = self.process_named(name, "crash")?;
        self.kill(index, false);
        Ok(())
    }

    /// Stops the whole machine: its peers hear nothing any more.
    ///
    /// # Errors
    /// As [`crash`](Self::crash).
    pub fn power_off(&mut self, name: &str) -> Result<(), Error> {
        let index = self.process_named(name, "power off")?;
        self.kill(index, true);
        Ok(())
    }

    /// Starts a host again that crashed, stopped or ended, with new state from its set-up.
    ///
    /// # Errors
    /// No host has that name, it runs, or its set-up fails.
    pub fn restart(&mut self, name: &str) -> Result<(), Error> {
        let index = self.index_of(name)?;
        let mut workers = self.world().workers_of(index);
        let runs = |what: &What| matches!(what, What::Running(_) | What::Raw(_));
        if workers.any(|worker| runs(&self.hosts[worker as usize].what)) {
            return Err(wrong(
                format!("cannot restart {name}"),
                "expected a host that does not run",
            ));
        }
        self.start_machine(index)
    }

    /// Stops the process of a host for a time, as `SIGSTOP` does. Its system goes on: it accepts and
    /// acknowledges until buffers are full.
    ///
    /// # Errors
    /// No host has that name, or it is a raw peer.
    pub fn pause(&mut self, name: &str, time: Duration) -> Result<(), Error> {
        let index = self.process_named(name, "pause")?;
        let until = self.after(time);
        for worker in self.world().workers_of(index) {
            self.stop_process(worker, until);
        }
        Ok(())
    }

    /// How many descriptors the process of a host may have, 20,000 at first. Beyond that sockets are
    /// refused with `EMFILE`, in accept(2) too.
    ///
    /// # Errors
    /// No host has that name, or it is a raw peer.
    pub fn descriptor_limit(&mut self, name: &str, descriptors: usize) -> Result<(), Error> {
        let index = self.process_named(name, "limit")?;
        self.world_mut().machine(index).descriptor_limit = descriptors;
        Ok(())
    }

    /// Moves a host's time of day forwards; backwards with [`set_clock_back`](Self::set_clock_back).
    /// Its monotonic clock does not jump.
    ///
    /// # Errors
    /// No host has that name.
    pub fn set_clock_forward(&mut self, name: &str, by: Duration) -> Result<(), Error> {
        self.move_clock(name, i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Moves a host's time of day backwards.
    ///
    /// # Errors
    /// No host has that name.
    pub fn set_clock_back(&mut self, name: &str, by: Duration) -> Result<(), Error> {
        self.move_clock(name, -i64::try_from(by.as_nanos()).unwrap_or(i64::MAX))
    }

    fn move_clock(&mut self, name: &str, by: i64) -> Result<(), Error> {
        let index = self.index_of(name)?;
        let host = self.world_mut().machine(index);
        host.wall = host.wall.saturating_add(by);
        Ok(())
    }

    /// A host with a process, to which `what` is to be done.
    fn process_named(&self, name: &str, what: &str) -> Result<u32, Error> {
        let index = self.index_of(name)?;
        if let What::Raw(_) = self.hosts[index as usize].what {
            return Err(wrong(
                format!("cannot {what} {name}"),
                "expected a host with a reactor; a raw peer has no process",
            ));
        }
        Ok(index)
    }

    /// Whether a fault takes the place of this turn.
    pub(super) fn meets_fault(&mut self, host: u32) -> bool {
        let world = self.world_mut();
        if world.host_fault(host, Fault::Crashes) {
            let off = world.draw(Fault::Crashes, 2) == 1;
            let down = 1_000_000 * (1 + world.draw(Fault::Crashes, 5_000));
            let name = world.machine(host).name.clone();
            let back = world.now.saturating_add(down);
            self.kill(host, off);
            self.at(Duration::from_nanos(back), move |sim| {
                if let Err(e) = sim.restart(&name) {
                    // Another action may have started it; a set-up that fails is the user's fault.
                    let running = sim.index_of(&name).is_ok_and(|index| {
                        matches!(sim.hosts[index as usize].what, What::Running(_))
                    });
                    if !running {
                        sim.world_mut().violated(host, format!("the restart failed: {e}"));
                    }
                }
            });
            return true;
        }
        if world.host_fault(host, Fault::WallClock) {
            let by = world.draw(Fault::WallClock, 2 * 3_600_000_000_000) as i64;
            let wall = &mut world.machine(host).wall;
            *wall = wall.saturating_add(by - 3_600_000_000_000);
        }
        if world.host_fault(host, Fault::Pauses) {
            let time = 1 + world.draw(Fault::Pauses, 2_000_000_000);
            let until = world.now + time;
            self.stop_process(host, until);
            return true;
        }
        false
    }

    /// `SIGSTOP`, and `SIGCONT` at `until`; of one worker, that its thread is not scheduled until then. A process that slept in its poll goes on with an interrupted
    /// one, whatever has come meanwhile (signal(7)).
    pub(super) fn stop_process(&mut self, host: u32, until: u64) {
        let index = host as usize;
        let asleep = match &self.hosts[index].what {
            What::Running(process) => !process.has_leftovers(),
            What::Ended(_) | What::Crashed | What::Raw(_) => false,
        };
        let host = &mut self.world_mut().hosts[index];
        host.paused_until = until;
        host.interrupted |= asleep;
    }

    /// In a swarm a host may have a configuration that no user would choose: small budgets show what
    /// large ones hide. And its loop may keep deadlines that cut nearly every turn.
    pub(super) fn swarm_config(&mut self, host: u32, config: Config) -> (Config, Option<Duration>) {
        if !self.world_mut().host_fault(host, Fault::Configs) {
            return (config, None);
        }
        let mut small = |most: u64| self.rng.between(1, most) as usize;
        let config = config
            .read_buffer(512 * small(32))
            .events_per_turn(small(8))
            .reads_per_turn(small(4))
            .messages_per_turn(small(8))
            .accepts_per_turn(small(4))
            .datagrams_per_turn(small(8))
            .datagram_sends_per_turn(small(8))
            .timers_per_turn(small(8))
            .posts_per_turn(small(8))
            .group_log(64 * small(64))
            .work_per_turn(small(32));
        let config = match self.rng.below(3) {
            0 => config.spin(Duration::from_micros(50)),
            _ => config,
        };
        // Some cut nearly every step, others now and then.
        let most = [0, 0, 0, 0, 1_500, 20_000][self.rng.below(6) as usize];
        (config, (most > 0).then(|| Duration::from_nanos(self.rng.below(most))))
    }

    /// The loop of a host keeps deadlines, each so long after the begin of its turn.
    #[cfg(test)]
    pub(crate) fn keep_deadlines<S>(&mut self, host: super::Host<S>, length: Duration) {
        self.hosts[host.index as usize].turn = Some(length);
    }

    pub(super) fn start(&mut self, host: u32) -> Result<(), Error> {
        let index = host as usize;
        let world = self.world_mut();
        world.leave();
        let now = world.now;
        world.current = Some(host);
        world.building = true;
        let place = &mut world.hosts[index];
        place.up = true;
        place.moved = Default::default();
        place.clock = place.clock.max(now);
        world.note(host, Event::Start);
        let Sim { world, hosts, .. } = self;
        let Entry { set_up, config, .. } = &hosts[index];
        let Some(set_up) = set_up else { return Ok(()) };
        let started = {
            let _world = Installed::new(world);
            set_up.start(config.clone())
        };
        let world = self.world_mut();
        world.building = false;
        world.current = None;
        let entry = &mut self.hosts[index];
        let before = std::mem::replace(&mut entry.what, What::Running(started?));
        entry.idle_turns = 0;
        {
            let _world = Installed::new(&mut self.world);
            drop_guarded(before); // the state of a process that ended
        }
        self.look_again(host);
        Ok(())
    }

    /// Kills a process, or stops its whole machine.
    pub(super) fn kill(&mut self, host: u32, machine: bool) {
        let workers = self.world().workers_of(host);
        let host = workers.start;
        let world = self.world_mut();
        world.leave();
        world.note(host, Event::Crash);
        world.current = Some(host);
        world.vanishing = true;
        for worker in workers.clone() {
            let place = &mut world.hosts[worker as usize];
            place.clock = world.now;
            place.paused_until = 0;
            place.interrupted = false;
        }
        if machine {
            world.machine_stops(host);
        } else {
            world.process_dies(host);
        }
        let Sim { world, hosts, .. } = self;
        {
            let _world = Installed::new(world);
            if let Some(crew) = hosts[host as usize].crew() {
                crew.process_dies();
            }
            for worker in workers.clone() {
                with(|world| world.current = Some(worker));
                let entry = &mut hosts[worker as usize];
                entry.due = u64::MAX;
                match std::mem::replace(&mut entry.what, What::Crashed) {
                    What::Running(process) | What::Ended(process) => process.vanish(),
                    What::Crashed | What::Raw(_) => {}
                }
            }
            if let Some(crew) = hosts[host as usize].crew() {
                crew.process_is_gone();
            }
        }
        let world = self.world_mut();
        if machine {
            world.machine_is_off(host);
        }
        workers.clone().for_each(|worker| world.forget_process(worker));
        world.vanishing = false;
        world.current = None;
        workers.for_each(|worker| self.plan_next(worker));
    }

    /// The simulation ends: every handler gets its `on_close`.
    pub(super) fn take_down(&mut self, host: u32) {
        self.world_mut().current = Some(host);
        let Sim { world, hosts, .. } = self;
        let what = std::mem::replace(&mut hosts[host as usize].what, What::Crashed);
        let _world = Installed::new(world);
        // A handler may ask for the time.
        with(|world| world.hosts[host as usize].clock = world.now.max(world.time_here()));
        drop(what);
    }
}
