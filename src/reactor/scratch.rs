//! Buffers that every connection uses in its turn and none keeps.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};

use crate::config::Config;
use crate::sys::Inbox;

/// What one step of the loop works in.
#[derive(Debug)]
pub(super) struct Scratch {
    /// What a read brings.
    pub(super) read: Pages,
    /// What a layer decodes.
    pub(super) unit: Vec<u8>,
    /// What a layer answers.
    pub(super) reply: Vec<u8>,
    /// The fields that a layer named in its unit.
    pub(super) fields: Vec<Range<usize>>,
    /// Datagrams that have just arrived.
    pub(super) inbox: Inbox,
}

impl Scratch {
    pub(super) fn new(config: &Config) -> Self {
        Scratch {
            read: Pages::new(config.read_buffer),
            unit: Vec::new(),
            reply: Vec::new(),
            fields: Vec::new(),
            inbox: Inbox::new(config.datagram_size, config.datagrams_per_turn),
        }
    }
}

/// A page of nearly every system.
const PAGE: usize = 4096;

/// Bytes that begin at a page: the system copies into them faster than into what an allocator hands
/// out, which is off by the length of its own header.
pub(super) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        // Where that cannot be told (it always can, but for code that runs at compile time) the
        // beginning will do.
        let start = Some(bytes.as_ptr().align_offset(PAGE)).filter(|&start| start < PAGE);
        Pages { bytes, start: start.unwrap_or(0), len }
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("len", &self.len).finish_non_exhaustive()
    }
}
