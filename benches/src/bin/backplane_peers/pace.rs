//! One message a millisecond, heard on the speaker's server and on the other one: what the way through Redis adds.
//!
//! When a message came is the kernel's word (`SO_TIMESTAMPNS`): the instant at which the server's write has put it
//! before the listener. So the load can sleep, and its own wake-up is in no figure.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::Result;
use crate::client::{Client, FRAME, bring_together, read_frame};
use crate::processes::Pair;

pub struct Pace {
    speaker: Client,
    /// On the speaker's server, and on the other.
    listeners: [Client; 2],
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

fn now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

impl Pace {
    pub fn new(pair: &Pair) -> Result<Self> {
        let room = format!("/{}-pace", pair.name);
        let [here, there] = pair.addrs();
        let mut speaker = Client::enter(here, &room)?;
        let mut listeners = [Client::enter(here, &room)?, Client::enter(there, &room)?];
        bring_together(&mut speaker, &mut listeners)?;
        for listener in &listeners {
            setsockopt(&listener.stream, sockopt::ReceiveTimestampns, &true)?;
            listener.stream.set_nonblocking(false)?;
            listener.stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        }
        Ok(Self { speaker, listeners })
    }

    pub fn slice(&mut self, messages: u64) -> Result<Paced> {
        let speaker = &mut self.speaker;
        let [near, far] = &mut self.listeners;
        let (near, far) = thread::scope(|scope| {
            // An error is told from the thread: `dyn Error` does not cross.
            let listen = |client| {
                scope.spawn(move || times(client, messages).map_err(|error| error.to_string()))
            };
            let (near, far) = (listen(near), listen(far));
            let begin = Instant::now();
            for number in 0..messages {
                let due = begin + Duration::from_millis(number);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                speaker.say(now()?);
                speaker.flush()?;
            }
            let join = |thread: thread::ScopedJoinHandle<'_, std::result::Result<_, String>>| {
                thread.join().map_err(|_| "a listener has panicked")?.map_err(crate::Failure::from)
            };
            Ok::<_, crate::Failure>((join(near)?, join(far)?))
        })?;
        let added = far.iter().zip(&near).map(|(far, near)| far - near).collect();
        Ok(Paced { near: percentiles(near), far: percentiles(far), added: percentiles(added) })
    }
}

/// How long each of the next messages took.
fn times(listener: &mut Client, messages: u64) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..messages {
        let mut frame = [0; FRAME];
        let mut space = cmsg_space!(TimeSpec);
        let mut blocks = [IoSliceMut::new(&mut frame)];
        let fd = listener.stream.as_raw_fd();
        let got = recvmsg::<()>(fd, &mut blocks, Some(&mut space), MsgFlags::MSG_WAITALL)?;
        let came = got.cmsgs()?.find_map(|word| match word {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        let came = came.ok_or("the kernel does not tell when a segment came")?;
        let (number, sent) = read_frame(&frame)?;
        if number != listener.heard {
            return Err(format!("message {} was expected, {number} came", listener.heard).into());
        }
        listener.heard += 1;
        times.push(came.saturating_sub(sent).as_nanos() as f64 / 1000.0);
    }
    Ok(times)
}
