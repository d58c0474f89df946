//! The seam between the reactor and the operating system.
//!
//! Everything above this folder sees sockets, the poll and the clock through the types below and
//! nothing else. What a backend promises:
//!
//! - Sockets never block. A call that has nothing to do says `WouldBlock`. `EINTR` never shows.
//! - Readiness is *edge-triggered*: [`Poller::poll`] reports a change once. Whoever was told and did
//!   not work until `WouldBlock` remembers it (see [`SHORT_IO_DRAINS`] for the one exception).
//! - [`Ready::READ_CLOSED`] may come in one edge with data and is not repeated.
//! - After `deregister` and close no event of that socket is reported by later polls; events taken
//!   by the same poll may still name it. The generation in the token tells them apart.
//! - The clock is monotonic, and read by [`Poller::now`] alone.
//!
//! - [`Pipes`] may have no [`Pipe`], at any time; where there is no splice(2) they never have one.
//!
//! `os.rs` is the system (mio and socket2), `datagram.rs` its UDP sockets, `splice.rs` its pipes. What
//! moves datagrams is `single.rs`, a call for each, or `batch/` (nix), a call for many: the same types
//! and calls, so that nothing above knows which. `script.rs`, in tests, is a stream that answers from a
//! script: faults at the exact call where they hurt. The enums are closed on purpose: no type
//! parameter for the backend shows in the public API.

use std::io;
use std::time::{Duration, Instant};

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
mod os;
#[cfg(feature = "random")]
pub(crate) mod random;
#[cfg(test)]
pub(crate) mod script;
#[cfg(all(feature = "splice", any(target_os = "linux", target_os = "android")))]
mod splice;
#[cfg(not(all(feature = "splice", any(target_os = "linux", target_os = "android"))))]
#[path = "no_splice.rs"]
mod splice;

pub(crate) use datagram::{Arrived, Datagram, Outgoing, adopt_udp, bind_udp};
pub(crate) use datagram_io::{Inbox, Outbox};
pub(crate) use os::{
    Failure, Listener, accept_failure, adopt_tcp, adopt_tcp_listener, connect, listen,
};
#[cfg(unix)]
pub(crate) use os::{adopt_unix, adopt_unix_listener};
pub(crate) use splice::{Pipe, Pipes};

/// Whether a read or write that moved less than was asked for means that nothing more can be moved
/// until the next edge.
///
/// True where the kernel itself tracks edges (epoll, kqueue): it saves the system call that would
/// only say `WouldBlock`, 7 to 9 % of an echo. False where mio emulates edges over `poll(2)`: there
/// the interest is armed again by a `WouldBlock` only.
pub(crate) const SHORT_IO_DRAINS: bool = cfg!(all(
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

/// The token of the waker; no socket's token takes this value.
pub(crate) const WAKE: mio::Token = mio::Token(usize::MAX);

/// One readiness event: whose, and which of the bits below.
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
}

impl Stream {
    #[inline(always)]
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        uninterrupted(|| self.read_once(buffer))
    }

    /// Whether a read that brings less than was asked for has emptied the system's buffer.
    ///
    /// Not on a Unix socket: a read stops at a message that carries descriptors or other credentials
    /// (unix(7), "ancillary messages"), and what is behind that gets no edge of its own. So each burst
    /// costs one read more there.
    #[inline]
    pub(crate) fn short_read_drains(&self) -> bool {
        #[cfg(unix)]
        if let Stream::Unix(_) = self {
            return false;
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

/// Apart, as an error is out of the ordinary: what it takes to look at one and to drop it would
/// otherwise stand in the middle of every read and write.
#[cold]
fn other_than_interrupted(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// The system's readiness, and its clock.
#[derive(Debug)]
pub(crate) struct Poller {
    poll: mio::Poll,
    events: mio::Events,
}

impl Poller {
    pub(crate) fn new(events: usize) -> io::Result<Self> {
        Ok(Poller { poll: mio::Poll::new()?, events: mio::Events::with_capacity(events) })
    }

    /// Waits for readiness and appends it to `ready`; answers whether the waker was used. A signal
    /// ends the wait early, with nothing.
    pub(crate) fn poll(
        &mut self,
        ready: &mut Vec<Ready>,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(false),
            Err(e) => return Err(e),
        }
        let mut woken = false;
        for event in &self.events {
            if event.token() == WAKE {
                woken = true;
            } else {
                ready.push(os::ready(event));
            }
        }
        Ok(woken)
    }

    /// The monotonic clock.
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    /// What wakes a sleeping poll from another thread.
    pub(crate) fn waker(&self) -> io::Result<mio::Waker> {
        mio::Waker::new(self.poll.registry(), WAKE)
    }

    pub(crate) fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    #[cfg(all(unix, not(mio_unsupported_force_poll_poll)))]
    pub(crate) fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.poll.registry().as_fd()
    }
}
