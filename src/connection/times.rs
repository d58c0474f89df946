//! When callbacks begin and end. Nothing here is called unless `Work::timed` is set.

use std::time::{Duration, Instant};

use super::Work;
use crate::config::Config;
use crate::stats::Callback;
#[cfg(feature = "histograms")]
use crate::stats::Latency;
use crate::timer::Key;

/// What is kept for that.
#[derive(Debug)]
pub(crate) struct Times {
    /// When the running callback began.
    began: Instant,
    /// When a poll in the middle of a turn returned. The turn's own did at `Work::now`.
    polled: Instant,
    /// From here on a callback is slow.
    slow: Option<Duration>,
    #[cfg(feature = "histograms")]
    latency: Option<Box<Latency>>,
}

impl Times {
    pub(crate) fn new(now: Instant) -> Self {
        Times {
            began: now,
            polled: now,
            slow: None,
            #[cfg(feature = "histograms")]
            latency: None,
        }
    }
}

impl Work {
    /// Times callbacks and turns, if the configuration asks for it.
    pub(crate) fn time_as_told(&mut self, config: &Config) {
        self.times.slow = config.slow_callback;
        #[cfg(feature = "histograms")]
        {
            self.times.latency = config.measure.then(Box::default);
            self.fine_timers.noted = config.measure;
        }
        self.timed = config.slow_callback.is_some() || config.measure;
    }

    /// A poll in the middle of a turn has returned.
    #[cold]
    pub(crate) fn polled_again(&mut self) {
        self.times.polled = self.this_moment();
    }

    /// A callback is about to be called.
    #[cold]
    pub(crate) fn callback_begins(&mut self, callback: Callback) {
        self.times.began = self.this_moment();
        let _ = callback;
        #[cfg(feature = "histograms")]
        if let Some(latency) = &mut self.times.latency
            && callback.is_for_an_event()
        {
            let polled = self.times.polled.max(self.now);
            latency.events.record(self.times.began.saturating_duration_since(polled));
        }
    }

    /// It has returned. Tells how long it took, if that is too long.
    pub(crate) fn callback_ends(&mut self) -> Option<Duration> {
        let took = self.this_moment().saturating_duration_since(self.times.began);
        #[cfg(feature = "histograms")]
        if let Some(latency) = &mut self.times.latency {
            latency.callbacks.record(took);
        }
        self.times.slow.is_some_and(|limit| took >= limit).then_some(took)
    }

    /// The turn is over. Tells how long it took, without its wait, if that is too long.
    pub(crate) fn turn_ends(&mut self) -> Option<Duration> {
        let took = self.this_moment().saturating_duration_since(self.now);
        #[cfg(feature = "histograms")]
        if let Some(latency) = &mut self.times.latency {
            latency.turns.record(took);
        }
        self.times.slow.is_some_and(|limit| took >= limit).then_some(took)
    }

    /// A timer that was just handed out fires.
    #[cold]
    pub(crate) fn timer_fires(&mut self, key: Key) {
        let _ = key;
        #[cfg(feature = "histograms")]
        if self.times.latency.is_some()
            && let Some(due) = self.due_time_of(key)
        {
            let late = self.this_moment().saturating_duration_since(due);
            if let Some(latency) = &mut self.times.latency {
                latency.timers.record(late);
            }
        }
    }

    /// When it was due; `None` if it was parked until its connection was open.
    #[cfg(feature = "histograms")]
    fn due_time_of(&mut self, key: Key) -> Option<Instant> {
        if let Some(exactly) = self.fine_timers.was_due(&self.timers, key) {
            return Some(exactly);
        }
        let tick = self.timers.deadline_of(key);
        if tick <= self.tick { self.instant_of(tick) } else { None }
    }

    /// A message of another thread that came at `posted` is handled.
    #[cold]
    pub(crate) fn post_is_handled(&mut self, posted: Instant) {
        let _ = posted;
        #[cfg(feature = "histograms")]
        if self.times.latency.is_some() {
            let waited = self.this_moment().saturating_duration_since(posted);
            if let Some(latency) = &mut self.times.latency {
                latency.posts.record(waited);
            }
        }
    }

    /// What was measured since this was last asked; `None` if nothing is.
    #[cfg(feature = "histograms")]
    pub(crate) fn take_latency(&mut self) -> Option<Latency> {
        Some(self.times.latency.as_mut()?.take())
    }
}
