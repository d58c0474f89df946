//! Buffers that all connections share: each uses them for one step.

use std::fmt;
use std::ops::{Deref, DerefMut, Range};

use crate::config::Config;
use crate::sys::Inbox;

/// The buffers of one step.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The bytes of a read.
    pub(super) read: Pages,
    /// The unit that a layer decodes.
    pub(super) unit: Vec<u8>,
    /// A layer's own output (a pong, an alert).
    pub(super) reply: Vec<u8>,
    /// The fields that a layer reports in its unit.
    pub(super) fields: Vec<Range<usize>>,
    /// The datagrams of one receive.
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

/// A buffer that begins at a page boundary: the kernel copies into it faster than into an allocation
/// that is off by the allocator's header.
pub(super) struct Pages {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + PAGE];
        // `align_offset` may fail in theory (in const evaluation): then the buffer is not aligned.
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
