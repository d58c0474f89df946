//! The simulated world: hosts, sockets, the network between them, time.
//!
//! It knows no reactor and no handler. `arrivals.rs` is what comes to hosts, `tcp.rs` and `udp.rs` are the sockets, `names.rs` the names and
//! addresses, `link.rs` the ways between hosts. Two kinds of code use it: the handles of a host's
//! sockets, while that host's turn runs (`handle.rs`), and the scheduler of the simulation, which
//! decides whose turn is next (`sim/schedule.rs`).
//!
//! **Time.** A turn begins at the time of its cause and runs ahead: each call through the seam costs
//! its host some time, and packets leave at the time of the call. Another host's packets reach it at
//! its next poll. `at` is the time of what happens now; it never reads a real clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::arrivals::Due;
use super::faults::{Dice, Drawn, Fault};
use super::handle::Outside;
use super::jobs::Jobs;
use super::link::{Link, Plainly, Ways};
use super::rng::Rng;
use super::sockets::{Id, Sock};
use super::trace::{Entry, Event, Notes, Trace};

/// What a call through the seam costs, in nanoseconds.
pub(super) const CALL: u64 = 500;

/// What reading the clock costs.
const CLOCK: u64 = 25;

/// A host: its place in the network, and what its system holds.
///
/// Workers are hosts of one machine, their *home*, which is the first of them: it has the address, the ports
/// and the descriptors of all. Each has its own clock, inbox and edges.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// The host whose address, ports and descriptors it uses: itself, unless it is a worker.
    pub(super) home: u32,
    /// How many hosts share them.
    pub(super) workers: u32,
    /// Its local time: how far its last turn ran.
    pub(crate) clock: u64,
    /// The process is stopped until then.
    pub(crate) paused_until: u64,
    /// Its next poll is interrupted: it was stopped in it.
    pub(crate) interrupted: bool,
    pub(super) inbox: BinaryHeap<Reverse<Due>>,
    /// Registered sockets with an edge that no poll has reported, and the waker.
    pub(super) edges: VecDeque<Id>,
    /// The waker is among them.
    pub(super) woken: bool,
    /// The machine runs.
    pub(crate) up: bool,
    /// It has no process that could fail: it is a raw peer.
    pub(crate) raw: bool,
    pub(super) poll_like: bool,
    pub(super) listeners: BTreeMap<u16, Vec<Id>>,
    pub(super) udp: BTreeMap<u16, Vec<Id>>,
    pub(super) paths: BTreeMap<PathBuf, Id>,
    pub(super) tcp_ports: BTreeMap<u16, u32>,
    pub(super) next_port: u16,
    pub(crate) descriptors: usize,
    /// Those of them that no reactor has: on their way to another worker, or a port's own.
    pub(crate) ownerless: usize,
    pub(crate) descriptor_limit: usize,
    /// How much its clock of the time of day is off.
    pub(crate) wall: i64,
    /// Something that the reactor could act on came since this was last asked.
    pub(crate) progress: bool,
    pub(crate) turns: u64,
    /// When each timer is due, by its key. Cancelled ones stay until `timers_due` meets them.
    pub(super) timers: HashMap<u64, u64, Plainly>,
    /// What its process has moved: the statistics of its reactor have to say the same.
    pub(crate) moved: Moved,
}

/// What has passed through the calls of one process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Moved {
    pub(crate) bytes_read: u64,
    pub(crate) bytes_written: u64,
    pub(crate) accepted: u64,
    pub(crate) datagrams_received: u64,
    pub(crate) datagrams_sent: u64,
    pub(crate) timers_fired: u64,
}

pub(crate) struct World {
    base: Instant,
    wall: SystemTime,
    /// The scheduler's time: when the current cause happened.
    pub(crate) now: u64,
    /// The time of what happens now.
    pub(super) at: u64,
    /// Whose calls come through the seam.
    pub(crate) current: Option<u32>,
    /// A host's reactor is being made.
    pub(crate) building: bool,
    pub(super) order: u64,
    pub(crate) hosts: Vec<Host>,
    pub(super) socks: Vec<Sock>,
    pub(super) free: Vec<u32>,
    /// When each host is to run at the latest: stale entries are skipped.
    pub(super) wakes: BinaryHeap<Reverse<(u64, u64, u32)>>,
    pub(super) planned: Vec<u64>,
    pub(super) ways: Ways,
    pub(super) dice: Dice,
    /// Latencies.
    pub(super) network: Rng,
    /// When workers go on that sleep.
    pub(super) wakes_of_workers: Rng,
    /// What layers draw.
    #[cfg(feature = "random")]
    pub(crate) library: Rng,
    /// Bytes of this run cannot be repeated: this drew randomness of its own.
    pub(crate) unrepeatable: Option<&'static str>,
    pub(crate) trace: Trace,
    pub(crate) notes: Notes,
    /// The first thing that must not happen, and did.
    pub(crate) violation: Option<(u32, String)>,
    /// Handled: readiness, timers, deliveries, faults.
    pub(crate) events: u64,
    /// Handlers are being dropped without callbacks: their host crashed.
    pub(crate) vanishing: bool,
    /// A panic of a handler ends its connection, as outside simulations, and not the run.
    pub(crate) allows_panics: bool,
    /// What users gave to other threads, by host.
    pub(super) jobs: Vec<Jobs>,
    /// The host whose job runs, outside its turns.
    pub(crate) job_of: Option<u32>,
    /// What comes from this thread while no step of the simulation runs.
    pub(super) outside: Arc<Outside>,
}

impl Host {
    pub(super) fn is_poll_like(&self) -> bool {
        self.poll_like
    }

    /// How many things are kept for what may come.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.inbox.len() + self.edges.len() + self.timers.len() + self.tcp_ports.len()
    }
}

impl World {
    pub(crate) fn new(seed: u64, drawn: Drawn) -> Self {
        World {
            base: Instant::now(),
            // The same day in every run: what programs print is the same, too.
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
            now: 0,
            at: 0,
            current: None,
            building: false,
            order: 0,
            hosts: Vec::new(),
            socks: Vec::new(),
            free: Vec::new(),
            wakes: BinaryHeap::new(),
            planned: Vec::new(),
            ways: Ways::default(),
            dice: Dice::new(seed, drawn),
            network: Rng::stream(seed, 1),
            wakes_of_workers: Rng::stream(seed, 5),
            #[cfg(feature = "random")]
            library: Rng::stream(seed, 2),
            unrepeatable: None,
            trace: Trace::default(),
            notes: Notes::default(),
            violation: None,
            events: 0,
            vanishing: false,
            allows_panics: false,
            jobs: Vec::new(),
            job_of: None,
            outside: Arc::default(),
        }
    }

    /// What comes next is done from outside, by the scenario.
    pub(crate) fn leave(&mut self) {
        self.current = None;
        self.at = self.now;
    }

    /// It is out of the thread-local: handles that are used meanwhile see this time.
    pub(crate) fn is_left(&self) {
        super::set_time_outside(self.instant(self.now));
    }

    // ---- time ----

    pub(crate) fn instant(&self, at: u64) -> Instant {
        self.base + Duration::from_nanos(at)
    }

    /// The simulation's time of an instant, rounded up.
    pub(crate) fn time_of(&self, instant: Instant) -> u64 {
        super::nanos(instant.saturating_duration_since(self.base))
    }

    /// A host's reading of its clock.
    #[inline]
    pub(super) fn read_clock(&mut self) -> Instant {
        let at = match self.current {
            Some(host) => {
                let host = &mut self.hosts[host as usize];
                host.clock += CLOCK;
                host.clock
            }
            None => self.now,
        };
        self.instant(at)
    }

    pub(super) fn system_time(&mut self) -> SystemTime {
        self.wall_at(self.current, self.time_here())
    }

    /// What the clock of the time of day shows on a host.
    pub(super) fn wall_at(&self, host: Option<u32>, at: u64) -> SystemTime {
        let at = Duration::from_nanos(at);
        let off = host.map_or(0, |host| self.hosts[self.home(host) as usize].wall);
        let shift = Duration::from_nanos(off.unsigned_abs());
        if off < 0 { self.wall + at - shift } else { self.wall + at + shift }
    }

    pub(crate) fn time_here(&self) -> u64 {
        self.current.map_or(self.now, |host| self.hosts[host as usize].clock)
    }

    /// A call through the seam: it takes its time.
    #[inline]
    pub(super) fn call(&mut self) {
        if let Some(host) = self.current {
            let host = &mut self.hosts[host as usize];
            host.clock += CALL;
            self.at = host.clock;
        } else {
            self.at = self.now;
        }
    }

    // ---- the trace ----

    #[inline]
    pub(crate) fn note(&mut self, host: u32, event: Event) {
        self.note_with(host, event, 0);
    }

    #[inline]
    pub(crate) fn note_with(&mut self, host: u32, event: Event, contents: u64) {
        self.trace.note(Entry { at: self.at, host, event, contents });
    }

    /// What the program under test says: it is part of the run.
    pub(crate) fn say(&mut self, text: String) {
        self.at = self.time_here();
        let host = self.current.unwrap_or(0);
        let contents = super::trace::of_bytes(text.as_bytes());
        let event = self.notes.add(text);
        self.note_with(host, event, contents);
    }

    /// Something for who reads the timeline.
    pub(crate) fn remark(&mut self, text: String) {
        let host = self.current.unwrap_or(0);
        let event = self.notes.add(text);
        self.trace.remark(Entry { at: self.time_here(), host, event, contents: 0 });
    }

    /// Something happened that must not. The first one counts: the others may follow from it.
    pub(crate) fn violated(&mut self, host: u32, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| (host, what.into()));
    }

    /// Whether this fault happens now, on this host.
    #[inline]
    pub(super) fn fault(&mut self, host: u32, fault: Fault) -> bool {
        let happens = self.dice.happens(fault, self.at);
        if happens {
            self.events += 1;
            self.note(host, Event::Fault(fault));
        }
        happens
    }

    /// The same for a fault of the host itself, which the simulation asks between turns.
    pub(crate) fn host_fault(&mut self, host: u32, fault: Fault) -> bool {
        self.at = self.now;
        self.fault(host, fault)
    }

    /// A number below `end` that decides a detail of such a fault.
    pub(crate) fn draw(&mut self, fault: Fault, end: u64) -> u64 {
        self.dice.of(fault).below(end)
    }

    pub(crate) fn set_faults(&mut self, drawn: Drawn) {
        self.dice.set(drawn);
    }

    pub(crate) fn faults_that_happened(&self) -> Vec<Fault> {
        let happened = |&fault: &Fault| self.dice.happened[fault as usize] > 0;
        Fault::ALL.iter().copied().filter(happened).collect()
    }

    pub(crate) fn set_link(&mut self, from: u32, to: u32, link: Link) {
        self.ways.set(self.home(from), self.home(to), link);
    }

    pub(crate) fn set_default_link(&mut self, link: Link) {
        self.ways.set_default(link);
    }

    // ---- hosts ----

    pub(crate) fn add_host(&mut self, name: String) -> u32 {
        let poll_like = self.dice.happens(Fault::PollLike, self.now);
        let index = self.hosts.len() as u32;
        self.push_host(name, index, poll_like)
    }

    pub(super) fn push_host(&mut self, name: String, home: u32, poll_like: bool) -> u32 {
        let index = self.hosts.len() as u32;
        self.hosts.push(Host {
            name,
            home,
            workers: 1,
            clock: self.now,
            paused_until: 0,
            interrupted: false,
            inbox: BinaryHeap::new(),
            edges: VecDeque::new(),
            woken: false,
            up: true,
            raw: false,
            poll_like,
            listeners: BTreeMap::new(),
            udp: BTreeMap::new(),
            paths: BTreeMap::new(),
            tcp_ports: BTreeMap::new(),
            next_port: 49_152,
            descriptors: 0,
            ownerless: 0,
            descriptor_limit: 20_000,
            wall: 0,
            progress: false,
            turns: 0,
            timers: HashMap::default(),
            moved: Moved::default(),
        });
        self.planned.push(u64::MAX);
        self.jobs.push(Jobs::default());
        index
    }

    /// The names of all machines.
    pub(crate) fn names(&self) -> Vec<&str> {
        let homes = (0..self.hosts.len() as u32).filter(|&host| self.home(host) == host);
        homes.map(|home| &*self.hosts[home as usize].name).collect()
    }

    pub(crate) fn host_named(&self, name: &str) -> Option<u32> {
        let hosts = 0..self.hosts.len() as u32;
        hosts.filter(|&host| self.home(host) == host).find(|&h| self.hosts[h as usize].name == name)
    }

    /// Until when the process of a host does not run: it is busy, or stopped.
    pub(crate) fn busy_until(&self, host: u32) -> u64 {
        let host = &self.hosts[host as usize];
        host.clock.max(host.paused_until)
    }

    /// How many datagrams one call sends: it differs between systems.
    pub(super) fn datagrams_a_call(&mut self) -> usize {
        if self.network.chance(500_000) { self.network.between(1, 32) as usize } else { 1 }
    }
}
