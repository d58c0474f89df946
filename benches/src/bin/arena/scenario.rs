//! The scenarios. One line here is one scenario; `README.md` says what each of them shows.

use arena::server::{Mode, Over};
use std::time::Duration;

pub struct Scenario {
    pub name: &'static str,
    pub kind: Kind,
    /// What lies between TCP and the service.
    pub over: Over,
    /// Belongs to the quick run.
    pub quick: bool,
    /// Its memory is measured once every connection has had a message, and not when all are open.
    pub used: bool,
}

#[derive(Clone, Copy)]
pub enum Kind {
    /// CloseInfo loop: each of the first `active` connections keeps `depth` messages of `size` bytes on their way.
    Echo { connections: usize, active: usize, size: usize, depth: usize },
    /// One message at a time on one connection, the next one `pause` after the answer. The generator polls without
    /// sleeping, so that the latency is the server's and not that of two wake-ups.
    Alone { size: usize, pause: Duration },
    /// Open loop: `rate` messages a second in all, whatever comes back; latency counts from the planned instant.
    OpenEcho { connections: usize, size: usize, rate: u64 },
    /// Writes as fast as the server reads, on connections that are new for each slice.
    Bulk { connections: usize },
    /// CloseInfo loop: each of the first `senders` members keeps `window` lines on their way to all others.
    Chat { members: usize, senders: usize, window: usize },
    /// Open loop: one member says `rate` lines a second.
    OpenChat { members: usize, rate: u64 },
    /// CloseInfo loop: each socket keeps `depth` datagrams of `size` bytes on their way.
    Udp { sockets: usize, depth: usize, size: usize },
    /// CloseInfo loop: one socket keeps a train of `depth` datagrams of `size` bytes on its way, sent as one (GSO).
    Train { depth: usize, size: usize },
    /// `slots` connections at a time, each: connect, one echo, close.
    Churn { slots: usize },
    /// The same over TLS, with handshakes of one kind.
    Handshake { slots: usize, resumed: bool, suites: Suites },
}

/// What a TLS client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suites {
    /// All that rustls has: the server's preference decides, or the order of the client's.
    All,
    /// TLS_AES_128_GCM_SHA256 alone, so that all servers do the same work.
    Aes128,
}

pub const BULK_UNIT: usize = 64 * 1024;

impl Kind {
    pub fn mode(self) -> Mode {
        match self {
            Self::Echo { .. }
            | Self::Alone { .. }
            | Self::OpenEcho { .. }
            | Self::Churn { .. }
            | Self::Handshake { .. } => Mode::Echo,
            Self::Bulk { .. } => Mode::Sink,
            Self::Chat { .. } | Self::OpenChat { .. } => Mode::Chat,
            Self::Udp { .. } => Mode::Udp,
            Self::Train { .. } => Mode::Train,
        }
    }

    /// What rates and costs are counted in.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Echo { .. } | Self::Alone { .. } | Self::OpenEcho { .. } => "message",
            Self::Bulk { .. } => "64 KiB",
            Self::Chat { .. } | Self::OpenChat { .. } => "delivery",
            Self::Udp { .. } | Self::Train { .. } => "datagram",
            Self::Churn { .. } | Self::Handshake { .. } => "connection",
        }
    }

    /// How many there are at once.
    pub fn connections(self) -> usize {
        match self {
            Self::Echo { connections, .. }
            | Self::OpenEcho { connections, .. }
            | Self::Bulk { connections } => connections,
            Self::Chat { members, .. } | Self::OpenChat { members, .. } => members,
            Self::Udp { sockets, .. } => sockets,
            Self::Churn { slots } | Self::Handshake { slots, .. } => slots,
            Self::Alone { .. } | Self::Train { .. } => 1,
        }
    }

    /// The generator sets the rate: only cost and latency compare.
    pub fn is_paced(self) -> bool {
        matches!(self, Self::OpenEcho { .. } | Self::OpenChat { .. })
            || matches!(self, Self::Alone { pause, .. } if !pause.is_zero())
    }

    /// Few enough messages are on their way for latency to say something that the rate does not.
    pub fn tells_latency(self) -> bool {
        self.is_paced()
            || matches!(self, Self::Alone { .. } | Self::Echo { active: ..=8, size: ..=64, .. })
    }

    /// How many messages of how many a count of system calls and instructions compares: the short run has all
    /// connections busy, and the long one is many rounds of that longer.
    pub fn counted(self) -> (u64, u64) {
        if let Self::Handshake { slots, .. } = self {
            return (4 * slots as u64, 40 * slots as u64);
        }
        let under_way = match self {
            Self::Chat { members, senders, window } => senders * window * (members - 1),
            Self::OpenChat { members, .. } => members - 1,
            Self::Echo { active, depth, .. } => active * depth,
            _ => 1,
        } as u64;
        let few = 500.max(2 * under_way);
        (few, few + 3_000.max(10 * under_way))
    }
}

const fn ping(name: &'static str, connections: usize, size: usize, depth: usize) -> Scenario {
    let kind = Kind::Echo { connections, active: connections, size, depth };
    Scenario::new(name, kind)
}

const fn chat(name: &'static str, members: usize, senders: usize, window: usize) -> Scenario {
    Scenario::new(name, Kind::Chat { members, senders, window })
}

const fn open_chat(name: &'static str, members: usize, rate: u64) -> Scenario {
    Scenario::new(name, Kind::OpenChat { members, rate })
}

const fn handshake(name: &'static str, resumed: bool, suites: Suites) -> Scenario {
    Scenario::new(name, Kind::Handshake { slots: 16, resumed, suites }).over(Over::Tls)
}

const fn udp(name: &'static str, sockets: usize, depth: usize) -> Scenario {
    Scenario::new(name, Kind::Udp { sockets, depth, size: 64 })
}

/// Connections that are used, beside the idle ones.
const ACTIVE: usize = 8;

const fn idle(name: &'static str, connections: usize) -> Scenario {
    let kind = Kind::Echo { connections: connections + ACTIVE, active: ACTIVE, size: 64, depth: 1 };
    Scenario::new(name, kind)
}

impl Scenario {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, over: Over::Plain, quick: false, used: false }
    }

    const fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    const fn used(mut self) -> Self {
        self.used = true;
        self
    }

    const fn over(mut self, over: Over) -> Self {
        self.over = over;
        self
    }

    /// So many connections that the memory for each can be told from what the process needs anyway.
    pub fn tells_memory(&self) -> bool {
        self.used || matches!(self.kind, Kind::Echo { connections: 5_000.., .. })
    }

    /// Whether it is one of those over WebSocket or TLS, which `run --layers` runs.
    pub fn is_layered(&self) -> bool {
        self.over != Over::Plain
    }

    /// Whether one of the words names it or is how its name begins. A whole name means that scenario alone.
    pub fn is_meant(&self, words: &[&str]) -> bool {
        let means = |&word: &&str| match Self::find(word) {
            Some(found) => found.name == self.name,
            None => self.name.starts_with(word),
        };
        words.iter().any(means)
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|scenario| scenario.name == name)
    }
}

pub const ALL: &[Scenario] = &[
    Scenario::new("alone", Kind::Alone { size: 64, pause: Duration::from_micros(500) }),
    Scenario::new("lone", Kind::Alone { size: 64, pause: Duration::ZERO }).quick(),
    ping("ping-1", 1, 64, 1).quick(),
    ping("ping-64", 64, 64, 1).quick(),
    ping("ping-1000", 1_000, 64, 1).quick(),
    ping("ping-10000", 10_000, 64, 1),
    ping("size-1k", 64, 1 << 10, 1),
    ping("size-16k", 64, 16 << 10, 1).quick(),
    ping("size-256k", 8, 256 << 10, 1).quick(),
    ping("pipe-16", 64, 64, 16).quick(),
    ping("pipe-64", 64, 64, 64),
    Scenario::new("open-30k", Kind::OpenEcho { connections: 64, size: 64, rate: 30_000 }).quick(),
    Scenario::new("bulk", Kind::Bulk { connections: 4 }).quick(),
    open_chat("chat-100-slow", 100, 200).quick(),
    chat("chat-10-few", 10, 10, 1),
    chat("chat-100-few", 100, 16, 1).quick(),
    chat("chat-100-sat", 100, 16, 4),
    chat("chat-100-dense", 100, 100, 1).quick(),
    open_chat("chat-1000-slow", 1_000, 50),
    chat("chat-1000-few", 1_000, 16, 1).quick(),
    chat("chat-1000-sat", 1_000, 16, 4),
    chat("chat-1000-dense", 1_000, 100, 1),
    udp("udp-1x1", 1, 1).quick(),
    udp("udp-16x8", 16, 8).quick(),
    Scenario::new("udp-train", Kind::Train { depth: 48, size: 1_200 }).quick(),
    Scenario::new("churn", Kind::Churn { slots: 16 }).quick(),
    idle("idle-0", 0).quick(),
    idle("idle-18000", 18_000 - ACTIVE).quick(),
    ping("ws-64", 64, 64, 1).over(Over::WebSocket).quick(),
    ping("ws-pipe", 64, 64, 16).over(Over::WebSocket).quick(),
    ping("ws-64-16k", 64, 16 << 10, 1).over(Over::WebSocket).quick(),
    ping("ws-16-256k", 16, 256 << 10, 1).over(Over::WebSocket).quick(),
    open_chat("wschat-100-slow", 100, 200).over(Over::WebSocket).quick(),
    chat("wschat-100-few", 100, 16, 1).over(Over::WebSocket),
    chat("wschat-100-sat", 100, 16, 4).over(Over::WebSocket),
    open_chat("wschat-1000-slow", 1_000, 50).over(Over::WebSocket),
    chat("wschat-1000-few", 1_000, 16, 1).over(Over::WebSocket).quick(),
    chat("wschat-1000-sat", 1_000, 16, 4).over(Over::WebSocket).quick(),
    chat("wschat-1000-deflate", 1_000, 16, 1).over(Over::Deflate),
    idle("ws-idle", 5_000).over(Over::WebSocket).quick(),
    ping("ws-used", 5_000, 64, 1).over(Over::WebSocket).used(),
    chat("deflate-used", 1_000, 16, 1).over(Over::Deflate).used(),
    ping("tls-64", 64, 64, 1).over(Over::Tls).quick(),
    ping("tls-bulk", 4, BULK_UNIT, 4).over(Over::Tls).quick(),
    Scenario::new("tls-sink", Kind::Bulk { connections: 4 }).over(Over::Tls),
    open_chat("tlschat-1000-slow", 1_000, 50).over(Over::Tls),
    chat("tlschat-1000-few", 1_000, 16, 1).over(Over::Tls).quick(),
    chat("tlschat-1000-sat", 1_000, 16, 4).over(Over::Tls).quick(),
    handshake("tls-handshake", false, Suites::All).quick(),
    handshake("tls-handshake-aes128", false, Suites::Aes128).quick(),
    handshake("tls-resume", true, Suites::All).quick(),
    idle("tls-idle", 5_000).over(Over::Tls).quick(),
    ping("tls-used", 5_000, 64, 1).over(Over::Tls).used(),
    open_chat("wsschat-1000-slow", 1_000, 50).over(Over::Secure),
    chat("wsschat-1000-few", 1_000, 16, 1).over(Over::Secure).quick(),
    chat("wsschat-1000-sat", 1_000, 16, 4).over(Over::Secure).quick(),
];
