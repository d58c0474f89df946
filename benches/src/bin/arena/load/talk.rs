//! How messages of an echo are written, and their answers told apart and checked: bytes alone, or WebSocket frames.

use super::pattern::Pattern;
use super::stream::Stream;
use super::websocket::{BINARY, Masks, server_head};
use crate::Result;

/// One connection's messages. Each carries the next bytes of the pattern.
pub trait Talk {
    /// What messages of this size need on a connection.
    fn new(stream: Stream, size: usize) -> Self;

    fn stream(&mut self) -> &mut Stream;

    /// Takes up one message more. Nothing leaves before `write`.
    fn send(&mut self, pattern: &Pattern);

    /// Writes what the socket takes of what was taken up.
    fn write(&mut self, pattern: &Pattern) -> Result<()>;

    /// Reads and checks what is there; returns how many messages it completed.
    fn read(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<u64>;
}

/// Bytes alone: an endless stream, in which a message is so many bytes more.
pub struct Bytes {
    stream: Stream,
    size: u64,
    /// Bytes due, written and returned since the connection was opened; each is a position in the pattern.
    due: u64,
    written: u64,
    returned: u64,
}

impl Talk for Bytes {
    fn new(stream: Stream, size: usize) -> Self {
        Self { stream, size: size as u64, due: 0, written: 0, returned: 0 }
    }

    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn send(&mut self, _pattern: &Pattern) {
        self.due += self.size;
    }

    fn write(&mut self, pattern: &Pattern) -> Result<()> {
        self.stream.flush()?;
        while self.written < self.due {
            let bytes = pattern.at(self.written, (self.due - self.written) as usize);
            match self.stream.write(bytes)? {
                0 => break,
                n => self.written += n as u64,
            }
        }
        Ok(())
    }

    fn read(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<u64> {
        let whole = self.returned / self.size;
        loop {
            let got = self.stream.read(buffer)?;
            if !pattern.matches(self.returned, &buffer[..got.bytes]) {
                return Err("an echo came back changed".into());
            }
            self.returned += got.bytes as u64;
            if self.returned > self.written {
                return Err("more came back than was sent".into());
            }
            if got.drained {
                return Ok(self.returned / self.size - whole);
            }
        }
    }
}

/// A message is a binary frame, and so must its answer be: whole, not masked, its length in the shortest form.
pub struct Frames {
    stream: Stream,
    masks: Masks,
    /// Of every answer.
    head: Vec<u8>,
    size: usize,
    /// Messages taken up.
    sent: u64,
    unsent: Vec<u8>,
    /// Whole answers, and what has arrived of the next one, its head included.
    returned: u64,
    part: usize,
}

impl Frames {
    /// Compares what came with the answers that must come; returns how many ended.
    fn check(&mut self, pattern: &Pattern, mut bytes: &[u8]) -> Result<u64> {
        let mut whole = 0;
        while !bytes.is_empty() {
            if self.returned == self.sent {
                return Err("more came back than was sent".into());
            }
            let head = self.head.len();
            let due = match self.head.get(self.part..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => {
                    let at = self.part - head;
                    pattern.at(self.returned * self.size as u64 + at as u64, self.size - at)
                }
            };
            let (here, rest) = bytes.split_at(due.len().min(bytes.len()));
            if here != &due[..here.len()] {
                let what = if self.part < head { "head" } else { "payload" };
                return Err(format!("an answer's {what} is not as it must be").into());
            }
            self.part += here.len();
            bytes = rest;
            if self.part == head + self.size {
                (self.part, self.returned) = (0, self.returned + 1);
                whole += 1;
            }
        }
        Ok(whole)
    }
}

impl Talk for Frames {
    fn new(stream: Stream, size: usize) -> Self {
        let (masks, head) = (Masks::new(), server_head(BINARY, size));
        Self { stream, masks, head, size, sent: 0, unsent: Vec::new(), returned: 0, part: 0 }
    }

    fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn send(&mut self, pattern: &Pattern) {
        let payload = pattern.at(self.sent * self.size as u64, self.size);
        self.masks.put(&mut self.unsent, BINARY, payload);
        self.sent += 1;
    }

    fn write(&mut self, _pattern: &Pattern) -> Result<()> {
        self.stream.flush()?;
        if !self.unsent.is_empty() {
            let n = self.stream.write(&self.unsent)?;
            self.unsent.drain(..n);
        }
        Ok(())
    }

    fn read(&mut self, pattern: &Pattern, buffer: &mut [u8]) -> Result<u64> {
        let mut whole = 0;
        loop {
            let got = self.stream.read(buffer)?;
            whole += self.check(pattern, &buffer[..got.bytes])?;
            if got.drained {
                return Ok(whole);
            }
        }
    }
}
