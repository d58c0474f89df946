//! Protocols in a hostile network. Each scenario runs with any seed; the seed draws the faults. After
//! ten seconds no fault begins any more, and everything has to recover: then every client gets what it
//! asked for, and in the end nothing is left over.
//!
//! The tests, `tools/seeds.sh` and the benchmark use the same ones.

use std::time::Duration;

use tidegate::sim::{Faults, Link, Sim};
use tidegate::{SocketOptions, StreamOptions};

pub(crate) mod chat;
pub(crate) mod echo;
pub(crate) mod proxy;
pub(crate) mod udp;

/// How long a run may take until everybody has what they asked for.
const LIMIT: Duration = Duration::from_secs(600);

/// Until when faults begin.
const FAULTY: Duration = Duration::from_secs(10);

pub(crate) fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// Faults, and links that differ from seed to seed.
fn hostile(sim: &mut Sim) -> Result<(), tidegate::Error> {
    sim.faults(Faults::swarm().until(FAULTY));
    let seed = sim.seed();
    let mut link = Link::new();
    if seed % 2 == 1 {
        link = link.latency(ms(1)..ms(1 + seed % 40));
    }
    if seed % 3 == 1 {
        link = link.bytes_per_second(20_000 + seed % 7 * 50_000);
    }
    sim.default_link(link)
}

/// Deadlines that notice a peer that is gone without a word.
fn impatient() -> StreamOptions {
    StreamOptions::new()
        .connect_timeout(Duration::from_secs(5))
        .handshake_timeout(Duration::from_secs(5))
        .close_timeout(Duration::from_secs(5))
        .stall_timeout(Duration::from_secs(5))
        .idle_timeout(Duration::from_secs(5))
        .socket_options(SocketOptions::new().nodelay(true))
}

/// The bytes of stream number `stream`: each one is known by its place, so that a byte that is lost,
/// doubled or moved shows.
pub(crate) fn pattern(stream: u64, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|at| byte_at(stream, at)).collect()
}

pub(crate) fn byte_at(stream: u64, at: usize) -> u8 {
    let mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ stream.wrapping_mul(0x1234_5677);
    (mixed >> 29) as u8
}
