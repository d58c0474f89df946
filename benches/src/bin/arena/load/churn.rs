//! Churn: connect, one echo, close; a few at a time.

use super::pattern::{LONGEST, Pattern};
use super::stream::{Opener, Stream};
use super::{Budget, Load, STUCK, Tally};
use crate::Result;
use mio::{Events, Interest, Poll, Token};
use std::time::{Duration, Instant};

const SIZE: usize = 64;

pub struct Churn {
    /// One for each slot, so that each has sessions of its own to go on from.
    openers: Vec<Opener>,
    /// How many handshakes each slot has had, and whether those behind the first must be resumed ones.
    handshakes: Vec<u64>,
    resumed: bool,
    poll: Poll,
    events: Events,
    slots: Vec<Option<Visit>>,
    pattern: Pattern,
    buffer: Vec<u8>,
    visits: u64,
}

struct Visit {
    stream: Stream,
    position: u64,
    since: Instant,
    asked: bool,
    returned: usize,
}

impl Churn {
    pub fn new(openers: Vec<Opener>, resumed: bool) -> Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(64));
        let slots = openers.iter().map(|_| None).collect();
        let handshakes = vec![0; openers.len()];
        let (pattern, buffer) = (Pattern::new(), vec![0; LONGEST]);
        Ok(Self { openers, handshakes, resumed, poll, events, slots, pattern, buffer, visits: 0 })
    }

    fn start(&mut self, slot: usize) -> Result<()> {
        let since = Instant::now();
        let mut stream = self.openers[slot].begin(self.visits as usize)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), both)?;
        let position = self.visits * SIZE as u64;
        self.visits += 1;
        self.slots[slot] = Some(Visit { stream, position, since, asked: false, returned: 0 });
        Ok(())
    }
}

impl Visit {
    /// Goes on as far as the socket allows; true when the echo is complete.
    fn advance(&mut self, pattern: &Pattern, buffer: &mut [u8], readable: bool) -> Result<bool> {
        if !self.asked {
            if let Some(error) = self.stream.take_error()? {
                return Err(error.into());
            }
            // The first bytes of a fresh connection always fit.
            let message = pattern.at(self.position, SIZE);
            if self.stream.write(message)? != SIZE {
                return Err("a fresh connection did not take one message".into());
            }
            self.asked = true;
        }
        if readable {
            let got = self.stream.read(buffer)?;
            let expected = &pattern.at(self.position, SIZE)[self.returned..];
            if !expected.starts_with(&buffer[..got.bytes]) {
                return Err("an echo came back changed".into());
            }
            self.returned += got.bytes;
        }
        Ok(self.returned == SIZE)
    }
}

impl Load for Churn {
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let mut started = self.slots.len() as u64;
        for slot in 0..self.slots.len() {
            self.start(slot)?;
        }
        let mut progress = Instant::now();
        while tally.messages < started {
            self.poll.poll(&mut self.events, Some(Duration::from_secs(1)))?;
            let ready: Vec<_> =
                self.events.iter().map(|e| (e.token().0, e.is_readable())).collect();
            let now = Instant::now();
            for (slot, readable) in ready {
                let Some(visit) = &mut self.slots[slot] else { continue };
                if visit.advance(&self.pattern, &mut self.buffer, readable)? {
                    let first = self.handshakes[slot] == 0;
                    if !first && visit.stream.is_resumed() != self.resumed {
                        return Err("a handshake is not of the kind that is measured".into());
                    }
                    self.handshakes[slot] += 1;
                    visit.stream.say_goodbye()?;
                    tally.answered(visit.since, now);
                    progress = now;
                    self.slots[slot] = None;
                    if !budget.spent(started, now) {
                        self.start(slot)?;
                        started += 1;
                    }
                }
            }
            if now - progress > STUCK {
                return Err("a connection did not get its echo".into());
            }
        }
        Ok(())
    }
}
