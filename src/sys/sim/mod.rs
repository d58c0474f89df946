//! The second backend: simulated hosts, sockets and clocks, in virtual time (feature `sim`).
//!
//! | file | is |
//! |---|---|
//! | `handle.rs` | what the seam holds: sockets, poller, waker, as numbers |
//! | `world.rs` | hosts, time |
//! | `arrivals.rs`, `sockets.rs` | what comes to hosts, and when; the table of sockets |
//! | `readiness.rs`, `outage.rs` | edges and the poll; crashes and partitions |
//! | `tcp.rs` | the sockets of streams: `connect.rs`, `data.rs`, `close.rs` are their life |
//! | `stream.rs` | one end of a stream, without a network |
//! | `udp.rs` | datagrams |
//! | `workers.rs` | several hosts that are one machine |
//! | `jobs.rs` | jobs of `Net::offload`, and their workers |
//! | `names.rs` | names, addresses, ports |
//! | `link.rs` | latency, loss, bandwidth, partitions |
//! | `faults.rs` | what may go wrong, and how often |
//! | `checks.rs` | what must hold in every run |
//! | `rng.rs`, `trace.rs` | random numbers from the seed; what happened, and its hash |
//!
//! The world is in a thread-local while its simulation runs, and out of it otherwise: so the calls
//! that make sockets have the signatures of the real ones, handles stay `Send`, and a simulated socket
//! is one number. Without a world every call behaves as if there were no simulator.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

mod arrivals;
mod checks;
mod close;
mod connect;
mod data;
mod faults;
mod handle;
mod jobs;
mod link;
mod names;
mod outage;
mod readiness;
mod rng;
mod sockets;
mod stream;
mod tcp;
pub(crate) mod trace;
mod udp;
mod workers;
mod world;

pub(crate) use faults::Drawn;
pub use faults::{Fault, Faults};
#[cfg(feature = "tls")]
pub(crate) use handle::cannot_be_repeated;
#[cfg(feature = "random")]
pub(crate) use handle::random;
pub(crate) use handle::{
    Ownerless, Socket, Waker, bind_udp, clock, connect, is_simulated, listen, poll, poller,
    resolve, submit, system_time, take_jobs,
};
pub use link::Link;
pub(crate) use names::{v4, v6};
pub(crate) use rng::Rng;
pub(crate) use udp::{Arrivals, Received};
pub(crate) use world::World;

thread_local! {
    static WORLD: RefCell<Option<Box<World>>> = const { RefCell::new(None) };
}

/// Puts a world in, or takes it out; returns the one that was there.
pub(crate) fn swap(world: Option<Box<World>>) -> Option<Box<World>> {
    WORLD.with(|slot| std::mem::replace(&mut *slot.borrow_mut(), world))
}

thread_local! {
    static OUTSIDE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// What the time is between two steps of the simulation, for handles that are used there.
pub(crate) fn set_time_outside(now: Instant) {
    OUTSIDE.set(Some(now));
}

fn time_outside() -> Instant {
    OUTSIDE.get().unwrap_or_else(Instant::now)
}

/// The current world, for one step that calls nothing of a user. `None` without one.
#[inline]
pub(crate) fn with<T>(step: impl FnOnce(&mut World) -> T) -> Option<T> {
    // Not while a thread ends: a handler may be dropped by then.
    let in_slot = |slot: &RefCell<Option<Box<World>>>| slot.borrow_mut().as_deref_mut().map(step);
    WORLD.try_with(in_slot).ok().flatten()
}

/// The refusal of something that belongs to the system and not to the simulation.
pub(crate) fn real(what: &str) -> std::io::Error {
    let text = format!("expected simulated sockets only inside a simulation, got {what}");
    std::io::Error::new(std::io::ErrorKind::Unsupported, text)
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
