//! The alarm: ends a poll to the microsecond, where epoll_wait(2) rounds its timeout up to milliseconds.
//!
//! A timerfd(2) in the epoll set, made when it is first used. It also wakes a loop that waits for the
//! epoll descriptor itself. It is never read: the registration is edge-triggered, and setting it again
//! resets it (timerfd_settime(2)). The kernel's slack for timeouts (50 µs by default, prctl(2)) does
//! not apply to it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

#[derive(Debug, Default)]
pub(crate) enum Alarm {
    #[default]
    Unused,
    Made {
        timer: OwnedFd,
        /// When it goes off, or went off.
        at: Instant,
    },
    /// The system had no descriptor for it. It is asked again at this time.
    Missing(Instant),
}

/// How often the system is asked for an alarm that it has refused.
const AGAIN: Duration = Duration::from_secs(1);

impl Alarm {
    /// Whether it goes off `after` from `now`, a time that is not zero.
    pub(crate) fn set(&mut self, registry: &Registry, now: Instant, after: Duration) -> bool {
        let Some(new) = now.checked_add(after) else { return false };
        let (is_due, first) = match *self {
            Alarm::Unused => (true, true),
            Alarm::Missing(again) => (now >= again, false),
            Alarm::Made { .. } => (false, false),
        };
        if is_due {
            *self = match make(registry) {
                Ok(timer) => Alarm::Made { timer, at: now },
                Err(e) => {
                    // Once: descriptors may be missing for long.
                    let level = if first { log::Level::Warn } else { log::Level::Debug };
                    log::log!(
                        level,
                        "deadlines are rounded up to milliseconds: timerfd_create: {e}"
                    );
                    Alarm::Missing(now.checked_add(AGAIN).unwrap_or(now))
                }
            };
        }
        let Alarm::Made { timer, at } = self else { return false };
        if *at == new {
            return true; // the same deadline as in the last turn: no system call
        }
        let value = Timespec {
            tv_sec: after.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: after.subsec_nanos().max(u32::from(after.as_secs() == 0)).into(),
        };
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        let set = timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).is_ok();
        if set {
            *at = new;
        }
        set
    }
}

fn make(registry: &Registry) -> io::Result<OwnedFd> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    registry.register(&mut SourceFd(&timer.as_raw_fd()), super::ALARM, Interest::READABLE)?;
    Ok(timer)
}

#[cfg(test)]
mod tests {
    use super::*;

    // row 223
    #[test]
    fn an_alarm_that_the_system_refused_is_asked_for_again() {
        let poll = mio::Poll::new().unwrap();
        let (now, soon) = (Instant::now(), Duration::from_millis(1));
        let mut alarm = Alarm::Missing(now + AGAIN);
        assert!(!alarm.set(poll.registry(), now, soon), "not with each deadline");
        assert!(alarm.set(poll.registry(), now + AGAIN, soon));
        assert!(matches!(alarm, Alarm::Made { .. }));
    }
}
