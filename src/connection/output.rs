//! What waits to be written on one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use crate::sys;

/// How many pieces go into one vectored write. The system takes up to 1,024 (`IOV_MAX`); beyond a
/// few dozen the call's fixed cost no longer shows.
const SLICES_PER_WRITE: usize = 64;

/// A buffer that grew beyond this is given back to the allocator instead of being kept for reuse.
pub(crate) const KEPT_CAPACITY: usize = 64 * 1024;

/// A segment that has grown to this takes no more: what is written of a segment is freed only with
/// the whole of it, so that a queue that never runs empty must not live in one buffer.
const SEGMENT: usize = 64 * 1024;

/// A piece that is queued without being copied.
#[derive(Debug, Clone)]
enum Shared {
    /// Bytes the user shares between connections or threads.
    User(Arc<[u8]>),
    /// A group's messages of one turn, shared by its slow members.
    Log(Rc<Vec<u8>>),
}

impl Shared {
    fn bytes(&self) -> &[u8] {
        match self {
            Shared::User(bytes) => bytes,
            Shared::Log(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
enum Segment {
    Owned(Vec<u8>),
    /// A part of something shared: from, to.
    Shared(Shared, usize, usize),
}

impl Segment {
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Owned(bytes) => bytes,
            Segment::Shared(shared, from, to) => &shared.bytes()[*from..*to],
        }
    }
}

/// The output queue: pieces in order, small ones coalesced, shared ones by reference.
///
/// Invariants: `queued` is the number of bytes in all segments less `head`; `head` is smaller than
/// the first segment's length (so that an empty queue has `head == 0`); no segment is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    segments: VecDeque<Segment>,
    /// How much of the first segment is written already.
    head: usize,
    queued: usize,
    /// One emptied buffer, kept for the next small message.
    spare: Vec<u8>,
    /// The tick at which a byte last left or the queue began to wait: for the stall timeout.
    pub(crate) progress: u64,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Appends a copy of `bytes` behind what is queued.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.tail().extend_from_slice(bytes);
            self.queued += bytes.len();
        }
    }

    /// Lets `write` append to the queue's last buffer; answers what it answers. A layer encodes
    /// straight into the queue like this.
    pub(crate) fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let tail = self.tail();
        let before = tail.len();
        let result = write(tail);
        if result.is_err() {
            tail.truncate(before);
        }
        let after = tail.len();
        self.queued += after - before;
        if after == 0 {
            self.recycle_last();
        }
        result
    }

    /// Queues bytes the user shares, without a copy.
    pub(crate) fn push_shared(&mut self, bytes: Arc<[u8]>, from: usize) {
        let end = bytes.len();
        self.push_piece(Shared::User(bytes), from, end);
    }

    /// Queues a part of a group's log, without a copy.
    pub(crate) fn push_log(&mut self, log: &Rc<Vec<u8>>, from: usize, end: usize) {
        self.push_piece(Shared::Log(Rc::clone(log)), from, end);
    }

    fn push_piece(&mut self, shared: Shared, from: usize, end: usize) {
        if from < end {
            self.queued += end - from;
            self.segments.push_back(Segment::Shared(shared, from, end));
        }
    }

    /// The buffer that small messages go into: the last segment, if it is one's own and not full.
    fn tail(&mut self) -> &mut Vec<u8> {
        if !matches!(self.segments.back(), Some(Segment::Owned(bytes)) if bytes.len() < SEGMENT) {
            let spare = std::mem::take(&mut self.spare);
            self.segments.push_back(Segment::Owned(spare));
        }
        match self.segments.back_mut() {
            Some(Segment::Owned(bytes)) => bytes,
            _ => unreachable!("an owned segment was just made sure of"),
        }
    }

    fn recycle_last(&mut self) {
        if let Some(Segment::Owned(bytes)) = self.segments.pop_back() {
            self.keep(bytes);
        }
    }

    fn keep(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() > self.spare.capacity() && bytes.capacity() <= KEPT_CAPACITY {
            bytes.clear();
            self.spare = bytes;
        }
    }

    /// One vectored write of what is queued. Answers how many bytes left, and whether that was all
    /// that was asked for (less means that the system's buffer is full).
    pub(crate) fn write_to(&mut self, socket: &mut sys::Stream) -> io::Result<(usize, bool)> {
        let (written, asked) = match self.segments.len() {
            0 => return Ok((0, true)),
            1 => {
                let bytes = &self.segments[0].bytes()[self.head..];
                (socket.write(bytes)?, bytes.len())
            }
            _ => {
                let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
                let mut asked = 0;
                let mut count = 0;
                let mut skip = self.head;
                for (slice, segment) in slices.iter_mut().zip(&self.segments) {
                    let bytes = &segment.bytes()[skip..];
                    skip = 0;
                    asked += bytes.len();
                    count += 1;
                    *slice = IoSlice::new(bytes);
                }
                (socket.write_vectored(&slices[..count])?, asked)
            }
        };
        self.advance(written);
        Ok((written, written == asked))
    }

    /// Drops `written` bytes from the front.
    fn advance(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(first) = self.segments.front() {
            let left = first.bytes().len() - self.head;
            if written < left {
                self.head += written;
                return;
            }
            written -= left;
            self.head = 0;
            if let Some(Segment::Owned(bytes)) = self.segments.pop_front() {
                self.keep(bytes);
            }
        }
    }

    /// Forgets everything; the memory that is worth keeping stays for reuse.
    pub(crate) fn clear(&mut self) {
        let all = self.queued;
        self.advance(all);
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
