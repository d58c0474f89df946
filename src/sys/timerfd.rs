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
    /// The system had no descriptor for it.
    Missing,
}

impl Alarm {
    /// Whether it goes off `after` from `now`, a time that is not zero.
    pub(crate) fn set(&mut self, registry: &Registry, now: Instant, after: Duration) -> bool {
        let Some(new) = now.checked_add(after) else { return false };
        if matches!(self, Alarm::Unused) {
            *self = match make(registry) {
                Ok(timer) => Alarm::Made { timer, at: now },
                Err(e) => {
                    log::warn!("deadlines are rounded up to milliseconds: timerfd_create: {e}");
                    Alarm::Missing
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
