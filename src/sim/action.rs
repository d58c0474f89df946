//! What the user wants done at a time.

use std::cmp::Reverse;
use std::time::Duration;

use super::Sim;
use crate::sys::sim::nanos;

/// Something that the user wants done at a time.
pub(super) struct Action {
    pub(super) at: u64,
    order: u64,
    pub(super) call: Box<dyn FnOnce(&mut Sim)>,
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Action {}

impl PartialOrd for Action {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Action {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl Sim {
    /// Does something at a time since the simulation began; at once, in the next step, if that has
    /// passed.
    pub fn at(&mut self, time: Duration, action: impl FnOnce(&mut Sim) + 'static) {
        self.order += 1;
        let (at, order) = (nanos(time), self.order);
        self.actions.push(Reverse(Action { at, order, call: Box::new(action) }));
    }
}
