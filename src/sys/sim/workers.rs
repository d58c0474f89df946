//! Workers: several hosts that are threads of one machine.
//!
//! The first of them is the *home*. It has the address, the ports and the descriptors of all, and a socket is
//! the worker's that has registered it. A connection on its way to another worker is nobody's for that time.
//! What comes for a socket may be in the inbox of any worker: the edge goes to who has it.

use std::io;
use std::ops::Range;

use super::sockets::{Id, Kind, UNREGISTERED};
use super::trace::Event;
use super::world::{Host, World};
use crate::sys::errors::no_descriptor_left;

/// How long it takes at most until a thread that was woken runs, in nanoseconds, and how often it takes up to
/// a millisecond, in millionths.
const WAKE: u64 = 50_000;
const LATE_WAKE: u64 = 1_000_000;
const LATE_WAKES: u32 = 20_000;

/// By how much a turn that input causes begins later than on a host alone.
const START: u64 = 5_000;

impl World {
    /// The hosts of a machine with so many workers. Returns its home.
    pub(crate) fn add_workers(&mut self, name: &str, count: u32) -> u32 {
        let home = self.add_host(name.to_owned());
        let poll_like = self.hosts[home as usize].is_poll_like();
        for number in 1..count {
            self.push_host(format!("{name}/{number}"), home, poll_like);
        }
        for worker in home..home + count {
            self.hosts[worker as usize].workers = count;
        }
        home
    }

    /// The host that has the address, ports and descriptors of this one.
    #[inline]
    pub(crate) fn home(&self, host: u32) -> u32 {
        self.hosts[host as usize].home
    }

    /// That one, to change something of it.
    pub(crate) fn machine(&mut self, host: u32) -> &mut Host {
        let home = self.home(host);
        &mut self.hosts[home as usize]
    }

    /// All hosts of the machine of this one.
    pub(crate) fn workers_of(&self, host: u32) -> Range<u32> {
        let home = self.home(host);
        home..home + self.hosts[home as usize].workers
    }

    /// How long it takes until a wake arrives: between two workers it depends on the scheduler.
    pub(super) fn wake_takes(&mut self, host: u32) -> u64 {
        match self.current {
            Some(from) if from != host && self.home(from) == self.home(host) => {
                let rng = &mut self.wakes_of_workers;
                let most = if rng.chance(LATE_WAKES) { LATE_WAKE } else { WAKE };
                rng.between(0, most)
            }
            _ => 0,
        }
    }

    /// A worker's socket has an edge. It may have come while another worker's arrivals were delivered; and of
    /// those that sleep, the scheduler decides which one goes on first.
    pub(super) fn worker_has_edge(&mut self, host: u32) {
        let place = &mut self.hosts[host as usize];
        if place.edges.len() == 1 && place.clock < self.at {
            place.clock = self.at + self.wakes_of_workers.below(START);
        }
        self.plan(host, self.at);
    }

    /// The socket is this host's from now on.
    pub(super) fn move_sock(&mut self, id: Id, host: u32) {
        let Some(sock) = self.sock_mut(id) else { return };
        let before = std::mem::replace(&mut sock.host, host);
        if before == host {
            return;
        }
        sock.token = UNREGISTERED;
        if std::mem::take(&mut sock.queued) {
            self.hosts[before as usize].edges.retain(|&other| other != id);
        }
    }

    // ---- descriptors that no reactor has ----

    /// An accepted connection leaves the worker that has accepted it: who admits it counts it.
    pub(super) fn leaves(&mut self, index: u32) {
        let host = self.host_of(self.id(index));
        self.hosts[host as usize].moved.accepted -= 1;
        self.machine(host).ownerless += 1;
    }

    /// It has come to the worker whose turn runs.
    pub(super) fn comes(&mut self, index: u32) {
        let id = self.id(index);
        let host = self.current.unwrap_or_else(|| self.host_of(id));
        self.move_sock(id, host);
        self.hosts[host as usize].moved.accepted += 1;
        self.machine(host).ownerless -= 1;
    }

    /// A listening socket becomes the port's own.
    pub(super) fn is_ownerless(&mut self, index: u32) {
        let host = self.host_of(self.id(index));
        self.machine(host).ownerless += 1;
    }

    /// The handle of such a socket, or of such a connection, is about to be closed.
    pub(super) fn is_given_up(&mut self, index: u32) {
        let host = self.host_of(self.id(index));
        let machine = self.machine(host);
        machine.ownerless = machine.ownerless.saturating_sub(1);
    }

    /// Another descriptor of a listening socket (dup(2)), for the worker whose turn runs.
    pub(super) fn duplicate(&mut self, index: u32) -> io::Result<()> {
        self.call();
        let id = self.id(index);
        let host = self.current.unwrap_or_else(|| self.host_of(id));
        if !self.take_descriptor(host) {
            return Err(no_descriptor_left());
        }
        if let Some(listener) = self.listener_mut(id) {
            listener.handles += 1;
        }
        Ok(())
    }

    /// Whether closing a descriptor of this socket leaves another one.
    pub(super) fn is_one_of_several(&self, id: Id) -> bool {
        let kind = self.sock(id).map(|sock| &sock.kind);
        matches!(kind, Some(Kind::Listener(listener)) if listener.handles > 1)
    }

    /// The socket stays. A worker that has it in its poll closes its own descriptor last.
    pub(super) fn close_handle(&mut self, id: Id) {
        let host = self.current.unwrap_or_else(|| self.host_of(id));
        let label = self.label(id);
        self.note(host, Event::Closes(label));
        self.machine(host).descriptors -= 1;
        if let Some(listener) = self.listener_mut(id) {
            listener.handles -= 1;
        }
        if self.host_of(id) == host
            && let Some(sock) = self.sock_mut(id)
        {
            sock.token = UNREGISTERED;
        }
    }
}
