//! Values of which only the newest counts: messages with a key that wait, each in the place of its
//! predecessor.
//!
//! A pure structure: it knows keys and bytes, no queue and no socket. `latest.rs` moves values from here
//! into the queue.
//!
//! A value that takes the place of an older one takes its *place in line* too. In the order of the last
//! change a key that changes often would go to the end of the line each time, and never leave. With kept
//! places the line is at most as long as there are keys, and whatever is at its end leaves after one
//! round: that is the bound of a value's age.

use std::collections::{HashMap, VecDeque};

use crate::layer::MessageKind;
use crate::token::Group;

/// What a value costs beside its bytes: its place in the line, its entry in the map, and what the two
/// reserve by growing.
pub(super) const PLACE: usize = 64;

const _: () = assert!(size_of::<Value>() + size_of::<(u64, u64)>() <= PLACE);

/// How many bytes of values are put into the queue at once while the socket takes them whole: as many
/// as are written at once elsewhere.
const LARGEST_BATCH: usize = 16 * 1024;

/// How many after a write that the socket did not take whole. What is in the queue is not replaced any
/// more; at 20 KB/s this much of it is a tenth of a second old when it leaves.
const FIRST_BATCH: usize = 2 * 1024;

/// Beyond this many places an empty line gives its memory back.
const KEPT_PLACES: usize = 64;

/// What is known of the values of one connection; see [`Net::newest_stats`](crate::Net::newest_stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct NewestStats {
    /// How many values wait, each with another key.
    pub waiting: usize,
    /// How many bytes they have.
    pub waiting_bytes: usize,
    /// How many values were replaced by a newer one before they were sent.
    pub replaced: u64,
    /// How many values were dropped: refused at the output limit, not encodable in the connection's
    /// format, or discarded by [`Net::discard_queued`](crate::Net::discard_queued).
    pub dropped: u64,
    /// Whether it has fallen behind: see [`Net::is_behind`](crate::Net::is_behind).
    pub behind: bool,
}

/// One that waits.
#[derive(Debug)]
pub(super) struct Value {
    key: u64,
    pub(super) bytes: Vec<u8>,
    pub(super) kind: MessageKind,
    /// To which it was published, if it was.
    pub(super) group: Option<Group>,
}

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is at the end of the line.
    New,
    /// It has the place of an older one, which is gone.
    Replaced,
    /// There is no room; nothing has changed.
    Full,
}

/// The values of one connection that wait, and what is counted of them.
#[derive(Debug)]
pub(super) struct Newest {
    /// The next one first.
    line: VecDeque<Value>,
    /// The number of the first place; the others count on from it.
    first: u64,
    /// The number of the place of each key in the line.
    places: HashMap<u64, u64>,
    bytes: usize,
    batch: usize,
    /// A group's values have found a queue that was too long, and the line and the queue have not been
    /// empty since.
    pub(super) behind: bool,
    replaced: u64,
    pub(super) dropped: u64,
}

impl Default for Newest {
    fn default() -> Self {
        Newest {
            line: VecDeque::new(),
            first: 0,
            places: HashMap::new(),
            bytes: 0,
            batch: LARGEST_BATCH,
            behind: false,
            replaced: 0,
            dropped: 0,
        }
    }
}

impl Newest {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What counts towards the output limit.
    pub(super) fn cost(&self) -> usize {
        self.bytes + self.line.len() * PLACE
    }

    /// Adds a value, or replaces the one with this key, if all of them cost `room` at most then. One
    /// that costs no more than the one that it replaces is always taken.
    pub(super) fn put(
        &mut self,
        key: u64,
        group: Option<Group>,
        kind: MessageKind,
        bytes: &[u8],
        room: usize,
    ) -> Put {
        let cost = self.cost();
        match self.places.get(&key) {
            Some(place) => {
                let value = &mut self.line[(place - self.first) as usize];
                let before = value.bytes.len();
                if bytes.len() > before && cost - before + bytes.len() > room {
                    return Put::Full;
                }
                (value.kind, value.group) = (kind, group);
                value.bytes.clear();
                value.bytes.extend_from_slice(bytes);
                if value.bytes.capacity() > 2 * bytes.len() + PLACE {
                    value.bytes.shrink_to_fit();
                }
                self.bytes = self.bytes - before + bytes.len();
                self.replaced += 1;
                Put::Replaced
            }
            None if cost + PLACE + bytes.len() > room => Put::Full,
            None => {
                self.places.insert(key, self.first + self.line.len() as u64);
                self.line.push_back(Value { key, bytes: bytes.to_vec(), kind, group });
                self.bytes += bytes.len();
                Put::New
            }
        }
    }

    /// Takes the next value out of the line.
    pub(super) fn take(&mut self) -> Option<Value> {
        let value = self.line.pop_front()?;
        self.first += 1;
        self.bytes -= value.bytes.len();
        self.places.remove(&value.key);
        if self.line.is_empty() && self.line.capacity() > KEPT_PLACES {
            self.line = VecDeque::new();
            self.places = HashMap::new();
        }
        Some(value)
    }

    /// Drops all values that wait. Returns how many.
    pub(super) fn discard(&mut self) -> usize {
        let count = self.line.len();
        self.first += count as u64;
        self.bytes = 0;
        self.line = VecDeque::new();
        self.places = HashMap::new();
        self.dropped += count as u64;
        count
    }

    /// The socket does not take what is queued. Neither would it take a large batch.
    pub(super) fn fall_behind(&mut self) {
        self.behind = true;
        self.batch = FIRST_BATCH;
    }

    /// How many bytes of values go into the queue next.
    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    /// The socket took all that it was given, or not: the next batch is larger, or the smallest.
    pub(super) fn adapt_batch(&mut self, all: bool) {
        self.batch = if all { (self.batch * 2).min(LARGEST_BATCH) } else { FIRST_BATCH };
    }

    pub(super) fn stats(&self) -> NewestStats {
        NewestStats {
            waiting: self.line.len(),
            waiting_bytes: self.bytes,
            replaced: self.replaced,
            dropped: self.dropped,
            behind: self.behind,
        }
    }
}

#[cfg(test)]
#[path = "newest_tests.rs"]
mod tests;
