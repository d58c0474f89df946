//! Bytes that a socket did not take.

use super::{Socket, taken};
use std::io::{self, IoSlice};

/// Unallocated while nothing waits, so that an idle connection pays a pointer and three words.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Vec<u8>,
    start: usize,
}

impl Outbox {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds behind what waits.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Writes `bytes` at once where nothing waits before them; what the socket does not take waits.
    pub fn send<S: Socket>(&mut self, socket: &S, bytes: &[u8]) -> io::Result<()> {
        let written = if self.is_empty() { taken(|| socket.write(bytes))? } else { 0 };
        self.push(&bytes[written..]);
        Ok(())
    }

    /// As `send`, gathered from several slices.
    pub fn send_vectored<S: Socket>(
        &mut self,
        socket: &S,
        slices: &[IoSlice<'_>],
    ) -> io::Result<()> {
        let mut skip = if self.is_empty() { taken(|| socket.write_vectored(slices))? } else { 0 };
        for slice in slices {
            let here = skip.min(slice.len());
            skip -= here;
            self.push(&slice[here..]);
        }
        // More slices than one call takes end it early without a full socket: no edge would follow.
        self.flush(socket).map(drop)
    }

    /// Writes what waits; true when all of it is gone, false when the socket is full.
    pub fn flush<S: Socket>(&mut self, socket: &S) -> io::Result<bool> {
        while self.start < self.waiting.len() {
            match taken(|| socket.write(&self.waiting[self.start..]))? {
                0 => return Ok(false),
                n => self.start += n,
            }
        }
        if self.start > 0 {
            *self = Self::default();
        }
        Ok(true)
    }
}
