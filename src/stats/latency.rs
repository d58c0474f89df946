//! How long things take and how long they wait: histograms in nanoseconds.

use std::fmt;
use std::time::Duration;

/// The longest time that is told apart: 60 s. What takes longer counts as that.
const LONGEST: u64 = 60_000_000_000;

/// Two digits: a value is at most 1 % from the one that is reported.
const DIGITS: u8 = 2;

/// A histogram of durations: HdrHistogram with two significant digits, from one nanosecond to a minute.
///
/// It takes 15 KiB whatever is recorded, and recording is a store into an array. Its values belong to the
/// time between two calls of [`Net::take_latency`](crate::Net::take_latency), except for
/// [`total_count`](Self::total_count) and [`total_sum`](Self::total_sum).
#[derive(Clone)]
pub struct Histogram {
    values: hdrhistogram::Histogram<u32>,
    sum: u64,
    total_count: u64,
    total_sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Histogram {
    /// An empty one.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    pub fn new() -> Self {
        let values = hdrhistogram::Histogram::new_with_bounds(1, LONGEST, DIGITS);
        let values = values.expect("constant bounds that are valid");
        Histogram { values, sum: 0, total_count: 0, total_sum: 0 }
    }

    /// Records one duration.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.values.saturating_record(nanos);
        self.sum = self.sum.saturating_add(nanos);
        self.total_count += 1;
        self.total_sum = self.total_sum.saturating_add(nanos);
    }

    /// Adds all values of another one: of an earlier interval, or of another reactor.
    pub fn add(&mut self, other: &Histogram) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.values.add(&other.values);
        self.sum = self.sum.saturating_add(other.sum);
        self.total_count = self.total_count.saturating_add(other.total_count);
        self.total_sum = self.total_sum.saturating_add(other.total_sum);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.values.len()
    }

    /// The smallest value, rounded down to two digits; zero if there is none.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.values.min())
    }

    /// The largest value, rounded up to two digits, a minute at most; zero if there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.values.max())
    }

    /// The exact mean; zero if there is no value.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum.checked_div(self.count()).unwrap_or(0))
    }

    /// The value below or at which this part of all values is: 0.5 for the median, 0.99 for the 99th
    /// percentile. Below 0 counts as 0, above 1 as 1. Zero if there is no value.
    pub fn value_at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.values.value_at_quantile(quantile))
    }

    /// How many values were ever recorded: it is not reset, as the counters of Prometheus want it.
    pub fn total_count(&self) -> u64 {
        self.total_count
    }

    /// The sum of all values that were ever recorded. It is not reset.
    pub fn total_sum(&self) -> Duration {
        Duration::from_nanos(self.total_sum)
    }

    /// Takes the values of the interval out; the totals go on.
    fn take(&mut self) -> Self {
        let Histogram { total_count, total_sum, .. } = *self;
        std::mem::replace(self, Histogram { total_count, total_sum, ..Histogram::new() })
    }
}

/// One line: `200 values, p50 1.2µs, p99 30µs, max 45µs`.
impl fmt::Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (self.value_at(0.5), self.value_at(0.99));
        write!(f, "{} values, p50 {p50:.1?}, p99 {p99:.1?}, max {:.1?}", self.count(), self.max())
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({self})")
    }
}

/// Where a reactor's time goes, since this was last asked:
/// [`Net::take_latency`](crate::Net::take_latency).
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Latency {
    /// Whole turns, without the wait for events.
    pub turns: Histogram,
    /// Callbacks: of handlers, hooks and closures.
    pub callbacks: Histogram,
    /// How late timers fired: handlers' own, and those of `run_after`. An ordinary one is rounded up
    /// to a millisecond, which does not count as late; a fine one counts from its exact time. One
    /// without a delay (`Duration::ZERO`) counts from the beginning of the millisecond in which it was
    /// set: up to a millisecond too much.
    pub timers: Histogram,
    /// How long callbacks waited that readiness caused: from the return of the poll until they began. An
    /// event with several callbacks (messages in one read) counts once for each. What a budget has put
    /// off to a later turn counts from that turn's poll.
    pub events: Histogram,
    /// How long messages of other threads waited, from the call until they were handled.
    pub posts: Histogram,
}

impl Latency {
    /// Each histogram with its name.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        let Latency { turns, callbacks, timers, events, posts } = self;
        [
            ("turns", turns),
            ("callbacks", callbacks),
            ("timers", timers),
            ("events", events),
            ("posts", posts),
        ]
        .into_iter()
    }

    /// Adds all values of another one: of an earlier interval, or of another reactor.
    pub fn add(&mut self, other: &Latency) {
        self.turns.add(&other.turns);
        self.callbacks.add(&other.callbacks);
        self.timers.add(&other.timers);
        self.events.add(&other.events);
        self.posts.add(&other.posts);
    }

    /// Takes the values of the interval out.
    pub(crate) fn take(&mut self) -> Latency {
        Latency {
            turns: self.turns.take(),
            callbacks: self.callbacks.take(),
            timers: self.timers.take(),
            events: self.events.take(),
            posts: self.posts.take(),
        }
    }
}

/// A line for each histogram that has values.
impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = "";
        for (name, histogram) in self.fields().filter(|(_, histogram)| histogram.count() > 0) {
            write!(f, "{line}{name}: {histogram}")?;
            line = "\n";
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut histogram = Histogram::new();
        for nanos in 1..=100_000 {
            histogram.record(ns(nanos));
        }
        assert_eq!((histogram.count(), histogram.min()), (100_000, ns(1)));
        for (quantile, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.999, 99_900.0)] {
            let found = histogram.value_at(quantile).as_nanos() as f64;
            assert!((found - exact).abs() <= exact / 100.0, "{quantile}: {found}");
        }
        assert_eq!(histogram.mean(), ns(50_000));
    }

    #[test]
    fn any_duration_is_recorded_and_memory_is_bounded() {
        let mut histogram = Histogram::new();
        for time in [Duration::ZERO, ns(1), Duration::from_secs(61), Duration::MAX] {
            histogram.record(time);
        }
        assert_eq!(histogram.count(), 4);
        assert!(histogram.max() >= Duration::from_secs(60));
        assert!(histogram.max() < Duration::from_secs(70));
        let bytes = histogram.values.distinct_values() * size_of::<u32>();
        assert_eq!(bytes, 15 * 1024, "the documents say so");
        let empty = Histogram::new();
        let nothing = (ns(0), ns(0), ns(0), ns(0));
        assert_eq!((empty.min(), empty.max(), empty.mean(), empty.value_at(0.99)), nothing);
    }

    #[test]
    fn what_was_taken_is_gone_and_the_totals_stay() {
        let mut latency = Latency::default();
        for (_, histogram) in latency.fields() {
            assert_eq!(histogram.count(), 0);
        }
        latency.turns.record(ns(100));
        latency.timers.record(ns(300));
        let mut first = latency.take();
        assert_eq!((first.turns.count(), first.timers.count()), (1, 1));
        latency.timers.record(ns(500));
        let second = latency.take();
        assert_eq!((second.turns.count(), second.timers.count()), (0, 1));
        assert_eq!((second.timers.total_count(), second.timers.total_sum()), (2, ns(800)));
        assert_eq!(second.timers.mean(), ns(500), "of this interval alone");
        first.add(&second);
        assert_eq!((first.timers.count(), first.timers.mean()), (2, ns(400)));
    }
}
