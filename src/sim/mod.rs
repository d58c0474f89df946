//! A network in virtual time, to test a protocol against what real networks do (feature `sim`).
//!
//! A simulation has hosts, each with a reactor of its own: the reactor that serves real sockets, with
//! the same handlers, layers, groups and timers. What is simulated is the system below it: sockets,
//! the network between hosts, the clocks. **The seed decides everything**: the same seed gives the
//! same run, event by event, in debug and release, with and without the other features. A minute of
//! network takes milliseconds.
//!
//! ```
//! use std::time::Duration;
//! use tidegate::sim::{Link, Sim};
//! use tidegate::{Context, Handler, HandlerResult, Input};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_data(&mut self, cx: &mut Context<'_>, input: &mut Input<'_>) -> HandlerResult {
//!         cx.send(input.take_all());
//!         Ok(())
//!     }
//! }
//!
//! struct Client;
//!
//! impl Handler<Vec<u8>> for Client {
//!     fn on_open(&mut self, cx: &mut Context<'_, Vec<u8>>) -> HandlerResult {
//!         cx.send("hello");
//!         Ok(())
//!     }
//!     fn on_data(&mut self, cx: &mut Context<'_, Vec<u8>>, input: &mut Input<'_>) -> HandlerResult {
//!         cx.state.extend(input.take_all());
//!         Ok(())
//!     }
//! }
//!
//! let mut sim = Sim::new(7);
//! sim.host("server", |net| net.listen("0.0.0.0:80", |_peer| Echo).map(drop))?;
//! let client = sim.host("client", |net| {
//!     net.connect("server:80", Client)?;
//!     Ok(Vec::new())
//! })?;
//! let ms = Duration::from_millis;
//! sim.link("client", "server", Link::new().latency(ms(5)..ms(40)).loss(0.01))?;
//! sim.run_for(Duration::from_secs(60))?;
//! assert_eq!(sim.state(client), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`check`] runs a scenario with many seeds and says which one failed. In every run the simulation
//! checks what must hold for any protocol (see `docs/simulation.md`, which has the whole of it): a
//! broken promise of the reactor, or a panic in a handler, fails the run.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::config::Config;
use crate::error::{BoxError, Error};
use crate::net::Net;
use crate::remote::Remote;
use crate::sys::sim::trace::Event;
use crate::sys::sim::{Drawn, Rng, World, swap, v4, v6};

mod action;
mod check;
mod failure;
mod host;
#[cfg(test)]
mod leak_tests;
mod network;
mod outage;
mod peer;
mod schedule;
#[cfg(test)]
mod worker_tests;
mod workers;

pub use crate::sys::sim::{Fault, Faults, Link};
pub use check::{Checked, check, try_check};
pub use failure::Failure;
pub use host::Host;
pub use peer::{Peer, RawPeer};

use action::Action;
use check::Changes;
use host::{Process, Running, SetUp, With};
use peer::RawHost;

/// Puts a text into the timeline of the run, from a handler or a scenario: what it granted, whom it
/// believes to lead. It is part of the hash. Without a simulation it does nothing, so that a handler
/// may call it anywhere.
pub fn note(text: impl fmt::Display) {
    if crate::sys::sim::is_simulated() {
        let text = text.to_string();
        crate::sys::sim::with(|world| world.say(text));
    }
}

/// A simulation: hosts, the network between them, and the time.
///
/// See the [module](self) for an example.
pub struct Sim {
    seed: u64,
    number: u64,
    /// `None` while it is installed: a step runs.
    world: Option<Box<World>>,
    hosts: Vec<Entry>,
    actions: BinaryHeap<Reverse<Action>>,
    order: u64,
    config: Config,
    faults: Faults,
    changes: Changes,
    /// The random numbers of crashes and pauses, and of configurations.
    rng: Rng,
    /// Those of the scenario itself.
    choices: Rng,
    /// What is asserted after each step.
    always: Vec<Invariant>,
    /// How many steps there were at the present time.
    steps_at_once: u32,
}

/// A host of the simulation.
struct Entry {
    set_up: Option<Box<dyn SetUp>>,
    config: Config,
    /// How long each turn may take, if its loop keeps deadlines.
    turn: Option<Duration>,
    what: What,
    /// When its next turn is due without an arrival.
    due: u64,
    /// Turns in a row that changed nothing though the one before left work.
    idle_turns: u32,
    sleeps: u32,
}

impl Entry {
    fn new(
        set_up: Option<Box<dyn SetUp>>,
        config: Config,
        turn: Option<Duration>,
        what: What,
    ) -> Self {
        Entry { set_up, config, turn, what, due: u64::MAX, idle_turns: 0, sleeps: 0 }
    }
}

enum What {
    Running(Box<dyn Process>),
    /// Its loop ended; the state can still be looked at.
    Ended(Box<dyn Process>),
    Crashed,
    Raw(RawHost),
}

type Invariant = Box<dyn FnMut(&Sim)>;

/// A set-up that was used wrongly: what was expected, and what came.
fn wrong(what: impl Into<String>, expected: &str) -> Error {
    Error::new(what, io::Error::new(io::ErrorKind::InvalidInput, expected))
}

/// The world is back in the simulation when this is dropped, also by a panic.
struct Installed<'a> {
    slot: &'a mut Option<Box<World>>,
    before: Option<Box<World>>,
}

impl<'a> Installed<'a> {
    fn new(slot: &'a mut Option<Box<World>>) -> Self {
        let before = swap(slot.take());
        Installed { slot, before }
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        *self.slot = swap(self.before.take());
        if let Some(world) = self.slot {
            world.is_left();
        }
    }
}

thread_local! {
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

impl Sim {
    /// A simulation whose every decision follows from `seed`. No faults, and links of 500 µs, until
    /// [`faults`](Self::faults) and [`link`](Self::link) say otherwise.
    pub fn new(seed: u64) -> Self {
        Self::changed(seed, Changes::default())
    }

    fn changed(seed: u64, changes: Changes) -> Self {
        let number = NUMBER.with(|number| number.replace(number.get() + 1));
        let mut sim = Sim {
            seed,
            number,
            world: Some(Box::new(World::new(seed, Faults::none().drawn(seed)))),
            hosts: Vec::new(),
            actions: BinaryHeap::new(),
            order: 0,
            // A small read buffer: half the time of a short run is spent on a large one's pages.
            config: Config::new().read_buffer(16 * 1024).datagram_size(65_535),
            faults: Faults::none(),
            changes,
            rng: Rng::stream(seed, 3),
            choices: Rng::stream(seed, 4),
            always: Vec::new(),
            steps_at_once: 0,
        };
        sim.world_mut().trace.all = sim.changes.records.then(Vec::new);
        sim
    }

    fn world(&self) -> &World {
        self.world.as_deref().expect("a step of the simulation is not interrupted by another one")
    }

    fn world_mut(&mut self) -> &mut World {
        self.world
            .as_deref_mut()
            .expect("a step of the simulation is not interrupted by another one")
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number of a range, for choices of the scenario's own: how many clients there are, when
    /// something is said. It comes from the seed, and changes nothing about what the network does.
    ///
    /// # Panics
    /// The range is empty.
    pub fn random(&mut self, range: Range<u64>) -> u64 {
        assert!(!range.is_empty(), "expected a range with a number in it, got {range:?}");
        self.choices.between(range.start, range.end - 1)
    }

    /// The time since the simulation began.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.world().now)
    }

    /// A hash over every event so far: equal seeds give equal hashes. The bytes that travel are part
    /// of it. Where a layer draws randomness that the seed does not decide (TLS: rustls has its own),
    /// two runs differ, and [`check`] does not compare them.
    pub fn hash(&self) -> u64 {
        self.world().trace.hash()
    }

    /// How many events there were: deliveries, readiness, timers, faults.
    pub fn events(&self) -> u64 {
        self.world().events
    }

    // ---- set-up ----

    /// Adds a host and starts its reactor. `set_up` makes the state and has the network, as in
    /// [`Reactor::build`](crate::Reactor::build); it runs again each time the host comes back after a
    /// crash, so that it can be called often.
    ///
    /// The host resolves under its name. Host number n (from 1) has the addresses 10.0.0.n and fd00::n.
    ///
    /// # Errors
    /// The name is taken or no name (letters, digits, `-` and `.`), or `set_up` returns an error. In
    /// the last case the host exists and is down; [`restart`](Self::restart) tries again.
    pub fn host<S, F>(&mut self, name: &str, set_up: F) -> Result<Host<S>, Error>
    where
        S: 'static,
        F: Fn(&mut Net<S>) -> Result<S, Error> + 'static,
    {
        let config = self.config.clone();
        self.host_with(name, config, set_up)
    }

    /// The same with settings of its own.
    ///
    /// # Errors
    /// As [`host`](Self::host).
    pub fn host_with<S, F>(
        &mut self,
        name: &str,
        config: Config,
        set_up: F,
    ) -> Result<Host<S>, Error>
    where
        S: 'static,
        F: Fn(&mut Net<S>) -> Result<S, Error> + 'static,
    {
        let index = self.add_host(name)?;
        let (config, turn) = self.swarm_config(index, config);
        let set_up = Some(Box::new(With::new(set_up)) as Box<dyn SetUp>);
        self.hosts.push(Entry::new(set_up, config, turn, What::Crashed));
        self.start(index)?;
        Ok(Host::new(index, self.number))
    }

    /// A host without a reactor, for a peer that keeps to no protocol: see [`RawPeer`].
    ///
    /// # Errors
    /// As [`host`](Self::host).
    pub fn peer(&mut self, name: &str) -> Result<Peer, Error> {
        let index = self.add_host(name)?;
        self.world_mut().hosts[index as usize].raw = true;
        let what = What::Raw(RawHost::default());
        self.hosts.push(Entry::new(None, self.config.clone(), None, what));
        Ok(Peer { index, sim: self.number })
    }

    /// What a raw peer may do.
    ///
    /// # Panics
    /// The peer belongs to another simulation.
    pub fn raw(&mut self, peer: Peer) -> RawPeer<'_> {
        assert_eq!(peer.sim, self.number, "expected a peer of this simulation");
        RawPeer { sim: self, index: peer.index }
    }

    fn add_host(&mut self, name: &str) -> Result<u32, Error> {
        self.check_name(name)?;
        Ok(self.world_mut().add_host(name.to_owned()))
    }

    /// Whether another host may have this name.
    fn check_name(&self, name: &str) -> Result<(), Error> {
        let what = || format!("cannot add the host {name:?}");
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if name.is_empty() || !name.chars().all(is_name) || name == "localhost" {
            let expected = "expected a name of letters, digits, '-' and '.', other than localhost";
            return Err(wrong(what(), expected));
        }
        if name.parse::<std::net::IpAddr>().is_ok() {
            return Err(wrong(what(), "expected a name, got an address"));
        }
        if self.world().host_named(name).is_some() {
            return Err(wrong(what(), "expected a name that no other host has"));
        }
        Ok(())
    }

    /// The settings of the hosts that are added from now on. The default is that of
    /// [`Config::new`], but for a read buffer of 16 KiB, which makes short runs twice as fast.
    pub fn config(&mut self, config: Config) {
        self.config = config;
    }

    /// What may go wrong, from now on. Call it before hosts are added, for the faults that are
    /// drawn once per host.
    pub fn faults(&mut self, faults: Faults) {
        let mut drawn: Drawn = faults.drawn(self.seed);
        self.changes.apply(&mut drawn);
        self.faults = faults;
        self.world_mut().set_faults(drawn);
    }

    /// Lets handlers panic without failing the run, for scenarios that are about panics.
    pub fn allow_panics(&mut self) {
        self.world_mut().allows_panics = true;
    }

    fn index_of(&self, name: &str) -> Result<u32, Error> {
        self.world().host_named(name).ok_or_else(|| {
            let known = self.world().names();
            let expected = format!("expected one of {}", known.join(", "));
            wrong(format!("no host is called {name:?}"), &expected)
        })
    }

    /// The IPv4 address of a host.
    ///
    /// # Errors
    /// No host has that name.
    pub fn ip(&self, name: &str) -> Result<std::net::IpAddr, Error> {
        self.index_of(name).map(|index| v4(index).into())
    }

    /// The IPv6 address of a host.
    ///
    /// # Errors
    /// No host has that name.
    pub fn ip_v6(&self, name: &str) -> Result<std::net::IpAddr, Error> {
        self.index_of(name).map(|index| v6(index).into())
    }

    /// Puts a number of the scenario's own into the trace: into the hash, and into the timeline of
    /// a run that fails.
    pub fn note(&mut self, number: u64) {
        let world = self.world_mut();
        world.leave();
        world.note(0, Event::Said(number));
    }

    /// The state of a host.
    ///
    /// # Panics
    /// The host belongs to another simulation, or is down after a crash.
    #[track_caller]
    pub fn state<S: 'static>(&self, host: Host<S>) -> &S {
        let Some(state) = self.try_state(host) else {
            panic!("expected a host that runs or has ended, but {} is down", self.name_of(host))
        };
        state
    }

    /// The state of a host; `None` while it is down after a crash. A fault may crash any host, so a
    /// condition asks with this.
    ///
    /// # Panics
    /// The host belongs to another simulation.
    #[track_caller]
    pub fn try_state<S: 'static>(&self, host: Host<S>) -> Option<&S> {
        assert_eq!(host.sim, self.number, "expected a host of this simulation");
        let running: Option<&Running<S>> = match &self.hosts[host.index as usize].what {
            What::Running(process) | What::Ended(process) => process.as_any().downcast_ref(),
            What::Crashed | What::Raw(_) => None,
        };
        running.map(|running| running.0.state())
    }

    fn name_of<S>(&self, host: Host<S>) -> &str {
        &self.world().hosts[host.index as usize].name
    }

    /// Whether the host's process runs: it has not crashed, and its loop has not ended.
    #[track_caller]
    pub fn is_running<S>(&self, host: Host<S>) -> bool {
        assert_eq!(host.sim, self.number, "expected a host of this simulation");
        matches!(self.hosts[host.index as usize].what, What::Running(_))
    }

    /// Asserts something after each step of the simulation from now on. A panic of `holds` fails the
    /// run there and then, so that its timeline ends with what led to it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidegate::sim::Sim;
    /// # let mut sim = Sim::new(1);
    /// let one = sim.host("one", |_net| Ok(false))?;
    /// let other = sim.host("other", |_net| Ok(false))?;
    /// sim.always(move |sim| {
    ///     let leads = |host| sim.try_state(host) == Some(&true);
    ///     assert!(!(leads(one) && leads(other)), "two leaders");
    /// });
    /// # sim.run_for(Duration::from_secs(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn always(&mut self, holds: impl FnMut(&Sim) + 'static) {
        self.always.push(Box::new(holds));
    }

    /// Does something with the state and the network of a host, between its turns.
    ///
    /// # Panics
    /// The host belongs to another simulation, or does not run.
    #[track_caller]
    pub fn with<S: 'static, T>(
        &mut self,
        host: Host<S>,
        call: impl FnOnce(&mut S, &mut Net<S>) -> T,
    ) -> T {
        let result = {
            let (running, _world) = self.enter(host);
            let (state, net) = running.0.parts();
            call(state, net)
        };
        self.look_again(host.index);
        result
    }

    /// The handle for other threads, of which a simulation has none: messages that are posted on its
    /// own thread are events of its schedule, whether they come from another host, from an
    /// [action](Self::at) or from between two runs. Other threads are refused
    /// ([`PostError::Simulated`](crate::PostError::Simulated)).
    ///
    /// # Panics
    /// The host belongs to another simulation, or does not run.
    #[track_caller]
    pub fn remote<S: 'static>(&mut self, host: Host<S>) -> Remote<S> {
        let remote = self.enter(host).0.0.remote();
        self.world_mut().leave();
        remote
    }

    /// Installs the world as this host sees it.
    #[track_caller]
    fn enter<S: 'static>(&mut self, host: Host<S>) -> (&mut Running<S>, Installed<'_>) {
        assert_eq!(host.sim, self.number, "expected a host of this simulation");
        let runs = self.is_running(host);
        assert!(runs, "expected a host that runs, but {} does not", self.name_of(host));
        let world = self.world_mut();
        let now = world.now;
        world.current = Some(host.index);
        let place = &mut world.hosts[host.index as usize];
        place.clock = place.clock.max(now);
        let process = match &mut self.hosts[host.index as usize].what {
            What::Running(process) => process.as_any_mut().downcast_mut(),
            _ => None,
        };
        let process = process.expect("expected a host that runs");
        (process, Installed::new(&mut self.world))
    }
}

impl Drop for Sim {
    /// Every handler gets its `on_close`, as when a reactor is dropped.
    fn drop(&mut self) {
        if self.world.is_none() {
            return; // inside a step that panicked
        }
        for index in 0..self.hosts.len() as u32 {
            self.take_down(index);
        }
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// What a scenario returns.
pub type ScenarioResult = Result<(), BoxError>;
