//! The user's handle of a timer.

use std::hash::{Hash, Hasher};

use crate::timer::Key;
use crate::token::Token;

/// A timer that was set: the handle to cancel it, to move it, and to recognise it in `on_timer`.
///
/// A plain value that may outlive its timer. The handle of a timer that fired, was cancelled, or
/// ended with its connection is refused, and never refers to another timer.
#[derive(Debug, Clone, Copy)]
pub struct Timer {
    pub(crate) owner: Option<Token>,
    pub(crate) key: Option<Key>,
    pub(crate) tag: u64,
    /// How to move it. The handle that `on_timer` gets does not know, and need not: it has fired.
    pub(crate) fine: bool,
}

impl Timer {
    fn identity(&self) -> (Option<Token>, Option<Key>, u64) {
        (self.owner, self.key, self.tag)
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for Timer {}

impl Hash for Timer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl Timer {
    /// The number that the timer was set with. Zero for [`Net::run_after`](crate::Net::run_after).
    pub fn tag(&self) -> u64 {
        self.tag
    }
}
