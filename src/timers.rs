//! The user's handle of a timer.

use crate::timer::Key;
use crate::token::Token;

/// A timer that was set: the handle to cancel it, to move it, and to recognise it in `on_timer`.
///
/// A plain value that may outlive its timer. The handle of a timer that fired, was cancelled, or
/// ended with its connection is refused, and never refers to another timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timer {
    pub(crate) owner: Option<Token>,
    pub(crate) key: Option<Key>,
    pub(crate) tag: u64,
}

impl Timer {
    /// The number that the timer was set with. Zero for [`Net::run_after`](crate::Net::run_after).
    pub fn tag(&self) -> u64 {
        self.tag
    }
}
