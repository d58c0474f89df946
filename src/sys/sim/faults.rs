//! What may go wrong, and how often.

use std::fmt;
use std::time::Duration;

use super::rng::Rng;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $most:expr, $text:expr;)*) => {
        /// One kind of fault. Each kind draws from a stream of random numbers of its own, so that
        /// switching one off changes nothing about the others.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Fault] = &[$(Fault::$name,)*];

            /// How often it happens at most in a swarm, in millionths of its occasions.
            fn most(self) -> u32 {
                match self { $(Fault::$name => $most,)* }
            }
        }

        impl fmt::Display for Fault {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Fault::$name => $text,)* })
            }
        }
    };
}

faults! {
    /// A segment of a stream carries few bytes, down to one. Per segment.
    SmallSegments = 300_000, "small segments";
    /// write(2) takes less than it has room for, and the system reports room later. Per write.
    ShortWrites = 200_000, "short writes";
    /// Socket buffers and windows of a few bytes to a few KiB. Per connection.
    SmallBuffers = 800_000, "small buffers";
    /// A packet is lost; TCP sends it again, which takes its time. Per packet.
    Loss = 100_000, "lost packets";
    /// A datagram arrives twice. Per datagram.
    Duplicates = 100_000, "duplicated datagrams";
    /// A packet takes up to ten times as long; datagrams overtake each other. Per packet.
    Jitter = 300_000, "jitter";
    /// A connection is reset. Per segment.
    Resets = 5_000, "resets";
    /// A reset discards what was received and not read yet, as some systems do. Per reset.
    DiscardingResets = 1_000_000, "resets that discard unread input";
    /// Urgent data: a byte at which a read stops. Per segment.
    Urgent = 50_000, "urgent data";
    /// accept(2) fails for one connection (`ECONNABORTED`), which is lost. Per accept.
    AcceptErrors = 100_000, "accept errors";
    /// No descriptor is left (`EMFILE`) for a connection. Per accept and connect.
    Descriptors = 50_000, "descriptors exhausted";
    /// The poll reports readiness that is none. Per poll.
    SpuriousReadiness = 100_000, "spurious readiness";
    /// A signal interrupts the poll. Per poll that waits.
    InterruptedPolls = 100_000, "interrupted polls";
    /// The poll reports events in any order. Per poll.
    ReadyOrder = 1_000_000, "readiness in any order";
    /// The process stops for up to two seconds; its system goes on. Per turn.
    Pauses = 2_000, "pauses";
    /// A host crashes and comes back with new state: its peers see resets, or silence. Per turn.
    Crashes = 500, "crashes";
    /// Packets between two hosts are lost for a while, one way or both. Per packet.
    Partitions = 500, "partitions";
    /// Sockets behave as with poll(2): no edge before a call returned `WouldBlock`. Per host.
    PollLike = 500_000, "edges as over poll(2)";
    /// A datagram is answered by an ICMP error. Per datagram of a connected socket.
    IcmpErrors = 50_000, "ICMP errors";
    /// The clock of the time of day jumps. Per turn.
    WallClock = 5_000, "jumps of the time of day";
    /// A host gets a `Config` with small budgets and buffers, or low-latency mode. Per host.
    Configs = 800_000, "small budgets";
}

/// How often each kind of fault happens in a simulation, in millionths of its occasions.
///
/// ```
/// use std::time::Duration;
/// use tidegate::sim::{Fault, Faults};
///
/// let faults = Faults::none().with(Fault::ShortWrites, 0.1).until(Duration::from_secs(30));
/// # let _ = faults;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    chances: Vec<u32>,
    until: Option<Duration>,
    swarm: bool,
}

impl Faults {
    /// None: a network that only takes time.
    #[must_use]
    pub fn none() -> Self {
        Faults { chances: vec![0; Fault::ALL.len()], until: None, swarm: false }
    }

    /// Each seed switches on a random half of the kinds, each with a frequency of its own. Runs with
    /// every fault at once hide bugs: most connections die of the first one ("swarm testing",
    /// Groce et al., 2012).
    #[must_use]
    pub fn swarm() -> Self {
        Faults { swarm: true, ..Self::none() }
    }

    /// This kind, with a probability between 0 and 1 per occasion; in a swarm it is then fixed.
    ///
    /// # Panics
    /// The probability is not between 0 and 1.
    #[must_use]
    #[track_caller]
    pub fn with(mut self, fault: Fault, probability: f64) -> Self {
        let valid = (0.0..=1.0).contains(&probability);
        assert!(valid, "{fault}: expected a probability between 0 and 1, got {probability}");
        // The range is what makes it exact enough.
        self.chances[fault as usize] = (probability * 1e6) as u32 | Self::FIXED;
        self
    }

    /// Never this kind.
    #[must_use]
    pub fn without(self, fault: Fault) -> Self {
        self.with(fault, 0.0)
    }

    /// No fault begins later than this: what comes after has to recover.
    #[must_use]
    pub fn until(mut self, time: Duration) -> Self {
        self.until = Some(time);
        self
    }

    /// A frequency that the swarm does not draw.
    const FIXED: u32 = 1 << 31;

    /// What this seed gets of them.
    pub(crate) fn drawn(&self, seed: u64) -> Drawn {
        let mut rng = Rng::stream(seed, STREAM);
        let mut chances = [0; KINDS];
        for (&fault, chance) in Fault::ALL.iter().zip(&mut chances) {
            let (on, part) = (rng.chance(500_000), rng.between(1, 1000));
            let given = self.chances[fault as usize];
            *chance = match given & !Self::FIXED {
                _ if given & Self::FIXED == 0 && self.swarm => {
                    if on {
                        (u64::from(fault.most()) * part).div_ceil(1000) as u32
                    } else {
                        0
                    }
                }
                given => given,
            };
        }
        let until = self.until.map_or(u64::MAX, super::nanos);
        Drawn { chances, until }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

const KINDS: usize = Fault::ALL.len();

/// The number of the stream that the swarm is drawn from.
const STREAM: u64 = 1_000;

/// The frequencies of one run.
#[derive(Debug, Clone)]
pub(crate) struct Drawn {
    chances: [u32; KINDS],
    pub(crate) until: u64,
}

impl Drawn {
    pub(crate) fn switch_off(&mut self, fault: Fault) {
        self.chances[fault as usize] = 0;
    }
}

/// The dice: one stream of random numbers for each kind of fault.
#[derive(Debug)]
pub(crate) struct Dice {
    pub(super) drawn: Drawn,
    streams: Vec<Rng>,
    /// How often each kind has happened.
    pub(super) happened: [u64; KINDS],
}

impl Dice {
    pub(super) fn new(seed: u64, drawn: Drawn) -> Self {
        let streams = (0..KINDS as u64).map(|kind| Rng::stream(seed, STREAM + 1 + kind)).collect();
        Dice { drawn, streams, happened: [0; KINDS] }
    }

    /// Whether it happens now.
    #[inline]
    pub(super) fn happens(&mut self, fault: Fault, now: u64) -> bool {
        let chance = self.drawn.chances[fault as usize];
        if chance == 0 || now >= self.drawn.until {
            return false;
        }
        let happens = self.streams[fault as usize].chance(chance);
        self.happened[fault as usize] += u64::from(happens);
        happens
    }

    /// The numbers that decide the details of this kind.
    pub(super) fn of(&mut self, fault: Fault) -> &mut Rng {
        &mut self.streams[fault as usize]
    }

    pub(super) fn set(&mut self, drawn: Drawn) {
        self.drawn = drawn;
    }
}
