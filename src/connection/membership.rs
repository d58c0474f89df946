//! What a connection remembers of its groups.

use crate::token::Group;

/// Of one of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Membership {
    pub(crate) group: Group,
    /// Its place among the members.
    pub(crate) place: usize,
    /// The number of the first message it has not been given.
    pub(crate) next: u64,
    /// Some message of this turn leaves it out, so that it does not get the log as a whole.
    pub(crate) left_out: bool,
}
