//! The user's handle of a timer.

use crate::timer::Key;
use crate::token::Token;

/// A timer that was set: to cancel it, to set it anew, and to recognise it when it fires.
///
/// A plain value that may outlive its timer: one that fired, was cancelled or died with its
/// connection is refused, and never mistaken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Timer {
    pub(crate) owner: Option<Token>,
    pub(crate) key: Option<Key>,
    pub(crate) tag: u64,
}

impl Timer {
    /// The number it was set with: what it is for.
    pub fn tag(&self) -> u64 {
        self.tag
    }
}
