//! What happened: a hash over every event, and the last events of each host.

use std::collections::VecDeque;
use std::fmt;

use super::faults::Fault;

/// How many events of each host a failing run shows.
const SHOWN: usize = 40;

/// One kind of event. Its two numbers mean what the text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Start,
    Crash,
    End,
    Partition(u32),
    Heal(u32),
    Fault(Fault),
    Connect(Socket),
    Refused(Socket),
    Established(Socket),
    Accept(Socket),
    Ready(Socket, u8),
    Read(Socket, u32),
    Write(Socket, u32),
    Arrives(Socket, u32),
    EndArrives(Socket),
    ResetArrives(Socket),
    Closes(Socket),
    Sends(Socket, u32),
    Datagram(Socket, u32),
    DatagramLost(Socket, u32),
    Wake,
    /// A callback of a handler, by its number in `CALLBACKS`, of the socket with this token.
    Call(u8, u64),
    Said(u64),
    /// What the program under test said, by its place among the notes.
    Note(u32),
}

/// A socket by what people know it by: its own port and the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Socket {
    pub(crate) local: u16,
    pub(crate) peer: u16,
    /// The peer's host, counted from one.
    pub(crate) whose: u32,
    /// The number of its token, counted from one.
    pub(crate) token: u32,
}

/// An event for people, who know hosts by their names.
pub(crate) struct Shown<'a> {
    pub(crate) event: Event,
    pub(crate) names: &'a [String],
    pub(crate) notes: &'a Notes,
}

/// Texts in the trace, the last ones.
#[derive(Debug, Default, Clone)]
pub(crate) struct Notes {
    texts: VecDeque<String>,
    /// How many are forgotten.
    gone: u32,
}

/// How many texts are kept.
const KEPT: usize = 4_096;

impl Notes {
    pub(crate) fn add(&mut self, text: String) -> Event {
        if self.texts.len() == KEPT {
            self.texts.pop_front();
            self.gone += 1;
        }
        self.texts.push_back(text);
        Event::Note(self.gone + self.texts.len() as u32 - 1)
    }

    fn get(&self, place: u32) -> Option<&str> {
        let index = place.checked_sub(self.gone)?;
        self.texts.get(index as usize).map(String::as_str)
    }
}

impl Shown<'_> {
    fn name(&self, host: u32) -> &str {
        self.names.get(host as usize).map_or("?", |name| name)
    }

    /// `#3, port 80 to ada:49152`.
    fn socket(&self, socket: Socket) -> String {
        let Socket { local, peer, whose, token } = socket;
        let token = if token > 0 { format!("#{}, ", token - 1) } else { String::new() };
        match (local, peer, whose) {
            (0, 0, _) => format!("{token}a socket without a port"),
            (local, 0, _) => format!("{token}port {local}"),
            (local, peer, 0) => format!("{token}port {local} to port {peer}"),
            (local, peer, whose) => {
                format!("{token}port {local} to {}:{peer}", self.name(whose - 1))
            }
        }
    }
}

/// The names of callbacks.
pub(crate) const CALLBACKS: [&str; 10] = [
    "on_open",
    "on_data",
    "on_drain",
    "on_eof",
    "on_timer",
    "on_notify",
    "on_close",
    "on_datagram",
    "on_error",
    "on_batch_end",
];

impl Event {
    fn numbers(self) -> (u64, u64, u64) {
        let of = |kind: u64, socket: Socket, number: u64| {
            (kind, u64::from(socket.local) << 16 | u64::from(socket.peer), number)
        };
        match self {
            Event::Start => (1, 0, 0),
            Event::Crash => (2, 0, 0),
            Event::End => (3, 0, 0),
            Event::Partition(from) => (4, u64::from(from), 0),
            Event::Heal(from) => (5, u64::from(from), 0),
            Event::Fault(fault) => (6, fault as u64, 0),
            Event::Connect(s) => of(7, s, 0),
            Event::Refused(s) => of(8, s, 0),
            Event::Established(s) => of(9, s, 0),
            Event::Accept(s) => of(10, s, 0),
            Event::Ready(s, bits) => of(11, s, u64::from(bits)),
            Event::Read(s, n) => of(12, s, u64::from(n)),
            Event::Write(s, n) => of(13, s, u64::from(n)),
            Event::Arrives(s, n) => of(14, s, u64::from(n)),
            Event::EndArrives(s) => of(15, s, 0),
            Event::ResetArrives(s) => of(16, s, 0),
            Event::Closes(s) => of(17, s, 0),
            Event::Sends(s, n) => of(18, s, u64::from(n)),
            Event::Datagram(s, n) => of(19, s, u64::from(n)),
            Event::DatagramLost(s, n) => of(20, s, u64::from(n)),
            Event::Wake => (21, 0, 0),
            Event::Call(which, token) => (22, u64::from(which), token),
            Event::Said(number) => (23, number, 0),
            Event::Note(_) => (24, 0, 0),
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = self;
        match self.event {
            Event::Start => f.write_str("starts"),
            Event::Crash => f.write_str("crashes"),
            Event::End => f.write_str("ends"),
            Event::Partition(from) => {
                write!(f, "hears nothing from {} any more", show.name(from))
            }
            Event::Heal(from) => write!(f, "hears {} again", show.name(from)),
            Event::Fault(fault) => write!(f, "fault: {fault}"),
            Event::Connect(s) => write!(f, "connects: {}", show.socket(s)),
            Event::Refused(s) => write!(f, "is refused: {}", show.socket(s)),
            Event::Established(s) => write!(f, "is connected: {}", show.socket(s)),
            Event::Accept(s) => write!(f, "accepts: {}", show.socket(s)),
            Event::Ready(s, bits) => {
                write!(f, "the poll reports {}:", show.socket(s))?;
                for (bit, name) in [
                    (1, "readable"),
                    (2, "writable"),
                    (4, "peer ended"),
                    (8, "error"),
                    (16, "urgent"),
                ] {
                    if bits & bit != 0 {
                        write!(f, " {name}")?;
                    }
                }
                Ok(())
            }
            Event::Read(s, n) => write!(f, "reads {n} bytes: {}", show.socket(s)),
            Event::Write(s, n) => write!(f, "writes {n} bytes: {}", show.socket(s)),
            Event::Arrives(s, n) => write!(f, "{n} bytes arrive: {}", show.socket(s)),
            Event::EndArrives(s) => write!(f, "the peer's end arrives: {}", show.socket(s)),
            Event::ResetArrives(s) => write!(f, "a reset arrives: {}", show.socket(s)),
            Event::Closes(s) => write!(f, "closes {}", show.socket(s)),
            Event::Sends(s, n) => write!(f, "sends a datagram of {n} bytes: {}", show.socket(s)),
            Event::Datagram(s, n) => {
                write!(f, "a datagram of {n} bytes arrives: {}", show.socket(s))
            }
            Event::DatagramLost(s, n) => {
                write!(f, "a datagram of {n} bytes is lost: {}", show.socket(s))
            }
            Event::Wake => f.write_str("another thread's message wakes it"),
            Event::Call(which, token) => {
                write!(f, "{} of #{}", CALLBACKS[usize::from(which)], token & 0xffff_ffff)
            }
            Event::Said(number) => write!(f, "note {number}"),
            Event::Note(place) => match show.notes.get(place) {
                Some(text) => f.write_str(text),
                None => f.write_str("a note of long ago"),
            },
        }
    }
}

/// An event with its time (nanoseconds since the simulation began) and its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) host: u32,
    pub(crate) event: Event,
    /// A hash of the bytes, where there were some.
    pub(crate) contents: u64,
}

/// The trace of one run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    pub(crate) count: u64,
    recent: Vec<VecDeque<Entry>>,
    /// Everything, where two runs are to be compared.
    pub(crate) all: Option<Vec<Entry>>,
}

impl Trace {
    #[inline]
    pub(crate) fn note(&mut self, entry: Entry) {
        let (kind, a, b) = entry.event.numbers();
        let mut hash = self.hash;
        for number in [entry.at, u64::from(entry.host) << 32 | kind, a, b, entry.contents] {
            hash = mix(hash, number);
        }
        self.hash = hash;
        self.count += 1;
        let host = entry.host as usize;
        if host >= self.recent.len() {
            self.recent.resize_with(host + 1, VecDeque::new);
        }
        let recent = &mut self.recent[host];
        if recent.len() == SHOWN {
            recent.pop_front();
        }
        recent.push_back(entry);
        if let Some(all) = &mut self.all {
            all.push(entry);
        }
    }

    /// Something for people alone: it is no part of the hash.
    pub(crate) fn remark(&mut self, entry: Entry) {
        let (hash, count) = (self.hash, self.count);
        self.note(entry);
        (self.hash, self.count) = (hash, count);
    }

    pub(crate) fn hash(&self) -> u64 {
        mix(self.hash, self.count)
    }

    /// The last events of all hosts, in the order of time.
    pub(crate) fn recent(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.recent.iter().flatten().copied().collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

#[inline]
fn mix(hash: u64, number: u64) -> u64 {
    let product = u128::from(hash ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xd1b5_4a32_d192_ed03;
    (product >> 64) as u64 ^ product as u64
}

/// A hash of bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    let mut hash = bytes.len() as u64;
    for chunk in &mut chunks {
        hash = mix(hash, u64::from_le_bytes(chunk.try_into().unwrap_or_default()));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash, u64::from_le_bytes(last))
}
