//! Chat: every line must reach every other member once, whole, and in its speaker's order.

use super::line::{LEN, Lines};
use super::pattern::LONGEST;
use super::stream::Stream;
use super::wording::Wording;
use super::{Budget, Load, STUCK, Tally};
use crate::Result;
use mio::{Events, Interest, Poll, Token};
use std::time::{Duration, Instant};

/// When a speaker says its next line.
#[derive(Clone, Copy)]
pub enum Pace {
    /// As soon as fewer than this many of its lines are on their way.
    Window(usize),
    /// One in each period, whatever arrived.
    Period(Duration),
}

/// More than ever are on their way from one speaker.
const REMEMBERED: usize = 1024;

pub struct Chat {
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    speakers: Vec<Speaker>,
    pace: Pace,
    lines: Lines,
    buffer: Vec<u8>,
}

struct Member {
    stream: Stream,
    wording: Wording,
    /// The start of a line whose rest has not arrived.
    part: Vec<u8>,
    /// The number of the next line from each speaker.
    next: Vec<u32>,
}

struct Speaker {
    said: u32,
    /// Arrivals of this speaker's lines at all the others together.
    arrived: u64,
    since: Vec<Instant>,
    unsent: Vec<u8>,
}

impl Chat {
    pub fn new(
        streams: Vec<Stream>,
        wording: impl Fn() -> Wording,
        speakers: usize,
        pace: Pace,
    ) -> Result<Self> {
        let poll = Poll::new()?;
        let mut members = Vec::with_capacity(streams.len());
        for (index, mut stream) in streams.into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), both)?;
            let (wording, part, next) = (wording(), Vec::new(), vec![0; speakers]);
            members.push(Member { stream, wording, part, next });
        }
        let since = vec![Instant::now(); REMEMBERED];
        let speaker = || Speaker { said: 0, arrived: 0, since: since.clone(), unsent: Vec::new() };
        let speakers = std::iter::repeat_with(speaker).take(speakers).collect();
        let (events, buffer) = (Events::with_capacity(1024), vec![0; LONGEST]);
        Ok(Self { poll, events, members, speakers, pace, lines: Lines::new(), buffer })
    }

    fn say(&mut self, speaker: usize, since: Instant) {
        let Speaker { said, since: sinces, unsent, .. } = &mut self.speakers[speaker];
        let mut line = [0; LEN];
        self.lines.write(speaker, *said, &mut line);
        self.members[speaker].wording.put(&line, unsent);
        sinces[*said as usize % REMEMBERED] = since;
        *said += 1;
    }

    fn write(&mut self, speaker: usize) -> Result<()> {
        let (unsent, stream) =
            (&mut self.speakers[speaker].unsent, &mut self.members[speaker].stream);
        stream.flush()?;
        if !unsent.is_empty() {
            let n = stream.write(unsent)?;
            unsent.drain(..n);
        }
        Ok(())
    }

    /// Says what the window allows; returns how many lines.
    fn fill_window(&mut self, speaker: usize, window: usize, now: Instant) -> Result<u64> {
        let listeners = self.members.len() as u64 - 1;
        let Speaker { said, arrived, .. } = &self.speakers[speaker];
        let done = (arrived / listeners) as u32;
        let more = (window as u32).saturating_sub(said - done);
        for _ in 0..more {
            self.say(speaker, now);
        }
        self.write(speaker)?;
        Ok(more.into())
    }

    /// Reads and checks what `member` got.
    fn listen(&mut self, member: usize, tally: &mut Tally) -> Result<()> {
        loop {
            let Member { stream, wording, part, next } = &mut self.members[member];
            // The part of a line goes first, so that only whole lines are checked.
            let kept = part.len();
            self.buffer[..kept].copy_from_slice(part);
            let got = stream.read(&mut self.buffer[kept..])?;
            let now = Instant::now();
            let mut rest = &self.buffer[..kept + got.bytes];
            while let Some((line, taken)) = wording.take(rest)? {
                rest = &rest[taken..];
                let expected = |speaker| next.get(speaker).copied();
                let speaker = self.lines.check(line, expected).ok_or("a wrong line arrived")?;
                if speaker == member {
                    return Err("a member heard itself".into());
                }
                let heard = &mut self.speakers[speaker];
                tally.answered(heard.since[next[speaker] as usize % REMEMBERED], now);
                heard.arrived += 1;
                next[speaker] += 1;
            }
            part.clear();
            part.extend_from_slice(rest);
            if got.drained {
                return Ok(());
            }
        }
    }
}

impl Load for Chat {
    fn run(&mut self, budget: &Budget, tally: &mut Tally) -> Result<()> {
        let listeners = self.members.len() as u64 - 1;
        let mut said = 0;
        let mut planned = budget.start;
        let mut progress = Instant::now();
        let mut heard = 0;
        loop {
            let now = Instant::now();
            match self.pace {
                Pace::Window(window) => {
                    for speaker in 0..self.speakers.len() {
                        if !budget.spent(said * listeners, now) {
                            said += self.fill_window(speaker, window, now)?;
                        }
                    }
                }
                Pace::Period(period) => {
                    while planned <= now && !budget.spent(said * listeners, planned) {
                        self.say(0, planned);
                        self.write(0)?;
                        planned += period;
                        said += 1;
                    }
                }
            }
            let all_said = match self.pace {
                Pace::Window(_) => true,
                Pace::Period(_) => budget.spent(said * listeners, planned),
            };
            if all_said && tally.messages == said * listeners {
                return Ok(());
            }
            // In an open loop the generator spins: waking up would come too late for the next instant.
            let wait = if all_said { Duration::from_secs(1) } else { Duration::ZERO };
            self.poll.poll(&mut self.events, Some(wait))?;
            let ready: Vec<_> =
                self.events.iter().map(|e| (e.token().0, e.is_readable())).collect();
            for (member, readable) in ready {
                if readable {
                    self.listen(member, tally)?;
                }
                if member < self.speakers.len() {
                    self.write(member)?;
                }
            }
            if tally.messages > heard || tally.messages == said * listeners {
                (heard, progress) = (tally.messages, now);
            } else if now - progress > STUCK {
                let missing = said * listeners - tally.messages;
                return Err(format!("{missing} deliveries did not arrive").into());
            }
        }
    }
}
