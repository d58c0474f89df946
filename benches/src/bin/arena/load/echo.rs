//! Echo: what was sent must come back, byte for byte.

use super::pattern::{LONGEST, Pattern};
use super::stream::Stream;
use super::talk::Talk;
use super::{Budget, Load, STUCK, Tally};
use crate::Result;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// When the next message leaves.
#[derive(Clone, Copy)]
pub enum Pace {
    /// With each answer; this many are on their way on each connection.
    Depth(usize),
    /// One at a time, this long after the answer to the one before.
    Pause(Duration),
    /// One in each period, on one connection after the other, whatever comes back.
    Period(Duration),
}

pub struct Echo<T> {
    poll: Poll,
    events: Events,
    connections: Vec<Connection<T>>,
    active: usize,
    pace: Pace,
    pattern: Pattern,
    buffer: Vec<u8>,
}

struct Connection<T> {
    talk: T,
    /// When each message on its way was sent, or planned to be.
    since: VecDeque<Instant>,
}

impl<T: Talk> Echo<T> {
    pub fn new(streams: Vec<Stream>, active: usize, size: usize, pace: Pace) -> Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let mut talk = T::new(stream, size);
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(talk.stream(), Token(index), both)?;
            connections.push(Connection { talk, since: VecDeque::new() });
        }
        let (events, buffer) = (Events::with_capacity(1024), vec![0; LONGEST]);
        Ok(Self { poll, events, connections, active, pace, pattern: Pattern::new(), buffer })
    }
}

impl<T: Talk> Connection<T> {
    fn send(&mut self, since: Instant, pattern: &Pattern) {
        self.since.push_back(since);
        self.talk.send(pattern);
    }
}

impl<T: Talk> Load for Echo<T> {
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let mut sent = 0;
        let depth = match self.pace {
            Pace::Depth(depth) => Some(depth),
            Pace::Pause(_) => Some(1),
            Pace::Period(_) => None,
        };
        if let Some(depth) = depth {
            for connection in &mut self.connections[..self.active] {
                for _ in 0..depth {
                    connection.send(Instant::now(), &self.pattern);
                }
                sent += depth as u64;
                connection.talk.write(&self.pattern)?;
            }
        }
        let mut planned = budget.start;
        let mut progress = Instant::now();
        loop {
            let mut now = Instant::now();
            if let Pace::Period(period) = self.pace {
                while planned <= now && !budget.spent(sent, planned) {
                    let connection = &mut self.connections[sent as usize % self.active];
                    connection.send(planned, &self.pattern);
                    connection.talk.write(&self.pattern)?;
                    planned += period;
                    sent += 1;
                }
            }
            let all_sent = depth.is_some() || budget.spent(sent, planned);
            if all_sent && tally.messages == sent {
                return Ok(());
            }
            // In an open loop the generator spins: waking up would come too late for the next instant. So it does
            // where the latency of a lone message is asked for, which would be half its own otherwise.
            let spins = !all_sent || matches!(self.pace, Pace::Pause(_));
            let wait = if spins { Duration::ZERO } else { Duration::from_secs(1) };
            self.poll.poll(&mut self.events, Some(wait))?;
            for event in &self.events {
                let connection = &mut self.connections[event.token().0];
                if event.is_readable() {
                    let whole = connection.talk.read(&self.pattern, &mut self.buffer)?;
                    now = Instant::now();
                    for _ in 0..whole {
                        let since = connection.since.pop_front().ok_or("an unasked echo")?;
                        tally.answered(since, now);
                        if let Pace::Pause(pause) = self.pace
                            && !pause.is_zero()
                        {
                            std::thread::sleep(pause);
                            now = Instant::now();
                        }
                        if depth.is_some() && !budget.spent(sent, now) {
                            connection.send(now, &self.pattern);
                            sent += 1;
                        }
                    }
                    progress = now;
                }
                connection.talk.write(&self.pattern)?;
            }
            if now - progress > STUCK && !self.connections.iter().all(|c| c.since.is_empty()) {
                return Err(format!("{} echoes did not come back", sent - tally.messages).into());
            }
        }
    }
}
