//! When a flush waits for more input, so that it leaves in the same writes.

use std::time::{Duration, Instant};

/// Gather budget per member: about one write, so that gathering at most doubles a flush.
const PER_MEMBER: Duration = Duration::from_micros(2);

/// Gathering stops after this long without a new message. A flush whose whole budget is smaller
/// does not gather at all.
pub(crate) const QUIET_GAP: Duration = Duration::from_micros(40);

/// The largest gather budget, for any number of members: everything else that the end of the turn
/// flushes waits as well.
const LARGEST: Duration = Duration::from_millis(2);

/// How much waits to be flushed.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    /// Memberships for which something is pending.
    pub(super) marks: usize,
    /// Those of them in groups with several messages.
    pub(super) crowded: usize,
    /// Until then replies to the last flush may arrive, which carried several messages at once.
    crowded_until: Option<Instant>,
    /// The last flush has used up its budget. What is left has waited already.
    pub(super) was_cut: bool,
}

impl Gather {
    /// How long the flush may gather: zero unless several messages wait for many members, or did a
    /// moment ago. In a conversation that fills every turn the first reply comes alone, and the others
    /// follow at once. At light load no flush carries several, and none gathers.
    pub(crate) fn budget(&self, now: Instant) -> Duration {
        if self.was_cut {
            return Duration::ZERO;
        }
        let crowded = self.crowded_until.is_some_and(|until| now < until);
        worth_of(if crowded { self.marks } else { self.crowded })
    }

    /// What gathering before the flush of several messages at once is worth now.
    pub(super) fn worth(&self) -> Duration {
        worth_of(self.crowded)
    }

    /// A flush has ended that was worth so much.
    pub(super) fn flushed(&mut self, worth: Duration, now: Instant) {
        if !worth.is_zero() {
            self.crowded_until = now.checked_add(worth);
        }
    }
}

fn worth_of(members: usize) -> Duration {
    // In nearly every turn there are none: the reckoning below costs more than the rest of its end.
    if members == 0 {
        return Duration::ZERO;
    }
    let budget = PER_MEMBER.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX));
    if budget < QUIET_GAP { Duration::ZERO } else { budget.min(LARGEST) }
}
