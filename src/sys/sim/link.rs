//! The network between hosts: how long packets take, and where none passes.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::time::Duration;

use super::faults::Fault;
use super::nanos;
use super::tcp::RETRANSMISSION;
use super::world::World;

/// One direction of the way between two hosts.
///
/// The default is a quiet local network: 500 µs, no loss, any bandwidth, datagrams of any size.
///
/// ```
/// use std::time::Duration;
/// use tidegate::sim::Link;
///
/// let ms = Duration::from_millis;
/// let wan = Link::new().latency(ms(20)..ms(60)).loss(0.01).bytes_per_second(1_000_000);
/// # let _ = wan;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Link {
    pub(super) latency: Range<u64>,
    pub(super) loss: u32,
    pub(super) duplicates: u32,
    pub(super) bytes_per_second: Option<u64>,
    pub(super) mtu: usize,
    /// Whether somebody gave a bandwidth or an MTU that no link can have.
    pub(crate) wrong: Option<&'static str>,
}

impl Link {
    /// The default link.
    pub fn new() -> Self {
        Link {
            latency: 500_000..500_000,
            loss: 0,
            duplicates: 0,
            bytes_per_second: None,
            mtu: usize::MAX,
            wrong: None,
        }
    }

    /// How long a packet takes, one way: each one a random time of this range, or always its start
    /// if the range is empty. Segments of one connection stay in order; datagrams overtake each
    /// other.
    pub fn latency(mut self, time: Range<Duration>) -> Self {
        self.latency = nanos(time.start)..nanos(time.end);
        if time.end < time.start {
            self.wrong = Some("expected a latency that begins before it ends");
        }
        self
    }

    /// The probability, between 0 and 1, that a packet is lost. A lost datagram is gone. A lost
    /// segment is sent again by the simulated TCP, after 200 ms and twice as long each time.
    pub fn loss(mut self, probability: f64) -> Self {
        self.loss = self.millionths(probability);
        self
    }

    /// The probability, between 0 and 1, that a datagram arrives twice.
    pub fn duplicates(mut self, probability: f64) -> Self {
        self.duplicates = self.millionths(probability);
        self
    }

    /// How many bytes pass in a second. Packets queue for it; a UDP socket that sends more than a
    /// send buffer ahead gets `WouldBlock`.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        if bytes == 0 {
            self.wrong = Some("expected a bandwidth above zero; a partition lets nothing pass");
        }
        self.bytes_per_second = Some(bytes.max(1));
        self
    }

    /// The largest datagram that passes, in bytes; a larger one is refused with `EMSGSIZE`.
    pub fn mtu(mut self, bytes: usize) -> Self {
        if bytes <= 28 {
            self.wrong = Some("expected an MTU above 28 bytes, which is what the headers take");
        }
        self.mtu = bytes.saturating_sub(28);
        self
    }

    fn millionths(&mut self, probability: f64) -> u32 {
        if !(0.0..=1.0).contains(&probability) {
            self.wrong = Some("expected a probability between 0 and 1");
        }
        (probability.clamp(0.0, 1.0) * 1e6) as u32
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

/// What a packet meets on one direction.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) link: Link,
    /// When the link is free for the next packet.
    pub(super) free_at: u64,
    /// Until when nothing passes.
    pub(super) blocked_until: u64,
    /// Nobody described it.
    is_default: bool,
}

/// All directions that are not the default one. A pair of hosts that nobody described and that no
/// packet used costs nothing.
#[derive(Debug, Default)]
pub(super) struct Ways {
    default: Link,
    ways: HashMap<(u32, u32), Way, Plainly>,
}

/// Maps whose keys are the simulation's own small numbers need no protection against chosen keys,
/// and are looked into for every packet. They are never iterated.
pub(super) type Plainly = BuildHasherDefault<Mixer>;

/// Multiplies and folds.
#[derive(Debug, Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(byte.into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// To itself: through the loopback interface.
const LOOPBACK: Range<u64> = 20_000..20_000;

impl Ways {
    pub(super) fn of(&mut self, from: u32, to: u32) -> &mut Way {
        self.ways.entry((from, to)).or_insert_with(|| {
            let mut link = self.default.clone();
            if from == to {
                link = Link { latency: LOOPBACK, ..Link::new() };
            }
            Way { link, free_at: 0, blocked_until: 0, is_default: from != to }
        })
    }

    pub(super) fn set(&mut self, from: u32, to: u32, link: Link) {
        let way = self.of(from, to);
        way.link = link;
        way.is_default = false;
    }

    pub(super) fn set_default(&mut self, link: Link) {
        for way in self.ways.values_mut().filter(|way| way.is_default) {
            way.link = link.clone();
        }
        self.default = link;
    }
}

impl World {
    /// The way between the machines of two hosts.
    pub(super) fn way(&mut self, from: u32, to: u32) -> &mut Way {
        let (from, to) = (self.home(from), self.home(to));
        self.ways.of(from, to)
    }

    /// When a packet of this size arrives that leaves now; `None` if it is lost.
    pub(super) fn packet(&mut self, from: u32, to: u32, bytes: usize) -> Option<u64> {
        self.maybe_partition(from, to);
        let arrives = self.crossing(from, to, bytes);
        let at = self.at;
        let way = self.way(from, to);
        let blocked = way.blocked_until > at;
        let loss = way.link.loss;
        let lost = self.network.chance(loss) || self.fault(to, Fault::Loss);
        (!blocked && !lost).then_some(arrives)
    }

    /// When a packet arrives that its sender repeats until it does: a lost one comes later.
    pub(super) fn arrival_of(&mut self, from: u32, to: u32, bytes: usize) -> u64 {
        if let Some(at) = self.packet(from, to, bytes) {
            return at;
        }
        let mut late = RETRANSMISSION;
        for _ in 0..4 {
            if self.network.chance(500_000) {
                break;
            }
            late *= 2;
        }
        self.crossing(from, to, bytes).saturating_add(late)
    }

    pub(super) fn crossing(&mut self, from: u32, to: u32, bytes: usize) -> u64 {
        let jitter = self.fault(to, Fault::Jitter);
        let at = self.at;
        let (from, to) = (self.home(from), self.home(to));
        let way = self.ways.of(from, to);
        let leaves = match way.link.bytes_per_second {
            None => at,
            Some(per_second) => {
                let takes = bytes as u64 * 1_000_000_000 / per_second;
                way.free_at = way.free_at.max(at).saturating_add(takes);
                way.free_at
            }
        };
        let latency = &way.link.latency;
        let mut time = if latency.end > latency.start {
            self.network.between(latency.start, latency.end - 1)
        } else {
            latency.start
        };
        if jitter {
            let most = time.saturating_mul(10).saturating_add(1);
            time = time.saturating_add(self.dice.of(Fault::Jitter).below(most));
        }
        // Never at the very time: an effect comes after its cause.
        leaves.saturating_add(time.max(1))
    }
}
