//! Timers by owner: a doubly linked list of each owner's timers, through the entries of the wheel.

use super::{Entry, Key, NIL, Place, Wheel};

/// The timers of one owner. Belongs to the owner, and may move with it.
///
/// It must be handed to [`Wheel::cancel_all`] before it is dropped: dropping it alone would leave
/// its timers in the wheel, to fire for an owner that is gone. One owner has one chain.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(super) head: u32,
}

/// A payload that names its owner.
///
/// This lets it refuse a key that is used with another owner's chain, without storing the owner
/// twice.
pub(crate) trait Owned {
    /// Identifies the owner; no two chains have the same.
    type Owner: Copy + Eq;

    /// The owner of the timer.
    fn owner(&self) -> Self::Owner;
}

impl<T: Owned> Wheel<T> {
    /// Ends all timers of an owner and drops their payloads. Costs as much as it has timers.
    pub(crate) fn cancel_all(&mut self, chain: &mut Chain) {
        while chain.head != NIL {
            let index = chain.head;
            self.unlink(index);
            self.leave_chain(chain, index);
            self.entries.remove(index as usize);
        }
    }

    /// Makes those timers of an owner that were put off to `deadline` due at the next advance, in
    /// the order in which they were set.
    pub(crate) fn recall(&mut self, chain: &Chain, deadline: u64) {
        let mut index = chain.head;
        while index != NIL && self.entry(index).chain_next != NIL {
            index = self.entry(index).chain_next;
        }
        while index != NIL {
            if self.link(index).deadline == deadline {
                self.unlink(index);
                self.append(index, self.now, Place::SOON);
            }
            index = self.entry(index).chain_prev;
        }
    }

    /// Puts a timer at the front of its owner's chain.
    pub(super) fn enter_chain(&mut self, chain: &mut Chain, index: u32) {
        debug_assert!(
            chain.head == NIL
                || self.entry(chain.head).payload.owner() == self.entry(index).payload.owner(),
            "a chain holds the timers of one owner"
        );
        if chain.head != NIL {
            self.entry_mut(index).chain_next = chain.head;
            self.entry_mut(chain.head).chain_prev = index;
        }
        chain.head = index;
    }

    /// Whether the timer exists and belongs to the chain, without walking it: the chain's first timer
    /// names the owner.
    pub(super) fn is_in_chain(&self, chain: &Chain, key: Key) -> bool {
        let Some(payload) = self.get(key) else { return false };
        chain.head == key.index
            || chain.head != NIL
                // The first of a chain that is not this one. Then `leave_chain` would do harm.
                && self.entry(key.index).chain_prev != NIL
                && self.entry(chain.head).payload.owner() == payload.owner()
    }

    pub(super) fn leave_chain(&mut self, chain: &mut Chain, index: u32) {
        let Entry { chain_next, chain_prev, .. } = *self.entry(index);
        match chain_prev {
            NIL => chain.head = chain_next,
            _ => self.entry_mut(chain_prev).chain_next = chain_next,
        }
        if chain_next != NIL {
            self.entry_mut(chain_next).chain_prev = chain_prev;
        }
    }
}

impl Chain {
    #[cfg(test)]
    /// Whether the owner has no timers.
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }
}

impl Default for Chain {
    fn default() -> Self {
        Chain { head: NIL }
    }
}
