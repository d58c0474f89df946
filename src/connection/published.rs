//! What was published to a group, on its way to the socket of one member: in wire form, from the log.
//!
//! Values of which only the newest counts take the way of `latest.rs`, what a layer still has to encode
//! that of `sharing.rs`.

use std::io;
use std::rc::Rc;

use super::{Conn, Stream};

impl Stream {
    /// Whether this many bytes of a group's log can be written without a queue or an encoding.
    #[inline]
    pub(crate) fn takes_log(&self, bytes: usize) -> bool {
        self.accepts_output()
            && self.wire().is_none()
            && !self.has_tally()
            && self.held() + bytes <= self.options().output_limit
    }
}

impl Conn<'_> {
    /// Writes a part of a group's log, if nothing is queued. Returns how much of it was written, where
    /// that is not all: the rest is the caller's.
    #[inline]
    pub(crate) fn write_part(&mut self, bytes: &[u8]) -> Option<usize> {
        let stream = &mut *self.stream;
        // Most members have no queue, and their sockets take all.
        if stream.output.is_none() && stream.writable && stream.has_callbacks() && !stream.over_high
        {
            match stream.socket.write(bytes) {
                Ok(n) if n == bytes.len() => {
                    self.work.wrote(n);
                    stream.moved(self.work.tick);
                    None
                }
                result => self.part_not_written(bytes.len(), result),
            }
        } else {
            Some(0)
        }
    }

    /// The socket has not taken all of a part.
    #[cold]
    fn part_not_written(&mut self, asked: usize, result: io::Result<usize>) -> Option<usize> {
        match self.stream.not_all_written(result, asked, self.work) {
            Ok(n) => Some(n),
            Err(e) => {
                self.output_failed(e);
                None
            }
        }
    }

    /// Writes a part of a group's log behind what is queued; what the socket does not take is queued by
    /// reference.
    #[cold]
    pub(crate) fn write_part_behind(&mut self, log: &Rc<Vec<u8>>, start: usize, end: usize) {
        let Some(written) = self.write_now(&log[start..end]) else { return };
        if start + written < end {
            self.queue_log(log, start + written, end);
        }
        self.flush();
    }

    /// Queues copies of bytes that are in wire form.
    pub(crate) fn queue_copies<'b>(&mut self, pieces: impl IntoIterator<Item = &'b [u8]>) {
        for bytes in pieces {
            self.output().push(bytes);
        }
        self.queued_more();
    }

    /// Queues a part of a group's log: by reference if it is a large part of the log, else as a copy.
    /// A reference keeps the whole log alive, and a queue must not hold many times the memory that its
    /// limit counts.
    pub(crate) fn queue_log(&mut self, log: &Rc<Vec<u8>>, start: usize, end: usize) {
        /// Each reference takes about a hundred bytes of bookkeeping.
        const LEAST_REFERENCE: usize = 1024;
        let part = end - start;
        if part >= LEAST_REFERENCE && part >= log.capacity() / 4 {
            self.output().push_log(log, start, end);
        } else {
            self.output().push(&log[start..end]);
        }
        self.queued_more();
    }
}
