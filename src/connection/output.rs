//! The output queue of one connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;

use crate::sys;

/// How many pieces go into one vectored write. The system takes up to 1,024 (`IOV_MAX`); beyond a
/// few dozen the call's fixed cost no longer shows.
const SLICES_PER_WRITE: usize = 64;

/// A buffer that grew beyond this is freed instead of being kept for reuse.
pub(crate) const KEPT_CAPACITY: usize = 64 * 1024;

/// A segment that has grown to this takes no more. A segment is freed as a whole, so a queue in one
/// buffer that never runs empty would never free any memory.
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
    /// Bytes of a relay that stay in the kernel.
    Piped(sys::Pipe),
}

impl Segment {
    /// Empty for a pipe, whose bytes are in the kernel.
    fn bytes(&self) -> &[u8] {
        match self {
            Segment::Owned(bytes) => bytes,
            Segment::Shared(shared, from, to) => &shared.bytes()[*from..*to],
            Segment::Piped(_) => &[],
        }
    }

    fn len(&self) -> usize {
        match self {
            Segment::Piped(pipe) => pipe.len(),
            in_memory => in_memory.bytes().len(),
        }
    }

    fn is_piped(&self) -> bool {
        matches!(self, Segment::Piped(_))
    }
}

/// The output queue: pieces in order, small ones coalesced, shared ones by reference.
///
/// Small messages gather in `last`. It becomes a segment only when something is queued by reference
/// behind it or when it is full, so that the ordinary case (some replies, one write) is one buffer
/// that is filled, written and emptied, and keeps its memory.
///
/// Invariants: `queued` is the number of bytes in all segments and in `last`, less `head`; `head` is
/// smaller than the length of the first of them that is not empty (so that an empty queue has
/// `head == 0`); no segment is empty.
#[derive(Debug, Default)]
pub(crate) struct Output {
    segments: VecDeque<Segment>,
    last: Vec<u8>,
    /// How much of the first piece is written already.
    head: usize,
    queued: usize,
    /// The tick at which a byte last left or the queue began to wait: for the stall timeout.
    pub(crate) progress: u64,
    /// The watchdog has been set for the stall deadline since the queue began to wait.
    pub(super) stall_watched: bool,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.queued
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Appends a copy of `bytes` behind what is queued.
    #[inline(always)] // half of its cost is being called
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        self.last.extend_from_slice(bytes);
        self.queued += bytes.len();
    }

    /// Lets `write` append to the queue's last buffer and returns its result. Layers encode straight
    /// into the queue this way. On an error nothing is appended.
    pub(crate) fn push_with<T, E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.make_room();
        let before = self.last.len();
        let result = write(&mut self.last);
        if result.is_err() {
            self.last.truncate(before);
        }
        self.queued += self.last.len() - before;
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

    /// Queues what is in a pipe.
    pub(crate) fn push_pipe(&mut self, pipe: sys::Pipe) {
        self.seal();
        self.queued += pipe.len();
        self.segments.push_back(Segment::Piped(pipe));
    }

    /// How many pipes are in the queue.
    pub(crate) fn pipes(&self) -> usize {
        self.segments.iter().filter(|segment| segment.is_piped()).count()
    }

    fn push_piece(&mut self, shared: Shared, from: usize, end: usize) {
        if from < end {
            self.seal();
            self.queued += end - from;
            self.segments.push_back(Segment::Shared(shared, from, end));
        }
    }

    /// Seals the last buffer if it is full.
    #[inline]
    fn make_room(&mut self) {
        if self.last.len() >= SEGMENT {
            self.seal();
        }
    }

    /// Makes `last` a segment, so that nothing more is appended to it.
    fn seal(&mut self) {
        if !self.last.is_empty() {
            self.segments.push_back(Segment::Owned(std::mem::take(&mut self.last)));
        }
    }

    /// One vectored write of what is queued. Returns how many bytes were written, and whether those are
    /// all that were offered (fewer mean that the system's buffer is full).
    #[inline]
    pub(crate) fn write_to(&mut self, socket: &mut sys::Stream) -> io::Result<(usize, bool)> {
        let only = match self.segments.front() {
            None => &*self.last,
            Some(Segment::Piped(_)) => return self.write_piped(socket),
            Some(first) if self.segments.len() == 1 && self.last.is_empty() => first.bytes(),
            Some(_) => return self.write_pieces(socket, &[]),
        };
        let bytes = &only[self.head..];
        let (written, asked) = (socket.write(bytes)?, bytes.len());
        if written == asked {
            self.clear();
        } else {
            self.advance(written);
        }
        Ok((written, written == asked))
    }

    /// One vectored write of what is queued and, behind it, of the sender's own `rest`, without a copy.
    /// Returns the same as [`write_to`](Self::write_to); the caller subtracts what was queued to find
    /// how much of `rest` was written.
    pub(crate) fn write_pieces(
        &mut self,
        socket: &mut sys::Stream,
        rest: &[u8],
    ) -> io::Result<(usize, bool)> {
        if self.segments.front().is_some_and(Segment::is_piped) {
            return self.write_piped(socket);
        }
        if self.segments.is_empty() {
            // The common case: the head of a message, and the message.
            let queued = &self.last[self.head..];
            let asked = queued.len() + rest.len();
            let written = socket.write_vectored(&[IoSlice::new(queued), IoSlice::new(rest)])?;
            self.advance(written.min(self.queued));
            return Ok((written, written == asked));
        }
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let pipe = self.segments.iter().position(Segment::is_piped);
        let behind: &[&[u8]] = if pipe.is_some() { &[] } else { &[&self.last, rest] };
        let until = pipe.unwrap_or(self.segments.len());
        let pieces = self.segments.range(..until).map(Segment::bytes).chain(behind.iter().copied());
        let mut asked = 0;
        let mut count = 0;
        let mut skip = self.head;
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            let bytes = &piece[skip.min(piece.len())..];
            skip -= piece.len() - bytes.len();
            asked += bytes.len();
            count += 1;
            *slice = IoSlice::new(bytes);
        }
        let written = socket.write_vectored(&slices[..count])?;
        self.advance(written.min(self.queued));
        Ok((written, written == asked))
    }

    /// The first piece is a pipe: splices its bytes to the socket. `Unsupported` if the system does not
    /// splice to this socket.
    #[cold]
    fn write_piped(&mut self, socket: &mut sys::Stream) -> io::Result<(usize, bool)> {
        let Some(Segment::Piped(pipe)) = self.segments.front_mut() else {
            unreachable!("the callers check for a pipe");
        };
        let Some(written) = pipe.drain(socket)? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.queued -= written;
        if pipe.len() == 0 {
            self.segments.pop_front();
        }
        if self.queued == 0 {
            self.clear();
        }
        // A short count does not mean that the socket is full: only `WouldBlock` does.
        Ok((written, true))
    }

    /// Reads the bytes of all pipes into memory. Returns whether there was a pipe.
    pub(crate) fn unpipe(&mut self) -> io::Result<bool> {
        let mut any = false;
        for segment in &mut self.segments {
            if let Segment::Piped(pipe) = segment {
                *segment = Segment::Owned(pipe.take_out()?);
                any = true;
            }
        }
        Ok(any)
    }

    /// Drops `written` bytes from the front.
    fn advance(&mut self, mut written: usize) {
        self.queued -= written;
        while let Some(first) = self.segments.front() {
            let left = first.len() - self.head;
            if written < left {
                self.head += written;
                return;
            }
            written -= left;
            self.head = 0;
            self.segments.pop_front();
        }
        self.head += written;
        if self.head == self.last.len() {
            self.clear();
        }
    }

    /// Empties the queue; buffers up to [`KEPT_CAPACITY`] stay for reuse.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.head = 0;
        self.queued = 0;
        self.stall_watched = false;
        self.last.clear();
        if !self.segments.is_empty() || self.last.capacity() > KEPT_CAPACITY {
            self.give_back();
        }
    }

    /// Out of line, so that the common `clear` stays a handful of instructions.
    #[cold]
    fn give_back(&mut self) {
        self.segments.clear();
        if self.last.capacity() > KEPT_CAPACITY {
            self.last = Vec::new();
        }
    }
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
