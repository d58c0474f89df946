//! As many messages as go through while a bounded number is on its way; each listener hears all of them.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::client::{Client, bring_together};
use crate::host::CpuClock;
use crate::processes::{Pair, Redis};

/// So many messages are on their way at most, of all rooms together.
const WINDOW: u64 = 4096;

struct Room {
    speaker: Client,
    listeners: Vec<Client>,
}

impl Room {
    /// The number that all listeners have come to.
    fn heard(&self) -> u64 {
        self.listeners.iter().map(|listener| listener.heard).min().unwrap_or(0)
    }
}

/// Rooms whose people stay connected between slices.
pub struct Flood {
    poll: Poll,
    rooms: Vec<Room>,
    clocks: [CpuClock; 2],
    redis: Vec<CpuClock>,
    own: CpuClock,
}

/// What a slice came to.
#[derive(Clone, Copy)]
pub struct Flooded {
    /// Messages a second.
    pub rate: f64,
    /// CPU seconds for each 100,000 messages.
    pub servers: f64,
    pub redis: f64,
    pub load: f64,
}

impl Flood {
    pub fn new(pair: &Pair, redis: &Redis, rooms: usize, listeners: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let [here, there] = pair.addrs();
        let mut entered = Vec::new();
        for number in 0..rooms {
            let name = format!("/{}-{rooms}-{listeners}-{number}", pair.name);
            let mut speaker = Client::enter(here, &name)?;
            let listeners = (0..listeners).map(|_| Client::enter(there, &name));
            let mut listeners = listeners.collect::<Result<Vec<_>>>()?;
            bring_together(&mut speaker, &mut listeners)?;
            entered.push(Room { speaker, listeners });
        }
        let sources = entered.iter().enumerate().flat_map(|(number, room)| {
            room.listeners.iter().enumerate().map(move |(at, client)| (number, at, client))
        });
        for (number, at, client) in sources {
            let token = Token(number * listeners + at);
            let fd = client.stream.as_raw_fd();
            poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        let own = CpuClock::of(std::process::id())?;
        Ok(Self { poll, rooms: entered, clocks: pair.clocks()?, redis: redis.clocks()?, own })
    }

    fn cpu(&self) -> Result<[f64; 3]> {
        let sum = |clocks: &[CpuClock]| {
            let times = clocks.iter().map(|clock| clock.now());
            Ok::<_, crate::Failure>(times.sum::<Result<Duration>>()?.as_secs_f64())
        };
        Ok([sum(&self.clocks)?, sum(&self.redis)?, sum(&[self.own])?])
    }

    /// Speaks for so long, then waits until all of it is heard.
    pub fn slice(&mut self, length: Duration) -> Result<Flooded> {
        let (said, cpu) = (self.said(), self.cpu()?);
        let mut events = Events::with_capacity(1024);
        let begin = Instant::now();
        let share = WINDOW / self.rooms.len() as u64;
        loop {
            let now = begin.elapsed();
            let speaks = now < length;
            let mut is_heard = true;
            for room in &mut self.rooms {
                let heard = room.heard();
                // Half a window at once or nothing: writes of a useful size.
                if speaks && room.speaker.waiting() == 0 && room.speaker.said - heard <= share / 2 {
                    for _ in 0..share / 2 {
                        room.speaker.say(now);
                    }
                }
                room.speaker.flush()?;
                is_heard &= heard == room.speaker.said;
            }
            if !speaks && is_heard {
                break;
            }
            if now > length + Duration::from_secs(20) {
                return Err("messages are lost: not all of them were heard".into());
            }
            // A socket that took only a part is written to again after the wait.
            let writes = self.rooms.iter().any(|room| room.speaker.waiting() > 0);
            let wait = Duration::from_micros(if writes { 0 } else { 1000 });
            self.poll.poll(&mut events, Some(wait))?;
            let listeners = self.rooms[0].listeners.len();
            for event in &events {
                let (room, at) = (event.token().0 / listeners, event.token().0 % listeners);
                self.rooms[room].listeners[at].hear(|_| {})?;
            }
        }
        let took = begin.elapsed();
        for clock in self.clocks.iter().chain(&self.redis) {
            clock.wait_until_quiet()?;
        }
        let messages = (self.said() - said) as f64;
        let after = self.cpu()?;
        let each = |at: usize| (after[at] - cpu[at]) / messages * 100_000.0;
        let rate = messages / took.as_secs_f64();
        Ok(Flooded { rate, servers: each(0), redis: each(1), load: each(2) })
    }

    fn said(&self) -> u64 {
        self.rooms.iter().map(|room| room.speaker.said).sum()
    }
}
