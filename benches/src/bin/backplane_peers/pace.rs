//! One message a millisecond, heard on the speaker's server and on the other one: what the way through Redis adds.

use std::time::{Duration, Instant};

use crate::Result;
use crate::client::{Client, bring_together};
use crate::processes::Pair;

pub struct Pace {
    speaker: Client,
    /// On the speaker's server, and on the other.
    listeners: [Client; 2],
    origin: Instant,
}

/// Microseconds.
#[derive(Clone, Copy)]
pub struct Paced {
    /// To a member of the same process.
    pub near: Percentiles,
    /// To a member of the other.
    pub far: Percentiles,
    /// The second minus the first, message by message.
    pub added: Percentiles,
}

#[derive(Clone, Copy)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

fn percentiles(mut values: Vec<f64>) -> Percentiles {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values[(part * (values.len() - 1) as f64).round() as usize];
    Percentiles { p50: at(0.5), p99: at(0.99) }
}

impl Pace {
    pub fn new(pair: &Pair) -> Result<Self> {
        let room = format!("/{}-pace", pair.name);
        let [here, there] = pair.addrs();
        let mut speaker = Client::enter(here, &room)?;
        let mut listeners = [Client::enter(here, &room)?, Client::enter(there, &room)?];
        bring_together(&mut speaker, &mut listeners)?;
        Ok(Self { speaker, listeners, origin: Instant::now() })
    }

    /// The load looks without sleeping, so that its own wake-up is in no latency; it gives way to whoever wants its
    /// core.
    pub fn slice(&mut self, messages: usize) -> Result<Paced> {
        let first = self.speaker.said;
        let mut times = [vec![f64::NAN; messages], vec![f64::NAN; messages]];
        let (begin, mut said, mut heard) = (Instant::now(), 0, 0);
        while heard < 2 * messages {
            if said < messages && begin.elapsed() >= Duration::from_millis(said as u64) {
                self.speaker.say(self.origin.elapsed());
                self.speaker.flush()?;
                said += 1;
            }
            for (listener, times) in self.listeners.iter_mut().zip(&mut times) {
                let origin = self.origin;
                listener.hear(|number, sent| {
                    let took = origin.elapsed().saturating_sub(sent);
                    times[(number - first) as usize] = took.as_nanos() as f64 / 1000.0;
                    heard += 1;
                })?;
            }
            if begin.elapsed() > Duration::from_millis(messages as u64 + 20_000) {
                return Err("messages are lost: not all of them were heard".into());
            }
            std::thread::yield_now();
        }
        let [near, far] = times;
        let added = far.iter().zip(&near).map(|(far, near)| far - near).collect();
        Ok(Paced { near: percentiles(near), far: percentiles(far), added: percentiles(added) })
    }
}
