//! The seam between the reactor and the operating system.
//!
//! Code above this folder sees sockets, readiness, clocks, threads, the resolver and the file system
//! through the items below and through nothing else: no mio type, no `socket2` type, no errno
//! number, no `Instant::now()`, no `std::thread`. The one exception is a custom source, which is a mio
//! source by definition: `source.rs` registers it through [`Poller::registry_for_sources`].
//!
//! A backend keeps these promises:
//!
//! - **Sockets never block.** A call that can do nothing returns `WouldBlock`. `EINTR` is retried
//!   inside the seam and never returned.
//! - **Readiness is edge-triggered.** [`Poller::poll`] reports a change once, so the caller keeps it
//!   until a call returns `WouldBlock`. A short read or write may prove the same; whether it does
//!   depends on the socket, so the caller asks it ([`Stream::short_read_drains`],
//!   [`Stream::short_write_fills`]).
//! - **Registering gives an edge** for everything that the socket is already ready for.
//! - [`Ready::READ_CLOSED`] may come in one edge with data and is not repeated.
//! - **After `deregister` and close** no later poll reports an event of that socket; events of the
//!   same poll may still name it. The generation in the token makes those stale.
//! - **The clock** is monotonic. [`Clock::now`] is the only way to read it. The time of day
//!   ([`Clock::system_time`]) may jump; nothing in this crate waits by it.
//! - **A wake is never lost**: [`Waker::wake`] ends the current poll, or the next one.
//! - [`Pipes`] may have no [`Pipe`] at any time; without splice(2) they never have one.
//! - [`resolve`] is the only call that may block.
//! - [`Workers`] begin the jobs that [`Workers::submit`] gives them in that order, at a time of their
//!   own choice and not inside the call; after [`Workers::close`] they begin none. A thread is one way
//!   to do that. A job posts its result itself, and so wakes the poll.
//!
//! Entries: [`connect`], [`listen`], [`bind_udp`] and the `adopt_` functions make sockets; [`resolve`]
//! turns a name into addresses; [`accept_failure`] and [`is_out_of_descriptors`] classify errors;
//! [`OwnPath`] removes the file of a Unix socket.
//!
//! | file | is |
//! |---|---|
//! | `socket.rs` | what the system's sockets have in common, and the addresses of a target |
//! | `stream.rs`, `listener.rs`, `datagram.rs` | its sockets (mio and socket2) |
//! | `options.rs`, `errors.rs`, `path.rs` | their options, their errors, the files of Unix sockets |
//! | `single.rs`, `batch/` | how datagrams are moved: one per call, or many (nix); the same types and calls |
//! | `packets.rs` | datagrams of sockets that ask what the system knows of each (quinn-udp) |
//! | `splice.rs`, `timerfd.rs`, `tcp_info.rs`, `wakes.rs` | its pipes, its fine timer, what it knows of a TCP connection, wakes over poll(2) |
//! | `handover.rs` | sockets on their way to another thread |
//! | `thread.rs`, `workers.rs` | threads that run a reactor; threads for jobs |
//! | `script.rs` | in tests, a stream with scripted results, for faults at an exact call |
//! | `sim/` | the second backend (feature `sim`): a network in virtual time, under the same reactor |
//!
//! The enums are closed on purpose: a type parameter for the backend would show in every public signature.

use std::io;
use std::time::{Duration, Instant, SystemTime};

mod datagram;
#[cfg_attr(
    all(feature = "udp-batch", any(target_os = "linux", target_os = "android")),
    path = "batch/mod.rs"
)]
#[cfg_attr(
    not(all(feature = "udp-batch", any(target_os = "linux", target_os = "android"))),
    path = "single.rs"
)]
mod datagram_io;
mod errors;
mod handover;
mod listener;
mod options;
#[cfg(feature = "packet-info")]
mod packets;
#[cfg(unix)]
mod path;
#[cfg(feature = "random")]
pub(crate) mod random;
#[cfg(test)]
pub(crate) mod script;
#[cfg(test)]
mod seam_tests;
#[cfg(feature = "sim")]
pub(crate) mod sim;
mod socket;
#[cfg(all(feature = "splice", any(target_os = "linux", target_os = "android")))]
mod splice;
#[cfg(not(all(feature = "splice", any(target_os = "linux", target_os = "android"))))]
#[path = "no_splice.rs"]
mod splice;
mod stream;
#[cfg(feature = "tcp-info")]
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "no_tcp_info.rs")]
mod tcp_info;
mod thread;
#[cfg_attr(
    all(
        feature = "timerfd",
        any(target_os = "linux", target_os = "android"),
        not(mio_unsupported_force_poll_poll)
    ),
    path = "timerfd.rs"
)]
#[cfg_attr(
    not(all(
        feature = "timerfd",
        any(target_os = "linux", target_os = "android"),
        not(mio_unsupported_force_poll_poll)
    )),
    path = "no_timerfd.rs"
)]
mod timerfd;
#[cfg_attr(not(mio_unsupported_force_poll_poll), path = "no_wakes.rs")]
mod wakes;
mod workers;

pub(crate) use datagram::{Arrived, Datagram, Inbox, Mark, Outgoing, adopt_udp, bind_udp};
pub(crate) use datagram_io::Outbox;
pub(crate) use errors::{
    Failure, accept_failure, is_icmp_error, is_missing_family, is_out_of_descriptors,
};
pub(crate) use handover::{Accepted, Shared as SharedListener};
pub(crate) use listener::{Listener, adopt_tcp_listener, listen};
pub(crate) use socket::resolve;
pub(crate) use splice::{Pipe, Pipes};
pub(crate) use stream::{adopt_tcp, connect};
#[cfg(feature = "tcp-info")]
pub(crate) use tcp_info::Diagnosis;
#[cfg(all(feature = "affinity", any(target_os = "linux", target_os = "android")))]
pub(crate) use thread::pin;
pub(crate) use thread::{Thread, cores};
pub(crate) use workers::Workers;
#[cfg(unix)]
pub(crate) use {listener::adopt_unix_listener, path::OwnPath, stream::adopt_unix};

/// Whether a read or write that moved less than was asked for means that nothing more can be moved
/// until the next edge.
///
/// True where the kernel tracks edges (epoll, kqueue): it saves the system call that would only
/// return `WouldBlock`, 7 to 9 % of an echo. False where mio emulates edges over `poll(2)`, which
/// arms an interest again after a `WouldBlock` only.
const SHORT_IO_DRAINS: bool = cfg!(all(
    any(
        target_os = "linux",
        target_os = "android",
        target_os = "macos",
        target_os = "ios",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
    ),
    not(mio_unsupported_force_poll_poll)
));

/// Whether the poll reports urgent data. A read stops short at its mark, and where that is not
/// known (kqueue), no short read proves that the buffer is empty: what is behind the mark causes no
/// edge of its own.
const URGENT_IS_REPORTED: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Whether the poll rounds its timeouts up to milliseconds, where it has no alarm: all but kqueue do.
const ROUNDS_UP: bool = cfg!(any(
    mio_unsupported_force_poll_poll,
    not(any(
        target_os = "macos",
        target_os = "ios",
        target_os = "freebsd",
        target_os = "netbsd",
        target_os = "openbsd",
        target_os = "dragonfly",
    ))
));

/// The token of the waker. No socket's token has this value.
const WAKE: mio::Token = mio::Token(usize::MAX);

/// The token of the alarm. No socket's token has this value either.
const ALARM: mio::Token = mio::Token(usize::MAX - 1);

/// One readiness event: the token of the socket, and the bits below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) bits: u8,
}

impl Ready {
    pub(crate) const READABLE: u8 = 1;
    pub(crate) const WRITABLE: u8 = 2;
    /// The peer has ended its side: data and the end may come in one edge.
    pub(crate) const READ_CLOSED: u8 = 4;
    /// The socket has an error pending.
    pub(crate) const ERROR: u8 = 8;
    /// Urgent data arrived: a read stops short at its mark, so a short read is not "drained".
    pub(crate) const URGENT: u8 = 16;

    pub(crate) fn has(self, bits: u8) -> bool {
        self.bits & bits != 0
    }
}

/// A connected or connecting stream socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(mio::net::TcpStream),
    #[cfg(unix)]
    Unix(mio::net::UnixStream),
    /// No socket: connecting failed before there was one.
    None,
    #[cfg(test)]
    Script(Box<script::Stream>),
    #[cfg(feature = "sim")]
    Sim(sim::Socket),
}

impl Stream {
    #[inline(always)]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.read_once(buffer))
    }

    /// Whether a read that brings less than was asked for has emptied the system's buffer.
    ///
    /// Not on a Unix socket: a read stops at a message that carries descriptors or credentials
    /// (unix(7), "ancillary messages"), and the bytes behind that message cause no edge. So each burst
    /// costs one more read there.
    #[inline]
    pub(crate) fn short_read_drains(&self) -> bool {
        match self {
            Stream::Tcp(_) => SHORT_IO_DRAINS && URGENT_IS_REPORTED,
            #[cfg(unix)]
            Stream::Unix(_) => false,
            #[cfg(feature = "sim")]
            Stream::Sim(socket) => socket.short_read_drains(),
            _ => SHORT_IO_DRAINS && URGENT_IS_REPORTED,
        }
    }

    /// Whether a write that takes less than it was given has filled the system's buffer.
    #[inline]
    pub(crate) fn short_write_fills(&self) -> bool {
        #[cfg(feature = "sim")]
        if let Stream::Sim(socket) = self {
            return socket.short_write_fills();
        }
        SHORT_IO_DRAINS
    }

    #[inline(always)]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        uninterrupted(|| self.write_once(bytes))
    }

    pub(crate) fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        uninterrupted(|| self.write_vectored_once(slices))
    }
}

/// Repeats a call for as long as a signal interrupts it (`EINTR`, signal(7)).
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Ok(value) => return Ok(value),
            Err(e) => other_than_interrupted(e)?,
        }
    }
}

/// Out of line: errors are rare, and the code that inspects and drops one would otherwise be inlined
/// into every read and write.
#[cold]
fn other_than_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// A socket that can be registered with the [`Poller`].
pub(crate) trait Pollable {
    fn register(&mut self, registry: &mio::Registry, token: mio::Token) -> io::Result<()>;
    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()>;

    /// Whether closing the socket takes it out of the poll, so that no call is needed for it.
    fn leaves_by_closing(&self) -> bool {
        false
    }

    /// The simulated socket, if it is one: the simulated poller knows it by its number.
    #[cfg(feature = "sim")]
    fn simulated(&self) -> Option<&sim::Socket>;
}

/// The clocks: the monotonic one, and the time of day.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    Os,
    #[cfg(feature = "sim")]
    Sim,
}

impl Clock {
    #[inline(always)]
    pub(crate) fn now(self) -> Instant {
        match self {
            Clock::Os => Instant::now(),
            #[cfg(feature = "sim")]
            Clock::Sim => sim::clock(),
        }
    }

    pub(crate) fn system_time(self) -> SystemTime {
        match self {
            Clock::Os => SystemTime::now(),
            #[cfg(feature = "sim")]
            Clock::Sim => sim::system_time(),
        }
    }
}

/// Readiness, and the clock that goes with it.
#[derive(Debug)]
pub(crate) enum Poller {
    Os {
        poll: mio::Poll,
        events: mio::Events,
        alarm: timerfd::Alarm,
        wakes: wakes::Wakes,
    },
    #[cfg(feature = "sim")]
    Sim {
        host: u32,
        events: usize,
    },
}

impl Poller {
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        #[cfg(feature = "sim")]
        if sim::is_simulated() {
            return Ok(Poller::Sim { host: sim::poller()?, events });
        }
        let events = mio::Events::with_capacity(events);
        let (alarm, wakes) = (timerfd::Alarm::default(), wakes::Wakes::default());
        Ok(Poller::Os { poll: mio::Poll::new()?, events, alarm, wakes })
    }

    /// Waits for readiness and appends it to `ready`. Returns whether the waker was used. A signal
    /// ends the wait early, with no event, and an error of the kind `Interrupted`.
    pub(crate) fn poll(
        &mut self,
        ready: &mut Vec<Ready>,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let (poll, events, wakes) = match self {
            Poller::Os { poll, events, wakes, .. } => (poll, events, wakes),
            #[cfg(feature = "sim")]
            Poller::Sim { host, events } => return sim::poll(*host, ready, timeout, *events),
        };
        let mut woken = wakes.poll(poll, events, timeout)?;
        for event in &*events {
            // One comparison for the two.
            if event.token() >= ALARM {
                woken |= event.token() == WAKE;
            } else {
                ready.push(socket::ready(event));
            }
        }
        Ok(woken)
    }

    /// Ends the poll in progress, or later ones, `after` from `now`, with no event and to the
    /// microsecond, until it is set anew. `false` if this poll cannot: it then rounds the timeouts that
    /// it is given in its own way.
    pub(crate) fn set_alarm(&mut self, now: Instant, after: Duration) -> bool {
        match self {
            Poller::Os { poll, alarm, .. } => alarm.set(poll.registry(), now, after),
            #[cfg(feature = "sim")]
            Poller::Sim { .. } => false, // it is exact
        }
    }

    /// Whether a poll that no alarm ends may end a millisecond after its timeout.
    pub(crate) fn rounds_up(&self) -> bool {
        match self {
            Poller::Os { .. } => ROUNDS_UP,
            #[cfg(feature = "sim")]
            Poller::Sim { .. } => false,
        }
    }

    /// The clock that goes with this readiness.
    pub(crate) fn clock(&self) -> Clock {
        match self {
            Poller::Os { .. } => Clock::Os,
            #[cfg(feature = "sim")]
            Poller::Sim { .. } => Clock::Sim,
        }
    }

    /// The workers that go with this readiness, of which at most `most` run at once.
    pub(crate) fn workers(&self, most: usize) -> Workers {
        match self {
            Poller::Os { .. } => Workers::new(most),
            #[cfg(feature = "sim")]
            Poller::Sim { host, .. } => Workers::simulated(*host, most),
        }
    }

    #[cfg(feature = "sim")]
    #[inline(always)]
    pub(crate) fn is_simulated(&self) -> bool {
        matches!(self, Poller::Sim { .. })
    }

    /// Wakes a sleeping poll from another thread. One per poller.
    pub(crate) fn waker(&self) -> io::Result<Waker> {
        match self {
            Poller::Os { poll, wakes, .. } => {
                let waker = mio::Waker::new(poll.registry(), WAKE)?;
                Ok(Waker::Os(waker, wakes.clone()))
            }
            #[cfg(feature = "sim")]
            Poller::Sim { host, .. } => Ok(Waker::Sim(sim::Waker::new(*host))),
        }
    }

    /// Registers a socket for all its events, for its whole life: nothing is changed later.
    pub(crate) fn register(&mut self, socket: &mut impl Pollable, token: usize) -> io::Result<()> {
        match self {
            Poller::Os { poll, .. } => socket.register(poll.registry(), mio::Token(token)),
            #[cfg(feature = "sim")]
            Poller::Sim { host, .. } => match socket.simulated() {
                Some(socket) => socket.register(*host, token),
                None => Ok(()), // there is no socket: connecting failed before there was one
            },
        }
    }

    /// Takes a socket out of the poll. `own`: this crate made the socket and holds its only
    /// descriptor, so that closing it does the same where the system works like that
    /// (epoll(7), question 6). That saves one system call for each connection.
    pub(crate) fn deregister(&mut self, socket: &mut impl Pollable, own: bool) {
        if own && socket.leaves_by_closing() {
            return;
        }
        let poll = match self {
            Poller::Os { poll, .. } => poll,
            #[cfg(feature = "sim")]
            Poller::Sim { host, .. } => {
                socket.simulated().inspect(|socket| socket.deregister(*host));
                return;
            }
        };
        // The poll may have dropped it by itself after a hang-up.
        if let Err(e) = socket.deregister(poll.registry()) {
            log::trace!("deregistering a socket: {e}");
        }
    }

    /// A UDP socket reported an error. mio's emulation over `poll(2)` drops a descriptor that did
    /// (an ICMP error is enough), so the socket is registered again there; elsewhere nothing is done.
    pub(crate) fn survive_error(&mut self, socket: &mut Datagram, token: usize) -> io::Result<()> {
        if cfg!(mio_unsupported_force_poll_poll) && matches!(self, Poller::Os { .. }) {
            self.deregister(socket, false);
            return self.register(socket, token);
        }
        Ok(())
    }

    /// mio's registry, for custom sources, which are mio's by definition. A backend without one
    /// refuses them.
    pub(crate) fn registry_for_sources(&self) -> io::Result<&mio::Registry> {
        match self {
            Poller::Os { poll, .. } => Ok(poll.registry()),
            #[cfg(feature = "sim")]
            Poller::Sim { .. } => Err(sim::real("a custom source")),
        }
    }

    #[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        match self {
            Poller::Os { poll, .. } => poll.registry().as_fd(),
            // A simulation never lends out a reactor.
            #[cfg(feature = "sim")]
            Poller::Sim { .. } => unreachable!("a simulated reactor has no descriptor"),
        }
    }
}

/// Ends the poll's current wait, or its next one, from any thread.
#[derive(Debug)]
pub(crate) enum Waker {
    Os(mio::Waker, wakes::Wakes),
    #[cfg(feature = "sim")]
    Sim(sim::Waker),
}

impl Waker {
    pub(crate) fn wake(&self) -> io::Result<()> {
        match self {
            Waker::Os(waker, wakes) => {
                wakes.note();
                waker.wake()
            }
            #[cfg(feature = "sim")]
            Waker::Sim(waker) => waker.wake(),
        }
    }

    /// Whether this thread may wake it: a simulation's only its own.
    #[inline]
    pub(crate) fn may_wake(&self) -> bool {
        match self {
            Waker::Os(..) => true,
            #[cfg(feature = "sim")]
            Waker::Sim(waker) => waker.may_wake(),
        }
    }
}
