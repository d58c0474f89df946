//! What delivering costs, in units of work.
//!
//! `Config::work_per_turn` counts in units: about what one write(2) of a small message to a TCP
//! socket takes (2 to 5 µs on an ordinary machine of 2020). Small costs are parts of a unit.

/// One unit.
pub(super) const UNIT: usize = 1024;

/// One member's write.
pub(super) const WRITE: usize = UNIT;

/// One message that is encoded for one member, beside its bytes: a small one through
/// permessage-deflate takes up to 17 µs.
pub(super) const ENCODED: usize = 4 * UNIT;

/// One piece of a log that is copied for one member, beside its bytes.
pub(super) const COPIED: usize = UNIT / 16;

/// So many bytes that are written, encoded or copied: a unit for each KiB.
pub(super) fn bytes(count: usize) -> usize {
    count.saturating_mul(UNIT / 1024)
}

/// Counts what the tests bound instead of time: entries of logs and marks of members.
#[derive(Debug, Default)]
pub(super) struct Visits {
    #[cfg(test)]
    pub(super) count: usize,
}

impl Visits {
    #[cfg_attr(not(test), allow(clippy::unused_self, unused_variables))]
    pub(super) fn add(&mut self, count: usize) {
        #[cfg(test)]
        {
            self.count += count;
        }
    }
}
