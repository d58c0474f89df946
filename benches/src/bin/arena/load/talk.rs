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
    unsent: Vec<u8>,
    size: usize,
    /// Messages taken up.
    sent: u64,
    answers: Answers,
}

/// What must come back. All of it is known beforehand, so that nothing is parsed.
struct Answers {
    head: Vec<u8>,
    size: usize,
    /// How many are whole, and what has arrived of the next one, its head included.
    whole: u64,
    part: usize,
}

impl Answers {
    fn new(size: usize) -> Self {
        Self { head: server_head(BINARY, size), size, whole: 0, part: 0 }
    }

    /// Compares what came with the answers to as many messages as were sent.
    fn check(&mut self, pattern: &Pattern, sent: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.whole == sent {
                return Err("more came back than was sent".into());
            }
            let of_head = self.head.len();
            let due = match self.head.get(self.part..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => {
                    let at = self.part - of_head;
                    pattern.at(self.whole * self.size as u64 + at as u64, self.size - at)
                }
            };
            let (here, rest) = bytes.split_at(due.len().min(bytes.len()));
            if here != &due[..here.len()] {
                let what = if self.part < of_head { "head" } else { "payload" };
                return Err(format!("an answer's {what} is not as it must be").into());
            }
            self.part += here.len();
            bytes = rest;
            if self.part == of_head + self.size {
                (self.part, self.whole) = (0, self.whole + 1);
            }
        }
        Ok(())
    }
}

impl Talk for Frames {
    fn new(stream: Stream, size: usize) -> Self {
        let (masks, answers) = (Masks::new(), Answers::new(size));
        Self { stream, masks, unsent: Vec::new(), size, sent: 0, answers }
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
        let whole = self.answers.whole;
        loop {
            let got = self.stream.read(buffer)?;
            self.answers.check(pattern, self.sent, &buffer[..got.bytes])?;
            if got.drained {
                return Ok(self.answers.whole - whole);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 300;

    fn two_answers(pattern: &Pattern) -> Vec<u8> {
        let mut bytes = Vec::new();
        for message in 0..2 {
            bytes.extend_from_slice(&server_head(BINARY, SIZE));
            bytes.extend_from_slice(pattern.at(message * SIZE as u64, SIZE));
        }
        bytes
    }

    #[test]
    fn answers_are_accepted_wherever_reads_cut_them() {
        let pattern = Pattern::new();
        let bytes = two_answers(&pattern);
        for cut in 0..bytes.len() {
            let mut answers = Answers::new(SIZE);
            answers.check(&pattern, 2, &bytes[..cut]).unwrap();
            assert_eq!(answers.whole, (cut / (bytes.len() / 2)) as u64);
            answers.check(&pattern, 2, &bytes[cut..]).unwrap();
            assert_eq!((answers.whole, answers.part), (2, 0));
            assert!(answers.check(&pattern, 2, &bytes[..1]).is_err(), "nobody asked for a third");
        }
    }

    #[test]
    fn an_answer_with_one_byte_changed_is_refused() {
        let pattern = Pattern::new();
        let bytes = two_answers(&pattern);
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 1;
            assert!(Answers::new(SIZE).check(&pattern, 2, &changed).is_err());
        }
    }
}
