//! Protocols in a bad network. Each scenario runs with any seed; the seed draws the faults, and what the
//! hosts do.
//!
//! - In a *hostile* network everything may break. After ten seconds no fault begins any more, and
//!   everything has to recover: then every client gets what it asked for.
//! - In a *rough* network no connection is cut, and everything arrives after a while. There the promises
//!   are exact: each byte arrives once, each reason is the true one, nobody waits for ever.
//!
//! In the end nothing is left over.
//!
//! The tests, `tools/seeds.sh` and the benchmark use the same ones.

use std::time::Duration;

use tidegate::sim::{Fault, Faults, Link, Sim};
use tidegate::{CloseInfo, CloseReason, SocketOptions, StreamOptions};

#[cfg(feature = "backplane")]
pub(crate) mod backplane;
#[cfg(feature = "backplane")]
pub(crate) use self::backplane::cluster;
pub(crate) mod batches;
pub(crate) mod chat;
pub(crate) mod datagrams;
pub(crate) mod echo;
pub(crate) mod ends;
pub(crate) mod feed;
pub(crate) mod groups;
pub(crate) mod layers;
pub(crate) mod listeners;
#[cfg(feature = "histograms")]
pub(crate) mod observed;
pub(crate) mod posts;
pub(crate) mod proxy;
pub(crate) mod readers;
pub(crate) mod relays;
#[cfg(feature = "cookies")]
pub(crate) mod sessions;
pub(crate) mod timers;
pub(crate) mod udp;
#[cfg(feature = "websocket")]
pub(crate) mod websockets;
pub(crate) mod work;
pub(crate) mod workers;

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

/// Faults that cut no connection, stop no host, and delay nothing by more than some tens of
/// milliseconds. `without` are further faults that the scenario cannot have.
fn rough(sim: &mut Sim, without: &[Fault]) -> Result<(), tidegate::Error> {
    const CUTS: [Fault; 9] = [
        Fault::Resets,
        Fault::DiscardingResets,
        Fault::AcceptErrors,
        Fault::Descriptors,
        Fault::Pauses,
        Fault::Crashes,
        Fault::Partitions,
        Fault::Loss,
        Fault::WallClock,
    ];
    let all = Faults::swarm().until(FAULTY);
    let faults = CUTS.iter().chain(without).fold(all, |faults, &fault| faults.without(fault));
    sim.faults(faults);
    let mut dice = Dice::new(sim, 0);
    let mut link = Link::new();
    if dice.percent(50) {
        link = link.latency(us(100)..us(dice.between(200, 3_000)));
    }
    sim.default_link(link)
}

/// Whether a connection ends because the run does: nothing is promised then.
fn is_over(closed: &CloseInfo) -> bool {
    matches!(closed.reason, CloseReason::ReactorDropped)
}

pub(crate) fn us(time: u64) -> Duration {
    Duration::from_micros(time)
}

/// The scenario's own choices, which the seed decides (SplitMix64). `stream` keeps the choices of
/// different parts of a scenario apart.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(sim: &Sim, stream: u64) -> Self {
        Self::of(sim.seed(), stream)
    }

    pub(crate) fn of(seed: u64, stream: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0xd1b5_4a32_d192_ed03) ^ stream);
        Dice(dice.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of `low..=high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// The same, for sizes.
    pub(crate) fn size(&mut self, low: usize, high: usize) -> usize {
        self.between(low as u64, high as u64) as usize
    }

    /// True in so many of a hundred cases.
    pub(crate) fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// Another one, which goes its own way from here.
    pub(crate) fn split(&mut self) -> Self {
        Dice(self.next())
    }
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

/// The same, but a peer that is silent may only be waiting for a packet to be sent again: who ends such
/// a connection in order would tell its peer that all is said.
fn patient() -> StreamOptions {
    impatient().idle_timeout(Duration::from_secs(60))
}
