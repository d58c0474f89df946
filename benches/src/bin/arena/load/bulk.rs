//! Bulk: as much as the server takes, on connections that are new for each slice, because a sink tells its count
//! only at the end.

use super::pattern::{LONGEST, Pattern};
use super::stream::{Opener, Stream};
use super::{Budget, Load, STUCK, Tally};
use crate::Result;
use crate::scenario::BULK_UNIT;
use mio::{Events, Interest, Poll, Token};
use std::time::{Duration, Instant};

pub struct Bulk {
    opener: Opener,
    connections: usize,
    poll: Poll,
    events: Events,
    pattern: Pattern,
    buffer: Vec<u8>,
}

struct Source {
    stream: Stream,
    written: u64,
    ended: bool,
    answer: Vec<u8>,
    done: bool,
}

impl Bulk {
    pub fn new(opener: Opener, connections: usize) -> Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(64));
        let (pattern, buffer) = (Pattern::new(), vec![0; LONGEST]);
        Ok(Self { opener, connections, poll, events, pattern, buffer })
    }
}

impl Source {
    /// One write; false when the socket is full.
    fn write(&mut self, pattern: &Pattern) -> Result<bool> {
        let n = self.stream.write(pattern.at(self.written, LONGEST))?;
        self.written += n as u64;
        Ok(n == LONGEST)
    }

    /// Takes the count and the end of the stream.
    fn read_answer(&mut self, buffer: &mut [u8]) -> Result<()> {
        loop {
            match self.stream.read_or_end(buffer)? {
                None if self.ended && self.answer == self.written.to_le_bytes() => {
                    self.done = true;
                    return Ok(());
                }
                None => return Err("the sink closed without the right count".into()),
                // Not even a short read: the end follows without an edge of its own.
                Some(got) if got.bytes == 0 && got.drained => return Ok(()),
                Some(got) => self.answer.extend_from_slice(&buffer[..got.bytes]),
            }
        }
    }
}

impl Load for Bulk {
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let mut sources = Vec::with_capacity(self.connections);
        for index in 0..self.connections {
            let mut stream = self.opener.open(index)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(index), both)?;
            let answer = Vec::new();
            sources.push(Source { stream, written: 0, ended: false, answer, done: false });
        }
        let (mut bytes, mut progress) = (0, Instant::now());
        while sources.iter().any(|source| !source.done) {
            // One write for each source in turn, so that none starves; an edge tells when a full one has room.
            let mut writable = !budget.spent(bytes / BULK_UNIT as u64, Instant::now());
            while writable {
                writable = false;
                for source in &mut sources {
                    writable |= source.write(&self.pattern)?;
                }
                let before = bytes;
                bytes = sources.iter().map(|source| source.written).sum();
                if bytes > before {
                    progress = Instant::now();
                }
                writable &= !budget.spent(bytes / BULK_UNIT as u64, Instant::now());
            }
            if budget.spent(bytes / BULK_UNIT as u64, Instant::now()) {
                for source in sources.iter_mut().filter(|source| !source.ended) {
                    source.ended = source.stream.end()?;
                }
            }
            // Full sockets may stay full past the end of the slice: look at the clock again soon.
            self.poll.poll(&mut self.events, Some(Duration::from_millis(10)))?;
            for event in &self.events {
                if event.is_readable() {
                    sources[event.token().0].read_answer(&mut self.buffer)?;
                }
            }
            if progress.elapsed() > STUCK {
                return Err("the sink does not answer".into());
            }
        }
        tally.messages = bytes / BULK_UNIT as u64;
        Ok(())
    }
}
