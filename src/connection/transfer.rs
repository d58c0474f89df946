//! Bytes between a connection's socket and the buffers: one call each, and what it says about the
//! socket.

use std::io;

use super::{Output, Phase, ReadSide, Stream};
use crate::sys::Ready;

/// What a read brought.
pub(crate) struct Received {
    pub(crate) len: usize,
    /// There may be more.
    pub(crate) more: bool,
}

impl Stream {
    /// Notes what an edge said. Sticky, all of it: an edge is told once.
    #[inline]
    pub(crate) fn note(&mut self, ready: Ready) {
        self.readable |= ready.has(Ready::READABLE | Ready::READ_CLOSED | Ready::ERROR);
        self.writable |= ready.has(Ready::WRITABLE | Ready::ERROR);
        self.read_closed |= ready.has(Ready::READ_CLOSED | Ready::ERROR);
        self.urgent |= ready.has(Ready::URGENT);
        self.error |= ready.has(Ready::ERROR);
    }

    /// One read. `None` if there is nothing, or the end: that is noted.
    #[inline(always)] // in the ordinary case, and in the general one
    pub(crate) fn receive(&mut self, buffer: &mut [u8], tick: u64) -> io::Result<Option<Received>> {
        let most = self.may_still_offer().min(buffer.len());
        if most == 0 {
            self.readable = false;
            return Ok(None);
        }
        let buffer = &mut buffer[..most];
        match self.socket.read(buffer) {
            Ok(0) => {
                self.readable = false;
                self.exhausted = true;
                if self.read == ReadSide::Open && !self.is_closing() {
                    self.read = ReadSide::Ended;
                }
                // What the handler left is offered once more, now that nothing will follow.
                self.fresh = true;
                Ok(None)
            }
            Ok(n) => {
                // A short read has emptied the system's buffer, unless urgent data cut it short or
                // the end came with the data in one edge: then the end is still to be read.
                let drained = n < buffer.len() && self.socket.short_read_drains();
                if drained && !self.read_closed && !self.urgent {
                    self.readable = false;
                }
                self.moved(tick);
                self.offered_while_failing(n);
                Ok(Some(Received { len: n, more: self.readable }))
            }
            Err(e) => self.not_read(e),
        }
    }

    #[cold]
    fn not_read(&mut self, error: io::Error) -> io::Result<Option<Received>> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        self.readable = false;
        self.urgent = false;
        Ok(None)
    }

    /// Writes what is queued, until the system takes no more.
    #[inline]
    pub(crate) fn write_queued(&mut self, tick: u64) -> io::Result<()> {
        while self.writable
            && let Some(output) = &mut self.output
            && !output.is_empty()
        {
            match output.write_to(&mut self.socket) {
                Ok((n, all)) if n > 0 => {
                    output.progress = tick;
                    self.moved_out(all, tick);
                }
                result => self.not_written(result)?,
            }
        }
        Ok(())
    }

    /// Writes `bytes` behind what is queued, without a copy, until the system takes no more. Answers
    /// how many of them left.
    pub(crate) fn write_through(&mut self, bytes: &[u8], tick: u64) -> io::Result<usize> {
        let mut taken = 0;
        while self.writable && taken < bytes.len() {
            let queued = self.output.as_ref().map_or(0, |output| output.len());
            let result = match &mut self.output {
                Some(output) => output.write_pieces(&mut self.socket, &bytes[taken..]),
                None => {
                    let asked = bytes.len() - taken;
                    self.socket.write(&bytes[taken..]).map(|n| (n, n == asked))
                }
            };
            match result {
                Ok((n, all)) if n > 0 => {
                    taken += n.saturating_sub(queued);
                    if let Some(output) = &mut self.output {
                        output.progress = tick;
                    }
                    self.moved_out(all, tick);
                }
                result => self.not_written(result)?,
            }
        }
        Ok(taken)
    }

    /// How much may be read: without limit, but for a connection that failed while it was held back.
    #[inline]
    fn may_still_offer(&self) -> usize {
        if self.phase != Phase::Failing {
            return usize::MAX;
        }
        self.extra.as_ref().and_then(|extra| extra.last_words).unwrap_or(usize::MAX)
    }

    #[inline]
    fn offered_while_failing(&mut self, bytes: usize) {
        if self.phase == Phase::Failing
            && let Some(left) = self.extra.as_mut().and_then(|extra| extra.last_words.as_mut())
        {
            *left = left.saturating_sub(bytes);
        }
    }

    /// Bytes were written; `all` of those that were asked for, or the socket is full.
    #[inline]
    fn moved_out(&mut self, all: bool, tick: u64) {
        self.writable = all || !self.socket.short_write_fills();
        self.moved(tick);
    }

    /// A write moved nothing. A socket that is full is no error, one that takes nothing for ever is.
    #[cold]
    fn not_written(&mut self, result: io::Result<(usize, bool)>) -> io::Result<()> {
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::Unsupported => self.refuses_pipes(e),
            Err(e) => Err(e),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// A byte moved: the idle timeout begins anew.
    pub(crate) fn moved(&mut self, tick: u64) {
        if self.phase == Phase::Open {
            self.clock = tick;
        }
    }

    /// The output queue, if it has run empty: it goes back to where it came from.
    pub(crate) fn take_empty_output(&mut self) -> Option<Box<Output>> {
        self.output.take_if(|output| output.is_empty())
    }
}
