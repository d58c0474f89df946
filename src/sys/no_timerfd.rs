//! Where there is no timerfd(2), or the feature is off: the poll rounds its timeouts as it does (kqueue
//! to nanoseconds, epoll_wait(2) and poll(2) up to milliseconds).

use std::time::{Duration, Instant};

/// No alarm.
#[derive(Debug, Default)]
pub(crate) struct Alarm {}

impl Alarm {
    pub(crate) fn set(&mut self, _: &mio::Registry, _: Instant, _: Duration) -> bool {
        false
    }
}
