//! Timers: a hierarchical wheel in ticks, and the conversions between ticks and time.
//!
//! One tick is one millisecond since the reactor's start. The wheel counts in ticks and never sees
//! a clock, so that any source of time can drive it.
//!
//! A timer must never fire early. That is decided here, by the rounding: a deadline is rounded up
//! *after* the delay was added to the exact time, and the time that has passed is rounded down.
//! (Adding a rounded delay to a rounded-down "now" would fire up to a millisecond too soon.)

use std::time::Duration;

mod fine;
mod wheel;

pub(crate) use fine::Fine;
pub(crate) use wheel::{Chain, Key, Owned, Wheel};

/// The tick at which a timer with `delay`, set at `since_start`, is due.
///
/// No delay means the next turn, and is not rounded up to the next tick. Saturates: `Duration::MAX`
/// is a timer that outlives the reactor.
pub(crate) fn deadline_after(since_start: Duration, delay: Duration) -> u64 {
    if delay.is_zero() {
        ticks_floor(since_start)
    } else {
        ticks_ceil(since_start.saturating_add(delay))
    }
}

/// Ticks of a delay: rounded up, so that nothing is due early. Saturates at `u64::MAX`.
pub(crate) fn ticks_ceil(delay: Duration) -> u64 {
    let part = delay.subsec_nanos().div_ceil(NANOS_PER_TICK);
    // A division of 128 bits would cost as much as the rest of setting a timer but the clock.
    delay.as_secs().saturating_mul(1_000).saturating_add(u64::from(part))
}

/// Ticks that have passed: rounded down, only a whole tick counts. Saturates at `u64::MAX`.
pub(crate) fn ticks_floor(elapsed: Duration) -> u64 {
    // As above, once a turn.
    elapsed.as_secs().saturating_mul(1_000).saturating_add(u64::from(elapsed.subsec_millis()))
}

const NANOS_PER_TICK: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_round_up_and_elapsed_time_rounds_down() {
        let ns = Duration::from_nanos;
        for (time, ceil, floor) in [
            (ns(0), 0, 0),
            (ns(1), 1, 0),
            (ns(999_999), 1, 0),
            (ns(1_000_000), 1, 1),
            (ns(1_000_001), 2, 1),
            (Duration::from_millis(u64::MAX), u64::MAX, u64::MAX),
            (Duration::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!((ticks_ceil(time), ticks_floor(time)), (ceil, floor), "{time:?}");
        }
    }

    #[test]
    fn a_deadline_is_never_before_the_exact_time() {
        let us = Duration::from_micros;
        // Set at 5.9 ms for 1 ms: 6 would come after only 0.1 ms.
        assert_eq!(deadline_after(us(5_900), us(1_000)), 7);
        assert_eq!(deadline_after(us(5_900), us(1)), 6);
        assert_eq!(deadline_after(us(5_900), us(101)), 7);
        for now in (0..3_000).step_by(7) {
            for delay in (1..3_000).step_by(13) {
                let due = deadline_after(us(now), us(delay));
                assert!(Duration::from_millis(due) >= us(now + delay));
                assert!(Duration::from_millis(due) < us(now + delay) + us(1_000));
            }
        }
    }

    #[test]
    fn zero_is_due_now_and_the_longest_delay_never() {
        let now = Duration::from_micros(5_900);
        assert_eq!(deadline_after(now, Duration::ZERO), 5);
        assert_eq!(deadline_after(now, Duration::MAX), u64::MAX);
    }
}
